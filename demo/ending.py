"""How the demo ends early: a signal ends it between two steps, or with the command that runs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_GRACE_S = 5.0


@dataclass
class Ending:
    """The first signal that asked the demo to end; 0: none did.

    A server that is just being started must not be lost, so a signal raises SystemExit only in
    `check` and while a command runs.
    """

    asked: int = 0
    _waits: bool = False

    def listen(self) -> None:
        """Hear SIGINT, SIGTERM and SIGHUP, but those that nohup or a shell's `&` made ignored."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._hear)

    def check(self) -> None:
        """End the demo if a signal asked for it.

        Raises:
            SystemExit: with the status that a shell gives to a program that the signal ended.

        """
        if self.asked:
            raise SystemExit(128 + self.asked)

    def run(
        self, command: Sequence[str], town: Path, env: Mapping[str, str], answer: str | None = None
    ) -> int:
        """Run a command in a folder, with `answer` on its standard input; returns its status.

        Raises:
            SystemExit: a signal ended the demo, and with it the command.

        """
        stdin = None if answer is None else subprocess.PIPE
        with subprocess.Popen(command, cwd=town, env=env, stdin=stdin, text=True) as process:
            try:
                self._waits = True
                self.check()
                process.communicate(answer)
            finally:
                self._waits = False
                _end(process)
        return process.returncode

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = not self.asked, self.asked or number
        if first and self._waits:
            self.check()


def _end(process: subprocess.Popen[str]) -> None:
    """End a command that still runs as a terminal that goes away does, or else by force."""
    if process.poll() is None:
        process.send_signal(signal.SIGHUP)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()

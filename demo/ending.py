"""Ends the demo on a signal: between two steps, or together with a running command."""

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
    """Ends the demo on a signal. `asked`: the number of the first signal, 0 if there was none.

    A signal raises SystemExit only in `check` and while a command runs. Otherwise a server that is
    just starting could be left running.
    """

    asked: int = 0
    _waits: bool = False

    def listen(self) -> None:
        """Handle SIGINT, SIGTERM and SIGHUP. Ignored ones (nohup, a shell's `&`) stay ignored."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._hear)

    def check(self) -> None:
        """End the demo if a signal asked for it.

        Raises:
            SystemExit: with the status that a shell reports for a program ended by the signal.

        """
        if self.asked:
            raise SystemExit(128 + self.asked)

    def run(
        self, command: Sequence[str], town: Path, env: Mapping[str, str], answer: str | None = None
    ) -> int:
        """Run a command in the folder `town`, with `answer` on its stdin. Returns its status.

        Raises:
            SystemExit: a signal ended the demo and the command.

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
    """End a command that is still running: with SIGHUP, then with SIGKILL."""
    if process.poll() is None:
        process.send_signal(signal.SIGHUP)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()

"""Processes of the command that tests/warm.py starts, in a tenth of the time of a new Python."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TextIO

from tests.warm import NUMBER, Start

ROOT = Path(__file__).parent.parent


class Process:
    """A process of tests/warm.py, with what tests use of subprocess.Popen."""

    returncode: int | None = None

    def __init__(self, start: Start, streams: Sequence[int | None]) -> None:
        self._report, report = socket.socketpair()
        theirs, ours = zip(*(_ends(n, fd) for n, fd in enumerate(streams)), strict=True)
        self.stdin, self.stdout, self.stderr = ours
        with report:
            socket.send_fds(_parent(), [b"\n"], [*theirs, report.fileno()])
            _parent().sendall(json.dumps(start).encode() + b"\n")
            self.pid = self._told()
        for end, fd in zip(theirs, streams, strict=True):
            if fd is None:
                os.close(end)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._report.settimeout(timeout)
            try:
                self.returncode = os.waitstatus_to_exitcode(self._told())
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired("tt", timeout or 0) from None
            self._report.close()
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, answer: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Write to standard input, read the other streams to their ends, and wait."""
        with ThreadPoolExecutor(2) as readers:
            read = [readers.submit(_rest, stream) for stream in (self.stdout, self.stderr)]
            try:
                if self.stdin and not self.stdin.closed:
                    with suppress(BrokenPipeError), self.stdin as stdin:
                        stdin.write(answer)
                self.wait(timeout)
            except BaseException:
                self.kill()
                raise
        out, err = (text.result() for text in read)
        return out, err

    def _told(self) -> int:
        [number] = NUMBER.unpack(self._report.recv(NUMBER.size))
        return int(number)


def _ends(number: int, given: int | None) -> tuple[int, TextIO | None]:
    """Return a process's end of a standard stream, and ours if none was given: it is a pipe."""
    if given is not None:
        return given, None
    reading, writing = os.pipe()
    if number == 0:
        return reading, open(writing, "w", encoding="utf-8")  # noqa: PTH123
    return writing, open(reading, encoding="utf-8")  # noqa: PTH123


def _rest(stream: TextIO | None) -> str:
    if not stream or stream.closed:
        return ""
    with stream:
        return stream.read()


@cache
def _parent() -> socket.socket:
    """Start the parent. Returns the socket for requests; when it closes, the parent ends."""
    ours, theirs = socket.socketpair()
    with theirs:
        parent = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(parent.wait)
    atexit.register(ours.close)
    return ours

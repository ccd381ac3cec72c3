"""Starts the command many times, and imports it once: the process that has it forks.

The parent never runs the command, so each start begins in the same state. Only what Python does
before the first line of the program is not done anew.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import NamedTuple

NUMBER = struct.Struct("i")
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Start(NamedTuple):
    """How a process begins. `limits`: as setrlimit() has them, by name.

    `terminal`: it leads a session, and its standard error is that session's terminal. `ignored`:
    signals that ask to stop are ignored, as after nohup.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    closed: Sequence[int] = ()
    limits: Sequence[tuple[str, int]] = ()
    terminal: bool = False
    ignored: bool = False

    def prepare(self) -> None:
        """Do in the new process what must be done before the program."""
        for signum in _SIGNALS:
            signal.signal(signum, signal.SIG_IGN if self.ignored else signal.SIG_DFL)
        if self.terminal:
            os.setsid()
            fcntl.ioctl(2, termios.TIOCSCTTY, 0)
        for name, most in self.limits:
            resource.setrlimit(getattr(resource, name), (most, most))
        for fd in self.closed:
            os.close(fd)


def main() -> None:
    """Fork for each request. In the new process, run the command to its end."""
    # What the command imports, at once or when it is needed.
    import tt_migrate.__main__
    import tt_migrate.terminal.json_report
    import tt_migrate.terminal.run
    import tt_migrate.terminal.version

    gc.collect()
    gc.freeze()
    start = _next_start(socket.socket(fileno=int(sys.argv[1])))
    if start:
        sys.argv = start.argv
        name = os.path.basename(start.argv[0])  # noqa: PTH119
        getattr(tt_migrate.__main__, f"{name.replace('-', '_')}_main")()


def _next_start(control: socket.socket) -> Start | None:
    """Return a request in the process that is to carry it out, None when there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends pytest, which then ends this
    requests = control.makefile("rb")
    while True:
        _, fds, _, _ = socket.recv_fds(control, 1, 4)
        # Whoever adds up the time of processes finds that of these, too.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG if fds else 0)[0]:
                pass
        if not fds:
            return None
        start = Start(*json.loads(requests.readline()))
        if not os.fork():
            break
        for fd in fds:
            os.close(fd)
    *streams, report = fds
    pid = os.fork()
    if pid:
        # It must not keep a pipe open.
        for fd in streams:
            os.close(fd)
        os.write(report, NUMBER.pack(pid))
        os.write(report, NUMBER.pack(os.waitpid(pid, 0)[1]))
        os._exit(0)
    for fd, stream in enumerate(streams):
        os.dup2(stream, fd)
    requests.detach()
    control.detach()
    os.closerange(3, 1 + max(*fds, int(sys.argv[1])))
    _become(start)
    return start


def _become(start: Start) -> None:
    """Take over the environment, and make standard streams as Python does."""
    os.environ.clear()
    os.environ.update(start.env)
    time.tzset()
    os.chdir(start.cwd)
    start.prepare()
    if not start.ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    encoding, _, errors = start.env["PYTHONIOENCODING"].partition(":")
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        stream = None
        if fd not in start.closed:
            binary = open(fd, "wb" if fd else "rb", closefd=False)  # noqa: SIM115
            how = "backslashreplace" if fd == 2 else errors or "strict"
            stream = TextIOWrapper(binary, encoding, how, line_buffering=fd == 2 or os.isatty(fd))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    main()

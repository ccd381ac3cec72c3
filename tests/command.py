"""Runs the command as a process, like a person or a job."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from tests.processes import Process
from tests.warm import Start
from tt_migrate.terminal.cli import main
from tt_migrate.terminal.output import Output
from tt_migrate.terminal.signals import StopSignals


def script(name: str) -> list[str]:
    """Return the command line for a script of this environment; any path works."""
    # A script's first line names its Python, and cannot quote special characters.
    return [sys.executable, str(Path(sys.executable).with_name(name))]


TT = [*script("tt"), "migrate"]
_SCRIPTS = (script("tt"), script("tt-migrate"))


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without variables that would change the outcome."""
    ours = {"REDIS_URL", "PYTHONIOENCODING", "REDIS_PASSWORD", "REDIS_PASSWORD_FILE"}
    ours |= {"TINYTOWN_REDIS_PASSWORD", "TINYTOWN_REDIS_PASSWORD_FILE"}
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("TT_MIGRATE_")
    }
    return {**clean, "PYTHONIOENCODING": "utf-8", **variables}


def tt(
    *args: str,
    url: str | None = None,
    town: str | None = "my-project",
    answer: str = "",
    cwd: Path | None = None,
    program: Sequence[str] = TT,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run `tt migrate` with `answer` on its stdin and `variables` in its environment.

    Town and URL are given in the environment too, so that hints do not repeat them. It runs in this
    process, which is much faster, unless it is another program.
    """
    if url:
        variables = {"TT_MIGRATE_REDIS_URL": url, **variables}
    if town:
        variables = {"TT_MIGRATE_TOWN_NAME": town, **variables}
    if program is TT:
        with chdir(cwd) if cwd else nullcontext():
            return tt_in_process(*args, answer=answer.encode(), name="tt", **variables)
    done = ran(*args, answer=answer, program=program, cwd=cwd, variables=variables)
    assert "Traceback" not in done.stderr + done.stdout
    return done


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    """Work in another folder. contextlib has this since Python 3.11."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def tt_in_process(
    *args: str,
    answer: bytes = b"",
    encoding: str = "utf-8",
    name: str = "tt-migrate",
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run `tt-migrate`, or `tt migrate`, in this process."""
    encoding = variables.get("PYTHONIOENCODING", encoding)
    streams = [TextIOWrapper(BytesIO(data), encoding, newline="") for data in (b"", b"", answer)]
    out, err, stdin = streams
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "stdin", stdin),
        patch.dict(os.environ, environment(**variables), clear=True),
    ):
        status = main(name, [*(["migrate"] if name == "tt" else []), *args], StopSignals())
    written = [stream.buffer.getvalue().decode(encoding) for stream in (out, err)]
    return subprocess.CompletedProcess(args, status, *written)


class _Screen(TextIOWrapper):
    def isatty(self) -> bool:
        return True


def tt_on_screen(*args: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run `tt migrate` in this process, with streams that say that they are terminals."""
    with patch(f"{__name__}.TextIOWrapper", _Screen):
        return tt(*args, url=url)


def start(
    *args: str,
    program: Sequence[str] = TT,
    streams: Sequence[int | None] = (None, None, None),
    cwd: Path | None = None,
    variables: Mapping[str, str] = {},
    cold: bool = False,
    **how: Any,
) -> Process:
    """Start the command. A stream that is not given is a pipe. `how`: see Start.

    `cold`: with a new Python; so it does if Python itself reads a variable, or it is no script.
    """
    command = [*program, *args]
    begin = Start(command[1:], environment(**variables), str(cwd or Path.cwd()), **how)
    for_python = {name for name in variables if name.startswith("PYTHON")} - {"PYTHONIOENCODING"}
    if not (cold or for_python) and command[:2] in _SCRIPTS:
        return Process(begin, streams)
    stdin, stdout, stderr = (subprocess.PIPE if fd is None else fd for fd in streams)
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        encoding="utf-8",
        cwd=begin.cwd,
        env=begin.env,
        preexec_fn=begin.prepare,
    )
    return cast(Process, process)


@contextmanager
def started(*args: str, **how: Any) -> Iterator[Process]:
    """Start the command, and kill it in the end if it still runs."""
    process = start(*args, **how)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ran(*args: str, answer: str = "", **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with `answer` on its standard input."""
    with started(*args, **how) as process:
        out, err = process.communicate(answer, timeout=120)
        return subprocess.CompletedProcess(args, process.wait(), out or "", err or "")


@contextmanager
def on_a_terminal(
    *args: str, stdout: int | None = None, variables: Mapping[str, str] = {}
) -> Iterator[tuple[Process, int]]:
    """Start `tt migrate` on a terminal of its own. Yields the process and the terminal's other end.

    `stdout`: where the report goes, if not to the terminal.
    """
    ours, theirs = pty.openpty()
    streams = (theirs, theirs if stdout is None else stdout, theirs)
    process = start(*args, streams=streams, variables=variables, terminal=True)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):  # a test has closed it
            os.close(ours)


def sent_to_a_terminal(
    *args: str, stdout: int | None = None, variables: Mapping[str, str] = {}
) -> str:
    """Run `tt migrate` on a terminal, and return what it writes there."""
    with on_a_terminal(*args, stdout=stdout, variables=variables) as (process, terminal):
        sent = read_all(terminal)
        assert process.wait(60) == 0
    return sent


def shown_on_a_terminal(write: Callable[[Output], None], rows: int = 0) -> list[str]:
    """Return the lines that a function writes to a terminal with so many rows; 0: unknown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(read_all, ours)
        with os.fdopen(theirs, "w", encoding="utf-8") as stream:
            write(Output(stream))
        shown = read.result()
    os.close(ours)
    return shown.splitlines()


def read_all(terminal: int) -> str:
    """Read what a terminal receives until its other end is closed."""
    return _read(terminal, None).replace("\r\n", "\n")


def read_until(stream: int, text: str) -> str:
    """Read from a terminal or a pipe up to a text."""
    sent = _read(stream, text)
    assert text in sent
    return sent


def _read(stream: int, until: str | None) -> str:
    sent = b""
    with suppress(OSError):  # a terminal without another end
        while (until is None or until.encode() not in sent) and (piece := os.read(stream, 65_536)):
            sent += piece
    return sent.decode()


def assert_harmless(done: subprocess.CompletedProcess[str]) -> None:
    """Assert that the output has no traceback and no control character, even in JSON strings."""
    written = done.stdout + done.stderr
    assert "Traceback" not in written
    assert all(line.isprintable() for line in written.split("\n"))
    if done.stdout.startswith("{"):
        assert all(text.isprintable() for text in _texts(json.loads(done.stdout)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)

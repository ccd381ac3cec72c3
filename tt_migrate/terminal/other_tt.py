"""Finds Tinytown's own `tt`, which has the name of ours, and hands unknown commands to it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_OURS = b"tt_migrate"
_BEGINNING_BYTES = 4096
_HANDED_OVER = "_TT_HANDED_OVER"


def next_tt(environ: Mapping[str, str]) -> Path | None:
    """The first program called `tt` on the PATH that does not belong to tt-migrate."""
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        program = Path(folder or ".", "tt")
        try:
            if program.is_file() and os.access(program, os.X_OK) and not _is_ours(program):
                return program
        except OSError:
            continue
    return None


def hand_over(args: Sequence[str]) -> None:
    """Replace this process with the next `tt`, and the same arguments. Returns if there is none.

    A script called `tt` can lead back to this program. If so, this process or its parent has
    already handed over the same arguments.
    """
    handed = [f"{pid} {shlex.join(args)}" for pid in (os.getpid(), os.getppid())]
    other = next_tt(os.environ)
    if other and os.environ.get(_HANDED_OVER) not in handed:
        environ = {**os.environ, _HANDED_OVER: handed[0]}
        with suppress(OSError):  # It may be for another system.
            os.execve(other, ["tt", *args], environ)  # noqa: S606 - the user's own program


def _is_ours(program: Path) -> bool:
    """Whether a program belongs to tt-migrate: the script of each installation imports it."""
    with program.open("rb") as script:
        return _OURS in script.read(_BEGINNING_BYTES)

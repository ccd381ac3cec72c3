"""The change log, which `--record` writes: a JSON line for each key that was changed or left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from tt_migrate.escape import shown, shown_text
from tt_migrate.results import Change
from tt_migrate.terminal.redaction import Redactor
from tt_migrate.terminal.words import counted

_json = json.JSONEncoder().encode


class ChangeLogError(Exception):
    """The log cannot be opened or written. `missing`: changed keys that got no line."""

    missing = 0

    def __str__(self) -> str:
        if not self.missing:
            return super().__str__()
        keys = counted(self.missing, "key was changed and has", "keys were changed and have")
        return f"{super().__str__()}; {keys} no line in it, and will get none"


class ChangeLog:
    """Appends changes to a file, which it creates if there is none. Close it at the end.

    Raises ChangeLogError if the file cannot be opened.
    """

    def __init__(self, path: Path, redactor: Redactor) -> None:
        self._path = path
        self._redactor = redactor
        self._failed: ChangeLogError | None = None
        try:
            self._file = open(path, "ab", buffering=0, opener=_without_waiting)  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __call__(self, changes: Sequence[Change]) -> None:
        """Write the lines of a batch, all or none. Raises ChangeLogError."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        rest = "".join(self._lines(changes, now)).encode()
        size = os.fstat(self._file.fileno()).st_size
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with suppress(OSError):  # A pipe cannot be truncated.
                self._file.truncate(size)
            self._failed = self._failed or self._error(error)
            self._failed.missing += sum(change.action != "left" for change in changes)
            raise self._failed from error

    def _lines(self, changes: Sequence[Change], now: str) -> Iterator[str]:
        # The server waits meanwhile: json.dumps() of a dict would take four times as long.
        name = _plain_name if _are_plain(changes) else _name
        for action, key, destination, reason in changes:
            to = name(destination) if destination else "null"
            why = _json(self._redactor.shown(reason)) if reason else "null"
            yield (
                f'{{"time": "{now}", "action": "{action}", "from": {name(key)}, "to": {to},'
                f' "reason": {why}}}\n'
            )

    def _error(self, error: OSError | ValueError) -> ChangeLogError:
        reason = getattr(error, "strerror", None) or str(error)
        path = shown_text(str(self._path))
        return ChangeLogError(f"cannot write the change log {path}: {reason}")


def _are_plain(changes: Iterable[Change]) -> bool:
    """Whether no name has a character that is escaped, as nearly always."""
    names = b"".join([name for change in changes for name in change[1:3] if name])
    text = names.decode("ascii") if names.isascii() else "\n"
    return text.isprintable() and '"' not in text and "\\" not in text


def _plain_name(name: bytes) -> str:
    return f'"{name.decode("ascii")}"'


def _name(name: bytes) -> str:
    return _json(shown(name))


def _without_waiting(path: str, flags: int) -> int:
    """Open a file. A named pipe without a reader raises OSError; it would block otherwise."""
    nonblocking = getattr(os, "O_NONBLOCK", 0)  # Windows has no such flag and no such pipes.
    file = os.open(path, flags | nonblocking, 0o666)
    if nonblocking:
        os.set_blocking(file, True)
    return file

"""The change log, which `--record` writes: a JSON line for each key that was changed or left."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from tt_migrate.escape import shown, shown_text
from tt_migrate.results import Change
from tt_migrate.terminal.redaction import Redactor
from tt_migrate.terminal.words import counted


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
        rest = "".join(self._line(change, now) for change in changes).encode()
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

    def _line(self, change: Change, now: str) -> str:
        fields = {
            "time": now,
            "action": change.action,
            "from": shown(change.key),
            "to": shown(change.destination) if change.destination else None,
            "reason": self._redactor.shown(change.reason) or None,
        }
        return json.dumps(fields) + "\n"

    def _error(self, error: OSError | ValueError) -> ChangeLogError:
        reason = getattr(error, "strerror", None) or str(error)
        path = shown_text(str(self._path))
        return ChangeLogError(f"cannot write the change log {path}: {reason}")


def _without_waiting(path: str, flags: int) -> int:
    """Open a file. A named pipe without a reader raises OSError; it would block otherwise."""
    nonblocking = getattr(os, "O_NONBLOCK", 0)  # Windows has no such flag and no such pipes.
    file = os.open(path, flags | nonblocking, 0o666)
    if nonblocking:
        os.set_blocking(file, True)
    return file

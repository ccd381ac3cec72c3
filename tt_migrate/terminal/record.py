"""The file of --record: one JSON line for each key that was changed or left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from tt_migrate.escape import shown, shown_text
from tt_migrate.results import Change
from tt_migrate.terminal.redaction import Foreign
from tt_migrate.terminal.words import counted


class RecordError(Exception):
    """The record cannot be opened or written. `missing`: changed keys that got no line."""

    missing = 0

    def __str__(self) -> str:
        if not self.missing:
            return super().__str__()
        keys = counted(self.missing, "key was changed and has", "keys were changed and have")
        return f"{super().__str__()}; {keys} no line in it, and will get none"


@contextmanager
def open_record(path: Path, foreign: Foreign) -> Iterator[RecordFile]:
    """Open a record, and append to what is in it. Raises RecordError."""
    try:
        # A named pipe without a reader would block. Windows has no such pipes in its folders.
        without_waiting = getattr(os, "O_NONBLOCK", 0)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.open(path, flags | without_waiting, 0o666)
        if without_waiting:
            os.set_blocking(file, True)
    except (OSError, ValueError) as error:
        raise _error(path, error) from error
    try:
        yield RecordFile(path, file, foreign)
    finally:
        os.close(file)


class RecordFile:
    """Appends changes to an open file. `foreign`: escapes the server's own text."""

    def __init__(self, path: Path, file: int, foreign: Foreign) -> None:
        self._path = path
        self._file = file
        self._foreign = foreign
        self._failed: RecordError | None = None

    def __call__(self, changes: Sequence[Change]) -> None:
        """Write the lines of a batch, all or none. Raises RecordError."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        lines = "".join(self._line(change, now) for change in changes).encode()
        size = os.fstat(self._file).st_size
        try:
            rest = lines
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with suppress(OSError):  # a pipe
                os.ftruncate(self._file, size)
            if self._failed is None:
                self._failed = _error(self._path, error)
            self._failed.missing += sum(change.action != "left" for change in changes)
            raise self._failed from error

    def _line(self, change: Change, now: str) -> str:
        fields = {
            "time": now,
            "action": change.action,
            "from": shown(change.key),
            "to": shown(change.destination) if change.destination else None,
            "reason": self._foreign.shown(change.reason) or None,
        }
        return json.dumps(fields) + "\n"


def _error(path: Path, error: OSError | ValueError) -> RecordError:
    reason = getattr(error, "strerror", None) or str(error)
    return RecordError(f"cannot write the record {shown_text(str(path))}: {reason}")

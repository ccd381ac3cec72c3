"""Turning JSON strings into hashes: one call reads a batch of records, one swaps them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tt_migrate.keyspace import family_and_id, town_bytes, town_key_start
from tt_migrate.pacing import Pace
from tt_migrate.records import Fields, RecordError, fields_of
from tt_migrate.session import Session

_TRIES = 100


class Converter:
    """The batches of the passes over records, for Session.run.

    `with_old`: a preview has in mind also the old keys that a migration would rename before.
    """

    def __init__(self, session: Session, *, with_old: bool) -> None:
        self._session = session
        self._with_old = int(with_old)
        self._read = session.script("records")
        self._convert = session.script("convert")
        self._town = session.town

    def batch(self, cursor: bytes, pace: Pace) -> list[Any]:
        """Convert a batch of the town's records.

        Its fields are the families of those converted, and those that were not, with the reason.
        """
        *head, stored, _, failed = self._records(cursor, pace, with_old=0)
        converted: list[str] = []
        unconverted = _texts(failed)
        todo = stored
        for _ in range(_TRIES):
            done, todo = self._swap(todo, pace, unconverted)
            converted += done
            if not todo:
                break
        unconverted.update(dict.fromkeys(dict(_pairs(todo)), "changes all the time"))
        return [*head, converted, unconverted]

    def preview_batch(self, cursor: bytes, pace: Pace) -> list[Any]:
        """See which records can be converted.

        Its fields are those that can, and those that cannot, with the reason, by the town's names.
        """
        *head, stored, coming, failed = self._records(cursor, pace, with_old=self._with_old)
        readable: list[bytes] = []
        unconverted = _texts(failed)
        for key, value in _pairs(stored + coming):
            try:
                fields_of(*self._family_and_id(key), value)
            except RecordError as error:
                unconverted[key] = str(error)
            else:
                readable.append(key)
        return [*head, readable, unconverted]

    def _records(self, cursor: bytes, pace: Pace, with_old: int) -> list[Any]:
        town = town_bytes(self._town)
        return self._session.call(
            self._read, town, cursor, pace.count, pace.budget, pace.records, with_old
        )

    def _swap(
        self, stored: list[bytes], pace: Pace, unconverted: dict[bytes, str]
    ) -> tuple[list[str], list[bytes]]:
        """Swap records, given as keys and strings in turn.

        Returns the families of those swapped, and the records that have changed meanwhile.
        """
        keys, parts = [], []
        for key, value in _pairs(stored):
            try:
                parts.append(_part(value, fields_of(*self._family_and_id(key), value)))
                keys.append(key)
            except RecordError as error:
                unconverted[key] = str(error)
        families: list[str] = []
        changed: list[bytes] = []
        while keys:
            args = [arg for part in parts for arg in part]
            reply = self._session.call(self._convert, pace.budget, *args, keys=keys)
            done, converted, elapsed, changed_now, failed = reply
            self._session.paused(elapsed)
            families += [self._family_and_id(keys[position - 1])[0] for position in converted]
            changed += changed_now
            unconverted.update(_texts(failed))
            keys, parts = keys[done:], parts[done:]
        return families, changed

    def _family_and_id(self, key: bytes) -> tuple[str, bytes]:
        return family_and_id(key, town_key_start(self._town))


def _part(value: bytes, fields: Fields) -> list[bytes | int]:
    return [value, len(fields), *(item for field in fields.items() for item in field)]


def _pairs(flat: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _texts(flat: list[bytes]) -> dict[bytes, str]:
    return {key: text.decode("utf-8", "replace") for key, text in _pairs(flat)}

"""Tells a caller what became of each key, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tt_migrate.plan import Plan
from tt_migrate.results import Action, Change

RecordCallback = Callable[[Sequence[Change]], object]


class Record:
    """Collects the changes of a batch, then passes them to a callback.

    `callback`: None if nobody wants to know. Then nothing is collected.
    """

    def __init__(self, callback: RecordCallback | None, plan: Plan, town: str) -> None:
        self._callback = callback
        self._plan = plan
        self._town = town
        self._changes: list[Change] = []
        self._left: set[bytes] = set()

    @property
    def wanted(self) -> bool:
        """Whether there is a callback."""
        return self._callback is not None

    def renamed(self, keys: Iterable[bytes]) -> None:
        """Note keys that were renamed."""
        self._note("renamed", dict.fromkeys(keys, ""))

    def merged(self, keys: Mapping[bytes, str]) -> None:
        """Note keys that were merged with their destination, and how."""
        self._note("merged", keys)

    def converted(self, key: bytes) -> None:
        """Note a record of the town that became a hash."""
        if self._callback:
            self._changes.append(Change("converted", key, key, ""))

    def left(self, keys: Mapping[bytes, str]) -> None:
        """Note keys to move that were left, and why. Each is passed on once."""
        if self._callback:
            self._note("left", {key: keys[key] for key in keys if key not in self._left})
            self._left.update(keys)

    def left_record(self, keys: Mapping[bytes, str]) -> None:
        """Note records of the town that were not converted, and why. Each is passed on once."""
        if self._callback:
            new = {key: reason for key, reason in keys.items() if key not in self._left}
            self._changes += (Change("left", key, key, reason) for key, reason in new.items())
            self._left.update(new)

    def flush(self) -> None:
        """Pass what was noted to the callback."""
        changes, self._changes = self._changes, []
        if self._callback and changes:
            self._callback(changes)

    def ambiguous(self, keys: Iterable[bytes]) -> None:
        """Note keys that were left because they may belong to another town."""
        if self._callback:
            new = [key for key in keys if key not in self._left]
            self._changes += (
                Change("left", key, None, "may belong to another town") for key in new
            )
            self._left.update(new)

    def _note(self, action: Action, keys: Mapping[bytes, str]) -> None:
        if self._callback:
            self._changes += (
                Change(action, key, self._plan.destination(self._town, key), reason)
                for key, reason in keys.items()
            )

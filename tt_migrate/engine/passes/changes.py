"""Tells a caller what became of each key, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tt_migrate.plan import Plan
from tt_migrate.results import Action, Change

ChangeCallback = Callable[[Sequence[Change]], object]


class Changes:
    """Collects the changes of a batch, then passes them to a callback.

    `callback`: None if nobody wants to know. Then nothing is collected.
    """

    def __init__(self, callback: ChangeCallback | None, plan: Plan, town: str) -> None:
        self._callback = callback
        self._start = plan.name_start(town)
        self._new = plan.destination_start(town)
        self._changes: list[Change] = []
        self._left: set[bytes] = set()

    @property
    def wanted(self) -> bool:
        """Whether there is a callback."""
        return self._callback is not None

    def renamed(self, keys: Iterable[bytes]) -> None:
        """Note keys that were renamed."""
        self._note("renamed", ((key, "") for key in keys))

    def merged(self, keys: Mapping[bytes, str]) -> None:
        """Note keys that were merged with their destination, and how."""
        self._note("merged", keys.items())

    def converted(self, keys: Iterable[bytes]) -> None:
        """Note records of the town that were converted."""
        if self._callback:
            self._changes += [Change("converted", key, key, "") for key in keys]

    def left(self, keys: Mapping[bytes, str]) -> None:
        """Note keys to move that were left, and why. Each is passed on once."""
        self._leave(keys, self._destination)

    def left_record(self, keys: Mapping[bytes, str]) -> None:
        """Note records of the town that were not converted, and why. Each is passed on once."""
        self._leave(keys, lambda key: key)

    def ambiguous(self, keys: Iterable[bytes]) -> None:
        """Note keys that were left because they may belong to another town."""
        self._leave(dict.fromkeys(keys, "may belong to another town"), lambda key: None)

    def flush(self) -> None:
        """Pass what was noted to the callback."""
        changes, self._changes = self._changes, []
        if self._callback and changes:
            self._callback(changes)

    def _leave(
        self, keys: Mapping[bytes, str], destination: Callable[[bytes], bytes | None]
    ) -> None:
        if self._callback:
            new = [key for key in keys if key not in self._left]
            self._changes += (Change("left", key, destination(key), keys[key]) for key in new)
            self._left.update(new)

    def _note(self, action: Action, keys: Iterable[tuple[bytes, str]]) -> None:
        if self._callback:
            start, new = self._start, self._new
            self._changes += [
                Change(action, key, new + key[start:], reason) for key, reason in keys
            ]

    def _destination(self, key: bytes) -> bytes:
        return self._new + key[self._start :]

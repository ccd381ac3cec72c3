"""Adding up the replies of a pass: one tally for each operation's reply."""

from __future__ import annotations

from typing import Any, Protocol

from tt_migrate.engine.replies import error_of, names, texts, whole
from tt_migrate.keyspace import FAMILIES, RECORDS, check_families, town_bytes
from tt_migrate.plan import Plan
from tt_migrate.results import Count, Effort, Left


class Tally(Protocol):
    """Adds up the replies of one pass."""

    def restart(self) -> None:
        """Forget what a scan from the start will find again."""

    def add(self, fields: list[Any]) -> list[bytes]:
        """Add what a script's reply has from its fifth field on; return the keys it postponed."""


class CountTally:
    """Adds up count.lua's replies."""

    def __init__(self, plan: Plan, town: str) -> None:
        self._plan = plan
        self._town = town
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._families = [0] * len(FAMILIES)
        self._strings = [0] * len(RECORDS)
        self._old_strings = [0] * len(RECORDS)
        self._numbers = [0] * 6
        self._towns: set[bytes] = set()

    def add(self, fields: list[Any]) -> list[bytes]:
        """Add families, conflicts, ambiguous, towns, strings and the rest."""
        families, conflicts, ambiguous, towns, strings, old_strings, *numbers = fields
        self._families = _added(self._families, families)
        self._strings = _added(self._strings, strings)
        self._old_strings = _added(self._old_strings, old_strings)
        self._numbers = _added(self._numbers, [conflicts, ambiguous, *numbers])
        self._towns.update(names(towns))
        self._towns.discard(town_bytes(self._town))
        return []

    def result(self, effort: Effort) -> Count:
        """What was counted so far."""
        conflicts, ambiguous, hashes, others, untyped, new_only = self._numbers
        return Count(
            plan=self._plan,
            town=self._town,
            keys=_by_name(FAMILIES, self._families),
            conflicts=conflicts,
            ambiguous=ambiguous,
            towns=self._towns,
            strings=_by_name(RECORDS, self._strings),
            old_strings=_by_name(RECORDS, self._old_strings),
            hashes=hashes,
            others=others + untyped,
            new_only=new_only,
            effort=effort,
        )


class LeftTally:
    """Adds up left.lua's replies."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._families = [0] * len(FAMILIES)
        self._strings = [0] * len(RECORDS)

    def add(self, fields: list[Any]) -> list[bytes]:
        """Add families and strings."""
        families, strings = fields
        self._families = _added(self._families, families)
        self._strings = _added(self._strings, strings)
        return []

    def result(self) -> Left:
        """What was counted so far."""
        return Left(_by_name(FAMILIES, self._families), _by_name(RECORDS, self._strings))


class PreviewTally:
    """Adds up preview.lua's replies; its attributes are Preview's. Keys begin as `start` has it."""

    def __init__(self, start: int) -> None:
        self._start = start
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self.moves: set[bytes] = set()
        self.merges: dict[bytes, str] = {}
        self.conflicts: dict[bytes, str] = {}
        self.failed: dict[bytes, str] = {}
        self.ambiguous: set[bytes] = set()

    def add(self, fields: list[Any]) -> list[bytes]:
        """Add moves, odd moves, merges, conflicts, failed and ambiguous; return the postponed."""
        joined, odd_moves, *rest, ambiguous, postponed = fields
        merges, conflicts, failed = map(texts, rest)
        moves = {*names(odd_moves), *(names(joined.split(b"\n")) if joined else ())}
        found = (moves, merges, conflicts, failed, names(ambiguous), names(postponed))
        for keys in found:
            check_families(keys, self._start)
        self.merges.update(merges)
        self.conflicts.update(conflicts)
        # SCAN may name a key twice, before and after somebody made its destination.
        self.moves.difference_update(merges, conflicts)
        self.moves |= moves.difference(self.merges).difference(self.conflicts)
        self.failed.update(failed)
        self.ambiguous.update(ambiguous)
        return names(postponed)


class MigrationTally:
    """Adds up migrate.lua's replies; its attributes are Migration's. `start` as in PreviewTally."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._families = [0] * len(FAMILIES)
        self._merged = [0] * len(FAMILIES)
        self.restart()

    def restart(self) -> None:
        """Forget the keys that were left alone. What was moved stays moved."""
        self.conflicts: dict[bytes, str] = {}
        self.failed: dict[bytes, str] = {}
        self.ambiguous: set[bytes] = set()

    def add(self, fields: list[Any]) -> list[bytes]:
        """Add families, merged, conflicts, failed and ambiguous; return the postponed.

        Raises redis.exceptions.ResponseError for the error that ended the batch.
        """
        families, merged, conflicts, failed, ambiguous, postponed, error = fields
        conflicts, failed = texts(conflicts), texts(failed)
        for keys in (conflicts, failed, names(ambiguous), names(postponed)):
            check_families(keys, self._start)
        self._families = _added(self._families, families)
        self._merged = _added(self._merged, merged)
        self.conflicts.update(conflicts)
        self.failed.update(failed)
        self.ambiguous.update(ambiguous)
        if error:
            raise error_of(error)
        return names(postponed)

    @property
    def keys(self) -> dict[str, int]:
        """Keys renamed of each family."""
        return _by_name(FAMILIES, self._families)

    @property
    def merged(self) -> dict[str, int]:
        """Keys merged of each family."""
        return _by_name(FAMILIES, self._merged)


class ConversionTally:
    """What a Conversion did; its attributes are Migration's."""

    def __init__(self) -> None:
        self.converted = dict.fromkeys(RECORDS, 0)
        self.restart()

    def restart(self) -> None:
        """Forget the records that were left alone. What was converted stays converted."""
        self.unconverted: dict[bytes, str] = {}


class ConversionPreviewTally:
    """What a ConversionPreview found; its attributes are Preview's."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self.conversions: set[bytes] = set()
        self.unconverted: dict[bytes, str] = {}


def _added(left: list[int], right: list[int]) -> list[int]:
    return [a + whole(b) for a, b in zip(left, right, strict=True)]


def _by_name(families: tuple[str, ...], numbers: list[int]) -> dict[str, int]:
    return dict(zip(families, numbers, strict=True))

"""Adding up the replies of a pass: one tally for each operation's reply."""

from __future__ import annotations

from typing import Any, Protocol

from tt_migrate.keyspace import FAMILIES, town_bytes
from tt_migrate.results import Count, Effort, Migration, Preview


class Tally(Protocol):
    """Adds up the replies of one pass."""

    def restart(self) -> None:
        """Forget what a scan from the start will find again."""

    def add(self, fields: list[Any]) -> None:
        """Add what a script's reply has from its fifth field on."""


class CountTally:
    """Adds up count.lua's replies."""

    def __init__(self, town: str) -> None:
        self._town = town
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._families = [0] * len(FAMILIES)
        self._conflicts = 0
        self._ambiguous = 0
        self._towns: set[bytes] = set()

    def add(self, fields: list[Any]) -> None:
        """Add families, conflicts, ambiguous and towns."""
        families, conflicts, ambiguous, towns = fields
        self._families = _added(self._families, families)
        self._conflicts += conflicts
        self._ambiguous += ambiguous
        self._towns.update(towns)
        self._towns.discard(town_bytes(self._town))

    def result(self, effort: Effort) -> Count:
        """What was counted so far."""
        keys = _by_family(self._families)
        return Count(self._town, keys, self._conflicts, self._ambiguous, self._towns, effort)


class PreviewTally:
    """Adds up preview.lua's replies."""

    def __init__(self, town: str) -> None:
        self._town = town
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._moves: set[bytes] = set()
        self._left = _LeftAlone()

    def add(self, fields: list[Any]) -> None:
        """Add moves, conflicts, failed and ambiguous."""
        moves, conflicts, failed, ambiguous = fields
        self._moves.update(moves)
        # SCAN may name a key twice, before and after somebody made its destination.
        self._moves.difference_update(conflicts)
        self._left.add(conflicts, failed, ambiguous)

    def result(self, effort: Effort) -> Preview:
        """What was found so far."""
        left = self._left
        return Preview(self._town, self._moves, left.conflicts, left.failed, left.ambiguous, effort)


class MigrationTally:
    """Adds up migrate.lua's replies."""

    def __init__(self, town: str) -> None:
        self._town = town
        self._families = [0] * len(FAMILIES)
        self.restart()

    def restart(self) -> None:
        """Forget the keys that were left alone. What was renamed stays renamed."""
        self._left = _LeftAlone()

    def add(self, fields: list[Any]) -> None:
        """Add families, conflicts, failed and ambiguous."""
        families, conflicts, failed, ambiguous = fields
        self._families = _added(self._families, families)
        self._left.add(conflicts, failed, ambiguous)

    def result(self, effort: Effort, remaining: int | None = None) -> Migration:
        """What was done so far; `remaining` old keys were counted afterwards."""
        left = self._left
        return Migration(
            self._town,
            _by_family(self._families),
            left.conflicts,
            left.failed,
            left.ambiguous,
            remaining,
            effort,
        )


class _LeftAlone:
    def __init__(self) -> None:
        self.conflicts: set[bytes] = set()
        self.failed: dict[bytes, str] = {}
        self.ambiguous: set[bytes] = set()

    def add(self, conflicts: list[bytes], failed: list[bytes], ambiguous: list[bytes]) -> None:
        self.conflicts.update(conflicts)
        for key, reason in zip(failed[::2], failed[1::2], strict=True):
            self.failed[key] = reason.decode("utf-8", "replace")
        self.ambiguous.update(ambiguous)


def _added(left: list[int], right: list[int]) -> list[int]:
    return [a + b for a, b in zip(left, right, strict=True)]


def _by_family(numbers: list[int]) -> dict[str, int]:
    return dict(zip(FAMILIES, numbers, strict=True))

"""A pass that moves the keys that it finds to other shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tt_migrate.engine.pacing import Pace
from tt_migrate.engine.passes import Call, Pass
from tt_migrate.engine.tallies import PreviewTally


class Moving:
    """A pass that finds keys and moves them before it looks for more.

    `oldest`: receives version 0.1's keys, which are moved later.
    """

    def __init__(
        self,
        scan: Pass,
        found: PreviewTally,
        move: Callable[[Sequence[bytes]], object],
        oldest: list[bytes],
    ) -> None:
        self._scan = scan
        self._found = found
        self._move = move
        self._oldest = oldest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scan, name)

    @property
    def over(self) -> bool:
        """Whether all keys are found and moved."""
        return self._scan.over and not self._found.moves

    def next_call(self, pace: Pace, *, alone: bool) -> Call | None:
        """Move the keys that were found, then find more."""
        keys = [key for key in self._found.moves if not key.startswith(b"mt:")]
        self._oldest.extend(self._found.moves.difference(keys))
        self._found.moves.clear()
        self._move(keys)
        return None if self._scan.over else self._scan.next_call(pace, alone=alone)

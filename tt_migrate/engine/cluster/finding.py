"""A pass that moves the keys that it finds to other shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.scripts import Call
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.passes.scan import ScanPass
from tt_migrate.engine.passes.tallies import PreviewTally


class MovingPass(ScanPass):
    """A pass that finds keys and moves them before it looks for more.

    `oldest`: receives version 0.1's keys, which are moved later.
    """

    def __init__(
        self,
        session: Session,
        found: PreviewTally,
        move: Callable[[Sequence[bytes]], object],
        oldest: list[bytes],
    ) -> None:
        super().__init__(session, "find", found)
        self._found = found
        self._move = move
        self._oldest = oldest

    @property
    def why_alone(self) -> str:
        """Keys move meanwhile."""
        return "the cluster has several shards"

    @property
    def over(self) -> bool:
        """Whether all keys are found and moved."""
        return super().over and not self._found.moves

    def next_call(self, pace: Pace, *, alone: bool) -> Call | None:
        """Move the keys that were found, then find more."""
        keys = [key for key in self._found.moves if not key.startswith(b"mt:")]
        self._oldest.extend(self._found.moves.difference(keys))
        self._found.moves.clear()
        self._move(keys)
        return None if super().over else super().next_call(pace, alone=alone)

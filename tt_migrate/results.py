"""What the passes found and did, as they hand it on: plain, frozen, with raw keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from tt_migrate.keyspace import FAMILIES, family_of

Stage = Literal["counting", "previewing", "migrating", "verifying"]


@dataclass(frozen=True)
class Effort:
    """What a run cost.

    `batches`: script calls. `seconds`: wall time. `max_pause_ms`: the longest that one batch held
    the server, by the server's clock, in milliseconds; None where no clock runs. `reconnects`: how
    often the connection was lost.
    """

    batches: int
    seconds: float
    max_pause_ms: float | None
    reconnects: int


@dataclass(frozen=True)
class Count:
    """How many old keys there are.

    `keys`: old keys of each family, those with a conflict included. `conflicts`: how many of them
    have a destination that exists. `ambiguous`: keys that may be a town's own. `towns`: the other
    towns on the server. The numbers can be too high by keys that SCAN named twice, as it may while
    the server resizes its table; zero is always exact.
    """

    town: str
    keys: Mapping[str, int]
    conflicts: int
    ambiguous: int
    towns: Collection[bytes]
    effort: Effort

    @property
    def total(self) -> int:
        """Old keys of all families."""
        return sum(self.keys.values())


@dataclass(frozen=True)
class Preview:
    """What a migration would do, key by key, without duplicates and in no order.

    `moves`: old keys that would be renamed. `conflicts`: old keys whose destination exists.
    `failed`: old keys that the user may not rename, with the server's error. `ambiguous`: keys that
    may be a town's own.
    """

    town: str
    moves: Collection[bytes]
    conflicts: Collection[bytes]
    failed: Mapping[bytes, str]
    ambiguous: Collection[bytes]
    effort: Effort

    @property
    def keys(self) -> Mapping[str, int]:
        """Keys that would be renamed, of each family."""
        counted = Counter(map(family_of, self.moves))
        return {family: counted[family] for family in FAMILIES}

    @property
    def total(self) -> int:
        """Keys that would be renamed."""
        return len(self.moves)


@dataclass(frozen=True)
class Migration:
    """What a migration did.

    `keys`: keys renamed, of each family, by the server's own replies. `conflicts`, `failed`,
    `ambiguous`: keys left alone, as in Preview. `remaining`: old keys that the counting pass at the
    end found; None when the run did not get there.
    """

    town: str
    keys: Mapping[str, int]
    conflicts: Collection[bytes]
    failed: Mapping[bytes, str]
    ambiguous: Collection[bytes]
    remaining: int | None
    effort: Effort

    @property
    def total(self) -> int:
        """Keys renamed."""
        return sum(self.keys.values())

    @property
    def left_behind(self) -> int:
        """Old keys that are still there, as far as the run knows."""
        return max(len(self.conflicts) + len(self.failed), self.remaining or 0)

    @property
    def appeared(self) -> int:
        """Old keys that came while the migration ran: something still writes the old format."""
        return self.left_behind - len(self.conflicts) - len(self.failed)


Result = Count | Preview | Migration


@dataclass(frozen=True)
class Progress:
    """Where a run stands, after each batch.

    `scanned`: keys looked at in this stage, about. `dbsize`: keys in the database, 0 when unknown.
    `so_far`: the result as it stands; its collections are live views. `waiting`: why the run waits,
    empty when it does not.
    """

    stage: Stage
    scanned: int
    dbsize: int
    so_far: Result
    waiting: str = ""

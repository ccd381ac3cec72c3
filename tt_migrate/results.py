"""What the passes found and did, as they hand it on: plain, frozen, with raw keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from tt_migrate.keyspace import FAMILIES, RECORDS, family_and_id, town_key_start
from tt_migrate.plan import Plan

Stage = Literal["counting", "previewing", "migrating", "converting", "verifying"]


@dataclass(frozen=True)
class Effort:
    """What a run cost.

    `batches`: script calls. `seconds`: wall time. `max_pause_ms`: the longest that one batch held
    the server, by the server's clock, in milliseconds; None where no clock runs. `reconnects`: how
    often the connection was lost. `evicted`: keys that the server evicted while a migration ran, 0
    where it evicts none or INFO is not permitted.
    """

    batches: int
    seconds: float
    max_pause_ms: float | None
    reconnects: int
    evicted: int = 0


@dataclass(frozen=True)
class Count:
    """How much there is to do.

    `keys`: keys that move of each family, those with a conflict included: old keys, or the town's
    when the plan is to go back. `conflicts`: how many of them have a destination that exists.
    `ambiguous`: keys that may be a town's own. `towns`: the other towns on the server. `strings`:
    agents and tasks of the town that are JSON strings. `old_strings`: the same among old keys whose
    destination is free. `hashes`, `others`: agents and tasks of the town that are hashes, and that
    are neither or may not be looked at. `new_only`: keys of the town that the old format does not
    have. The numbers can be too high by keys that SCAN named twice, as it may while the server
    resizes its table; zero is always exact.
    """

    plan: Plan
    town: str
    keys: Mapping[str, int]
    conflicts: int
    ambiguous: int
    towns: Collection[bytes]
    strings: Mapping[str, int]
    old_strings: Mapping[str, int]
    hashes: int
    others: int
    new_only: int
    effort: Effort

    @property
    def total(self) -> int:
        """Keys that move, of all families."""
        return sum(self.keys.values())

    @property
    def to_convert(self) -> Mapping[str, int]:
        """Agents and tasks that the plan would convert."""
        if not self.plan.convert:
            return dict.fromkeys(RECORDS, 0)
        coming = self.old_strings if self.plan.rename else {}
        return {family: self.strings[family] + coming.get(family, 0) for family in RECORDS}

    @property
    def strings_total(self) -> int:
        """Agents and tasks of the town that are JSON strings."""
        return sum(self.strings.values())

    @property
    def undone(self) -> int:
        """Keys that are not yet as the plan would have them."""
        if not self.plan.convert:
            return self.total
        return self.total + self.strings_total + self.others

    @property
    def promising(self) -> bool:
        """Whether carrying the plan out would change something, as far as a count can tell."""
        movable = self.total if self.plan.merge else self.total - self.conflicts
        return bool((self.plan.rename and movable) or sum(self.to_convert.values()))


@dataclass(frozen=True)
class Left:
    """What a pass at the end found still to do.

    `keys`: keys that move, of each family. `strings`: agents and tasks of the town that are JSON
    strings. `count`: all that a counting pass tells, where the plan needed one.
    """

    keys: Mapping[str, int]
    strings: Mapping[str, int]
    count: Count | None = None

    @property
    def total(self) -> int:
        """Keys that move, of all families."""
        return sum(self.keys.values())

    @property
    def not_hashes(self) -> int:
        """Agents and tasks of the town that are no hashes, as far as was counted."""
        return sum(self.strings.values()) + (self.count.others if self.count else 0)


@dataclass(frozen=True)
class Preview:
    """What carrying the plan out would do, key by key, without duplicates and in no order.

    `moves`: keys that would be renamed. `merges`: keys that would be joined with their destination,
    and how. `conflicts`: keys whose destination exists, and why they would stay. `failed`: keys
    that the user may not rename, with the server's error. `ambiguous`: keys that may be a town's
    own. `conversions`: records that would become hashes, by the name they have then. `unconverted`:
    those that would stay as they are, and why. `count`: what a counting pass found; None where the
    plan needs none. `refused`: commands that a migration can need and that the user may not run or
    the server does not have: it would be refused. Redis before 7.0 does not tell of all.
    """

    plan: Plan
    town: str
    moves: Collection[bytes]
    merges: Mapping[bytes, str]
    conflicts: Mapping[bytes, str]
    failed: Mapping[bytes, str]
    ambiguous: Collection[bytes]
    conversions: Collection[bytes]
    unconverted: Mapping[bytes, str]
    count: Count | None
    effort: Effort
    refused: Collection[str] = ()

    @property
    def keys(self) -> Mapping[str, int]:
        """Keys that would be renamed, of each family."""
        return _by_family(self.moves, self.plan.name_start(self.town), FAMILIES)

    @property
    def to_convert(self) -> Mapping[str, int]:
        """Agents and tasks that would be converted."""
        return _by_family(self.conversions, town_key_start(self.town), RECORDS)

    @property
    def total(self) -> int:
        """Keys that would be renamed."""
        return len(self.moves)

    @property
    def remaining(self) -> int:
        """Keys that have yet to move: all that were found."""
        if not self.plan.rename:
            return self.count.total if self.count else 0
        return self.total + len(self.merges) + len(self.conflicts) + len(self.failed)

    def as_migration(self, count: Count) -> Migration:
        """The result of a migration that leaves everything alone, as `count` says that it would."""
        return Migration(
            plan=self.plan,
            town=self.town,
            keys=dict.fromkeys(FAMILIES, 0),
            merged=dict.fromkeys(FAMILIES, 0),
            converted=dict.fromkeys(RECORDS, 0),
            conflicts=self.conflicts,
            failed=self.failed,
            ambiguous=self.ambiguous,
            unconverted=self.unconverted,
            before=count,
            left=Left(count.keys, count.strings, count),
            effort=self.effort,
        )


@dataclass(frozen=True)
class Migration:
    """What was done.

    `keys`: keys renamed, of each family, by the server's own replies. `merged`: keys joined with
    their destination. `converted`: records that became hashes, of each family of records.
    `conflicts`, `failed`, `ambiguous`, `unconverted`: keys left alone, as in Preview. `before`:
    what was found before the way back; `left`: what the counting pass at the end found; None when
    the run had no such pass.
    """

    plan: Plan
    town: str
    keys: Mapping[str, int]
    merged: Mapping[str, int]
    converted: Mapping[str, int]
    conflicts: Mapping[bytes, str]
    failed: Mapping[bytes, str]
    ambiguous: Collection[bytes]
    unconverted: Mapping[bytes, str]
    before: Count | None
    left: Left | None
    effort: Effort

    @property
    def total(self) -> int:
        """Keys renamed."""
        return sum(self.keys.values())

    @property
    def changed(self) -> int:
        """Keys renamed, merged or converted."""
        return self.total + sum(self.merged.values()) + sum(self.converted.values())

    @property
    def remaining(self) -> int | None:
        """Keys that have yet to move, as the counting pass found; None when it was not reached."""
        return self.left.total if self.left else None

    @property
    def left_behind(self) -> int:
        """Keys that did not move and are still there, as far as the run knows."""
        return max(len(self.conflicts) + len(self.failed), self.remaining or 0)

    @property
    def appeared(self) -> int:
        """Keys that came while the run went on: something still writes the format that is left."""
        known = len(self.conflicts) + len(self.failed) if self.plan.rename else self.left_behind
        return self.left_behind - known

    @property
    def records_left(self) -> int:
        """Records that were to be hashes and are not, as far as the run knows."""
        if not self.plan.convert:
            return 0
        return max(len(self.unconverted), self.left.not_hashes if self.left else 0)

    @property
    def already_hashes(self) -> int | None:
        """Records that were hashes already; None when they were not counted."""
        if not self.left or not self.left.count:
            return None
        return max(0, self.left.count.hashes - sum(self.converted.values()))

    @property
    def complete(self) -> bool:
        """Whether everything is as the plan would have it."""
        return not self.left_behind and not self.records_left


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


def _by_family(keys: Collection[bytes], start: int, families: Collection[str]) -> Mapping[str, int]:
    counted = Counter(family_and_id(key, start)[0] for key in keys)
    return {family: counted[family] for family in families}

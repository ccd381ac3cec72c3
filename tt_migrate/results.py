"""What a run found and did: frozen dataclasses with keys as bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from operator import eq
from typing import Literal, NamedTuple

from tt_migrate.keyspace import RECORDS, family_and_id, town_bytes, town_key_start
from tt_migrate.plan import Plan

Stage = Literal["counting", "previewing", "migrating", "verifying"]
Action = Literal["renamed", "merged", "converted", "left"]


@dataclass(frozen=True)
class Server:
    """What HELLO says of a server.

    `name`: `redis` or `valkey`. `version`: for example `7.0.15`. `role`: `master` or `replica`.
    `mode`: `standalone`, `cluster` or `sentinel`. The fields are empty for a server that does not
    know HELLO, such as some proxies. `shards`: how many shards the cluster has, where a run works
    on several.
    """

    name: str
    version: str
    role: str
    mode: str = ""
    shards: int = 1

    @property
    def in_cluster(self) -> bool:
        """Whether the server is a node of a cluster."""
        return self.mode == "cluster"


@dataclass(frozen=True)
class Effort:
    """What a run cost.

    `batches`: script calls. `seconds`: wall time. `max_pause_ms`: the longest time that one call
    blocked the server, by the server's clock, in milliseconds; None if there is no clock.
    `reconnects`: how often the connection was lost. `evicted`: keys that the server evicted during
    a migration; 0 if it evicts none or the user may not run INFO. `one_at_a_time`: why no call was
    sent ahead of the reply to the one before; empty if calls were. `lost_replies`: calls that could
    change something and to which no reply came, so that it is not known what they changed.
    `replica_wait`: seconds for which a migration waited for replicas; None if INFO, which tells of
    them, is not permitted. `replica_lag`: the most bytes that a replica was behind when it waited.
    """

    batches: int
    seconds: float
    max_pause_ms: float | None
    reconnects: int
    evicted: int = 0
    one_at_a_time: str = ""
    lost_replies: int = 0
    replica_wait: float | None = 0.0
    replica_lag: int = 0


@dataclass(frozen=True, kw_only=True)
class Found:
    """What every result says about the town as a whole.

    `towns`: the other towns in the database. `ambiguous`: keys that may belong to another town.
    `hidden`: keys in transit between the shards of a cluster, each with its hidden name; always
    empty elsewhere. `has_keys`: whether the town has keys in the new format. `databases`: keys in
    each database of the server that has some, if the town is absent; else None, or if the server
    does not tell. A migration has the last three as they are after the run.
    """

    plan: Plan
    town: str
    towns: Collection[bytes]
    ambiguous: Collection[bytes] | int
    effort: Effort
    server: Server | None = None
    hidden: Mapping[bytes, bytes] = field(default_factory=dict)
    has_keys: bool = True
    databases: Mapping[int, int] | None = None

    @property
    def _is_known(self) -> bool:
        """Whether the run found or did something in the town, apart from `hidden`."""
        raise NotImplementedError

    @property
    def _is_present(self) -> bool:
        return bool(self._is_known or self.hidden or self.has_keys)

    @property
    def is_absent(self) -> bool:
        """Whether the town has no keys in the database, of any name that the plan looks at."""
        return not (self._is_present or self.ambiguous)

    @property
    def is_unsure(self) -> bool:
        """Whether all keys that may be the town's are ambiguous."""
        return bool(self.ambiguous) and not self._is_present

    @property
    def former_guess(self) -> bytes | None:
        """The other town that may be this one under a former name, if this one has no keys."""
        return _alike(self.plan, self.town, self.towns) if self.is_absent else None


@dataclass(frozen=True, kw_only=True)
class Count(Found):
    """How much there is to do.

    `keys`: keys to move, by family, including those with conflicts: old keys, or with REVERSE the
    town's keys. `conflicts`: how many of them have a destination that exists, 0 if that was
    not asked. `dbsize`: keys in the database, None if unknown. `strings`: agents and tasks of the
    town that are JSON strings. `old_strings`: agents and tasks that are JSON strings in old keys
    whose destination is free, or was not asked for.
    `hashes`: agents and tasks of the town that are hashes. `others`: agents and tasks that have
    another type or whose type the user may not read. `new_only`: keys of the town that do not exist
    in the old format. The other fields: as in Found.

    The numbers can be too high, because SCAN may return a key twice while the server resizes its
    hash table. Zero is always exact.
    """

    keys: Mapping[str, int]
    conflicts: int
    ambiguous: int
    dbsize: int | None
    strings: Mapping[str, int]
    old_strings: Mapping[str, int]
    hashes: Mapping[str, int]
    others: int
    new_only: int

    @property
    def total(self) -> int:
        """Keys to move, of all families."""
        return sum(self.keys.values())

    @property
    def _is_known(self) -> bool:
        return bool(self.total)

    @property
    def to_convert(self) -> Mapping[str, int]:
        """Agents and tasks that the plan would convert."""
        if not self.plan.convert:
            return dict.fromkeys(RECORDS, 0)
        if self.plan.convert == "json":
            return self.hashes
        coming = self.old_strings if self.plan.rename else {}
        return {family: self.strings[family] + coming.get(family, 0) for family in RECORDS}

    @property
    def strings_total(self) -> int:
        """Agents and tasks of the town that are JSON strings."""
        return sum(self.strings.values())

    @property
    def hashes_total(self) -> int:
        """Agents and tasks of the town that are hashes."""
        return sum(self.hashes.values())

    @property
    def undone(self) -> int:
        """Keys that are not yet as the plan requires."""
        records = self.strings_total + self.others if self.plan.convert == "hash" else 0
        return self.total + len(self.hidden) + records

    @property
    def promising(self) -> bool:
        """Whether a migration would change something, as far as a count can tell."""
        movable = self.total if self.plan.merge else self.total - self.conflicts
        found = (self.plan.rename and movable) or sum(self.to_convert.values())
        return bool(found or self.hidden)


@dataclass(frozen=True)
class Left:
    """What the final pass found left to do.

    `keys`: keys to move, by family. `strings`: agents and tasks of the town that are JSON strings.
    `count`: the full count, if the plan needs one. `namesakes`: as in Preview.
    """

    keys: Mapping[str, int]
    strings: Mapping[str, int]
    count: Count | None = None
    namesakes: Mapping[bytes, Collection[bytes]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Keys to move, of all families."""
        return sum(self.keys.values())

    @property
    def not_hashes(self) -> int:
        """Agents and tasks of the town that are not hashes, as far as they were counted."""
        return sum(self.strings.values()) + (self.count.others if self.count else 0)

    @property
    def hashes(self) -> int:
        """Agents and tasks of the town that are hashes, as far as they were counted."""
        return self.count.hashes_total if self.count else 0


@dataclass(frozen=True, kw_only=True)
class Preview(Found):
    """What the plan would change, key by key, without duplicates and in no order.

    `moves`: keys that would be renamed. `merges`: keys that would be merged with their destination,
    and how. `conflicts`: keys whose destination exists, and why they would stay. `failed`: keys
    that could not be looked at, and the server's error. `conversions`: records that would become
    hashes, by the name that they will have. `unconverted`: records that would stay as they are, and
    why. `dbsize`: keys in the database, None if unknown. `count`: the numbers of a Count, which can
    be too high like those; None if the plan needs none. Its `conflicts` are the keys listed here in
    `merges` and `conflicts`, and its `old_strings` are 0 unless the plan renames. `refused`:
    commands that the plan can need and that the user may not run or the server lacks, so that a
    migration would be refused. Redis before 7.0 does not report all of them. `adjusted`: as in
    Migration; its numbers can be too high too. `namesakes`: names that several agents have, where a
    town's name changes, and the agents' ids. The other fields: as in Found.
    """

    moves: Collection[bytes]
    merges: Mapping[bytes, str]
    conflicts: Mapping[bytes, str]
    failed: Mapping[bytes, str]
    ambiguous: Collection[bytes]
    conversions: Collection[bytes]
    unconverted: Mapping[bytes, str]
    dbsize: int | None
    count: Count | None
    refused: Collection[str] = ()
    adjusted: Mapping[str, int] = field(default_factory=dict)
    namesakes: Mapping[bytes, Collection[bytes]] = field(default_factory=dict)

    @property
    def keys(self) -> Mapping[str, int]:
        """Keys that would be renamed, by family."""
        return _by_family(self.moves, self.plan.name_start(self.town), self.plan.families)

    @property
    def keys_to_merge(self) -> Mapping[str, int]:
        """Keys that would be merged, by family."""
        return _by_family(self.merges, self.plan.name_start(self.town), self.plan.families)

    @property
    def _is_known(self) -> bool:
        return bool(self.remaining or self.conversions)

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
        """Keys to move: all that were found."""
        if not self.plan.rename:
            return self.count.total if self.count else 0
        return self.total + len(self.merges) + len(self.conflicts) + len(self.failed)

    def as_migration(self, count: Count) -> Migration:
        """The result of a migration that changes nothing. `count`: what there is to do."""
        return Migration(
            plan=self.plan,
            town=self.town,
            keys=dict.fromkeys(self.plan.families, 0),
            merged=dict.fromkeys(self.plan.families, 0),
            converted=dict.fromkeys(RECORDS, 0),
            conflicts=self.conflicts,
            failed=self.failed,
            ambiguous=self.ambiguous,
            unconverted=self.unconverted,
            towns=self.towns,
            hashes_before=count.hashes_total,
            left=Left(count.keys, count.strings, count, self.namesakes),
            effort=self.effort,
            server=self.server,
            hidden=self.hidden,
            has_keys=count.has_keys,
            databases=self.databases,
        )


@dataclass(frozen=True, kw_only=True)
class Migration(Found):
    """What was done.

    `keys`: keys renamed, by family, as the server replied. `merged`: keys merged with their
    destination, by family. `converted`: records that became hashes, by family. `conflicts`,
    `failed`, `unconverted`: keys that were left as they are, as in Preview. `left`: what the final
    pass found left to do, None if the run has not reached it; a pass that changed nothing is the
    final one. `hashes_before`: the town's records that were hashes before a REVERSE began.
    `adjusted`: what DOWNGRADE had to change in records so that 0.6 can read them, and how often.
    `finished`: keys that a run with another plan had hidden in a cluster, and that now have the
    names which it chose. The other fields: as in Found.
    """

    keys: Mapping[str, int]
    merged: Mapping[str, int]
    converted: Mapping[str, int]
    conflicts: Mapping[bytes, str]
    failed: Mapping[bytes, str]
    ambiguous: Collection[bytes]
    unconverted: Mapping[bytes, str]
    left: Left | None
    hashes_before: int = 0
    adjusted: Mapping[str, int] = field(default_factory=dict)
    finished: int = 0

    @property
    def _is_known(self) -> bool:
        # A lost batch may have moved keys.
        found = self.changed or self.finished or self.left_behind or self.effort.reconnects
        return bool(found)

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
        """Keys to move that the final pass found; None if the run did not reach it."""
        return self.left.total if self.left else None

    @property
    def left_behind(self) -> int:
        """Keys that did not move and are still there, as far as the run knows."""
        return max(len(self.conflicts) + len(self.failed), self.remaining or 0)

    @property
    def appeared(self) -> int:
        """Keys that appeared during the run: something still writes the replaced format."""
        known = len(self.conflicts) + len(self.failed) if self.plan.rename else self.left_behind
        if self.plan.convert == "json":
            known += len(self.unconverted)
        return max(0, self.left_behind - known)

    @property
    def records_left(self) -> int:
        """Records that should have been converted but were not, as far as the run knows."""
        if not self.plan.convert or not self.left:
            return len(self.unconverted)
        is_to_hash = self.plan.convert == "hash"
        left = self.left.not_hashes if is_to_hash else self.left.hashes
        return max(len(self.unconverted), left)

    @property
    def already_hashes(self) -> int | None:
        """Records that were hashes before the run; None if they were not counted."""
        if not self.left or not self.left.count:
            return None
        return max(0, self.left.count.hashes_total - sum(self.converted.values()))

    @property
    def unreadable(self) -> Mapping[str, int]:
        """Agents and tasks that are JSON strings, which Tinytown 0.7 or later cannot read.

        As the final pass found them after RENAME or from_town(); 0 after any other plan.
        """
        if self.left and self.plan.name in ("rename", "from-town"):
            return self.left.strings
        return dict.fromkeys(RECORDS, 0)

    @property
    def complete(self) -> bool:
        """Whether all keys are as the plan requires."""
        return not self.left_behind and not self.records_left and not self.hidden


Result = Count | Preview | Migration


class Change(NamedTuple):
    """What became of one key. A named tuple is made in a third of a frozen dataclass's time.

    `key`: its name before. `destination`: its name now, or for a key that was left, the name that
    it would have; None if it has none. `reason`: why a key was left, or how it was merged; else
    empty.
    """

    action: Action
    key: bytes
    destination: bytes | None
    reason: str


@dataclass(frozen=True)
class Progress:
    """The state of a run after a batch.

    `scanned`: about how many keys this pass has scanned. `dbsize`: keys in the database, 0 if
    unknown. `so_far`: the result so far; its collections are live views. `waiting`: why the run
    waits, in two words; empty if it does not.
    """

    stage: Stage
    scanned: int
    dbsize: int
    so_far: Result
    waiting: str = ""


def _alike(plan: Plan, town: str, towns: Collection[bytes]) -> bytes | None:
    """The only other town, or of several the one whose name begins most like a town's.

    Tinytown makes names of the repository and the branch, with hyphens between their words. The
    plan's former name is no answer: what has it still is ambiguous.
    """
    others = [other for other in towns if b"tt:%b:" % other != plan.from_start]
    if len(others) < 2:
        return next(iter(others), None)
    words = town_bytes(town).split(b"-")
    shared = {other: sum(takewhile(bool, map(eq, words, other.split(b"-")))) for other in others}
    most = max(shared.values())
    best = [other for other, number in shared.items() if number == most]
    return best[0] if most and len(best) == 1 else None


def _by_family(keys: Collection[bytes], start: int, families: Collection[str]) -> Mapping[str, int]:
    counted = Counter(family_and_id(key, start)[0] for key in keys)
    return {family: counted[family] for family in families}

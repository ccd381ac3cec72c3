"""Adds up the replies of a pass: one tally for each kind of pass."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from operator import add
from typing import Any, Protocol, TypeVar

from tt_migrate.engine.calls.replies import (
    COUNTED,
    AgentsReply,
    CountReply,
    LeftReply,
    MigrateReply,
    PreviewReply,
    Word,
    apart,
    error_of,
    malformed_as_invalid,
    of_families,
    pairs,
    texts,
    times,
)
from tt_migrate.engine.passes.changes import Changes
from tt_migrate.keyspace import RECORDS, family_and_id, town_bytes
from tt_migrate.plan import Plan
from tt_migrate.results import Count, Effort, Left, Migration, Preview, Server

_Name = TypeVar("_Name", str, int)


class Tally(Protocol):
    """Adds up the replies of one pass.

    `Reply`: the class that names their fields.
    """

    Reply: Any

    @property
    def args(self) -> tuple[Word, ...]:
        """The script's arguments after `denied`."""

    def restart(self) -> None:
        """Forget what a new scan will find again."""

    def add(self, reply: Any) -> None:
        """Add a reply. Raises redis.exceptions.InvalidResponse if it is malformed."""


class Towns:
    """The towns that a pass found.

    `found`: their names, this town's included if it has keys.
    """

    def __init__(self, town: str) -> None:
        self._town = town_bytes(town)
        self.found: set[bytes] = set()

    @property
    def others(self) -> set[bytes]:
        """The other towns."""
        return self.found - {self._town}

    @property
    def has_own(self) -> bool:
        """Whether this town has keys."""
        return self._town in self.found


class _Numbers:
    """Adds up what counts/everything.lua counts."""

    def __init__(self, plan: Plan, town: str) -> None:
        self._plan = plan
        self._town = town
        self._keys = dict.fromkeys(plan.families, 0)
        self._records = dict.fromkeys(range(COUNTED), 0)

    def add(self, families: list[int], counted: list[int]) -> None:
        """Add what a reply counts."""
        self._keys = _added(self._keys, families)
        self._records = _added(self._records, counted)

    def count(self, effort: Effort, server: Server, towns: Towns, **rest: Any) -> Count:
        """What was counted. `rest`: the other fields of the Count."""
        *records, others, untyped, new_only = self._records.values()
        strings, coming, hashes = (
            dict(zip(RECORDS, records[n : n + 2], strict=True)) for n in (0, 2, 4)
        )
        return Count(
            plan=self._plan,
            town=self._town,
            keys=self._keys,
            towns=towns.others,
            has_keys=towns.has_own,
            strings=strings,
            old_strings=coming,
            hashes=hashes,
            others=others + untyped,
            new_only=new_only,
            effort=effort,
            server=server,
            **rest,
        )


class CountTally:
    """Adds up count.lua's replies."""

    Reply = CountReply
    args = ()

    def __init__(self, plan: Plan, town: str) -> None:
        self._plan = plan
        self._town = town
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._numbers = _Numbers(self._plan, self._town)
        self._conflicts = self._ambiguous = self._dbsize = 0
        self._towns = Towns(self._town)

    def add(self, reply: CountReply) -> None:
        """Add a reply."""
        self._numbers.add(reply.families, reply.counted)
        self._conflicts += reply.conflicts
        self._ambiguous += reply.ambiguous
        self._towns.found.update(reply.towns)
        self._dbsize = reply.dbsize

    def count(self, effort: Effort, server: Server) -> Count:
        """What was counted so far."""
        return self._numbers.count(
            effort,
            server,
            self._towns,
            conflicts=self._conflicts,
            ambiguous=self._ambiguous,
            dbsize=self._dbsize,
        )


class LeftTally:
    """Adds up left.lua's replies."""

    Reply = LeftReply
    args = ()

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._keys = dict.fromkeys(self._plan.families, 0)
        self._strings = dict.fromkeys(RECORDS, 0)

    def add(self, reply: LeftReply) -> None:
        """Add a reply."""
        self._keys = _added(self._keys, reply.families)
        self._strings = _added(self._strings, reply.strings)

    def result(self) -> Left:
        """What was counted so far."""
        return Left(self._keys, self._strings)


class PreviewTally:
    """Adds up preview.lua's replies. Its attributes are those of Preview."""

    Reply = PreviewReply
    args = ()

    def __init__(self, plan: Plan, town: str) -> None:
        self._plan = plan
        self._town = town
        self._start = plan.name_start(town)
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self.moves: set[bytes] = set()
        self.merges: dict[bytes, str] = {}
        self.conflicts: dict[bytes, str] = {}
        self.failed: dict[bytes, str] = {}
        self.ambiguous: set[bytes] = set()
        self.conversions: set[bytes] = set()
        self.unconverted: dict[bytes, str] = {}
        # The records that have their names already, each with why it cannot be converted.
        self._own_records: dict[bytes, str] = {}
        self.adjusted: Counter[str] = Counter()
        self.towns = Towns(self._town)
        self.dbsize = 0
        self._numbers = _Numbers(self._plan, self._town)

    def add(self, reply: PreviewReply) -> None:
        """Add a reply."""
        self._numbers.add(reply.families, reply.counted)
        moves = {*reply.odd_moves, *reply.moves.split(b"\n")} - {b""}
        merges, conflicts, failed = map(texts, (reply.merges, reply.conflicts, reply.failed))
        for keys in (moves, merges, conflicts, failed):
            of_families(keys, self._start)
        _check_ambiguous(reply.ambiguous, self._plan, self._start)
        self.merges.update(merges)
        self.conflicts.update(conflicts)
        # SCAN may return a key twice: before and after another client created its destination.
        self.moves.difference_update(merges, conflicts)
        self.moves |= moves.difference(self.merges).difference(self.conflicts)
        self.failed.update(failed)
        self.ambiguous.update(reply.ambiguous)
        self._add_records(moves, reply)
        self.adjusted.update(times(reply.adjusted))
        self.towns.found.update(reply.towns)
        self.dbsize = reply.dbsize

    def count(self, effort: Effort, server: Server) -> Count:
        """The numbers of what was found so far, if the plan needs a count."""
        return self._numbers.count(
            effort,
            server,
            self.towns,
            conflicts=len(self.merges) + len(self.conflicts),
            ambiguous=len(self.ambiguous),
            dbsize=self.dbsize,
        )

    def result(self, effort: Effort, server: Server, *, refused: Collection[str]) -> Preview:
        """What was found so far, without a count. `refused`: as in Preview."""
        # A pass also looks at keys that the plan leaves where they are.
        renames = self._plan.rename is not None
        return Preview(
            plan=self._plan,
            town=self._town,
            moves=self.moves if renames else set(),
            merges=self.merges,
            conflicts=self.conflicts if renames else {},
            failed=self.failed if renames else {},
            ambiguous=self.ambiguous if renames else set(),
            conversions=self.conversions,
            unconverted=self.unconverted,
            adjusted=self.adjusted,
            towns=self.towns.others,
            has_keys=self.towns.has_own,
            dbsize=self.dbsize,
            count=None,
            effort=effort,
            refused=refused,
            server=server,
        )

    def _add_records(self, moves: set[bytes], reply: PreviewReply) -> None:
        """Add records by the names that they will have."""
        unconverted = texts(reply.unconverted)

        def name(key: bytes) -> bytes:
            if key in moves and self._plan.rename == "forward":
                return self._plan.destination(self._town, key)
            self._own_records[key] = unconverted.get(key, "")
            return key

        converted = {*reply.odd_conversions, *reply.conversions.split(b"\n")} - {b""}
        self.conversions.update(map(name, converted))
        self.unconverted.update((name(key), why) for key, why in unconverted.items())

    def forget_records(self, keys: Iterable[bytes]) -> None:
        """Forget the records of old keys that stay, so they are not converted."""
        for name in (self._plan.destination(self._town, key) for key in keys):
            self.conversions.discard(name)
            self.unconverted.pop(name, None)
            if reason := self._own_records.get(name):
                self.unconverted[name] = reason
            elif name in self._own_records:
                self.conversions.add(name)

    def release(self) -> None:
        """Count a conflict as a move if the key at its destination moves away."""
        if self._plan.passes(self._town) < 2:
            return
        there = {self._plan.destination(self._town, key): key for key in self.conflicts}
        while free := self.moves & there.keys():
            self.moves |= {there[name] for name in free}
            for name in free:
                del self.conflicts[there.pop(name)]


class MigrationTally:
    """Adds up migrate.lua's replies, and keys that the client itself has moved.

    Its attributes are those of Migration. `changes`: told what became of each key.
    """

    Reply = MigrateReply

    def __init__(self, plan: Plan, town: str, changes: Changes) -> None:
        self._plan = plan
        self._town = town
        self._start = plan.name_start(town)
        self._changes = changes
        self.args = (int(changes.wanted),)
        self.keys = dict.fromkeys(plan.families, 0)
        self.merged = dict.fromkeys(plan.families, 0)
        self.converted = dict.fromkeys(RECORDS, 0)
        self.finished = 0
        self.adjusted: Counter[str] = Counter()
        self.towns = Towns(town)
        self.restart()

    def restart(self) -> None:
        """Forget the keys that were left alone. Keys that were changed stay counted."""
        self._changed_before = self._changed
        self._counted = [0] * COUNTED
        self._dbsize = 0
        self.conflicts: dict[bytes, str] = {}
        self.failed: dict[bytes, str] = {}
        self.ambiguous: set[bytes] = set()
        self.unconverted: dict[bytes, str] = {}

    def add(self, reply: MigrateReply) -> None:
        """Add a reply.

        Raises redis.exceptions.ResponseError for the error that ended the batch.
        """
        conflicts, failed, joined = map(texts, (reply.conflicts, reply.failed, reply.joined))
        unconverted, renamed = texts(reply.unconverted), apart(reply.renamed)
        for keys in (conflicts, failed, renamed, joined):
            of_families(keys, self._start)
        _check_ambiguous(reply.ambiguous, self._plan, self._start)
        self.keys = _added(self.keys, reply.families)
        self.merged = _added(self.merged, reply.merged)
        self.converted = _added(self.converted, reply.converted)
        self.adjusted.update(times(reply.adjusted))
        self.unconverted.update(unconverted)
        self.towns.found.update(reply.towns)
        self._counted = [*map(add, self._counted, reply.counted)]
        self._dbsize = reply.dbsize
        self._changes.converted(apart(reply.changed))
        self._changes.left_record(unconverted)
        self._note(renamed, joined, conflicts, failed)
        self.add_ambiguous(reply.ambiguous)
        if reply.error:
            raise error_of(reply.error)

    def add_moved(
        self,
        renamed: Collection[bytes],
        merged: Mapping[bytes, str],
        conflicts: Mapping[bytes, str],
        failed: Mapping[bytes, str],
    ) -> None:
        """Add keys that were moved, each with the way or the reason."""
        self.keys = _added(self.keys, self._numbers(renamed))
        self.merged = _added(self.merged, self._numbers(merged))
        self._note(renamed, merged, conflicts, failed)

    def add_ambiguous(self, keys: Collection[bytes]) -> None:
        """Add keys that were left because they may belong to another town."""
        self.ambiguous.update(keys)
        self._changes.ambiguous(keys)

    def _note(
        self,
        renamed: Collection[bytes],
        merged: Mapping[bytes, str],
        conflicts: Mapping[bytes, str],
        failed: Mapping[bytes, str],
    ) -> None:
        # SCAN may return a key twice: the first reason was found before its destination changed.
        for key, reason in conflicts.items():
            self.conflicts.setdefault(key, reason)
        self.failed.update(failed)
        self._changes.renamed(renamed)
        self._changes.merged(merged)
        self._changes.left(conflicts)
        self._changes.left(failed)

    def _numbers(self, keys: Collection[bytes]) -> list[int]:
        found = Counter(family_and_id(key, self._start)[0] for key in keys)
        return [found[family] for family in self._plan.families]

    @property
    def _changed(self) -> int:
        numbers = (self.keys, self.merged, self.converted)
        return sum(sum(counted.values()) for counted in numbers)

    @property
    def has_changed(self) -> bool:
        """Whether this pass has changed a key."""
        return self._changed > self._changed_before

    def left(self, effort: Effort, server: Server) -> Left:
        """What this pass has left, which has looked at all keys and has changed none."""
        names = {*self.conflicts, *self.failed}
        if self._plan.convert == "json":
            names |= self.unconverted.keys() - self.ambiguous
        numbers = _Numbers(self._plan, self._town)
        numbers.add(self._numbers(names), self._counted)
        rest = {"conflicts": 0, "ambiguous": len(self.ambiguous), "dbsize": self._dbsize}
        return self.verified(numbers.count(effort, server, self.towns, **rest))

    def verified(self, count: Count) -> Left:
        """What the final pass has counted, with what only the passes before it know."""
        if not self._plan.needs_count:
            return Left(count.keys, count.strings)
        number, towns = len(self.conflicts), self.towns.others
        count = replace(count, conflicts=number, towns=towns, has_keys=self.has_keys)
        return Left(count.keys, count.strings, count)

    @property
    def has_keys(self) -> bool:
        """Whether the town has keys in the new format now."""
        gave_names = self._plan.rename != "reverse" and self._changed > 0
        return self.towns.has_own or gave_names

    def result(
        self, effort: Effort, server: Server, *, hashes_before: int, left: Left | None
    ) -> Migration:
        """What was done so far. `hashes_before`, `left`: as in Migration."""
        return Migration(
            plan=self._plan,
            town=self._town,
            keys=self.keys,
            merged=self.merged,
            converted=self.converted,
            conflicts=self.conflicts,
            failed=self.failed,
            ambiguous=self.ambiguous,
            unconverted=self.unconverted,
            adjusted=self.adjusted,
            finished=self.finished,
            towns=self.towns.others,
            has_keys=self.has_keys,
            hashes_before=hashes_before,
            left=left,
            effort=effort,
            server=server,
        )


class AgentsTally:
    """Collects the agents' ids by name from agents.lua's replies."""

    Reply = AgentsReply
    args = ()

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._ids: defaultdict[bytes, set[bytes]] = defaultdict(set)

    def add(self, reply: AgentsReply) -> None:
        """Add a reply."""
        for agent_id, name in pairs(reply.agents):
            self._ids[name].add(agent_id)

    @property
    def namesakes(self) -> dict[bytes, list[bytes]]:
        """The names that several agents have, with their ids in order."""
        return {name: sorted(ids) for name, ids in sorted(self._ids.items()) if len(ids) > 1}


def _check_ambiguous(keys: Iterable[bytes], plan: Plan, start: int) -> None:
    # What begins like the keys of the town's former name can go on in any way.
    if plan.from_town is None:
        of_families(keys, start)


@malformed_as_invalid()
def _added(numbers: dict[_Name, int], more: list[int]) -> dict[_Name, int]:
    both = zip(numbers.items(), more, strict=True)
    return {name: number + further for (name, number), further in both}

"""Counts, previews and migrates a town on a cluster of several shards (docs/cluster.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from tt_migrate.engine.calls.retry import TEMPORARY
from tt_migrate.engine.calls.slots import check_still
from tt_migrate.engine.cluster.destinations import Destinations
from tt_migrate.engine.cluster.in_transit import InTransit
from tt_migrate.engine.cluster.round import Round
from tt_migrate.engine.cluster.shards import Shards
from tt_migrate.engine.cluster.side_by_side import Worker
from tt_migrate.engine.cluster.workers import WorkerPool
from tt_migrate.engine.passes.changes import Changes
from tt_migrate.engine.passes.driver import RunOptions
from tt_migrate.engine.passes.scan import ScanPass
from tt_migrate.engine.passes.tallies import (
    AgentsTally,
    CountTally,
    LeftTally,
    MigrationTally,
    PreviewTally,
    Tally,
)
from tt_migrate.keyspace import family_and_id
from tt_migrate.plan import Plan
from tt_migrate.results import Count, Left, Migration, Preview, Result, Stage

_STEADY_TRIES, _STEADY_SECONDS = 5, 0.5
_MOVING = ("freeze", "apply", "finish", "forget", "give_back")


class Sharded:
    """Carries out a plan on the shards of a cluster.

    Raises redis.exceptions.RedisError as a Migrator does.
    """

    def __init__(self, shards: Shards, plan: Plan, town: str, options: RunOptions) -> None:
        self._plan = plan
        self._town = town
        self._changes = Changes(options.record, plan, town)
        self._pool = WorkerPool(shards, plan, town, options, self._changes.flush)
        self._destinations = Destinations(self._pool, plan, town)
        # Hidden names of keys that cannot be given back.
        self._stuck: set[bytes] = set()
        # The names of this run in nonces.
        self._own: set[bytes] = set()

    def close(self) -> None:
        """Return the connections."""
        self._pool.close()

    def check(self) -> None:
        """Raise what migrate() would raise before its first write."""
        self._pool.begin(looks_again=True)
        self._pool.tried(self._pool.now)

    def count(self, *, conflicts: bool = True) -> Count:
        """Count what there is to do. Reads only. `conflicts`: as in Migrator.count()."""
        self._pool.begin()
        return self._count() if conflicts else self._checked()

    def _checked(self) -> Count:
        counted = CountTally(self._plan, self._town)
        hidden: dict[bytes, bytes] = {}

        def result() -> Count:
            return self._with_size(counted, hidden)

        self._read({"check": counted}, "counting", result, hidden)
        return result()

    def preview(self) -> Preview:
        """List what the plan would change. Reads only."""
        found, agents, pool = self._preview_tally(), AgentsTally(), self._pool
        pool.begin()
        hidden: dict[bytes, bytes] = {}

        def result() -> Preview:
            preview = found.result(pool.effort(), pool.server, refused=pool.session.refused)
            size = pool.dbsize or pool.session.least_size
            return replace(preview, dbsize=size, hidden=hidden, namesakes=agents.namesakes)

        self._read({"preview": found, "agents": agents}, "previewing", result, hidden)
        needs_count = self._plan.needs_count
        count = self._corrected(found, found.moves, hidden) if needs_count else None
        if self._plan.rename:
            self._destinations.settle(found)
        found.release()
        return replace(result(), count=count)

    def migrate(self) -> Migration:
        """Carry out the plan, then count what is left to do."""
        self._pool.begin(("find", *self._plan.operations, *_MOVING), looks_again=True)
        moved = MigrationTally(self._plan, self._town, self._changes)
        records = MigrationTally(self._plan, self._town, self._changes)
        records.towns = moved.towns
        hashes = 0
        hidden: dict[bytes, bytes] = {}

        def result(left: Left | None = None) -> Migration:
            cost, server = self._pool.effort(), self._pool.server
            migration = moved.result(cost, server, hashes_before=hashes, left=left)
            return replace(
                migration,
                converted=records.converted,
                unconverted=records.unconverted,
                adjusted=records.adjusted,
                hidden=hidden,
            )

        if self._plan.warns_of_hashes:
            before = CountTally(self._plan, self._town)
            self._read({"hashes": before}, "counting", result, {})
            hashes = before.count(self._pool.effort(), self._pool.server).hashes_total
        for _ in range(_STEADY_TRIES):
            if self._plan.convert == "json":
                self._until_steady(lambda: self._converted(records, result))
            for _ in range(self._plan.passes(self._town)):
                self._until_steady(lambda: self._moved(moved, result))
            if self._plan.convert == "hash":
                self._until_steady(lambda: self._converted(records, result))
            left = self._left(moved, result, hidden)
            if self._stuck.issuperset(hidden.values()):
                break  # Else another run has begun.
        self._pool.count_evictions()
        return result(left)

    def _until_steady(self, attempt: Callable[[], bool]) -> None:
        """Repeat an attempt until it returns True."""
        while not self._pool.tried(attempt):
            time.sleep(_STEADY_SECONDS)

    def _converted(self, records: MigrationTally, result: Callable[[], Migration]) -> bool:
        """Convert records where they are, everywhere. Returns True."""

        def convert(worker: Worker) -> None:
            work = ScanPass(worker.session, "migrate", records, self._pool.lock)
            worker.driver.drive(work, "migrating", result)

        records.restart()
        with self._pool.still():
            self._pool.everywhere(convert)
        return True

    def _moved(self, moved: MigrationTally, result: Callable[[], Migration]) -> bool:
        """Take over hidden keys and move keys, everywhere. Returns whether nothing is missing."""

        def number() -> int:
            return sum(moved.keys.values()) + sum(moved.merged.values())

        before = number()
        moved.restart()
        this = Round(self._pool, self._plan, self._town, moved, result)
        try:
            return this.carry_out(self._stuck, self._own)
        except TEMPORARY as error:
            if number() == before:
                raise
            self._pool.got_further()
            self._pool.lost(error)
            return False

    def _preview_tally(self) -> PreviewTally:
        return PreviewTally(self._plan, self._town)

    def _count(self) -> Count:
        found = self._preview_tally()
        counted: CountTally | PreviewTally = found
        looks: dict[str, Tally] = {"preview": found}
        if self._plan.convert != "json":
            # Looking for keys is enough where records need no conversion before they move.
            counted = CountTally(self._plan, self._town)
            looks = {"count": counted, "find": found}
        hidden: dict[bytes, bytes] = {}

        def so_far() -> Count:
            return counted.count(self._pool.effort(), self._pool.server)

        self._read(looks, "counting", so_far, hidden)
        return self._corrected(counted, found.moves, hidden)

    def _left(
        self, moved: MigrationTally, result: Callable[[], Result], hidden: dict[bytes, bytes]
    ) -> Left:
        hidden.clear()
        if self._plan.needs_count:
            verified = CountTally(self._plan, self._town)
            self._read({"verify": verified}, "verifying", result, hidden)
            return moved.verified(verified.count(self._pool.effort(), self._pool.server))
        tally, agents = LeftTally(self._plan), AgentsTally()
        self._read({"left": tally, "agents": agents}, "verifying", result, hidden)
        return replace(tally.result(), namesakes=agents.namesakes)

    def _read(
        self,
        looks: Mapping[str, Tally],
        stage: Stage,
        result: Callable[[], Result],
        hidden: dict[bytes, bytes],
    ) -> None:
        """Drive passes everywhere, again if a slot has moved meanwhile or was about to.

        `looks`: the operations, each with its tally. That for agents is left out unless a town's
        name changes. Raises PassingError if slots do not come to rest: what was found would not be
        all.
        """
        needed = {name for name in looks if name != "agents" or self._plan.from_town is not None}

        def read(worker: Worker) -> None:
            lock = self._pool.lock
            for name in filter(needed.__contains__, looks):
                work = ScanPass(worker.session, name, looks[name], lock)
                worker.driver.drive(work, stage, result)
            in_transit.look(worker, lock)

        def attempt() -> None:
            check_still(self._pool.look())
            for tally in looks.values():
                tally.restart()
            in_transit.clear()
            with self._pool.still():
                self._pool.everywhere(read)

        in_transit = InTransit(self._plan.towns(self._town))
        self._pool.tried(attempt)
        hidden.update((one.key, one.hidden) for one in in_transit.transfers)

    def _corrected(
        self,
        counted: CountTally | PreviewTally,
        moves: Collection[bytes],
        hidden: Mapping[bytes, bytes],
    ) -> Count:
        """A count with what only other servers can tell: which destinations exist."""
        count = self._with_size(counted, hidden)
        taken = self._destinations.taken(moves)
        old_strings = dict(count.old_strings)
        for key, kind in self._destinations.facts(taken, "type").items():
            family, _ = family_and_id(key, self._plan.name_start(self._town))
            if kind == b"string" and old_strings.get(family):
                old_strings[family] -= 1
        return replace(count, conflicts=len(taken), old_strings=old_strings)

    def _with_size(
        self, counted: CountTally | PreviewTally, hidden: Mapping[bytes, bytes]
    ) -> Count:
        count = counted.count(self._pool.effort(), self._pool.server)
        size = self._pool.dbsize or self._pool.session.least_size
        return replace(count, dbsize=size, hidden=dict(hidden))

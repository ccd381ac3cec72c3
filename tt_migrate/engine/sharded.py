"""Counts, previews and migrates a town on a cluster of several shards (docs/cluster.md)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol

from redis import exceptions as redis_errors

from tt_migrate.engine.crew import Crew
from tt_migrate.engine.driver import Manner
from tt_migrate.engine.elsewhere import Elsewhere
from tt_migrate.engine.moving import Moving
from tt_migrate.engine.passes import Pass, SideBySide
from tt_migrate.engine.patience import PassingError
from tt_migrate.engine.record import Record, RecordCallback
from tt_migrate.engine.relocation import TAKE_OVER_MILLISECONDS, Outcome, Relocation
from tt_migrate.engine.replies import MigrateReply
from tt_migrate.engine.session import Session
from tt_migrate.engine.shards import Shards
from tt_migrate.engine.side_by_side import Guarded, Worker
from tt_migrate.engine.slots import check_still
from tt_migrate.engine.tallies import (
    AgentsTally,
    CountTally,
    LeftTally,
    MigrationTally,
    PreviewTally,
)
from tt_migrate.engine.way import Way
from tt_migrate.keyspace import RECORDS, family_and_id
from tt_migrate.plan import Plan
from tt_migrate.results import Count, Left, Migration, Preview, Result, Stage

_STEADY_TRIES, _STEADY_SECONDS = 5, 0.5
_ORPHAN_MILLISECONDS = 24 * 60 * 60 * 1000
_PASSING = (redis_errors.ConnectionError, redis_errors.TimeoutError, redis_errors.ReadOnlyError)
_MOVING = ("freeze", "apply", "finish", "forget", "give_back")


class Restartable(Protocol):
    """A tally."""

    def restart(self) -> None:
        """Forget what a new scan will find again."""


class Sharded:
    """Carries out a plan on the shards of a cluster.

    `manner` and `callback` are a Migrator's. Raises redis.exceptions.RedisError as a Migrator does.
    """

    def __init__(
        self,
        shards: Shards,
        plan: Plan,
        town: str,
        manner: Manner,
        callback: RecordCallback | None,
    ) -> None:
        self._plan = plan
        self._town = town
        self._start = plan.name_start(town)
        self._record = Record(callback, plan, town)
        self._crew = Crew(shards, plan, town, manner, self._record.flush)
        self._crew.scripts = ("find", *plan.operations, *_MOVING)
        self._elsewhere = Elsewhere(self._crew, plan, town)
        # Hidden names of keys that cannot be given back.
        self._stuck: set[bytes] = set()
        # The names of this run in nonces.
        self._own: set[bytes] = set()
        self._finished = 0
        self._passing: PassingError | None = None

    def close(self) -> None:
        """Return the connections."""
        self._crew.close()

    def check(self) -> None:
        """Raise what migrate() would raise before its first write."""
        self._crew.writes = True
        self._crew.tried(self._crew.now)

    def count(self) -> Count:
        """Count what there is to do. Reads only."""
        return self._count("counting")

    def preview(self) -> Preview:
        """List what the plan would change. Reads only."""
        found, agents, crew = self._preview_tally(), AgentsTally(), self._crew
        hidden: dict[bytes, bytes] = {}

        def result() -> Preview:
            preview = found.result(crew.effort(), crew.server, refused=crew.session.refused)
            size = crew.dbsize or crew.session.least_size
            return replace(preview, dbsize=size, hidden=hidden, namesakes=agents.namesakes)

        def passes(session: Session) -> Iterable[Pass]:
            yield session.scan("preview", found)
            if self._plan.from_town is not None:
                yield session.scan("agents", agents)

        self._read(passes, (found, agents), "previewing", result, hidden)
        needs_count = self._plan.needs_count
        count = self._corrected(found, found.moves, hidden) if needs_count else None
        if self._plan.rename:
            self._elsewhere.settle(found)
        found.release()
        return replace(result(), count=count)

    def migrate(self) -> Migration:
        """Carry out the plan, then count what is left to do."""
        self._crew.writes = True
        moved = MigrationTally(self._plan, self._town, self._record)
        records = MigrationTally(self._plan, self._town, self._record)
        before: Count | None = None
        hidden: dict[bytes, bytes] = {}

        def result(left: Left | None = None) -> Migration:
            cost, server = self._crew.effort(), self._crew.server
            migration = moved.result(cost, server, before=before, left=left)
            return replace(
                migration,
                converted=records.converted,
                unconverted=records.unconverted,
                adjusted=records.adjusted,
                hidden=hidden,
                finished=self._finished,
            )

        if self._plan.rename == "reverse":
            before = self._count("counting", result)
        for _ in range(_STEADY_TRIES):
            if self._plan.convert == "json":
                self._until_steady(lambda: self._converted(records, result))
            for _ in range(self._plan.passes(self._town)):
                self._until_steady(lambda: self._round(moved, result))
            if self._plan.convert == "hash":
                self._until_steady(lambda: self._converted(records, result))
            left = self._left(result, hidden)
            if self._stuck.issuperset(hidden.values()):
                break  # Else another run has begun.
        self._crew.count_evictions()
        return result(left)

    def _until_steady(self, attempt: Callable[[], bool]) -> None:
        """Repeat an attempt until it returns True."""
        while not self._crew.tried(attempt):
            time.sleep(_STEADY_SECONDS)

    def _converted(self, records: MigrationTally, result: Callable[[], Migration]) -> bool:
        """Convert records where they are, everywhere. Returns True."""

        def convert(worker: Worker) -> None:
            work = worker.session.scan("migrate", records)
            worker.driver.drive(Guarded(work, self._crew.lock), "migrating", result)

        records.restart()
        with self._crew.still():
            self._crew.everywhere(convert)
        return True

    def _round(self, moved: MigrationTally, result: Callable[[], Migration]) -> bool:
        """Take over hidden keys and move keys, everywhere. Returns whether nothing is missing."""

        def number() -> int:
            return sum(moved.keys.values()) + sum(moved.merged.values())

        before = number()
        moved.restart()
        self._passing = None

        def done(outcome: Outcome) -> None:
            with self._crew.lock:
                moved.add(self._reply(outcome))
                self._stuck.update(outcome.stuck)
                self._passing = self._passing or outcome.passing

        try:
            is_over = self._relocated(moved, done, result)
            if self._passing:
                raise self._passing
            return is_over
        except _PASSING as error:
            if number() == before:
                raise
            self._crew.got_further()
            self._crew.lost(error)
            return False

    def _relocated(
        self,
        moved: MigrationTally,
        done: Callable[[Outcome], None],
        result: Callable[[], Migration],
    ) -> bool:
        """One round. Returns whether no other run is at work.

        Raises PassingError if a slot moved meanwhile: keys may have been missed.
        """
        began, slots = self._crew.now(), self._crew.look()
        way = Way(self._plan.towns(self._town))
        self._crew.everywhere(lambda worker: way.look(worker, self._crew.lock))
        waiting = [one for one in way.transfers if one.hidden not in self._stuck]
        old = [one for one in waiting if began - one.frozen_at > TAKE_OVER_MILLISECONDS]
        later: dict[str, list[bytes]] = {}

        def relocation(worker: Worker, *, counts: bool = True) -> Relocation:
            def tell(outcome: Outcome) -> None:
                if not counts:
                    with self._crew.lock:
                        self._finished += len(outcome.renamed) + len(outcome.merged)
                    outcome = Outcome(stuck=outcome.stuck, passing=outcome.passing)
                done(outcome)
                worker.tell_more("migrating", result())

            work = Relocation(worker.courier, self._plan, self._town, tell)
            self._own.add(work.run)
            return work

        def take_over(worker: Worker) -> None:
            mine = [one for one in old if self._crew.shards.name_of(one.hidden) == worker.name]
            back = [
                one
                for one in mine
                if self._plan.destination(self._town, one.key) != one.destination
            ]
            relocation(worker).take_over([one for one in mine if one not in back])
            # Keys that a run with another plan has left on their way.
            relocation(worker, counts=False).take_over(back)

        def move(worker: Worker) -> None:
            found, mover = self._preview_tally(), relocation(worker)
            scan = worker.session.scan("find", found)
            oldest = later.setdefault(worker.name, [])
            worker.driver.drive(Moving(scan, found, mover.move, oldest), "migrating", result)
            with self._crew.lock:
                moved.towns.found.update(found.towns.found)
                moved.ambiguous.update(found.ambiguous)
                self._record.ambiguous(found.ambiguous)

        if old:
            self._crew.everywhere(take_over)
        if self._plan.rename:
            self._crew.everywhere(move)
            # Version 0.1's keys give way to the others, which may be on other servers.
            self._crew.everywhere(
                lambda worker: relocation(worker).move(later.get(worker.name, []))
            )
        check_still(slots, self._crew.look())
        orphans, is_other = way.orphans(began - TAKE_OVER_MILLISECONDS, self._own)
        with self._crew.courier() as courier:
            Relocation(courier, self._plan, self._town, done).remember(
                orphans, _ORPHAN_MILLISECONDS
            )
        return len(waiting) == len(old) and not is_other

    def _preview_tally(self) -> PreviewTally:
        return PreviewTally(self._plan, self._town)

    def _reply(self, outcome: Outcome) -> MigrateReply:
        """An outcome as a reply of migrate.lua."""

        def by_family(keys: Iterable[bytes]) -> list[int]:
            found = Counter(family_and_id(key, self._start)[0] for key in keys)
            return [found[family] for family in self._plan.families]

        return MigrateReply(
            cursor=b"0",
            steps=0,
            elapsed=0,
            dbsize=0,
            families=by_family(outcome.renamed),
            merged=by_family(outcome.merged),
            conflicts=_flat(outcome.conflicts),
            failed=_flat(outcome.failed),
            ambiguous=[],
            postponed=[],
            renamed=outcome.renamed,
            joined=_flat(outcome.merged),
            towns=[],
            converted=[0] * len(RECORDS),
            changed=[],
            unconverted=[],
            adjusted=[],
            kept=0,
            error=b"",
        )

    def _count(self, stage: Stage, result: Callable[[], Result] | None = None) -> Count:
        counted, found = CountTally(self._plan, self._town), self._preview_tally()
        hidden: dict[bytes, bytes] = {}

        def passes(session: Session) -> Iterable[Pass]:
            yield session.scan("count", counted)
            # Looking for keys is enough where records need no conversion before they move.
            yield session.scan("preview" if self._plan.convert == "json" else "find", found)

        def so_far() -> Count:
            return counted.count(self._crew.effort(), self._crew.server)

        self._read(passes, (counted, found), stage, result or so_far, hidden)
        return self._corrected(counted, found.moves, hidden)

    def _left(self, result: Callable[[], Result], hidden: dict[bytes, bytes]) -> Left:
        hidden.clear()
        if self._plan.needs_count:
            count = self._count("verifying", result)
            hidden.update(count.hidden)
            return Left(count.keys, count.strings, count)
        tally, agents = LeftTally(self._plan), AgentsTally()

        def passes(session: Session) -> Iterable[Pass]:
            yield session.scan("left", tally)
            if self._plan.from_town is not None:
                yield session.scan("agents", agents)

        self._read(passes, (tally, agents), "verifying", result, hidden)
        return replace(tally.result(), namesakes=agents.namesakes)

    def _read(
        self,
        passes: Callable[[Session], Iterable[Pass]],
        tallies: Sequence[Restartable],
        stage: Stage,
        result: Callable[[], Result],
        hidden: dict[bytes, bytes],
    ) -> None:
        """Drive passes everywhere, again if a slot has moved meanwhile or was about to.

        Raises PassingError if slots do not come to rest: what was found would not be all.
        """

        def read(worker: Worker) -> None:
            work = [Guarded(one, self._crew.lock) for one in passes(worker.session)]
            worker.driver.drive(SideBySide(work), stage, result)
            way.look(worker, self._crew.lock)

        def attempt() -> None:
            check_still(self._crew.look())
            for tally in tallies:
                tally.restart()
            way.clear()
            with self._crew.still():
                self._crew.everywhere(read)

        way = Way(self._plan.towns(self._town))
        self._crew.tried(attempt)
        hidden.update((one.key, one.hidden) for one in way.transfers)

    def _corrected(
        self,
        counted: CountTally | PreviewTally,
        moves: Collection[bytes],
        hidden: Mapping[bytes, bytes],
    ) -> Count:
        """A count with what only other servers can tell: which destinations exist."""
        count = counted.count(self._crew.effort(), self._crew.server)
        taken = self._elsewhere.taken(moves)
        old_strings = dict(count.old_strings)
        for key, kind in self._elsewhere.facts(taken, "type").items():
            family, _ = family_and_id(key, self._start)
            if kind == b"string" and old_strings.get(family):
                old_strings[family] -= 1
        return replace(
            count,
            conflicts=len(taken),
            old_strings=old_strings,
            dbsize=self._crew.dbsize or self._crew.session.least_size,
            hidden=dict(hidden),
        )


def _flat(pairs: Mapping[bytes, str]) -> list[bytes]:
    texts = ((key, text.encode("utf-8", "surrogateescape")) for key, text in pairs.items())
    return [*chain.from_iterable(texts)]

"""Counts, previews and migrates: carries out a plan on a town's Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from redis import Redis
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from tt_migrate.engine.comparison import Comparison
from tt_migrate.engine.conversion import Conversion, ConversionPreview
from tt_migrate.engine.driver import Driver, Manner, ProgressCallback, Shield
from tt_migrate.engine.pacing import pace_for
from tt_migrate.engine.passes import Pass, SideBySide
from tt_migrate.engine.patience import PATIENCE, patiently
from tt_migrate.engine.permissions import Refusals
from tt_migrate.engine.record import Record, RecordCallback
from tt_migrate.engine.session import Session, held_connection
from tt_migrate.engine.tallies import (
    ConversionPreviewTally,
    ConversionTally,
    CountTally,
    LeftTally,
    MigrationTally,
    PreviewTally,
)
from tt_migrate.plan import RENAME, Plan
from tt_migrate.results import Count, Left, Migration, Preview, Progress, Result, Stage


@dataclass(frozen=True)
class Migrator:
    """Upgrades the keys of one town in one database.

    `client`: any redis.Redis of redis-py, also from a Sentinel, with or without decoding.
    `town`: the town's name, not empty.
    `plan`: what to do: RENAME, HASH, UPGRADE or REVERSE.
    `max_pause_ms`: about how long one batch may hold the server, in milliseconds.
    `nice`: the wait after each batch, as a multiple of the time that the batch held the server.
    `progress`: called after each batch. An exception from it ends the run between two batches.
    `record`: called by migrate() after each batch that changed or left keys, with a list of Change.
    Their names cross the network then. An exception from it ends the run, as for `progress`.
    `patience`: how to retry when a connection is lost after the first batch, or when the server is
    in a temporary state (BUSY). If another server process answers then, the pass starts over.
    `shield`: returns a context manager. It is entered around each call to the server, the reading
    of the reply, and `progress`, for a caller that must not be interrupted there, for example by a
    signal.

    Every operation raises redis.exceptions.RedisError if the server cannot be reached or refuses.
    The constructor raises TypeError for another kind of client. It raises ValueError for an empty
    town, a `max_pause_ms` of 0 or less or above 60000, or a `nice` outside 0 to 1000.
    """

    client: Redis
    town: str
    plan: Plan = RENAME
    max_pause_ms: float = 5.0
    nice: float = 0.0
    progress: ProgressCallback | None = None
    record: RecordCallback | None = None
    patience: Retry = PATIENCE
    shield: Shield = nullcontext
    _refusals: Refusals = field(default_factory=Refusals, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.client, Redis):
            raise TypeError(
                "client is no redis.Redis of redis-py (asyncio and cluster will not do)"
            )
        if not self.town:
            raise ValueError("the town's name is empty")
        if not 0 <= self.nice <= 1000:
            raise ValueError("nice is not between 0 and 1000")
        if not 0 < self.max_pause_ms <= 60_000:
            raise ValueError("max_pause_ms is not between 0 and 60000")

    def count(self) -> Count:
        """Count what there is to do. Reads only."""
        with self._driver() as driver:
            return self._count(driver, "counting")

    def with_plan(self, plan: Plan) -> Migrator:
        """A Migrator with another plan, and with what this one knows of the server."""
        other = replace(self, plan=plan)
        object.__setattr__(other, "_refusals", self._refusals)
        return other

    def check(self) -> None:
        """Raise what migrate() would raise before its first write. Reads only.

        Raises redis.exceptions.ReadOnlyError for a replica, NoPermissionError if the user may not
        run a command that the plan can need, ResponseError if the server lacks such a command.
        """
        with self._driver(writes=True):
            pass

    def preview(self) -> Preview:
        """List what the plan would change. Reads only."""
        with self._driver() as driver:
            session = driver.session
            start = self.plan.name_start(self.town)
            found, records = PreviewTally(start), ConversionPreviewTally()

            def result(count: Count | None = None) -> Preview:
                return Preview(
                    plan=self.plan,
                    town=self.town,
                    moves=found.moves,
                    merges=found.merges,
                    conflicts=found.conflicts,
                    failed=found.failed,
                    ambiguous=found.ambiguous,
                    conversions=records.conversions,
                    unconverted=records.unconverted,
                    towns=count.towns if count else found.towns,
                    dbsize=count.dbsize if count else found.dbsize,
                    count=count,
                    effort=driver.effort(),
                    refused=session.refused,
                    server=session.server,
                )

            passes: list[Pass] = []
            counted = CountTally(self.plan, self.town)
            if self.plan.rename:
                passes.append(session.scan("preview", found))
            if self.plan.convert:
                with_old = self.plan.rename is not None
                passes.append(ConversionPreview(session, records, with_old=with_old))
            if self.plan.needs_count:
                passes.append(self._count_pass(driver, counted))
            driver.drive(SideBySide(passes), "previewing", result)
            if self.plan.merge:
                self._compare(driver, "previewing", found.conflicts, result)
            if self.plan.needs_count:
                return result(counted.result(driver.effort(), session.server))
            return result()

    def migrate(self) -> Migration:
        """Carry out the plan, then count what is left to do.

        Overwrites nothing: a key whose destination exists stays and is listed in `conflicts`,
        unless the plan merges the two. If an exception ends the run, what was done stays done, the
        last Progress reports it, and another run does the rest.
        """
        # All scripts are sent before the first write, so that a refusal comes before it.
        record = Record(self.record, self.plan, self.town)
        operations = self.plan.operations
        with self._driver(operations, writes=True, flush=record.flush) as driver:
            session = driver.session
            moved = MigrationTally(self.plan.name_start(self.town), record)
            records = ConversionTally()
            before: Count | None = None

            def result(left: Left | None = None) -> Migration:
                return Migration(
                    plan=self.plan,
                    town=self.town,
                    keys=moved.keys,
                    merged=moved.merged,
                    converted=records.converted,
                    conflicts=moved.conflicts,
                    failed=moved.failed,
                    ambiguous=moved.ambiguous,
                    unconverted=records.unconverted,
                    towns=left.count.towns if left and left.count else moved.towns,
                    before=before,
                    left=left,
                    effort=driver.effort(),
                    server=session.server,
                )

            if self.plan.rename == "reverse":
                before = self._count(driver, "counting", result)
            while True:
                if self.plan.rename:
                    driver.drive(session.scan("migrate", moved), "migrating", result)
                if self.plan.merge:
                    self._compare(driver, "migrating", moved.conflicts, result)
                if self.plan.convert:
                    driver.drive(Conversion(session, records, record), "converting", result)
                left = self._left(driver, result)
                if not driver.has_moved():
                    break
                moved.restart()
                records.restart()
            driver.count_evictions()
            return result(left)

    def _compare(
        self,
        driver: Driver,
        stage: Stage,
        conflicts: dict[bytes, str],
        so_far: Callable[[], Result],
    ) -> None:
        comparison = Comparison(driver.session, self.plan, conflicts)
        driver.drive(comparison, stage, so_far)
        conflicts.update(comparison.reasons)

    def _left(self, driver: Driver, so_far: Callable[[], Result]) -> Left:
        if self.plan.needs_count:
            count = self._count(driver, "verifying", so_far)
            return Left(count.keys, count.strings, count)
        tally = LeftTally()
        driver.drive(driver.session.scan("left", tally), "verifying", so_far)
        return tally.result()

    def _count(
        self, driver: Driver, stage: Stage, so_far: Callable[[], Result] | None = None
    ) -> Count:
        tally = CountTally(self.plan, self.town)

        def result() -> Count:
            return tally.result(driver.effort(), driver.session.server)

        driver.drive(self._count_pass(driver, tally), stage, so_far or result)
        return result()

    def _count_pass(self, driver: Driver, tally: CountTally) -> Pass:
        if self.plan.convert and b"TYPE" in driver.session.denied.split():
            raise NoPermissionError("NOPERM the user has no permissions to run TYPE")
        return driver.session.scan("count", tally)

    @contextmanager
    def _driver(
        self,
        operations: Sequence[str] = (),
        *,
        writes: bool = False,
        flush: Callable[[], object] = lambda: None,
    ) -> Iterator[Driver]:
        def tell(progress: Progress) -> None:
            if self.progress:
                self.progress(progress)
            flush()

        pace = pace_for(self.max_pause_ms, self.nice)
        manner = Manner(pace, tell, self.patience, self.shield)
        started = time.monotonic()

        with ExitStack() as held:

            def begin() -> Session:
                client = held.enter_context(held_connection(self.client))
                return Session(
                    client, self.plan, self.town, self._refusals, operations, writes=writes
                )

            session = patiently(self.patience, begin, lambda _: held.close(), begun=False)
            yield Driver(session, manner, started)

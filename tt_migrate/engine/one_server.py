"""Counts, previews and migrates a town on one server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from redis import Redis
from redis.exceptions import NoPermissionError

from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.retry import retried
from tt_migrate.engine.calls.server import databases_of
from tt_migrate.engine.calls.session import Session, held_connection
from tt_migrate.engine.passes.changes import Changes
from tt_migrate.engine.passes.driver import Driver, RunOptions
from tt_migrate.engine.passes.scan import ScanPass
from tt_migrate.engine.passes.tallies import (
    AgentsTally,
    CountTally,
    LeftTally,
    MigrationTally,
    PreviewTally,
)
from tt_migrate.plan import Plan
from tt_migrate.results import Count, Left, Migration, Preview, Progress, Result, Stage

_Result = TypeVar("_Result", Count, Preview, Migration)


class OneServer:
    """Carries out a plan on one server: all keys of the town are there.

    All operations share one session. `refusals`: what is known of the server. Raises
    redis.exceptions.RedisError as a Migrator does.
    """

    def __init__(
        self,
        client: Redis,
        plan: Plan,
        town: str,
        options: RunOptions,
        refusals: Refusals,
    ) -> None:
        self._client = client
        self._plan = plan
        self._town = town
        self._options = options
        self._refusals = refusals
        self._session: Session | None = None
        self._held = ExitStack()

    def close(self) -> None:
        """Return the connection."""
        self._held.close()

    def count(self, *, conflicts: bool = True) -> Count:
        """Count what there is to do. Reads only. `conflicts`: as in Migrator.count()."""
        with self._driver() as driver:
            operation = "count" if conflicts else "check"
            look = partial(self._count, driver, "counting", operation=operation)
            return self._with_databases(driver, driver.while_still(look))

    def check(self) -> None:
        """Raise what migrate() would raise before its first write. Reads only.

        Raises redis.exceptions.ReadOnlyError for a replica, NoPermissionError if the user may not
        run a command that the plan can need, ResponseError if the server lacks such a command.
        """
        with self._driver(looks_again=True):
            pass

    def preview(self) -> Preview:
        """List what the plan would change. Reads only."""
        with self._driver() as driver:
            preview = driver.while_still(lambda: self._previewed(driver))
            return self._with_databases(driver, preview)

    def _previewed(self, driver: Driver) -> Preview:
        session = driver.session
        found, agents = PreviewTally(self._plan, self._town), AgentsTally()

        def result() -> Preview:
            preview = found.result(driver.effort(), session.server, refused=session.refused)
            size = preview.dbsize or session.least_size
            return replace(preview, dbsize=size, namesakes=agents.namesakes)

        driver.drive(ScanPass(session, "preview", found), "previewing", result)
        if self._plan.from_town is not None:
            driver.drive(ScanPass(session, "agents", agents), "previewing", result)
        found.release()
        count = found.count(driver.effort(), session.server) if self._plan.needs_count else None
        return replace(result(), count=count)

    def migrate(self) -> Migration:
        """Carry out the plan, then count what is left to do.

        Overwrites nothing: a key whose destination exists stays and is listed in `conflicts`,
        unless the plan merges the two. If an exception ends the run, what was done stays done, the
        last Progress reports it, and another run does the rest.
        """
        changes = Changes(self._options.record, self._plan, self._town)
        with self._driver(changes.flush, looks_again=True) as driver:
            session = driver.session
            driver.prepare(self._plan.operations)
            moved = MigrationTally(self._plan, self._town, changes)
            hashes = 0

            def result(left: Left | None = None) -> Migration:
                cost, server = driver.effort(), session.server
                return moved.result(cost, server, hashes_before=hashes, left=left)

            if self._plan.warns_of_hashes:
                hashes = self._count(driver, "counting", result, "hashes").hashes_total
            while True:
                found: Left | None = None
                for _ in range(self._plan.passes(self._town)):
                    found = self._migrated(driver, moved, result)
                left = driver.while_still(partial(self._left, driver, moved, result, found))
                if not driver.has_moved():
                    break
                moved.restart()
            driver.count_evictions()
            return self._with_databases(driver, result(left))

    def _with_databases(self, driver: Driver, result: _Result) -> _Result:
        """A result for a town that has no keys here, with the databases that have some.

        Without the permission for INFO, which shows as an empty run_id, they are not asked for. A
        cluster has one database.
        """
        session = driver.session
        if not result.is_absent or not session.process.run_id or session.server.in_cluster:
            return result
        with self._options.shield():
            return replace(result, databases=databases_of(session.client, self._refusals))

    def _migrated(
        self, driver: Driver, moved: MigrationTally, so_far: Callable[[], Result]
    ) -> Left | None:
        """Make one pass over all keys. If it has changed nothing, returns what it has left.

        Such a pass has seen what a final pass would see: every key that was there all the time. It
        has not if a call may have changed keys unnoticed, or a slot of the cluster has moved, or if
        the user may not run TYPE, which a final pass does without.
        """
        lost = driver.effort().lost_replies
        can_count = _may_run_type(driver)
        work = ScanPass(driver.session, "migrate", moved)
        moved.restart()
        is_still = driver.is_still(lambda: driver.drive(work, "migrating", so_far))
        is_known = can_count and is_still and driver.effort().lost_replies == lost
        if moved.has_changed or not is_known or not self._plan.rename:
            return None
        return moved.left(driver.effort(), driver.session.server)

    def _left(
        self,
        driver: Driver,
        moved: MigrationTally,
        so_far: Callable[[], Result],
        found: Left | None,
    ) -> Left:
        """What is left to do. `found`: what the last pass has left, if it has changed nothing."""
        if found:
            left = found
        elif self._plan.needs_count:
            left = moved.verified(self._count(driver, "verifying", so_far, "verify"))
        else:
            tally = LeftTally(self._plan)
            driver.drive(ScanPass(driver.session, "left", tally), "verifying", so_far)
            left = tally.result()
        if self._plan.from_town is None:
            return left
        agents = AgentsTally()
        driver.drive(ScanPass(driver.session, "agents", agents), "verifying", so_far)
        return replace(left, namesakes=agents.namesakes)

    def _count(
        self,
        driver: Driver,
        stage: Stage,
        so_far: Callable[[], Result] | None = None,
        operation: str = "count",
    ) -> Count:
        tally = CountTally(self._plan, self._town)

        def result() -> Count:
            found = tally.count(driver.effort(), driver.session.server)
            return replace(found, dbsize=found.dbsize or driver.session.least_size)

        if self._plan.convert and not _may_run_type(driver):
            raise NoPermissionError("NOPERM the user has no permissions to run TYPE")
        driver.drive(ScanPass(driver.session, operation, tally), stage, so_far or result)
        return result()

    @contextmanager
    def _driver(
        self, flush: Callable[[], object] = lambda: None, *, looks_again: bool = False
    ) -> Iterator[Driver]:
        """A driver over the session of the run, which is begun if there is none.

        `flush`: called after each progress. `looks_again`: whether to ask the server again what an
        earlier operation has learned.
        """

        def tell(progress: Progress) -> None:
            if self._options.progress:
                self._options.progress(progress)
            flush()

        options, started = replace(self._options, progress=tell), time.monotonic()
        if self._session:
            driver = Driver(self._session, options, started)
            if looks_again:
                driver.look_again()
        else:
            self._session = retried(
                options.retry, self._begun, lambda _: self._held.close(), begun=False
            )
            driver = Driver(self._session, options, started)
        yield driver

    def _begun(self) -> Session:
        client = self._held.enter_context(held_connection(self._client))
        return Session(client, self._plan, self._town, self._refusals, writes=self._options.writes)


def _may_run_type(driver: Driver) -> bool:
    """Whether the user may run TYPE in a script."""
    return b"TYPE" not in driver.session.denied.split()

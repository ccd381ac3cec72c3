"""Count, preview, migrate: carrying a plan out on a town's Redis. Knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from tt_migrate.converter import Converter
from tt_migrate.differences import named_differences
from tt_migrate.pacing import pace_for
from tt_migrate.plan import RENAME, Plan
from tt_migrate.results import Count, Left, Migration, Preview, Result, Stage
from tt_migrate.server import check_writable
from tt_migrate.session import PATIENCE, ProgressCallback, Session, held_connection
from tt_migrate.tally import (
    ConversionPreviewTally,
    ConversionTally,
    CountTally,
    LeftTally,
    MigrationTally,
    PreviewTally,
)


@dataclass(frozen=True)
class Migrator:
    """Upgrades the keys of one town in one database.

    `client`: any redis.Redis of redis-py (a Sentinel's too), whatever it decodes. `town`: the
    town's name, not empty. `plan`: what is to be done, RENAME, HASH, UPGRADE or REVERSE.
    `max_pause_ms`: how long one batch may hold the server, about, in milliseconds. `nice`: how many
    times as long it then leaves the server alone. `progress`: called after each batch; an exception
    it raises ends the run between two batches. `patience`: how a connection that is lost after the
    first batch is retried; the pass then begins anew. `shield`: entered around each call to the
    server together with the adding up of its reply and `progress`: for a caller who must not be
    disturbed there.

    Every operation raises redis.exceptions.RedisError when the server cannot be reached or refuses.
    The constructor raises TypeError for another kind of client, ValueError for an empty town, a
    pause outside 0 to 60000 ms or a `nice` outside 0 to 1000.
    """

    client: Redis
    town: str
    plan: Plan = RENAME
    max_pause_ms: float = 5.0
    nice: float = 0.0
    progress: ProgressCallback | None = None
    patience: Retry = PATIENCE
    shield: Callable[[], AbstractContextManager[object]] = nullcontext

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
        with self._session("count") as session:
            return self._count(session, "counting")

    def preview(self) -> Preview:
        """List what carrying the plan out would do. Reads only."""
        with self._session("preview") as session:
            found, records = PreviewTally(), ConversionPreviewTally()

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
                    count=count,
                    effort=session.effort(),
                )

            if self.plan.rename:
                session.run("previewing", session.scan("preview"), found, result)
            if self.plan.merge:
                found.conflicts.update(named_differences(session, self.plan, found.conflicts))
            if self.plan.convert:
                converter = Converter(session, with_old=self.plan.rename is not None)
                session.run("previewing", converter.preview_batch, records, result)
            if self.plan.needs_count:
                return result(self._count(session, "counting", result))
            return result()

    def migrate(self) -> Migration:
        """Carry the plan out, then count what is left to do.

        Overwrites nothing: a key whose destination exists stays and is listed in `conflicts`, where
        the plan does not merge the two. When an exception ends the run, what was done stays done,
        the last Progress tells of it, and another run does the rest.
        """
        with self._session("migrate", "left") as session:
            check_writable(session.server)
            moved, records = MigrationTally(), ConversionTally()
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
                    before=before,
                    left=left,
                    effort=session.effort(),
                )

            if self.plan.rename == "reverse":
                before = self._count(session, "counting", result)
            if self.plan.rename:
                session.run("migrating", session.scan("migrate"), moved, result)
            if self.plan.merge:
                moved.conflicts.update(named_differences(session, self.plan, moved.conflicts))
            if self.plan.convert:
                converter = Converter(session, with_old=False)
                session.run("converting", converter.batch, records, result)
            return result(self._left(session, result))

    def _left(self, session: Session, so_far: Callable[[], Result]) -> Left:
        if self.plan.needs_count:
            count = self._count(session, "verifying", so_far)
            return Left(count.keys, count.strings, count)
        tally = LeftTally()
        session.run("verifying", session.scan("left"), tally, so_far)
        return tally.result()

    def _count(
        self, session: Session, stage: Stage, so_far: Callable[[], Result] | None = None
    ) -> Count:
        tally = CountTally(self.plan, self.town)

        def result() -> Count:
            return tally.result(session.effort())

        session.run(stage, session.scan("count"), tally, so_far or result)
        if self.plan.convert and tally.untyped:
            raise NoPermissionError("NOPERM TYPE of a record")
        return result()

    @contextmanager
    def _session(self, *operations: str) -> Iterator[Session]:
        pace = pace_for(self.max_pause_ms, self.nice)
        with held_connection(self.client) as held:
            session = Session(
                held, self.plan, self.town, pace, self.progress, self.patience, self.shield
            )
            session.load(*operations)
            yield session

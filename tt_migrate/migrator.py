"""Count, preview, migrate: the operations on a town's Redis. Knows no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import ReadOnlyError
from redis.retry import Retry

from tt_migrate.results import Count, Migration, Preview
from tt_migrate.session import PATIENCE, ProgressCallback, Session, held_connection
from tt_migrate.tally import CountTally, MigrationTally, PreviewTally


@dataclass(frozen=True)
class Migrator:
    """Renames the old keys of one database for one town.

    `client`: any redis.Redis of redis-py (a Sentinel's too), whatever it decodes. `town`: the
    town's name, not empty. `max_pause_ms`: how long one batch may hold the server, about, in
    milliseconds. `progress`: called after each batch; an exception it raises ends the run between
    two batches. `patience`: how a connection that is lost after the first batch is retried; the
    pass then begins anew.

    Every operation raises redis.exceptions.RedisError when the server cannot be reached or refuses.
    The constructor raises TypeError for another kind of client, ValueError for an empty town or a
    pause outside 0 to 60000 ms.
    """

    client: Redis
    town: str
    max_pause_ms: float = 5.0
    progress: ProgressCallback | None = None
    patience: Retry = PATIENCE

    def __post_init__(self) -> None:
        if not isinstance(self.client, Redis):
            raise TypeError(
                "client is no redis.Redis of redis-py (asyncio and cluster will not do)"
            )
        if not self.town:
            raise ValueError("the town's name is empty")
        if not 0 < self.max_pause_ms <= 60_000:
            raise ValueError("max_pause_ms is not between 0 and 60000")

    def count(self) -> Count:
        """Count the old keys. Reads only."""
        with self._session() as session:
            tally = CountTally(self.town)
            session.run("counting", "count", tally, lambda: tally.result(session.effort()))
            return tally.result(session.effort())

    def preview(self) -> Preview:
        """List what a migration would do. Reads only."""
        with self._session() as session:
            tally = PreviewTally(self.town)
            session.run("previewing", "preview", tally, lambda: tally.result(session.effort()))
            return tally.result(session.effort())

    def migrate(self) -> Migration:
        """Rename the old keys, then count what is left.

        Overwrites nothing: a key whose destination exists stays and is listed in `conflicts`. When
        an exception ends the run, what was done stays done, the last Progress tells of it, and
        another run does the rest.
        """
        with self._session() as session:
            if session.server.role == "replica":
                raise ReadOnlyError("READONLY the server is a replica")
            moved, left = MigrationTally(self.town), CountTally(self.town)
            session.run("migrating", "migrate", moved, lambda: moved.result(session.effort()))
            session.run("verifying", "count", left, lambda: moved.result(session.effort()))
            remaining = left.result(session.effort()).total
            return moved.result(session.effort(), remaining)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with held_connection(self.client) as held:
            yield Session(held, self.town, self.max_pause_ms, self.progress, self.patience)

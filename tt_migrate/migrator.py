"""Counts, previews and migrates: carries out a plan on a town's Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

from redis import Redis
from redis.cluster import RedisCluster
from redis.retry import Retry

from tt_migrate.engine.calls.pacing import MAX_LAG, pace_for
from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.retry import RETRY
from tt_migrate.engine.calls.server import UndeclaredKeysError
from tt_migrate.engine.cluster.sharded import Sharded
from tt_migrate.engine.cluster.shards import Shards
from tt_migrate.engine.one_server import OneServer
from tt_migrate.engine.passes.changes import ChangeCallback
from tt_migrate.engine.passes.driver import ProgressCallback, RunOptions, Shield
from tt_migrate.plan import RENAME, Plan
from tt_migrate.results import Count, Migration, Preview

_R = TypeVar("_R")


@dataclass(frozen=True)
class Migrator:
    """Upgrades the keys of one town in one database.

    `client`: any redis.Redis of redis-py, also from a Sentinel, with or without decoding; for a
    cluster of several shards a redis.RedisCluster.
    `town`: the town's name, not empty.
    `plan`: what to do: RENAME, HASH, UPGRADE, REVERSE, DOWNGRADE, or what from_town() returns.
    `max_pause_ms`: about how long one batch may block the server, in milliseconds.
    `nice`: the wait after each batch, as a multiple of the time that the batch blocked the server.
    `progress`: called after each batch. An exception from it ends the run between two batches.
    `record`: called by migrate() after each batch that changed or left keys, with a list of Change.
    Their names cross the network then. An exception from it ends the run, as for `progress`.
    `retry`: how to retry when a connection is lost after the first batch, or when the server is
    in a temporary state (BUSY). If another server process answers then, the pass starts over.
    `shield`: returns a context manager. It is entered around each call to the server, the reading
    of the reply, and `progress`, for a caller that must not be interrupted there, for example by a
    signal.
    `max_lag`: how many bytes a replica may be behind. A migration waits while one is further
    behind; 0: it never waits.

    Every operation raises redis.exceptions.RedisError if the server cannot be reached or refuses.
    The constructor raises TypeError for another kind of client. It raises ValueError for an empty
    town, a town whose former name is its name, a `max_pause_ms` of 0 or less or above 60000, a
    `nice` outside 0 to 1000, or a negative `max_lag`.
    """

    client: Redis | RedisCluster
    town: str
    plan: Plan = RENAME
    max_pause_ms: float = 5.0
    nice: float = 0.0
    progress: ProgressCallback | None = None
    record: ChangeCallback | None = None
    retry: Retry = RETRY
    shield: Shield = nullcontext
    max_lag: int = MAX_LAG
    _refusals: Refusals = field(default_factory=Refusals, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.client, Redis | RedisCluster):
            raise TypeError(
                "client is no redis.Redis or RedisCluster of redis-py (asyncio will not do)"
            )
        if not self.town:
            raise ValueError("the town's name is empty")
        if self.plan.from_town == self.town:
            raise ValueError("the town's former name is its name")
        if not 0 <= self.nice <= 1000:
            raise ValueError("nice is not between 0 and 1000")
        if not 0 < self.max_pause_ms <= 60_000:
            raise ValueError("max_pause_ms is not between 0 and 60000")
        if self.max_lag < 0:
            raise ValueError("max_lag is negative")

    def count(self, *, conflicts: bool = True) -> Count:
        """Count what there is to do. Reads only.

        `conflicts`: whether to look for each new name. Without that, a count is faster.
        """
        with self.opened(writes=False) as run:
            return run.count(conflicts=conflicts)

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
        with self.opened(writes=True) as run:
            run.check()

    def preview(self) -> Preview:
        """List what the plan would change. Reads only."""
        with self.opened(writes=False) as run:
            return run.preview()

    def migrate(self) -> Migration:
        """Carry out the plan, then count what is left to do.

        Overwrites nothing: a key whose destination exists stays and is listed in `conflicts`,
        unless the plan merges the two. If an exception ends the run, what was done stays done, the
        last Progress reports it, and another run does the rest.
        """
        with self.opened(writes=True) as run:
            return run.migrate()

    @contextmanager
    def opened(self, *, writes: bool) -> Iterator[Run]:
        """Several operations that share a connection and what is known of the server.

        `writes`: whether check() or migrate() may be among them. Then each raises what check()
        raises.
        """
        pace = pace_for(self.max_pause_ms, self.nice, self.max_lag)
        options = RunOptions(pace, self.progress, self.retry, self.shield, self.record, writes)
        run = Run(self.client, self.plan, self.town, options, self._refusals)
        try:
            yield run
        finally:
            run.close()


class Run:
    """Operations of a Migrator, one after the other, over one session."""

    def __init__(
        self,
        client: Redis | RedisCluster,
        plan: Plan,
        town: str,
        options: RunOptions,
        refusals: Refusals,
    ) -> None:
        self._client = client
        self._work = (plan, town, options)
        self._refusals = refusals
        self._engine: OneServer | Sharded | None = None

    def count(self, *, conflicts: bool = True) -> Count:
        """As Migrator.count()."""
        return self._carried_out(lambda engine: engine.count(conflicts=conflicts))

    def check(self) -> None:
        """As Migrator.check()."""
        self._carried_out(lambda engine: engine.check())

    def preview(self) -> Preview:
        """As Migrator.preview()."""
        return self._carried_out(lambda engine: engine.preview())

    def migrate(self) -> Migration:
        """As Migrator.migrate()."""
        return self._carried_out(lambda engine: engine.migrate())

    def close(self) -> None:
        """Return the connections."""
        if self._engine:
            self._engine.close()

    def _carried_out(self, operation: Callable[[OneServer | Sharded], _R]) -> _R:
        self._engine = self._engine or self._first_engine()
        try:
            return operation(self._engine)
        except UndeclaredKeysError:
            if isinstance(self._engine, Sharded):
                raise
            # A service that spreads the keys itself. Nothing has been changed yet.
            self.close()
            self._engine = Sharded(Shards(self._client, declares=True), *self._work)
            return operation(self._engine)

    def _first_engine(self) -> OneServer | Sharded:
        """The engine for the place where the town's keys are: one server, or several."""
        client = self._client
        if isinstance(client, RedisCluster):
            shards = Shards(client)
            if len(shards.names) > 1:
                return Sharded(shards, *self._work)
            client = shards.client(*shards.names)
        return OneServer(client, *self._work, self._refusals)

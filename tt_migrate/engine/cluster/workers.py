"""The connections to all servers of a cluster, and work that is done on all of them at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Lock
from typing import TypeVar

from redis import Redis
from redis import exceptions as redis_errors

from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.retry import (
    TEMPORARY,
    CutOffError,
    PassingError,
    Standstill,
    as_passing,
    retried,
    two_words,
)
from tt_migrate.engine.calls.server import UndeclaredKeysError
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.calls.slots import Look, check_still
from tt_migrate.engine.cluster.declared import DeclaringSession
from tt_migrate.engine.cluster.router import Router
from tt_migrate.engine.cluster.shards import Shards
from tt_migrate.engine.cluster.side_by_side import Worker, side_by_side
from tt_migrate.engine.passes.driver import RunOptions
from tt_migrate.plan import Plan
from tt_migrate.results import Effort, Progress, Server

_R = TypeVar("_R")


class WorkerPool:
    """A worker for each server.

    `flush`: called after each progress. `lock`: workers hold it while they change what they share.

    Raises redis.exceptions.RedisError.
    """

    def __init__(
        self,
        shards: Shards,
        plan: Plan,
        town: str,
        options: RunOptions,
        flush: Callable[[], object],
    ) -> None:
        self.shards = shards
        self.lock = Lock()
        # Sent to each server before the first write.
        self._scripts: tuple[str, ...] = ()
        self._plan = plan
        self._town = town
        self._options = options
        self._full_pace = options.pace
        self._cuts = 0  # since an attempt last worked
        self._flush = flush
        self._started = time.monotonic()
        self._workers: dict[str, Worker] = {}
        self._ended: list[Effort] = []
        self._refusals: dict[str, Refusals] = {}
        self._places: dict[str, Progress] = {}
        self._reconnects = 0
        self._last: Progress | None = None
        self._has_begun = False
        self._standstill = Standstill()

    def close(self) -> None:
        """Return the connections."""
        for name in [*self._workers]:
            self._dismiss(name)

    def begin(self, scripts: tuple[str, ...] = (), *, looks_again: bool = False) -> None:
        """Begin an operation: count anew what it costs.

        `scripts`: those that write. `looks_again`: whether to ask the servers again what an earlier
        operation has learned.
        """
        self._started, self._reconnects, self._scripts = time.monotonic(), 0, scripts
        self._last, self._has_begun = None, False
        self._places.clear()
        self._ended.clear()
        try:
            for worker in self._workers.values():
                with self.shards.errors_of(worker.name):
                    worker.begin(looks_again=looks_again)
                    if scripts:
                        worker.session.prepare(scripts)
        except TEMPORARY:
            # The operation connects to all servers anew.
            self.close()

    def tried(self, attempt: Callable[[], _R]) -> _R:
        """Connect to all servers, and try until it works: they can fail, and slots can move."""
        if not self._has_begun:
            self._begin()
            self._has_begun = True
        return self._tried(attempt)

    def _begin(self) -> None:
        """Connect to all servers. The client's list may be an hour old."""
        known = self.shards.version
        try:
            self._tried(lambda: None)
        except (redis_errors.ConnectionError, redis_errors.TimeoutError):
            with suppress(redis_errors.RedisError):
                self.shards.refresh()
            if self.shards.version == known:
                raise
            self._tried(lambda: None)

    def _tried(self, attempt: Callable[[], _R]) -> _R:
        def one_attempt() -> _R:
            try:
                self._connect()
                return attempt()
            except UndeclaredKeysError:
                if self.shards.declares:
                    raise
                self.close()
                self.shards.declares = True
                return one_attempt()
            except redis_errors.ResponseError as error:
                passing = as_passing(error)
                if passing is error:
                    raise
                raise passing from error

        self.got_further()
        result = retried(self._options.retry, one_attempt, self.lost, begun=self._has_begun)
        self._options, self._cuts = replace(self._options, pace=self._full_pace), 0
        return result

    def got_further(self) -> None:
        """Note that the run has got further, however often servers were lost before."""
        self._standstill = Standstill()

    def lost(self, error: Exception) -> None:
        """Drop all connections, and discover the servers again.

        Replies become smaller if the connection was lost twice in place of one. Raises the error if
        the run has not got further for too long.
        """
        self._standstill.loss(error)
        self._reconnects += not isinstance(error, PassingError)
        self._cuts += isinstance(error, CutOffError)
        if self._cuts > 1 and isinstance(error, CutOffError):
            self._options = replace(self._options, pace=self._options.pace.smaller())
        self.close()
        with suppress(redis_errors.RedisError):
            self.shards.refresh()
        if self._last and self._options.progress:
            self._options.progress(replace(self._last, waiting=two_words(error)))

    def everywhere(self, work: Callable[[Worker], object]) -> None:
        """Do some work on all servers, side by side."""
        self._places.clear()

        def work_there(worker: Worker) -> None:
            with self.shards.errors_of(worker.name):
                work(worker)

        side_by_side([*self._workers.values()], work_there, self._tell, self._note)

    def look(self) -> Look:
        """What all servers say of their slots now."""
        for worker in self._workers.values():
            worker.session.wake()
        clients = {name: worker.client for name, worker in self._workers.items()}
        return self.shards.look(clients)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Raise PassingError in the end if a slot moved meanwhile, or was about to."""
        before = self.look()
        yield
        check_still(before, self.look())

    @contextmanager
    def router(self) -> Iterator[Router]:
        """A router of the main thread."""
        router = Router(self.shards, self._options.pace, self.session.denied)
        try:
            yield router
        finally:
            router.close()
            longest = router.longest / 1000 or None
            lost, reconnects = router.lost_replies, router.reconnects
            self._ended.append(Effort(router.calls, 0, longest, reconnects, lost_replies=lost))

    def now(self) -> int:
        """The least time of all servers, in milliseconds since 1970."""
        return min(worker.router.now(worker.name) for worker in self._workers.values())

    def count_evictions(self) -> None:
        """Ask how many keys the servers have evicted."""
        for worker in self._workers.values():
            worker.driver.count_evictions()

    @property
    def session(self) -> Session:
        """The session with one of the servers."""
        return next(iter(self._workers.values())).session

    @property
    def server(self) -> Server:
        """What one of the servers says of itself, with the number of shards."""
        return replace(self.session.server, shards=len(self.shards.names))

    @property
    def dbsize(self) -> int:
        """The keys on all servers, as the last passes saw them."""
        return sum(place.dbsize for place in self._places.values())

    def effort(self) -> Effort:
        """What the run has cost so far."""
        efforts = [*self._ended, *(worker.effort() for worker in self._workers.values())]
        return Effort(
            batches=sum(effort.batches for effort in efforts),
            seconds=time.monotonic() - self._started,
            max_pause_ms=max((effort.max_pause_ms or 0 for effort in efforts), default=0) or None,
            reconnects=self._reconnects + sum(effort.reconnects for effort in efforts),
            lost_replies=sum(effort.lost_replies for effort in efforts),
            evicted=sum(effort.evicted for effort in efforts),
            replica_wait=max((effort.replica_wait or 0.0 for effort in efforts), default=0.0),
            replica_lag=max((effort.replica_lag for effort in efforts), default=0),
            one_at_a_time=next(filter(None, (effort.one_at_a_time for effort in efforts)), ""),
        )

    def _connect(self) -> None:
        names = self.shards.names
        for name in self._workers.keys() - {*names}:
            self._dismiss(name)
        missing = [name for name in names if name not in self._workers]
        if missing:
            with ThreadPoolExecutor(len(missing)) as threads:
                asked = [threads.submit(self._hire, name) for name in missing]
            for worker in asked:
                worker.result()

    def _hire(self, name: str) -> None:
        if name not in self._refusals:
            self._refusals[name] = Refusals(self.shards.probe(name, self._town))
        refusals = self._refusals[name]

        def begin(client: Redis) -> Session:
            kind = DeclaringSession if self.shards.declares else Session
            return kind(client, self._plan, self._town, refusals, writes=self._options.writes)

        def router(session: Session) -> Router:
            return Router(self.shards, self._options.pace, session.denied)

        client, pace = self.shards.client(name), self._options.pace
        with self.shards.errors_of(name):
            self._workers[name] = Worker(name, client, begin, router, pace)
            if self._scripts:
                self._workers[name].session.prepare(self._scripts)

    def _dismiss(self, name: str) -> None:
        self._ended.append(self._workers[name].effort())
        self._workers.pop(name).close()

    def _tell(self, name: str, progress: Progress) -> None:
        with self._options.shield():
            self._note(name, progress)

    def _note(self, name: str, progress: Progress) -> None:
        self._places[name] = self._last = progress
        scanned = sum(place.scanned for place in self._places.values())
        self._standstill.reached(scanned)
        if self._options.progress:
            self._options.progress(replace(progress, scanned=scanned, dbsize=self.dbsize))
        with self.lock:
            self._flush()

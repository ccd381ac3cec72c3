"""Works on all servers of a cluster side by side, with a thread for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Event, Thread

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.session import Session, held_connection
from tt_migrate.engine.cluster.router import Router
from tt_migrate.engine.passes.driver import Driver, RunOptions
from tt_migrate.results import Effort, Progress, Result, Stage

_NO_RETRY = Retry(NoBackoff(), 0)
_GRACE_SECONDS = 3


class StoppedError(Exception):
    """Something else has ended the run."""


@dataclass(frozen=True)
class Ended:
    """The event that the thread of a server has ended, perhaps with an error."""

    name: str
    error: BaseException | None


Events = SimpleQueue[tuple[str, Progress] | Ended]


class Worker:
    """What the thread of one server works with. Close it after an error."""

    def __init__(
        self,
        name: str,
        client: Redis,
        begin: Callable[[Redis], Session],
        deliver: Callable[[Session], Router],
        pace: Pace,
    ) -> None:
        self.name = name
        self.pace = pace
        self._held, self._routing = ExitStack(), ExitStack()
        self.events: Events = SimpleQueue()
        self.stop = Event()
        self._told: Progress | None = None
        self._deliver = deliver
        try:
            self.client = self._held.enter_context(held_connection(client))
            self.session = begin(self.client)
            self.begin()
        except BaseException:
            self._held.close()
            raise

    def begin(self, *, looks_again: bool = False) -> None:
        """Begin an operation: count anew what it costs. `looks_again`: as for a WorkerPool."""
        self.driver = self._new_driver()
        if looks_again:
            self.driver.look_again()
        self._routing.close()
        self.router = self._deliver(self.session)
        self._routing.callback(self.router.close)

    def _new_driver(self) -> Driver:
        options = RunOptions(self.pace, self.tell, _NO_RETRY)
        return Driver(self.session, options, time.monotonic())

    def tell(self, progress: Progress) -> None:
        """Send a progress to the main thread. Raises StoppedError if the run is to end."""
        self._told = progress
        self.events.put((self.name, progress))
        self.check()

    def tell_more(self, stage: Stage, so_far: Result) -> None:
        """Send the last progress of a stage again, with a newer result."""
        told = self._told
        if told is None or told.stage != stage:
            told = Progress(stage, 0, 0, so_far)
        self.tell(replace(told, so_far=so_far, waiting=""))

    def check(self) -> None:
        """Raise StoppedError if the run is to end."""
        if self.stop.is_set():
            raise StoppedError

    def effort(self) -> Effort:
        """What the work on this server has cost."""
        effort, router = self.driver.effort(), self.router
        pauses = (effort.max_pause_ms or 0, router.longest / 1000)
        return replace(
            effort,
            batches=effort.batches + router.calls,
            max_pause_ms=max(pauses) or None,
            # The pool counts when it connects anew.
            reconnects=router.reconnects,
            lost_replies=effort.lost_replies + router.lost_replies,
        )

    def close(self) -> None:
        """Return the connections."""
        self._routing.close()
        self._held.close()


def side_by_side(
    workers: Sequence[Worker],
    work: Callable[[Worker], object],
    tell: Callable[[str, Progress], object],
    land: Callable[[str, Progress], object],
) -> None:
    """Do some work for each worker, each in its thread. `tell`: receives their progress here.

    Raises the first error of a worker, or what `tell` raises, after all threads have ended their
    batch. `land`: receives what they say meanwhile; its errors are ignored.
    """
    events: Events = SimpleQueue()
    stop = Event()

    def run(worker: Worker) -> None:
        error: BaseException | None = None
        try:
            work(worker)
        except BaseException as raised:
            error = raised
        events.put(Ended(worker.name, error))

    threads = []
    for worker in workers:
        worker.events, worker.stop = events, stop
        threads.append(Thread(target=run, args=(worker,), daemon=True))
    errors: list[BaseException] = []
    try:
        for thread in threads:
            thread.start()
        ended = 0
        while ended < len(threads):
            event = events.get()
            if isinstance(event, Ended):
                ended += 1
                if event.error and not isinstance(event.error, StoppedError):
                    errors.append(event.error)
                    stop.set()
            else:
                tell(*event)
    finally:
        stop.set()
        until = time.monotonic() + _GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        while not events.empty():
            event = events.get()
            if not isinstance(event, Ended):
                with suppress(Exception):
                    land(*event)
    if errors:
        raise errors[0]

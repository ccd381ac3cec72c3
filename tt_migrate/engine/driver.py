"""Drives a pass call by call: sets the pace, retries, and records what the pass costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from redis import exceptions as redis_errors
from redis.retry import Retry

from tt_migrate.engine.pacing import Pace
from tt_migrate.engine.passes import Pass, Taken
from tt_migrate.engine.patience import PATIENCE, PassingError, Standstill, patiently, two_words
from tt_migrate.engine.replies import malformed_as_invalid
from tt_migrate.engine.session import Process, Session
from tt_migrate.results import Effort, Progress, Result, Stage

ProgressCallback = Callable[[Progress], object]
Shield = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Manner:
    """How a run proceeds.

    `pace`: the pace to start with. `progress`, `patience` and `shield` are those of a Migrator.
    """

    pace: Pace
    progress: ProgressCallback | None = None
    patience: Retry = PATIENCE
    shield: Shield = nullcontext


class Driver:
    """Drives passes over one session, one after the other, and counts what they cost.

    `started`: when the run began, by time.monotonic().
    """

    def __init__(self, session: Session, manner: Manner, started: float) -> None:
        self.session = session
        self._manner = manner
        self._pace = manner.pace
        self._started = started
        self._calls = 0
        self._longest = 0
        self._reconnects = 0
        self._evicted = 0
        self._process = session.process

    def effort(self) -> Effort:
        """What the run has cost so far."""
        return Effort(
            batches=self._calls,
            seconds=time.monotonic() - self._started,
            max_pause_ms=self._longest / 1000 if self._longest else None,
            reconnects=self._reconnects,
            evicted=self._evicted,
        )

    def count_evictions(self) -> None:
        """Ask how many keys the server evicted during the run, if it evicts keys."""
        if self._process.evicting:
            drop = self._dropped
            now = patiently(self._manner.patience, self._inspect_again, drop, begun=True)
            before = self._process.evicted if now.run_id == self._process.run_id else 0
            self._evicted = now.evicted - before

    def drive(self, work: Pass, stage: Stage, so_far: Callable[[], Result]) -> None:
        """Drive one pass until it is over. `stage` and `so_far` go into each Progress.

        Raises redis.exceptions.RedisError for an error that patiently() does not retry, or when the
        retries are used up.
        """
        position = _Position(stage, so_far)
        while not work.over:
            held = patiently(
                self._manner.patience,
                lambda: self._attempt(work, position),
                lambda error: self._lost(error, position),
                begun=self._calls > 0,
            )
            if not work.over:
                time.sleep(self._pace.rest(held))

    def _attempt(self, work: Pass, position: _Position) -> float:
        """Make the next call. Returns how many seconds it held the server."""
        self.session.connect()
        if position.is_lost and not self.session.is_same_process():
            self._process = replace(self.session.process, evicted=0)
            position.reached = 0
            work.restart()
        position.is_lost = False
        with self._manner.shield():
            try:
                taken, held = self._one_call(work)
            except redis_errors.ResponseError:
                # A reply can report both what was done and the error that ended the call.
                if self._calls:
                    self._tell(position)
                raise
            # An estimate from COUNT: MATCH hides how many keys a step visited.
            position.advance(taken.steps * self._pace.count or 1, taken.dbsize)
            self._pace = self._pace.after(taken.steps, taken.elapsed)
            self._pace = self._pace.after_values(taken.weight, taken.elapsed)
            waits = self._pace.nice > 0 and not work.over
            self._tell(position, "nice pause" if waits else "")
        return held

    def _one_call(self, work: Pass) -> tuple[Taken, float]:
        """Make a pass's next call. Returns what its reply says and how long it held the server."""
        call = work.next_call(self._pace)
        began = time.monotonic()
        reply = self.session.call(call)
        seconds = time.monotonic() - began
        self._calls += 1
        with malformed_as_invalid():
            taken = work.take(reply)
        # The server's clock may be set during the call. The client's wait is the upper limit.
        elapsed = min(taken.elapsed, int(seconds * 1_000_000))
        self._longest = max(self._longest, elapsed)
        # If there is no clock, the round trip is the best estimate.
        return replace(taken, elapsed=elapsed), elapsed / 1_000_000 or seconds

    def _lost(self, error: Exception, position: _Position) -> None:
        """Note a lost connection or a PassingError. Raises it if the pass stood still too long."""
        position.standstill.loss(error)
        if not isinstance(error, PassingError) and not position.is_lost:
            self._reconnects += 1
        position.is_lost = True
        self._dropped(error)
        self._tell(position, two_words(error))

    def _dropped(self, _: Exception) -> None:
        self.session.drop()

    def _inspect_again(self) -> Process:
        self.session.connect()
        return self.session.inspect()

    def _tell(self, position: _Position, waiting: str = "") -> None:
        if self._manner.progress:
            self._manner.progress(position.progress(waiting))


class _Position:
    """How far a pass has got, in keys, and whether the connection is lost."""

    def __init__(self, stage: Stage, so_far: Callable[[], Result]) -> None:
        self._stage: Stage = stage
        self._so_far = so_far
        self._dbsize = 0
        self.reached = 0
        self.is_lost = False
        self.standstill = Standstill()

    def advance(self, keys: int, dbsize: int | None) -> None:
        """Add keys that were scanned. `dbsize`: keys in the database, None if not asked."""
        self.reached += keys
        self.standstill.reached(self.reached)
        self._dbsize = self._dbsize if dbsize is None else dbsize

    def progress(self, waiting: str) -> Progress:
        """The state of the run, for the caller."""
        scanned = min(self.reached, self._dbsize)
        return Progress(self._stage, scanned, self._dbsize, self._so_far(), waiting)

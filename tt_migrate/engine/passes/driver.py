"""Drives a pass call by call: sets the pace, retries, and records what the pass costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from redis import exceptions as redis_errors
from redis.retry import Retry

from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.retry import (
    RETRY,
    PassingError,
    Standstill,
    closed_as_cut_off,
    retried,
    two_words,
)
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.calls.slots import MovingSlotsError, check_still
from tt_migrate.engine.passes.changes import ChangeCallback
from tt_migrate.engine.passes.in_flight import CallsInFlight, Sent
from tt_migrate.engine.passes.lag import Lag
from tt_migrate.engine.passes.scan import ScanPass
from tt_migrate.results import Effort, Progress, Result, Stage

_R = TypeVar("_R")

_LANDING_SECONDS = 3
_SMALL_REPLIES = 50

ProgressCallback = Callable[[Progress], object]
Shield = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that all its passes share.

    `pace`: the pace to start with. `progress`, `retry`, `shield` and `record` are those of a
    Migrator. `writes`: whether the run changes anything, now or later.
    """

    pace: Pace
    progress: ProgressCallback | None = None
    retry: Retry = RETRY
    shield: Shield = nullcontext
    record: ChangeCallback | None = None
    writes: bool = False


class Driver:
    """Drives passes over one session, one after the other, and counts what they cost.

    `started`: when the run began, by time.monotonic().
    """

    def __init__(self, session: Session, options: RunOptions, started: float) -> None:
        self.session = session
        self._options = options
        self._pace = options.pace
        self._started = started
        self._calls = 0
        self._longest = 0
        self._reconnects = 0
        self._lost_replies = 0
        self._cuts = 0  # losses in a row, each with calls in flight
        # After so many replies, those that follow may be large again.
        self._small = 0
        self._next_small = _SMALL_REPLIES
        self._evicted = 0
        self._process = session.process
        self._is_lost = False  # perhaps another server process answers now
        self._in_flight = CallsInFlight(session.trip)
        self._is_reading = False
        self._why_alone = ""
        self._was_alone = ""
        self._must_load = False
        self._lag = Lag()
        self._last: Progress | None = None

    def effort(self) -> Effort:
        """What the run has cost so far."""
        return Effort(
            batches=self._calls,
            seconds=time.monotonic() - self._started,
            max_pause_ms=self._longest / 1000 if self._longest else None,
            reconnects=self._reconnects,
            lost_replies=self._lost_replies,
            evicted=self._evicted,
            one_at_a_time=self._was_alone or self._why_alone,
            replica_wait=self._lag.waited if self.session.process.run_id else None,
            replica_lag=self._lag.most,
        )

    def count_evictions(self) -> None:
        """Ask how many keys the server evicted during the run, if it evicts keys."""
        if self._process.evicting:
            now = self._asked(self.session.inspect)
            before = self._process.evicted if now.run_id == self._process.run_id else 0
            self._evicted = now.evicted - before

    def while_still(self, look: Callable[[], _R]) -> _R:
        """Look at keys, again if a slot of the cluster has moved meanwhile, or was about to.

        Raises MovingSlotsError if slots do not come to rest: what was found would not be all.
        """

        def attempt() -> _R | Exception:
            try:
                before = self._asked(self.session.look)
                check_still(before)
                found = look()
                check_still(before, self._asked(self.session.look))
            except MovingSlotsError:
                raise
            except redis_errors.RedisError as error:
                return error
            return found

        def moving(error: Exception) -> None:
            if self._last and self._options.progress:
                self._options.progress(replace(self._last, waiting=two_words(error)))

        found = retried(self._options.retry, attempt, moving, begun=True)
        if isinstance(found, Exception):
            raise found
        return found

    def is_still(self, act: Callable[[], object]) -> bool:
        """Carry something out. Returns whether no slot has moved meanwhile, or was about to."""
        before = self._asked(self.session.look)
        act()
        try:
            check_still(before, self._asked(self.session.look))
        except MovingSlotsError:
            return False
        return True

    def has_moved(self) -> bool:
        """Whether the run must be repeated on another server. If so, connects there."""
        if not self._asked(lambda: self.session.has_moved() or self._is_other_process()):
            return False
        self._dropped()
        self._reconnects += 1
        self._asked(self._is_other_process)
        return True

    def look_again(self) -> None:
        """Look at the server and the permissions again, some time after the operation before.

        Evictions count from now on. A server that cannot be reached is an error at once.
        """

        def look() -> None:
            self._connect()
            self._is_other_process()
            self.session.look_again()

        def look_twice() -> None:
            try:
                look()
            except (redis_errors.ConnectionError, redis_errors.TimeoutError):
                # The connection can have died a moment ago.
                self._dropped()
                look()

        retried(self._options.retry, look_twice, self._dropped, begun=False)
        self._process = self.session.process

    def prepare(self, operations: Sequence[str]) -> None:
        """Get ready to write with the scripts of these operations."""
        self._asked(lambda: self.session.prepare(operations))

    def _connect(self) -> None:
        """Connect, anew if the connection was lost or may have died in silence."""
        self._is_lost |= not self._in_flight.calls and self.session.wake()
        self.session.connect()

    def _is_other_process(self) -> bool:
        """Whether another server process answers than before, so that all cursors are void."""
        if not self._is_lost:
            return False
        is_same = self.session.is_same_process()
        self._is_lost = False
        if not is_same:
            self._process = replace(self.session.process, evicted=0)
        return not is_same

    def drive(self, work: ScanPass, stage: Stage, so_far: Callable[[], Result]) -> None:
        """Drive one pass until it is over. `stage` and `so_far` go into each Progress.

        Raises redis.exceptions.RedisError for an error that retried() does not retry, or when the
        retries are used up. Whatever ends the pass, the calls in flight are read and counted first.

        A lost reply is retried from the first call on: what the call did is done, and the session
        has shown that the server works.
        """
        position = _Position(stage, so_far)
        try:
            while not work.over or self._in_flight.calls:
                held = retried(
                    self._options.retry,
                    lambda: self._attempt(work, position),
                    lambda error: self._lost(error, work, position),
                    begun=True,
                )
                if not self._in_flight.calls and not work.over:
                    time.sleep(max(self._pace.rest(held), self._lag.rest))
            retried(
                self._options.retry,
                lambda: self._forget(work),
                lambda error: self._lost(error, work, position),
                begun=True,
            )
        except BaseException:
            self._land(work, position)
            raise

    def _attempt(self, work: ScanPass, position: _Position) -> float:
        """Send what may be sent and read a reply. Returns how long it blocked the server."""
        self._connect()
        if self._is_other_process():
            position.reached = 0
            work.restart()
        calls = self._calls
        with self._options.shield():
            try:
                held = self._next_reply(work, position)
            except redis_errors.ResponseError:
                # A reply can report both what was done and the error that ended the call.
                if self._calls:
                    self._tell(position)
                raise
            if self._calls > calls:
                waits = self._pace.nice > 0 and not work.over
                self._tell(position, "nice pause" if waits else "")
        return held

    def _next_reply(self, work: ScanPass, position: _Position) -> float:
        """Send what may be sent, and read a reply. Returns for how many seconds it blocked."""
        flight = self._in_flight
        near = "" if flight.is_worth_it else "a round trip takes less than a millisecond"
        alone = self.session.why_alone(keeps_cursor=work.is_guarded)
        self._why_alone = alone or near or work.why_alone
        self._was_alone = self._was_alone or alone or work.why_alone
        self._pace = replace(self._pace, ahead=not self._why_alone)
        if self._pace.ahead and not self._must_load and not self._lag.rest:
            self._send_ahead(work)
        if flight.calls:
            return self._read(work, position, self.session.receive)
        call = work.next_call(self._pace, alone=True)
        if call is None:
            return 0.0
        self._must_load = False
        flight.calls.append(Sent(call, self._pace, time.monotonic()))
        return self._read(work, position, lambda: self.session.call(call))

    def _send_ahead(self, work: ScanPass) -> None:
        """Send calls when they are due, until a reply has come."""
        flight, guarded = self._in_flight, work.is_guarded
        while flight.has_room(guarded=guarded):
            if flight.calls and self.session.is_readable(flight.wait()):
                return
            call = work.next_call(self._pace, alone=False)
            if call is None:
                return
            flight.sent(call, self._pace, guarded=guarded)
            self.session.send(call)

    def _read(self, work: ScanPass, position: _Position, receive: Callable[[], Any]) -> float:
        """Read the oldest reply. An error is raised after the other replies are read."""
        try:
            return self._read_one(work, position, receive)
        except redis_errors.ResponseError as error:
            while self._in_flight.calls:
                with suppress(redis_errors.ResponseError):
                    self._read_one(work, position, self.session.receive)
            if isinstance(error, redis_errors.NoScriptError):
                self._must_load = True
                return 0.0
            raise

    def _read_one(self, work: ScanPass, position: _Position, receive: Callable[[], Any]) -> float:
        sent = self._in_flight.calls[0]
        self._is_reading = True
        try:
            with closed_as_cut_off():
                reply = receive()
            self.session.heard()
            self._in_flight.calls.popleft()
            self._is_reading = False
            return self._take(work, position, sent, reply)
        except redis_errors.ResponseError:
            if self._is_reading:
                self._in_flight.calls.popleft()
                self._is_reading = False
            work.lost([sent.call])
            raise

    def _take(self, work: ScanPass, position: _Position, sent: Sent, reply: Any) -> float:
        """Take a reply. Returns how many seconds the call blocked the server."""
        seconds = time.monotonic() - sent.at
        self._calls += 1
        self._cuts = 0
        taken = work.take(sent.call, reply)
        self._lag.note(work.behind)
        if self._lag.is_hopeless:
            self._pace = replace(self._pace, max_lag=0)
        if taken is None:
            self._calls -= 1
            if work.behind:
                self._tell(position, "replica behind")
            return 0.0
        # The server's clock may be set during the call. The client's wait is the upper limit.
        elapsed = min(taken.elapsed, int(seconds * 1_000_000))
        self._longest = max(self._longest, elapsed)
        # If there is no clock, the round trip is the best estimate.
        held = elapsed / 1_000_000 or seconds
        # An estimate from COUNT: MATCH hides how many keys a step visited.
        position.advance(taken.keys, taken.dbsize)
        self._small = max(0, self._small - 1)
        if not self._small:
            self._pace = self._pace.as_large_as(self._options.pace)
        # Each call teaches from the pace that it had.
        if taken.steps:
            self._pace = replace(self._pace, count=sent.pace.after(taken.steps, elapsed).count)
        self._in_flight.took(seconds, held, self._pace.rest(held))
        return held

    def _land(self, work: ScanPass, position: _Position) -> None:
        """Read the replies that are still to come, for some seconds, and forget the kept cursor."""
        until = time.monotonic() + _LANDING_SECONDS
        if not self._is_reading:
            with suppress(Exception):
                while self._in_flight.calls and self.session.is_readable(
                    max(0.0, until - time.monotonic())
                ):
                    self._read(work, position, self.session.receive)
                if not self._in_flight.calls:
                    self._forget(work)
        self._lost_replies += self._changing()
        if self._calls or self._lost_replies:
            with suppress(Exception):
                self._tell(position)
        if self._in_flight.calls:
            # Nobody else must read their replies.
            self.session.drop()
        self._in_flight.calls.clear()

    def _forget(self, work: ScanPass) -> None:
        """Make the server forget a cursor that no last batch has removed."""
        call = work.end_call(replace(self._pace, ahead=True))
        if call:
            self.session.call(call)

    def _changing(self) -> int:
        """How many calls in flight may change something."""
        return sum(sent.call.script.changes for sent in self._in_flight.calls)

    def _lost(self, error: Exception, work: ScanPass, position: _Position) -> None:
        """Note a lost connection or a PassingError. Raises it if the pass stood still too long."""
        self._is_reading = False
        calls = [sent.call for sent in self._in_flight.calls]
        self._lost_replies += self._changing()
        self._in_flight.calls.clear()
        work.lost(calls)
        self._ask_for_less(cut=bool(calls))
        position.standstill.loss(error)
        if not isinstance(error, PassingError) and not self._is_lost:
            self._reconnects += 1
        self._dropped(error)
        self._tell(position, two_words(error))

    def _ask_for_less(self, *, cut: bool) -> None:
        """Make replies smaller if the connection was lost twice at the same place.

        `cut`: whether calls were in flight. Larger replies are tried later, each time after twice
        as many small ones: perhaps the network was the cause.
        """
        self._cuts = self._cuts + 1 if cut else 0
        if self._cuts > 1:
            self._small, self._next_small = self._next_small, 2 * self._next_small
            self._pace = self._pace.smaller()

    def _dropped(self, _: Exception | None = None) -> None:
        self._is_lost = True
        self.session.drop()

    def _asked(self, question: Callable[[], _R]) -> _R:
        """Ask the server something, on a new connection if the old one is lost."""

        def ask() -> _R:
            self._connect()
            return question()

        return retried(self._options.retry, ask, self._dropped, begun=True)

    def _tell(self, position: _Position, waiting: str = "") -> None:
        self._last = position.progress(waiting)
        if self._options.progress:
            self._options.progress(self._last)


class _Position:
    """How far a pass has got, in keys."""

    def __init__(self, stage: Stage, so_far: Callable[[], Result]) -> None:
        self._stage: Stage = stage
        self._so_far = so_far
        self._dbsize = 0
        self.reached = 0
        self.standstill = Standstill()

    def advance(self, keys: int, dbsize: int) -> None:
        """Add keys that were scanned. `dbsize`: keys in the database."""
        self.reached += keys
        self.standstill.reached(self.reached)
        self._dbsize = dbsize

    def progress(self, waiting: str) -> Progress:
        """The state of the run, for the caller."""
        scanned = min(self.reached, self._dbsize)
        return Progress(self._stage, scanned, self._dbsize, self._so_far(), waiting)

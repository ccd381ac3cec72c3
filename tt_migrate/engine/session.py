"""One connection, and the loop that drives a pass call by call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from redis import Redis
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.retry import Retry

from tt_migrate.engine.pacing import Pace
from tt_migrate.engine.passes import Pass, ScanPass, Taken
from tt_migrate.engine.patience import PATIENCE, PassingError, Standstill, patiently
from tt_migrate.engine.refusals import Refusals
from tt_migrate.engine.replies import InspectReply, Word, malformed_as_invalid, names, whole
from tt_migrate.engine.scripts import Script, ScriptCaller, script_for
from tt_migrate.engine.server import (
    Server,
    check_data,
    check_writable,
    inspect_server,
    is_restricted,
)
from tt_migrate.engine.tallies import Tally
from tt_migrate.keyspace import town_bytes
from tt_migrate.plan import OPTIONAL_COMMANDS, Plan
from tt_migrate.results import Effort, Progress, Result, Stage

ProgressCallback = Callable[[Progress], object]
Shield = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Manner:
    """How a run goes about it: its pace, its patience, and who is told.

    `progress`, `patience` and `shield` are a Migrator's. `refusals`: what is known of the server.
    """

    pace: Pace
    refusals: Refusals
    progress: ProgressCallback | None = None
    patience: Retry = PATIENCE
    shield: Shield = nullcontext


@dataclass(frozen=True)
class _Process:
    """What `inspect.lua` tells of the server's process."""

    run_id: bytes
    evicted: int
    evicting: bool


class Session:
    """A connection to a server, what is to be done there, and what it has cost so far.

    `client` holds one connection and must not retry by itself: a batch repeated behind the
    session's back, perhaps on a restarted server, would carry a cursor that means nothing there.
    `operations`: scripts to send ahead, of a run that writes. `writes`: whether the run is to
    change anything, now or later.

    Raises redis.exceptions.RedisError when the server cannot be reached or is of no use.
    """

    def __init__(
        self,
        client: Redis,
        plan: Plan,
        town: str,
        manner: Manner,
        *operations: str,
        writes: bool = False,
    ) -> None:
        self._client = client
        self._plan = plan
        self.town = town
        self._manner = manner
        self._pace = manner.pace
        self._refusals = manner.refusals
        self._started = time.monotonic()
        self._calls = 0
        self._longest = 0
        self._reconnects = 0
        self._evicted = 0
        self._writes = writes
        self.server = self._usable_server()
        guards = self.server.may_know_script_flags
        # A try that fails is counted in INFO errorstats.
        self._tries = writes and not guards and is_restricted(client, self._refusals)
        loads = guards or bool(operations)
        self._caller = ScriptCaller(client, self._refusals, guards=guards, loads=loads)
        self._process = self._inspect()
        self._caller.send_ahead([*map(self.script, operations)])
        self._mark()
        self.denied = " ".join(self._refusals.denied).encode()
        if writes:
            self._check_commands()

    @property
    def refused(self) -> tuple[str, ...]:
        """The commands that the plan can need and that the user may not run or the server lacks."""
        refused = (*self._refusals.denied, *self._refusals.missing)
        return tuple(command for command in self._plan.commands if command in refused)

    def effort(self) -> Effort:
        """What the session has cost until now."""
        return Effort(
            batches=self._calls,
            seconds=time.monotonic() - self._started,
            max_pause_ms=self._longest / 1000 if self._longest else None,
            reconnects=self._reconnects,
            evicted=self._evicted,
        )

    def script(self, operation: str) -> Script:
        """An operation's script."""
        return script_for(operation, self._plan)

    def scan(self, operation: str, tally: Tally) -> ScanPass:
        """A pass that is one script."""
        return ScanPass(self.script(operation), town_bytes(self.town), self.denied, tally)

    def count_evictions(self) -> None:
        """Ask how many keys the server has evicted meanwhile, where it evicts any."""
        if self._process.evicting:
            now = patiently(self._manner.patience, self._inspect_again, self._drop, begun=True)
            before = self._process.evicted if now.run_id == self._process.run_id else 0
            self._evicted = now.evicted - before

    def run(self, stage: Stage, work: Pass, so_far: Callable[[], Result]) -> None:
        """Drive one pass until it is over.

        Raises redis.exceptions.RedisError: at once when the session's first call fails, else when
        patience is at an end.
        """
        reached = dbsize = 0
        is_lost = False
        standstill = Standstill()

        def report(waiting: str = "") -> None:
            if self._manner.progress:
                scanned = min(reached, dbsize)
                self._manner.progress(Progress(stage, scanned, dbsize, so_far(), waiting))

        def lost(error: Exception) -> None:
            nonlocal is_lost
            standstill.loss(error)
            if not isinstance(error, PassingError) and not is_lost:
                self._reconnects += 1
            is_lost = True
            self._drop(error)
            report(waiting=f"retrying: {error}")

        def attempt() -> float:
            nonlocal is_lost, reached, dbsize
            # A Sentinel's connection asks for the master here.
            self._connect()
            if is_lost and not self._is_same_process():
                reached = 0
                work.restart()
            is_lost = False
            with self._manner.shield():
                try:
                    taken, held = self._one_call(work)
                except redis_errors.ResponseError:
                    # A reply can tell of what was done and of an error that ended it.
                    if self._calls:
                        report()
                    raise
                # By COUNT: MATCH hides how many keys a step has really seen.
                reached += taken.steps * self._pace.count or 1
                standstill.reached(reached)
                dbsize = dbsize if taken.dbsize is None else taken.dbsize
                self._pace = self._pace.after(taken.steps, taken.elapsed)
                self._pace = self._pace.after_values(taken.weight, taken.elapsed)
                waits = self._pace.nice > 0 and not work.over
                report(f"waiting {self._pace.nice:g} times as long as it works" if waits else "")
            return held

        while not work.over:
            held = patiently(self._manner.patience, attempt, lost, begun=self._calls > 0)
            if not work.over:
                time.sleep(self._pace.rest(held))

    def _one_call(self, work: Pass) -> tuple[Taken, float]:
        """A pass's next call: what its reply says, and how many seconds it held the server."""
        call = work.next_call(self._pace)
        began = time.monotonic()
        reply = self._caller.call(call.script, *call.args)
        seconds = time.monotonic() - began
        self._calls += 1
        with malformed_as_invalid():
            taken = work.take(reply)
            # The server's clock may be set in mid-call. It held no longer than the client waited.
            elapsed = min(taken.elapsed, int(seconds * 1_000_000))
        self._longest = max(self._longest, elapsed)
        # Where the server has no clock, the round trip is the best that is known.
        return replace(taken, elapsed=elapsed), elapsed / 1_000_000 or seconds

    def _inspect_again(self) -> _Process:
        self._connect()
        return self._inspect()

    def _drop(self, _: Exception) -> None:
        if self._client.connection:
            self._client.connection.disconnect()

    def _connect(self) -> None:
        if self._client.connection:
            self._client.connection.connect()

    def _is_same_process(self) -> bool:
        """Whether the process that answers now is the one that did, to which a cursor belongs.

        Raises as the constructor does: the server may be another one, or a replica by now.
        """
        self.server = self._usable_server()
        now = self._inspect()
        same_id = now.run_id == self._process.run_id
        is_same = same_id if now.run_id else self._caller.is_marked()
        if not is_same:
            self._process = replace(now, evicted=0)
            self._mark()
        return is_same

    def _usable_server(self) -> Server:
        server = inspect_server(self._client)
        check_data(server, self._client, self._refusals)
        if self._writes:
            check_writable(server)
        return server

    def _mark(self) -> None:
        if not self._process.run_id:
            self._caller.mark()

    def _inspect(self) -> _Process:
        """Look at the server's process, and at what the user may do there where that is unknown."""
        known = self._refusals
        asked = known.asked and (known.tried or not self._tries)
        process = self._inspect_commands(() if asked else self._commands)
        if asked and process.run_id != known.run_id:
            known.forget()
            process = self._inspect_commands(self._commands)
        known.run_id = process.run_id
        return process

    @property
    def _commands(self) -> tuple[str, ...]:
        return (*self._plan.commands, *OPTIONAL_COMMANDS)

    def _inspect_commands(self, commands: Sequence[str]) -> _Process:
        known = self._refusals
        refused = (*known.denied, *known.missing)
        unknown = sorted({command for command in commands if command not in refused})
        args: tuple[Word, ...] = (
            town_bytes(self.town),
            int(self._tries),
            " ".join(refused),
            *unknown,
        )
        reply = self._caller.call(self.script("inspect"), *args)
        with malformed_as_invalid():
            said = InspectReply(*reply)
            process = _Process(
                names([said.run_id])[0], whole(said.evicted), bool(whole(said.evicting))
            )
            known.denied += tuple(name.decode() for name in names(said.denied))
            known.missing += tuple(name.decode() for name in names(said.missing))
            known.asked, known.tried = True, known.tried or self._tries
        return process

    def _check_commands(self) -> None:
        """Raise for a command that the plan can need: before anything is written."""
        denied = [command for command in self.refused if command in self._refusals.denied]
        if denied:
            raise redis_errors.NoPermissionError(
                f"NOPERM the user has no permissions to run {', '.join(denied)}"
            )
        if self.refused:
            raise redis_errors.ResponseError(f"NOCOMMAND {', '.join(self.refused)}")


@contextmanager
def held_connection(client: Redis) -> Iterator[Redis]:
    """A client on one connection of another client's pool, without retries of its own.

    A client that holds a connection itself (`single_connection_client`) lends that one. The
    connection goes back as it was. Raises redis.exceptions.RedisError when it cannot be opened.
    """
    pool = client.connection_pool
    held = (
        client if client.connection else Redis(connection_pool=pool, single_connection_client=True)
    )
    connection = held.connection
    if connection is None:
        raise redis_errors.ConnectionError("the pool gave no connection")
    retry = connection.retry
    connection.retry = Retry(NoBackoff(), 0)
    try:
        yield held
    finally:
        connection.retry = retry
        if held is not client:
            held.close()

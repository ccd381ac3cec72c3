"""One connection, and the loop that drives a pass over the keyspace batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from tt_migrate.keyspace import town_bytes
from tt_migrate.pacing import Pace
from tt_migrate.plan import Plan
from tt_migrate.results import Effort, Progress, Result, Stage
from tt_migrate.scripts import ScriptCaller, source
from tt_migrate.server import inspect_server
from tt_migrate.tally import Tally

PATIENCE = Retry(
    ExponentialBackoff(cap=2, base=0.1),
    16,
    (
        redis_errors.ConnectionError,
        redis_errors.TimeoutError,
        redis_errors.ReadOnlyError,  # a master that a failover has made a replica
    ),
)
"""How long a lost connection is waited for: 16 tries, 25 seconds besides the time they take."""

_LONGEST_OUTAGE_SECONDS = 30

ProgressCallback = Callable[[Progress], object]

Batch = Callable[[bytes, Pace], list[Any]]
"""One batch of a pass from a cursor on. Its reply begins as that of every script that scans:
cursor, steps, elapsed, dbsize; what a Tally adds follows."""

_READING = ("count", "preview", "left", "records", "fetch")


class Session:
    """A connection to a server, what is to be done there, and what it has cost so far.

    `client` must not retry by itself: a batch repeated behind the session's back, perhaps on a
    restarted server, would carry a cursor that means nothing there.

    Raises redis.exceptions.RedisError when the server cannot be reached or is of no use.
    """

    def __init__(
        self,
        client: Redis,
        plan: Plan,
        town: str,
        pace: Pace,
        progress: ProgressCallback | None,
        patience: Retry,
        shield: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._client = client
        self._caller = ScriptCaller(client)
        self._plan = plan
        self.town = town
        self._pace = pace
        self._progress = progress
        self._patience = patience
        self._shield = shield
        self._started = time.monotonic()
        self._batches = 0
        self._longest = 0
        self._reconnects = 0
        self.server = inspect_server(client)

    def effort(self) -> Effort:
        """What the session has cost until now."""
        return Effort(
            batches=self._batches,
            seconds=time.monotonic() - self._started,
            max_pause_ms=self._longest / 1000 if self._longest else None,
            reconnects=self._reconnects,
        )

    def load(self, *operations: str) -> None:
        """Send operations' scripts ahead, in one round trip."""
        self._caller.load(*map(self.script, operations))

    def script(self, operation: str) -> Script:
        """An operation's script; one that reads is under the server's guard where that is known."""
        read_only = operation in _READING and self.server.knows_script_flags
        return self._caller.script(source(operation, self._plan, read_only=read_only))

    def call(self, script: Script, *args: bytes | int, keys: Sequence[bytes] = ()) -> list[Any]:
        """Call a script. Raises redis.exceptions.RedisError."""
        if self._client.connection:
            # Connects when it is not: a Sentinel's connection asks for the master only here.
            self._client.connection.connect()
        reply = self._caller.call(script, keys, args)
        self._batches += 1
        return reply

    def paused(self, elapsed: int) -> None:
        """Take note that a call held the server, for so many microseconds."""
        self._longest = max(self._longest, elapsed)

    def scan(self, operation: str, *more: int) -> Batch:
        """The batch of a pass that is one script; `more` follows what every such script takes."""
        script = self.script(operation)
        town = town_bytes(self.town)

        def batch(cursor: bytes, pace: Pace) -> list[Any]:
            return self.call(script, town, cursor, pace.count, pace.budget, *more)

        return batch

    def run(self, stage: Stage, batch: Batch, tally: Tally, so_far: Callable[[], Result]) -> None:
        """One pass, from cursor 0 until the cursor is 0 again.

        Raises redis.exceptions.RedisError: at once when the session's first batch fails, else when
        patience is at an end.
        """
        cursor = b"0"
        scanned = dbsize = 0
        lost_at: float | None = None

        def next_batch() -> tuple[bool, float]:
            nonlocal cursor, scanned, dbsize, lost_at
            with self._shield():
                began = time.monotonic()
                cursor, steps, elapsed, dbsize, *fields = batch(cursor, self._pace)
                # Where the server has no clock, the round trip is the best that is known.
                held = elapsed / 1_000_000 or time.monotonic() - began
                lost_at = None
                tally.add(fields)
                # By COUNT: MATCH hides how many keys a step has really seen.
                scanned = min(scanned + steps * self._pace.count, dbsize)
                self.paused(elapsed)
                self._pace = self._pace.after(steps, elapsed)
                is_over = cursor == b"0"
                waits = self._pace.nice > 0 and not is_over
                waiting = f"waiting {self._pace.nice:g} times as long as it works" if waits else ""
                self._report(Progress(stage, scanned, dbsize, so_far(), waiting))
            return is_over, held

        def lost(error: Exception) -> None:
            # Another process may answer next: SCAN's cursors are worthless there.
            nonlocal cursor, scanned, lost_at
            cursor, scanned = b"0", 0
            tally.restart()
            if lost_at is None:
                lost_at = time.monotonic()
                self._reconnects += 1
            elif time.monotonic() - lost_at > _LONGEST_OUTAGE_SECONDS:
                # A server that hangs takes each try's whole timeout.
                raise error
            if self._client.connection:
                self._client.connection.disconnect()
            self._report(Progress(stage, 0, dbsize, so_far(), waiting=f"retrying: {error}"))

        while True:
            retried = self._batches > 0
            is_over, held = (
                self._patience.call_with_retry(next_batch, lost) if retried else next_batch()
            )
            if is_over:
                return
            time.sleep(self._pace.rest(held))

    def _report(self, progress: Progress) -> None:
        if self._progress:
            self._progress(progress)


@contextmanager
def held_connection(client: Redis) -> Iterator[Redis]:
    """A client on one connection of another client's pool, without retries of its own.

    The connection goes back to the pool as it was. Raises redis.exceptions.RedisError when it
    cannot be opened.
    """
    held = Redis(connection_pool=client.connection_pool, single_connection_client=True)
    connection = held.connection
    if connection is None:
        raise redis_errors.ConnectionError("the pool gave no connection")
    retry = connection.retry
    connection.retry = Retry(NoBackoff(), 0)
    try:
        yield held
    finally:
        connection.retry = retry
        held.close()

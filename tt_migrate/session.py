"""One connection, and the loop that drives a script over the keyspace batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from tt_migrate.keyspace import town_bytes
from tt_migrate.pacing import pace_for
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


class Session:
    """A connection to a server, a town, and what the batches have cost so far.

    `client` must not retry by itself: a batch repeated behind the session's back, perhaps on a
    restarted server, would carry a cursor that means nothing there.

    Raises redis.exceptions.RedisError when the server cannot be reached or is of no use.
    """

    def __init__(
        self,
        client: Redis,
        town: str,
        max_pause_ms: float,
        progress: ProgressCallback | None,
        patience: Retry,
    ) -> None:
        self._client = client
        self._caller = ScriptCaller(client)
        self._town = town_bytes(town)
        self._pace = pace_for(max_pause_ms)
        self._progress = progress
        self._patience = patience
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

    def run(self, stage: Stage, operation: str, tally: Tally, so_far: Callable[[], Result]) -> None:
        """One pass of an operation's script, from cursor 0 until the cursor is 0 again.

        Raises redis.exceptions.RedisError: at once when the very first batch fails, else when
        patience is at an end.
        """
        read_only = operation != "migrate" and self.server.knows_script_flags
        script = self._caller.script(source(operation, read_only=read_only))
        cursor = b"0"
        scanned = dbsize = 0
        lost_at: float | None = None

        def batch() -> list[Any]:
            if self._client.connection:
                # Connects when it is not: a Sentinel's connection asks for the master only here.
                self._client.connection.connect()
            return self._caller.call(
                script, self._town, cursor, self._pace.count, self._pace.budget
            )

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
            reply = self._patience.call_with_retry(batch, lost) if self._batches else batch()
            lost_at = None
            cursor, steps, elapsed, dbsize, *fields = reply
            tally.add(fields)
            # By COUNT: MATCH hides how many keys a step has really seen.
            scanned = min(scanned + steps * self._pace.count, dbsize)
            self._batches += 1
            self._longest = max(self._longest, elapsed)
            self._pace = self._pace.after(steps, elapsed)
            self._report(Progress(stage, scanned, dbsize, so_far()))
            if cursor == b"0":
                return

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

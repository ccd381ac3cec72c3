"""Temporary server states, connections that break repeatedly, and clocks that jump."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest
from redis import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.busy import busy
from tests.midway import cut_connections, fill, quick_retry
from tests.servers import Server, StartServer
from tests.test_recovery import at_batch
from tests.users import user_with, user_without
from tt_migrate import UPGRADE, Migrator, Progress
from tt_migrate.engine.calls.retry import (
    LONGEST_STANDSTILL_SECONDS,
    PassingError,
    Standstill,
)
from tt_migrate.engine.calls.scripts import Call
from tt_migrate.engine.calls.server import UnsyncedReplicaError
from tt_migrate.engine.passes.scan import ScanPass, Taken

KEYS, PAUSE_MS = 2000, 0.5
"""A pass over so many keys takes several batches."""
MINIMAL = ("script|load", "evalsha", "scan", "exists", "renamenx")


@pytest.mark.every_kind
def test_a_script_of_somebody_else_is_waited_for_before_a_run_begins(server: Server) -> None:
    redis = server.client(db=3)
    redis.mset({"tt:agent:1": 1, "tt:task:2": 2})
    redis.connection_pool.disconnect()
    for act, total in (("count", 2), ("preview", 2), ("migrate", 2)):
        with busy(server) as end:
            retry = quick_retry(at=3, act=end)
            assert getattr(Migrator(redis, "town", retry=retry), act)().total == total


def test_a_script_of_somebody_else_is_waited_for_in_mid_run(server: Server) -> None:
    redis = server.client()
    fill(redis, KEYS)
    waits: list[str] = []
    ends: list[Callable[[], None]] = []
    with ExitStack() as stack:

        def progress(now: Progress) -> None:
            if not ends:
                ends.append(stack.enter_context(busy(server)))
            elif now.waiting:
                waits.append(now.waiting)
                if len(waits) == 3:
                    ends[0]()

        retry = quick_retry()
        result = Migrator(
            *(redis, "town"), max_pause_ms=PAUSE_MS, progress=progress, retry=retry
        ).migrate()
    assert len(waits) >= 3
    assert waits[0] == "server busy"
    assert (result.total, result.remaining) == (KEYS, 0)
    assert result.effort.reconnects == 0, "no reply was lost"


def test_a_script_that_never_ends_is_waited_for_no_longer_than_patience(newest: Server) -> None:
    redis = newest.client()
    redis.ping()
    retry = quick_retry(5)
    with busy(newest), pytest.raises(PassingError, match="BUSY"):
        Migrator(redis, "town", retry=retry).migrate()


@pytest.mark.every_kind
def test_a_replica_whose_master_is_away_is_waited_for_in_mid_run(
    server: Server,
) -> None:
    redis, other = server.client(), server.client()
    fill(redis, KEYS)

    def lose_master() -> None:
        other.execute_command("REPLICAOF", "127.0.0.1", "1")
        other.config_set("replica-serve-stale-data", "no")

    def serve() -> None:
        other.config_set("replica-serve-stale-data", "yes")

    waits: list[str] = []
    losing = at_batch(2, lose_master)

    def progress(now: Progress) -> None:
        losing(now)
        if now.waiting:
            waits.append(now.waiting)

    retry = quick_retry(at=3, act=serve)
    preview = Migrator(
        *(redis, "town"), max_pause_ms=PAUSE_MS, progress=progress, retry=retry
    ).preview()
    assert preview.total == KEYS
    assert len(waits) == 3


@pytest.mark.parametrize("act", ["count", "preview", "migrate"])
def test_a_server_that_comes_back_as_a_replica_without_data_is_no_all_clear(
    own_server: StartServer, act: str
) -> None:
    server = own_server()
    fill(server.client(), KEYS)

    def come_back() -> None:
        server.kill()
        server.args = ("--replicaof", "127.0.0.1", "1")
        server.restart()

    retry = quick_retry(5)
    progress = at_batch(2, come_back)
    with pytest.raises(UnsyncedReplicaError):
        getattr(
            Migrator(
                server.client(), "town", max_pause_ms=PAUSE_MS, progress=progress, retry=retry
            ),
            act,
        )()


def test_nothing_is_written_to_a_server_that_comes_back_as_a_writable_replica(
    own_server: StartServer,
) -> None:
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    fill(server.client(), KEYS)
    left: list[int] = []

    def come_back() -> None:
        left.append(len(server.client().keys("tt:agent:*")))
        server.kill()
        server.args = (*server.args, "--replicaof", "127.0.0.1", "1", "--replica-read-only", "no")
        server.restart()

    retry = quick_retry(5)
    progress = at_batch(2, come_back)
    with pytest.raises(ReadOnlyError):
        Migrator(
            server.client(), "town", max_pause_ms=PAUSE_MS, progress=progress, retry=retry
        ).migrate()
    assert [len(server.client().keys("tt:agent:*"))] == left


@pytest.mark.parametrize("user", ["default", "minimal", "without eval"])
def test_a_scan_goes_on_at_its_cursor_when_every_connection_is_cut(
    server: Server, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    """A proxy that cuts each connection before a scan ends makes a run slow, not endless."""
    admin = server.client()
    fill(admin, 800)
    more = () if user == "without eval" else ("eval",)
    redis = admin if user == "default" else user_with(server, *MINIMAL, *more)
    cutter = server.client()

    def cut(now: Progress) -> None:
        if not now.waiting:
            cut_connections(cutter)

    # On Redis 6.2, only INFO identifies the server process.
    if user != "default" and server.kind.version < (7, 0):
        pytest.skip(f"{server.kind.name}: copies its scripts to other processes")
    restarts: list[ScanPass] = []
    monkeypatch.setattr(ScanPass, "restart", restarts.append)
    result = Migrator(
        *(redis, "town"), max_pause_ms=PAUSE_MS, progress=cut, retry=quick_retry()
    ).migrate()
    assert (result.total, result.remaining) == (800, 0)
    assert result.effort.reconnects >= 3
    assert restarts == []


def test_a_run_that_does_not_get_further_gives_up(
    newest: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the process cannot be identified, each cut restarts the scan, so it never ends."""
    monkeypatch.setattr("tt_migrate.engine.calls.retry.LONGEST_STANDSTILL_SECONDS", 0.5)
    admin = newest.client()
    fill(admin, 10_000)
    redis = user_with(newest, *MINIMAL, "eval")

    def progress(now: Progress) -> None:
        if not now.waiting:
            admin.script_flush()
            cut_connections(admin)

    with pytest.raises(RedisConnectionError):
        Migrator(
            *(redis, "town"), max_pause_ms=0.1, progress=progress, retry=quick_retry()
        ).preview()


def test_a_server_that_hangs_is_given_up_after_a_bounded_time(
    own_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bound, 16 tries would each take the client's reply timeout."""
    monkeypatch.setattr("tt_migrate.engine.calls.retry.LONGEST_STANDSTILL_SECONDS", 0.5)
    server = own_server()
    fill(server.client(), KEYS)
    redis = server.client(socket_timeout=0.1)
    tries: list[float] = []

    def progress(now: Progress) -> None:
        if not tries:
            os.kill(server.pid, signal.SIGSTOP)
        tries.append(time.monotonic())

    retry = quick_retry(100)
    try:
        with pytest.raises((RedisTimeoutError, RedisConnectionError)):
            Migrator(redis, "town", max_pause_ms=PAUSE_MS, progress=progress, retry=retry).migrate()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert tries[-1] - tries[1] < 5
    assert len(tries) >= 3


class Clock:
    """A clock for Standstill that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("tt_migrate.engine.calls.retry.time.monotonic", lambda: self.now)

    def after(self, seconds: float) -> float:
        self.now += seconds
        return self.now


def test_two_failovers_are_survived_however_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failover restarts the scan; the second one comes before the scan has caught up."""
    clock, standstill = Clock(monkeypatch), Standstill()
    standstill.reached(5000)
    for _ in range(5):
        standstill.loss(RedisConnectionError())
        for position in range(0, 4000, 100):
            clock.after(1)
            standstill.reached(position)


def test_a_pass_that_comes_to_the_same_place_again_and_again_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, standstill = Clock(monkeypatch), Standstill()

    def stand_still() -> None:
        for _ in range(50):
            standstill.reached(5000)
            clock.after(1)
            standstill.loss(RedisConnectionError())

    with pytest.raises(RedisConnectionError):
        stand_still()


def test_a_pass_that_is_begun_anew_again_and_again_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for work in (1, 29, 31, 300):
        clock, standstill = Clock(monkeypatch), Standstill()
        standstill.reached(5000)
        losses = 0
        with suppress(RedisConnectionError):
            while losses < 50:
                losses += 1
                standstill.loss(RedisConnectionError())
                for position in (10, 20):
                    clock.after(work / 2)
                    standstill.reached(position)
        assert 1 < losses < 50


def test_a_server_that_hangs_longer_than_a_standstill_may_take_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, standstill = Clock(monkeypatch), Standstill()
    standstill.reached(1)
    clock.after(60)
    standstill.loss(RedisConnectionError())
    clock.after(60)
    with pytest.raises(RedisConnectionError):
        standstill.loss(RedisConnectionError())


def test_the_bound_of_a_standstill_is_the_documented_one() -> None:
    assert LONGEST_STANDSTILL_SECONDS == 30


@pytest.mark.parametrize("elapsed", [3_600_000_000, 0])
def test_a_server_clock_that_is_set_makes_no_long_rest_and_no_long_pause(
    newest: Server, monkeypatch: pytest.MonkeyPatch, elapsed: int
) -> None:
    """On Redis 6.2 and 7.0, scripts measure with TIME, which follows the system clock."""
    redis = newest.client()
    fill(redis, KEYS)
    take = ScanPass.take

    def jump(self: ScanPass, call: Call, reply: list[Any]) -> Taken | None:
        taken = take(self, call, reply)
        return taken and replace(taken, elapsed=elapsed)

    monkeypatch.setattr(ScanPass, "take", jump)
    began = time.monotonic()
    result = Migrator(redis, "town", max_pause_ms=1, nice=1).migrate()
    assert result.total == KEYS
    assert time.monotonic() - began < 20
    assert (result.effort.max_pause_ms or 0) < 10_000


@pytest.mark.every_kind
def test_nice_without_a_clock_waits_by_the_round_trip(server: Server) -> None:
    admin = server.client()
    fill(admin, 1000)
    redis = user_with(server, *MINIMAL)
    waited: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tt_migrate.engine.passes.driver.time.sleep", waited.append)
        result = Migrator(redis, "town", max_pause_ms=1, nice=50).migrate()
    assert result.total == 1000
    has_clock = server.kind.version >= (8, 0)
    assert (result.effort.max_pause_ms is not None) == has_clock
    # A round trip takes at least 20 microseconds.
    assert all(seconds >= 50 * 20e-6 for seconds in waited)


def test_a_client_that_holds_the_only_connection_of_its_pool_will_do(server: Server) -> None:
    server.client().mset({"tt:agent:1": 1, "tt:task:2": 2})
    pool = ConnectionPool(
        connection_class=UnixDomainSocketConnection, path=server.socket, max_connections=1
    )
    with Redis(connection_pool=pool, single_connection_client=True) as redis:
        assert Migrator(redis, "town").preview().total == 2
        assert Migrator(redis, "town").migrate().total == 2
        assert redis.ping()
    with Redis(connection_pool=pool) as redis:
        assert Migrator(redis, "town").count().total == 0


def test_a_comparison_is_retried_and_heard_like_every_pass(server: Server) -> None:
    redis, other = server.client(), server.client()
    record = '{"id":"%d","text":"%s%s"}'
    for n in range(60):
        redis.set(f"tt:task:{n}", record % (n, "a", "x" * 20_000))
        redis.set(f"tt:town:task:{n}", record % (n, "b", "x" * 20_000))
    stages: list[int] = []

    def progress(now: Progress) -> None:
        stages.append(len(stages))
        if now.scanned == now.dbsize and not now.waiting:
            cut_connections(other)

    plan = replace(UPGRADE, merge=True)
    preview = Migrator(
        *(redis, "town", plan), max_pause_ms=1, progress=progress, retry=quick_retry()
    ).preview()
    assert set(preview.conflicts.values()) == {"destination exists and differs in text"}
    assert preview.effort.reconnects >= 1


def test_a_destination_that_may_not_be_read_leaves_the_rest_compared(server: Server) -> None:
    redis = server.client()
    for n in range(3):
        redis.set(f"tt:task:{n}", f'{{"id":"{n}","text":"a"}}')
        redis.set(f"tt:town:task:{n}", f'{{"id":"{n}","text":"b"}}')
    keys = ("~tt:task:*", "~tt:town:task:0", "~tt:town:task:2", "~tt:agent:*", "~tt:town:agent:*")
    some = user_without(server, keys=keys)
    preview = Migrator(some, "town", replace(UPGRADE, merge=True)).preview()
    differs = "destination exists and differs in text"
    assert preview.conflicts == {b"tt:task:0": differs, b"tt:task:2": differs}
    assert list(preview.failed) == [b"tt:task:1"]

"""Replicas that are behind: a migration waits for them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis

from tests.command import tt
from tests.midway import fill, follow
from tests.servers import Server, StartServer
from tests.users import user_without
from tests.waiting import wait_until
from tt_migrate import Migrator, Progress
from tt_migrate.engine.calls.scripts import source
from tt_migrate.plan import RENAME, REVERSE

KEYS = 2000
LIMIT = 60_000


@pytest.fixture
def replica(newest: Server, own_server: StartServer) -> Server:
    """A replica of `newest`, which has all that the master has."""
    fill(newest.client(), KEYS)
    replica = own_server()
    follow(replica.client(), newest)
    wait_until(lambda: lag(newest.client()) == 0)
    return replica


def lag(master: Redis) -> int:
    """How many bytes the replica has not confirmed."""
    said: Any = master.info("replication")
    return int(said["master_repl_offset"]) - int(said["slave0"]["offset"])


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Let a server stand still meanwhile."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


class Waits:
    """Receives progress. Lets the replica go on once the run waits for it."""

    def __init__(self, redis: Redis, replica: Server) -> None:
        self._redis = redis
        self._replica = replica
        self.moved = 0
        self.waits = 0

    def __call__(self, progress: Progress) -> None:
        if progress.waiting == "replica behind":
            self.waits += 1
            self.moved = self.moved or len(self._redis.keys("tt:town:*"))
            if self.waits == 3:
                os.kill(self._replica.pid, signal.SIGCONT)


@pytest.mark.parametrize("trip", ["near", "far"])
def test_a_migration_waits_for_a_replica_that_is_behind(
    newest: Server, replica: Server, trip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trip == "far":
        monkeypatch.setattr("tt_migrate.engine.passes.in_flight._WORTH_SECONDS", 0)
        monkeypatch.setattr("tt_migrate.engine.passes.in_flight._SURELY_FAR_SECONDS", 0)
    redis = newest.client()
    waits = Waits(redis, replica)
    migrator = Migrator(redis, "town", max_pause_ms=0.1, progress=waits, max_lag=LIMIT)
    with stopped(replica):
        done = migrator.migrate()
    assert done.total == KEYS
    assert waits.waits >= 3
    assert 0 < waits.moved < KEYS / 2
    assert done.effort.replica_wait
    assert LIMIT < done.effort.replica_lag < 5 * LIMIT
    assert (done.effort.one_at_a_time == "") is (trip == "far")


def test_no_other_run_waits(newest: Server, replica: Server) -> None:
    redis = newest.client()
    with stopped(replica):
        redis.set("filler", "x" * 2 * LIMIT)
        assert Migrator(redis, "town", max_lag=1).preview().total == KEYS
        off = Migrator(redis, "town", max_lag=0).migrate()
        within = Migrator(redis, "town", REVERSE, max_lag=10**9).migrate()
        unseen = Migrator(user_without(newest, "info"), "town", max_lag=1).migrate()
        assert lag(redis) > 2 * LIMIT
    for done in (off, within, unseen):
        assert (done.total, done.effort.replica_lag) == (KEYS, 0)
    assert (off.effort.replica_wait, within.effort.replica_wait) == (0, 0)
    assert unseen.effort.replica_wait is None


def test_a_replica_that_does_not_catch_up_holds_no_run_for_ever(
    newest: Server, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tt_migrate.engine.passes.lag.PATIENCE_SECONDS", 0.2)
    with stopped(replica):
        done = Migrator(newest.client(), "town", max_pause_ms=0.1, max_lag=LIMIT).migrate()
    assert done.total == KEYS
    assert done.effort.replica_wait
    assert 0.2 < done.effort.replica_wait < 60


def test_a_call_that_finds_a_replica_behind_does_nothing(newest: Server, replica: Server) -> None:
    redis = newest.client()
    args = ("town", "0", 1000, 1_000_000, "", "", "", "0", "0", LIMIT)
    with stopped(replica):
        redis.set("filler", "x" * 2 * LIMIT)
        word, behind = redis.eval(source("migrate", RENAME), 0, *args)
    assert word == b"behind"
    assert 2 * LIMIT < behind < 3 * LIMIT
    assert redis.keys("tt:town:*") == []


def test_the_command_takes_the_limit_in_megabytes(newest: Server) -> None:
    done = tt("--force", "--max-lag", "1", "--json", url=newest.url, town="town")
    assert json.loads(done.stdout)["options"]["max_lag_mb"] == 1

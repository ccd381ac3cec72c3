"""Runs that something happens to: how they retry, how far they are away, what breaks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import pytest
from redis import Redis
from redis.backoff import AbstractBackoff
from redis.retry import Retry

from tests.servers import Server
from tests.waiting import wait_until
from tt_migrate import Progress
from tt_migrate.engine.calls.retry import RETRY

_RETRY_SECONDS = 0.01


def quick_retry(
    tries: int = 3000, *, at: int = 0, act: Callable[[], object] = lambda: None
) -> Retry:
    """Return a Migrator's retry that waits for 10 ms before each retry.

    `act` is called once, at failure number `at`.
    """
    return Retry(_Quick(at, act), tries, RETRY._supported_errors)


class _Quick(AbstractBackoff):
    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self._left, self._act = at, act

    def compute(self, failures: int) -> float:
        self._left -= 1
        if self._left == 0:
            self._act()
        return _RETRY_SECONDS


def at_batches(acts: Sequence[tuple[int, Callable[[], object]]]) -> Callable[[Progress], None]:
    """Return a progress callback that acts after batches with these numbers, from 1."""
    batches = count(1)

    def progress(_: Progress) -> None:
        batch = next(batches)
        for number, act in acts:
            if number == batch:
                act()

    return progress


def cut_connections(admin: Redis) -> None:
    """Break the connections of all other clients."""
    admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def follow(replica: Redis, master: Server) -> None:
    """Make a server a replica, and wait until it has the master's data.

    The option --replicaof takes effect a second after the start; this command at once.
    """
    replica.execute_command("REPLICAOF", "127.0.0.1", master.port)
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up")


def stay_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take each server for a near one: on a busy machine a round trip can take long.

    Far away, calls are sent ahead, and a key keeps the cursor.
    """
    monkeypatch.setattr("tt_migrate.engine.passes.in_flight._WORTH_SECONDS", 60)
    monkeypatch.setattr("tt_migrate.engine.passes.in_flight._SURELY_FAR_SECONDS", 60)


def fill(redis: Redis, keys: int, start: str = "tt:agent:", value: str = "") -> None:
    """Set keys whose ids are numbers. Without a value, each has its number."""
    redis.eval(
        "for n = 0, ARGV[2] - 1 do"
        " redis.call('MSET', ARGV[1] .. n, ARGV[3] == '' and n or ARGV[3]) end",
        *(0, start, keys, value),
    )

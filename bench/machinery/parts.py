"""Parts of a migration without a process of their own: what each costs the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis

from bench.machinery import data
from bench.machinery.measure import Run, server_cpu
from tests.servers import Server
from tt_migrate import Migrator

BARE_SCAN = "bare SCAN"
AGAIN = "tt-migrate once more, finding nothing"


def _scan(redis: Redis) -> None:
    cursor = 0
    while True:
        cursor, _ = redis.scan(cursor, count=1000)
        if cursor == 0:
            return


def _floor(redis: Redis, prefix: str) -> None:
    sha: Any = redis.script_load(Path(__file__).with_name("floor.lua").read_text("utf-8"))
    cursor: Any = b"0"
    while True:
        cursor = redis.evalsha(sha, 0, cursor, "tt:[^m]*", 50, 20, prefix)
        if cursor == b"0":
            return


def _migrate(redis: Redis) -> None:
    Migrator(redis, data.TOWN).migrate()


PARTS = {
    BARE_SCAN: _scan,
    "SCAN in a script": lambda redis: _floor(redis, ""),
    "a script that checks nothing": lambda redis: _floor(redis, f"tt:{data.TOWN}:"),
    AGAIN: _migrate,
}


def measure_parts(server: Server, keys: int) -> Iterator[Run]:
    """The server's CPU for each part."""
    redis = server.client()
    for name, work in PARTS.items():
        data.fill(redis, keys)
        if name == AGAIN:
            _migrate(redis)
        cpu = server_cpu(redis)
        work(redis)
        yield Run(server.kind.name, name, keys, server_seconds=server_cpu(redis) - cpu)

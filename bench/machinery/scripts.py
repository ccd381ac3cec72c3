"""Parts of a migration that run without a process of their own: what each costs the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis import Redis

from bench.machinery.data import TOWN
from tt_migrate import Migrator


def scan(redis: Redis) -> None:
    """Get the name of every key."""
    cursor = 0
    while True:
        cursor, _ = redis.scan(cursor, count=1000)
        if cursor == 0:
            return


def scan_in_script(redis: Redis) -> None:
    """Find every old key in a script that does nothing with it."""
    _drive(redis, "")


def rename_all(redis: Redis) -> None:
    """Rename every old key in a script that checks nothing."""
    _drive(redis, f"tt:{TOWN}:")


def migrate(redis: Redis) -> None:
    """Migrate as this project does."""
    Migrator(redis, TOWN).migrate()


def _drive(redis: Redis, prefix: str) -> None:
    sha: Any = redis.script_load(Path(__file__).with_name("floor.lua").read_text("utf-8"))
    cursor: Any = b"0"
    while True:
        cursor = redis.evalsha(sha, 0, cursor, "tt:[^m]*", 50, 20, prefix)
        if cursor == b"0":
            return

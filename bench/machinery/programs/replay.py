"""What Tinytown 0.10.0 sends for `tt migrate --force`, over redis-py: `replay.py TOWN`.

KEYS for the first of eight patterns that finds an old key; for each of six patterns a full SCAN,
then a RENAME a round trip; EXISTS and RENAME of the backlog. `--scan-only` leaves the RENAMEs out.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from redis import Redis

_SCANNED = ("tt:agent:*", "tt:inbox:*", "tt:urgent:*", "tt:task:*", "tt:activity:*", "tt:stop:*")
_ASKED = (*_SCANNED, "tt:backlog", "tt:broadcast")


def main(town: str, *, scan_only: bool) -> None:
    """Migrate what REDIS_URL names."""
    redis = Redis.from_url(os.environ["REDIS_URL"])
    if not any(
        _is_old(key) for pattern in _ASKED for key in redis.execute_command("KEYS", pattern)
    ):
        return
    for pattern in _SCANNED:
        for key in _scan(redis, pattern):
            if not scan_only:
                redis.rename(key, b"tt:%b:%b" % (town.encode(), key[3:]))
    if redis.exists("tt:backlog"):
        redis.rename("tt:backlog", f"tt:{town}:backlog")


def _scan(redis: Redis, pattern: str) -> list[bytes]:
    found: list[bytes] = []
    cursor: Any = 0
    while True:
        keys: Any
        cursor, keys = redis.scan(cursor, match=pattern, count=100)
        found += filter(_is_old, keys)
        if cursor == 0:
            return found


def _is_old(key: bytes) -> bool:
    return key.count(b":") in (1, 2)


main(sys.argv[1], scan_only="--scan-only" in sys.argv)

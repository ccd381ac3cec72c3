"""Reads a whole keyspace for comparisons."""

from __future__ import annotations

from typing import Any

from redis import Redis

# Expiry times are multiples of this step. Times read back are some milliseconds off: they are
# rounded to a step.
EXPIRY_STEP_MS = 100_000


def contents(redis: Redis) -> dict[bytes, tuple[bytes, int]]:
    """Return each key's DUMP, and its expiry time in steps (-1 if it has none)."""
    keys: list[Any] = redis.keys()
    batch = redis.pipeline(transaction=True)
    for key in keys:
        batch.dump(key)
        batch.pttl(key)
    batch.time()
    *replies, (seconds, micros) = batch.execute()
    now = seconds * 1000 + micros // 1000
    return {
        key: (dump, pttl if pttl < 0 else round((now + pttl) / EXPIRY_STEP_MS))
        for key, dump, pttl in zip(keys, replies[::2], replies[1::2], strict=True)
    }

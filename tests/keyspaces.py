"""Reads a whole keyspace for comparisons."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

# Expiry times are multiples of this step. Times read back are some milliseconds off: they are
# rounded to a step.
EXPIRY_STEP_MS = 100_000
_SET = 2
"""The first byte of the DUMP of a set that is a hash table."""


def contents(redis: Redis) -> dict[bytes, tuple[bytes, int]]:
    """Return each key's DUMP, and its expiry time in steps (-1 if it has none).

    Of a set, return the members in order: RESTORE can change the order in a DUMP.
    """
    keys: list[Any] = redis.keys()
    # In cluster mode, a transaction may use keys of one slot only.
    batch = redis.pipeline(transaction=False)
    for key in keys:
        batch.dump(key)
        batch.pttl(key)
    batch.time()
    *replies, (seconds, micros) = batch.execute()
    now = seconds * 1000 + micros // 1000
    found = {
        key: (dump, pttl if pttl < 0 else round((now + pttl) / EXPIRY_STEP_MS))
        for key, dump, pttl in zip(keys, replies[::2], replies[1::2], strict=True)
    }
    for key, (dump, expiry) in found.items():
        if dump[0] == _SET:
            members: Any = redis.smembers(key)
            found[key] = (b" ".join(sorted(member.hex().encode() for member in members)), expiry)
    return found


def read_hash(redis: Redis, key: str | bytes) -> dict[str, str]:
    """Return a hash whose fields are text. redis-py would take long for thousands of fields."""
    parts = json.loads(redis.eval("return cjson.encode(redis.call('HGETALL', ARGV[1]))", 0, key))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def write_hash(redis: Redis, key: str, fields: dict[str, str]) -> None:
    """Write a hash. redis-py would take long for thousands of fields."""
    write = "redis.call('HSET', ARGV[1], name, text)"
    script = f"for name, text in pairs(cjson.decode(ARGV[2])) do {write} end"
    redis.eval(script, 0, key, json.dumps(fields))

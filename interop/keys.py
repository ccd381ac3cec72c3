"""Reads and writes a keyspace as plain data, to record, restore and compare it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redis import Redis

Key = dict[str, Any]
"""A key's `name`, `type`, `ttl` in seconds (-1 for none) and `value`."""


def read(redis: Redis) -> list[Key]:
    """Return all keys of a database, sorted by name, with values as text."""
    names: list[Any] = redis.keys()
    return [_key(redis, name) for name in sorted(names)]


def put(redis: Redis, keys: list[Key]) -> None:
    """Write keys that read() returned."""
    for key in keys:
        name, value = key["name"], key["value"]
        if key["type"] == "string":
            redis.set(name, value)
        elif key["type"] == "list":
            redis.rpush(name, *value)
        else:
            redis.hset(name, mapping=value)
        if key["ttl"] >= 0:
            redis.expire(name, key["ttl"])


def save(path: Path, keys: list[Key]) -> None:
    """Write keys to a file, one per line."""
    lines = ",\n".join(json.dumps(key, ensure_ascii=False) for key in keys)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n", "utf-8")


def load(path: Path) -> list[Key]:
    """Return the keys in a file that save() wrote."""
    keys: list[Key] = json.loads(path.read_text("utf-8"))
    return keys


def _key(redis: Any, name: bytes) -> Key:
    """Read one key. `redis` must be a client that does not decode; its type cannot say so."""
    kind: str = redis.type(name).decode()
    value: Any
    if kind == "string":
        value = redis.get(name).decode()
    elif kind == "list":
        value = [item.decode() for item in redis.lrange(name, 0, -1)]
    else:
        value = {f.decode(): v.decode() for f, v in sorted(redis.hgetall(name).items())}
    return {"name": name.decode(), "type": kind, "ttl": redis.ttl(name), "value": value}

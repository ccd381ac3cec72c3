"""A keyspace as plain data: to record what Tinytown wrote, put it back, compare outcomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redis import Redis

Key = dict[str, Any]
"""A key's `name`, `type`, `ttl` in seconds (-1 for none) and `value`."""


def read(redis: Redis) -> list[Key]:
    """All keys of a database in order, their values as text."""
    names: list[Any] = redis.keys()
    return [_key(redis, name) for name in sorted(names)]


def put(redis: Redis, keys: list[Key]) -> None:
    """Write keys as read() gave them."""
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
    """Write keys to a file, one a line."""
    lines = ",\n".join(json.dumps(key, ensure_ascii=False) for key in keys)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n", "utf-8")


def load(path: Path) -> list[Key]:
    """The keys in a file that save() wrote."""
    keys: list[Key] = json.loads(path.read_text("utf-8"))
    return keys


def _key(redis: Any, name: bytes) -> Key:
    """`redis` is a client that does not decode, which its type does not say."""
    kind: str = redis.type(name).decode()
    value: Any
    if kind == "string":
        value = redis.get(name).decode()
    elif kind == "list":
        value = [item.decode() for item in redis.lrange(name, 0, -1)]
    else:
        value = {f.decode(): v.decode() for f, v in sorted(redis.hgetall(name).items())}
    return {"name": name.decode(), "type": kind, "ttl": redis.ttl(name), "value": value}

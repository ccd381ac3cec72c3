"""Renames a town's keys on a cluster as a script of an afternoon would: DUMP, RESTORE, DEL.

    cluster.py TOWN pipelined|one-by-one

REDIS_URL leads to any node. It loses keys if it is stopped at the wrong moment.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from redis.cluster import RedisCluster

FAMILIES = ("agent", "inbox", "urgent", "task", "activity", "stop")


def pipelined(cluster: RedisCluster, keys: list[bytes], prefix: bytes) -> None:
    """Rename keys with three pipelines."""
    reading = cluster.pipeline()
    for key in keys:
        reading.dump(key)
        reading.pttl(key)
    found: list[Any] = reading.execute()
    writing, deleting = cluster.pipeline(), cluster.pipeline()
    for key, value, ttl in zip(keys, found[::2], found[1::2], strict=True):
        writing.restore(prefix + key[3:], max(ttl, 0), value)
        deleting.delete(key)
    writing.execute()
    deleting.execute()


def one_by_one(cluster: RedisCluster, keys: list[bytes], prefix: bytes) -> None:
    """Rename keys with four round trips each."""
    for key in keys:
        value: Any = cluster.dump(key)
        ttl = cluster.pttl(key)
        cluster.restore(prefix + key[3:], max(ttl, 0), value)
        cluster.delete(key)


def main() -> None:
    """Scan each master, and rename what it has."""
    town, how = sys.argv[1:]
    rename = {"pipelined": pipelined, "one-by-one": one_by_one}[how]
    cluster = RedisCluster.from_url(os.environ["REDIS_URL"].removesuffix("/0"))
    for node in cluster.get_primaries():
        client, cursor = cluster.get_redis_connection(node), 0
        while True:
            names: Any
            cursor, names = client.scan(cursor, match="tt:*", count=1000)
            keys = [name for name in names if name.split(b":")[1].decode() in FAMILIES]
            if keys:
                rename(cluster, keys, f"tt:{town}:".encode())
            if not cursor:
                break


main()

"""The upgrade as one would write it on the client: `client_side_upgrade.py TOWN`.

SCAN, GET in a pipeline, json.loads, HSET and DEL in a pipeline. It loses TTLs, and a client that
writes a record meanwhile loses what it wrote.
"""

from __future__ import annotations

import json
import os
import re
import sys
from importlib.util import find_spec
from typing import Any

from redis import Redis

_OLD = re.compile(rb"tt:(?:agent|task):[^:]+", re.DOTALL)


def main(town: str) -> None:
    """Upgrade the records that REDIS_URL names."""
    if find_spec("hiredis") is None:
        raise SystemExit("hiredis is not there, and redis-py is slower without it")
    redis = Redis.from_url(os.environ["REDIS_URL"])
    prefix = f"tt:{town}:".encode()
    cursor: Any = 0
    while True:
        found: Any
        cursor, found = redis.scan(cursor, count=1000)
        keys = [*filter(_OLD.fullmatch, found)]
        reading = redis.pipeline(transaction=False)
        for key in keys:
            reading.get(key)
        writing = redis.pipeline(transaction=False)
        for key, record in zip(keys, reading.execute(), strict=True):
            fields = {
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in json.loads(record).items()
                if value is not None
            }
            writing.hset(prefix + key[3:], mapping=fields)
            writing.delete(key)
        writing.execute()
        if cursor == 0:
            break


main(sys.argv[1])

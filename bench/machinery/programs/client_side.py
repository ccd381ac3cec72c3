"""The migration as one would write it on the client: `client_side.py TOWN`.

SCAN, a check in Python, RENAMENX in a pipeline.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from typing import Any

from redis import Redis

_OLD = re.compile(rb"tt:(?:(?:agent|inbox|urgent|task|activity|stop):([^:]+)|backlog)", re.DOTALL)
_TOWN_WIDE = (b"backlog", b"events", b"broadcast")


def main(town: str) -> None:
    """Migrate what REDIS_URL names."""
    if find_spec("hiredis") is None:
        raise SystemExit("hiredis is not there, and redis-py is slower without it")
    redis = Redis.from_url(os.environ["REDIS_URL"])
    prefix = f"tt:{town}:".encode()
    cursor: Any = 0
    left = 0
    while True:
        keys: Any
        cursor, keys = redis.scan(cursor, count=1000)
        pipeline = redis.pipeline(transaction=False)
        for key in keys:
            if (match := _OLD.fullmatch(key)) and match[1] not in _TOWN_WIDE:
                pipeline.renamenx(key, prefix + key[3:])
        left += pipeline.execute().count(False)
        if cursor == 0:
            break
    if left:
        raise SystemExit(f"{left} keys were left: their destination exists")


main(sys.argv[1])

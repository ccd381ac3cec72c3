"""The keys that every contestant migrates, and the proof that it has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from redis import Redis

TOWN = "my-project"
_FAMILIES = ("agent", "inbox", "urgent", "task", "activity", "stop")
_CHUNK = 10_000
_RECORDS = ("agent", "task")
_TEXTS = (
    "Fix the login page: the button stays grey after a wrong password, on phones only. " * 3,
    "Write tests for the importer — every path that fails, and each kind of file. " * 3,
    'Review the change.\n\n1. Read it\n2. Run the tests\n3. Say "yes" or what is missing\n' * 2,
    "Update the dependencies, one commit each, and note what breaks in the changelog. " * 2,
)


def old_key(n: int) -> bytes:
    """The n-th old key: families in turn, ids as long as Tinytown's."""
    return b"tt:%b:%08x-0000-4000-8000-%012x" % (_FAMILIES[n % 6].encode(), n, n)


def new_key(n: int) -> bytes:
    """The name that the n-th key has after its migration."""
    return b"tt:%b:%b" % (TOWN.encode(), old_key(n)[3:])


def fill(redis: Redis, keys: int, foreign: int = 0) -> None:
    """Make a database hold so many old keys, each with its number as value, and foreign keys."""
    redis.flushall()
    for chunk in _chunks(keys):
        _set(redis, {old_key(n): n for n in chunk})
    for chunk in _chunks(foreign):
        _set(redis, {b"cache:session:%d:page" % n: n for n in chunk})


def fill_records(redis: Redis, keys: int) -> None:
    """Make a database hold so many agents and tasks as Tinytown 0.6 writes them, of 440 bytes."""
    redis.flushall()
    for chunk in _chunks(keys):
        _set(redis, {record_key(n): _record(n) for n in chunk})


def record_key(n: int) -> bytes:
    """The n-th record's old key."""
    return b"tt:%b:%b" % (_RECORDS[n % 2].encode(), _record_id(n).encode())


def check_records(redis: Redis, keys: int, *, moved: bool) -> None:
    """Exit with a message unless every record is a hash under its new name, or as it was."""
    for n in range(0, keys, max(1, keys // 1000)):
        old, new = record_key(n), b"tt:%b:%b" % (TOWN.encode(), record_key(n)[3:])
        found = redis.hget(new, "created_at") if moved else redis.get(old)
        if found != (_time(n).encode() if moved else _record(n).encode()):
            raise SystemExit(f"bench: record {n} is not as it should be")
    if redis.dbsize() != keys:
        raise SystemExit(f"bench: {redis.dbsize()} records are there, not {keys}")


def check(redis: Redis, name: Callable[[int], bytes], keys: int, foreign: int = 0) -> None:
    """Exit with a message unless every key has this name and its value, and no other is there."""
    total = redis.dbsize()
    if total != keys + foreign:
        raise SystemExit(f"bench: {total} keys are there, not {keys} + {foreign}")
    for chunk in _chunks(keys):
        batch = redis.pipeline(transaction=False)
        for n in chunk:
            batch.get(name(n))
        if batch.execute() != [b"%d" % n for n in chunk]:
            raise SystemExit(f"bench: keys {chunk[0]} to {chunk[-1]} are not all as they should be")


def write_renames(path: Path, keys: int) -> None:
    """Write the commands for `redis-cli --pipe`: RENAMENX for each key."""
    with path.open("wb") as file:
        for n in range(keys):
            old, new = old_key(n), new_key(n)
            file.write(
                b"*3\r\n$8\r\nRENAMENX\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
                % (len(old), old, len(new), new)
            )


def _record_id(n: int) -> str:
    return f"{n:08x}-0000-4000-8000-{n:012x}"


def _record(n: int) -> str:
    record = _agent(n) if n % 2 == 0 else _task(n)
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _agent(n: int) -> dict[str, Any]:
    return {
        "id": _record_id(n),
        "name": f"worker-{n}",
        "agent_type": "worker",
        "state": "working" if n % 3 else "idle",
        "cli": "claude",
        "current_task": _record_id(n + 1) if n % 3 else None,
        "created_at": _time(n),
        "last_heartbeat": _time(n + 1),
        "tasks_completed": n % 30,
        "rounds_completed": n % 90,
    }


def _task(n: int) -> dict[str, Any]:
    is_done = n % 5 > 1
    return {
        "id": _record_id(n),
        "description": _TEXTS[n % len(_TEXTS)],
        "state": "completed" if is_done else "pending",
        "assigned_to": _record_id(n - 1) if is_done else None,
        "created_at": _time(n),
        "updated_at": _time(n + 1),
        "completed_at": _time(n + 2) if is_done else None,
        "result": "All tests pass." if is_done else None,
        "parent_id": None,
        "tags": ["bug", "ui"][: n % 3],
    }


def _time(n: int) -> str:
    return f"2026-{n % 12 + 1:02d}-{n % 28 + 1:02d}T09:{n % 60:02d}:17.{n % 1_000_000_000:09d}Z"


def _set(redis: Redis, values: Mapping[bytes, int | str]) -> None:
    # In cluster mode, MSET may use keys of one slot only.
    batch = redis.pipeline(transaction=False)
    for key, value in values.items():
        batch.set(key, value)
    batch.execute()


def _chunks(total: int) -> list[range]:
    return [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]

"""Large records are converted where they are: no value leaves the server."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from redis import Redis

from tests.servers import Server
from tests.tables import each
from tests.test_lua import WAYS, assert_a_record_of_this_size_is_converted
from tt_migrate import DOWNGRADE, HASH, UPGRADE, Migrator, Plan


def put(redis: Redis, key: str, size: int, **more: object) -> None:
    record = {"id": key.rpartition(":")[2], "text": "x" * size, **more}
    redis.set(key, json.dumps(record))


def traffic(redis: Redis) -> int:
    stats: Any = redis.info("stats")
    return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


@pytest.mark.parametrize("size", [300_000, 2_000_000])
def test_no_value_leaves_the_server(server: Server, size: int) -> None:
    redis = server.client()
    names = [f"{n:08}-0000-0000-0000-000000000000" for n in range(4)]
    for name in names:
        put(redis, f"tt:task:{name}", size, description="x", state="pending")
    for plan in (UPGRADE, DOWNGRADE, HASH):
        if plan == DOWNGRADE:
            times = dict.fromkeys(("created_at", "updated_at"), "2025-01-31T01:02:03Z")
            for name in names:
                redis.hset(f"tt:town:task:{name}", mapping=times)  # type: ignore[arg-type]
        if plan == HASH:
            for name in names:
                redis.rename(f"tt:task:{name}", f"tt:town:task:{name}")
        migrator = Migrator(redis, "town", plan, max_pause_ms=1)
        before = traffic(redis)
        assert len(migrator.preview().conversions) == 4
        assert migrator.migrate().converted["task"] == 4
        assert traffic(redis) - before < 300_000


def test_the_client_holds_no_value(newest: Server) -> None:
    redis = newest.client()
    for n in range(100):
        put(redis, f"tt:task:{n}", 200_000)
    for act in ("preview", "migrate"):
        tracemalloc.start()
        getattr(Migrator(redis, "town", UPGRADE, max_pause_ms=1), act)()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3_000_000, act


@WAYS
def test_a_record_of_very_many_fields_is_converted(server: Server, plan: Plan) -> None:
    assert_a_record_of_this_size_is_converted(server.client(), plan, 69_995)


def test_a_record_of_many_fields_is_converted(server: Server) -> None:
    redis, fields = server.client(), 40_000
    many = {f"field {n}": n for n in range(fields)}
    put(redis, "tt:town:agent:1", 10, **many)
    redis.pexpire("tt:town:agent:1", 10_000_000)
    put(redis, "tt:town:agent:2", 10)
    result = Migrator(redis, "town", HASH, max_pause_ms=1).migrate()
    assert (result.converted["agent"], result.unconverted) == (2, {})
    assert redis.hlen("tt:town:agent:1") == fields + 2
    assert redis.hget("tt:town:agent:1", f"field {fields - 1}") == b"%d" % (fields - 1)
    assert 9_000_000 < redis.pttl("tt:town:agent:1") <= 10_000_000
    assert sorted(redis.keys()) == [b"tt:town:agent:1", b"tt:town:agent:2"]


@each("key_id", ["agent", "task", "inbox", "mission", "docket", "events"])
def test_a_key_that_begins_like_a_record_stays(newest: Server, key_id: str) -> None:
    """`tt:town:agent:task:tt-migrate` is task `tt-migrate` of town `town:agent`."""
    redis = newest.client()
    record, theirs = f"tt:town:agent:{key_id}", f"tt:town:agent:{key_id}:tt-migrate"
    put(redis, record, 10)
    redis.hset(theirs, "id", "tt-migrate")
    result = Migrator(redis, "town", HASH).migrate()
    # `events` is no record of this town either.
    assert result.converted["agent"] == (0 if key_id == "events" else 1)
    assert redis.type(record) == (b"string" if key_id == "events" else b"hash")
    assert redis.hgetall(theirs) == {b"id": b"tt-migrate"}
    assert redis.dbsize() == 2

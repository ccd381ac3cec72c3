"""Large records and many records: the size of a call is bounded, and values are sent once."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from redis import Redis

from tests.servers import Server
from tt_migrate import HASH, UPGRADE, Migrator
from tt_migrate.engine.conversion import Conversion
from tt_migrate.engine.pacing import Pace
from tt_migrate.engine.passes import Call


def put(redis: Redis, key: str, size: int, **more: object) -> None:
    record = {"id": key.rpartition(":")[2], "text": "x" * size, **more}
    redis.set(key, json.dumps(record))


def received(redis: Redis) -> int:
    return int(redis.info("stats")["total_net_input_bytes"])


@pytest.mark.parametrize("size", [300_000, 2_000_000])
def test_a_large_record_is_sent_once_as_it_was_and_once_as_a_hash(
    server: Server, size: int
) -> None:
    redis = server.client()
    for n in range(12):
        put(redis, f"tt:town:task:{n}", size)
    before = received(redis)
    result = Migrator(redis, "town", HASH, max_pause_ms=1).migrate()
    assert result.converted["task"] == 12
    assert received(redis) - before < 2.1 * 12 * size


def test_the_client_holds_no_more_than_some_calls_carry(newest: Server) -> None:
    redis = newest.client()
    for n in range(300):
        put(redis, f"tt:task:{n}", 200_000)
    for act in ("preview", "migrate"):
        tracemalloc.start()
        getattr(Migrator(redis, "town", UPGRADE, max_pause_ms=1), act)()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 30_000_000, act


def test_a_call_carries_no_more_than_its_weight_and_one_record(
    newest: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = newest.client()
    for n in range(40):
        put(redis, f"tt:town:task:{n}", 30_000)
    calls: list[tuple[int, int]] = []
    next_call = Conversion.next_call

    def watched(self: Conversion, pace: Pace, *, alone: bool) -> Call | None:
        call = next_call(self, pace, alone=alone)
        if call:
            size = sum(len(arg) for arg in call.args if isinstance(arg, bytes))
            calls.append((size, pace.weight))
        return call

    monkeypatch.setattr(Conversion, "next_call", watched)
    assert Migrator(redis, "town", HASH, max_pause_ms=1).migrate().complete
    assert max(size for size, _ in calls) > 50_000
    assert all(size < weight + 70_000 for size, weight in calls)


@pytest.mark.parametrize("fields", [1000, 40_000])
def test_a_record_of_many_fields_is_converted(server: Server, fields: int) -> None:
    """MessagePack counts more than 65,535 fields and values in another way."""
    redis = server.client()
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


def test_what_a_crash_left_of_a_hash_is_cleared_away(server: Server) -> None:
    redis = server.client()
    put(redis, "tt:town:task:1", 10)
    redis.hset("tt:town:task:1:tt-migrate", "text", "half of it")
    result = Migrator(redis, "town", HASH).migrate()
    assert (result.converted["task"], result.unconverted) == (1, {})
    assert redis.keys() == [b"tt:town:task:1"]
    assert b"half of it" not in redis.hgetall("tt:town:task:1").values()


@pytest.mark.parametrize("key_id", ["agent", "task", "inbox", "mission", "docket", "events"])
def test_a_key_of_another_town_that_looks_like_what_a_crash_left_stays(
    newest: Server, key_id: str
) -> None:
    """`tt:town:agent:task:tt-migrate` is task `tt-migrate` of town `town:agent`."""
    redis = newest.client()
    put(redis, f"tt:town:agent:{key_id}", 10)
    theirs = f"tt:town:agent:{key_id}:tt-migrate"
    redis.hset(theirs, "id", "tt-migrate")
    result = Migrator(redis, "town", HASH).migrate()
    if key_id != "events":  # not a record of this town either
        assert list(result.unconverted) == [b"tt:town:agent:%b" % key_id.encode()]
        assert theirs in result.unconverted[b"tt:town:agent:%b" % key_id.encode()]
    assert redis.hgetall(theirs) == {b"id": b"tt-migrate"}


def test_the_weight_follows_the_time_that_calls_take() -> None:
    pace = Pace(budget=5000, weight=100_000)
    assert pace.after_values(100_000, 50_000).weight == 7_000
    assert pace.after_values(100_000, 1).weight == 150_000
    assert pace.after_values(10_000, 1).weight == 100_000, "a light call tells little"
    assert pace.after_values(1_000_000, 3500).weight == 1_000_000
    assert pace.after_values(100_000, 0) == pace, "no clock"
    assert pace.after_values(0, 100) == pace
    assert Pace(budget=1, weight=5000).after_values(10, 10**9).weight == 4096

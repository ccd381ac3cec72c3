"""--on-conflict merge: two keys that have a claim to one name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.command import tt
from tests.keyspaces import contents
from tests.servers import Server
from tt_migrate import RENAME, UPGRADE, Migration, Migrator, Plan

MERGE = Plan("rename", rename="forward", merge=True)


def merge(redis: Redis) -> Migration:
    return Migrator(redis, "town", MERGE).migrate()


def values(redis: Redis, key: str) -> list[Any]:
    return list(redis.lrange(key, 0, -1))


@pytest.mark.parametrize(
    ("name", "joined"),
    [
        ("inbox:1", [b"o1", b"o2", b"n1", b"n2", b"n3"]),
        ("backlog", [b"o1", b"o2", b"n1", b"n2", b"n3"]),
        ("urgent:1", [b"n1", b"n2", b"n3", b"o1", b"o2"]),
        ("activity:1", [b"n1", b"n2", b"n3", b"o1", b"o2"]),
    ],
)
def test_lists_are_joined_in_the_order_in_which_tinytown_would_meet_them(
    redis: Redis, name: str, joined: list[bytes]
) -> None:
    redis.rpush(f"tt:{name}", "o1", "o2")
    redis.rpush(f"tt:town:{name}", "n1", "n2", "n3")
    before = contents(redis)
    preview = Migrator(redis, "town", MERGE).preview()
    assert contents(redis) == before
    assert list(preview.merges) == [f"tt:{name}".encode()]
    result = merge(redis)
    assert sum(result.merged.values()) == 1
    assert result.complete
    assert values(redis, f"tt:town:{name}") == joined
    assert redis.keys() == [f"tt:town:{name}".encode()]
    assert redis.ttl(f"tt:town:{name}") == -1
    assert merge(redis).changed == 0
    assert values(redis, f"tt:town:{name}") == joined


def test_skip_is_the_default_and_leaves_both(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "old")
    redis.rpush("tt:town:inbox:1", "new")
    before = contents(redis)
    result = Migrator(redis, "town", RENAME).migrate()
    assert result.conflicts == {b"tt:inbox:1": "destination exists"}
    assert contents(redis) == before


def test_activity_keeps_the_ten_newest_and_the_longer_ttl(redis: Redis) -> None:
    redis.rpush("tt:activity:1", *[f"o{n}" for n in range(8)])
    redis.rpush("tt:town:activity:1", *[f"n{n}" for n in range(7)])
    redis.expire("tt:activity:1", 1000)
    redis.expire("tt:town:activity:1", 3000)
    assert "of which 10 are kept" in "".join(
        Migrator(redis, "town", MERGE).preview().merges.values()
    )
    merge(redis)
    expected = [b"n%d" % n for n in range(7)] + [b"o0", b"o1", b"o2"]
    assert values(redis, "tt:town:activity:1") == expected
    assert 2990 < redis.ttl("tt:town:activity:1") <= 3000


@pytest.mark.parametrize(
    ("family", "old", "new", "merged"),
    [
        ("stop", 1000, 3000, 3000),
        ("stop", 3000, 1000, 3000),
        ("stop", None, 1000, None),
        ("stop", 1000, None, None),
        ("activity", 3000, 1000, 3000),
        ("activity", None, 1000, 1000),
        ("activity", 1000, None, None),
        ("inbox", 1000, None, None),
        ("inbox", None, 1000, None),
    ],
)
def test_the_longer_time_to_live_stays(
    redis: Redis, family: str, old: int | None, new: int | None, merged: int | None
) -> None:
    for prefix, ttl in (("tt", old), ("tt:town", new)):
        key = f"{prefix}:{family}:1"
        if family == "stop":
            redis.set(key, "1")
        else:
            redis.rpush(key, prefix)
        if ttl:
            redis.expire(key, ttl)
    assert merge(redis).complete
    left = redis.ttl(f"tt:town:{family}:1")
    assert left == -1 if merged is None else merged - 10 < left <= merged


@pytest.mark.parametrize("family", ["agent", "inbox", "urgent", "task", "activity", "stop"])
@pytest.mark.parametrize("kind", ["string", "list", "hash", "set", "zset", "stream"])
def test_equal_values_are_one(newest: Server, family: str, kind: str) -> None:
    redis = newest.client()
    for key in (f"tt:{family}:1", f"tt:town:{family}:1"):
        if kind == "string":
            redis.set(key, "x" * 100)
        elif kind == "list":
            redis.rpush(key, *range(2500))
        elif kind == "hash":
            redis.hset(key, mapping={f"f{n}": n for n in range(700)})
        elif kind == "set":
            redis.sadd(key, "a")
        elif kind == "zset":
            redis.zadd(key, {"a": 1})
        else:
            redis.xadd(key, {"f": "v"}, id="1-1")
    value = redis.dump(f"tt:town:{family}:1")
    result = merge(redis)
    assert result.merged[family] == 1
    assert redis.keys() == [f"tt:town:{family}:1".encode()]
    assert redis.dump(f"tt:town:{family}:1") == value


def test_records_that_differ_stay_and_the_fields_are_named(server: Server) -> None:
    redis = server.client()
    redis.set("tt:agent:1", json.dumps({"id": "1", "state": "idle", "cli": "x"}))
    redis.hset("tt:town:agent:1", mapping={"id": "1", "state": "working", "cli": "x", "new": "y"})
    redis.set("tt:task:2", json.dumps({"id": "2", "tags": []}))
    redis.set("tt:town:task:2", json.dumps({"id": "2", "tags": ["a"]}))
    redis.set("tt:task:3", "no json")
    redis.set("tt:town:task:3", "{}")
    redis.set("tt:task:4", json.dumps({"id": "4"}))
    redis.hset("tt:town:task:4", mapping={"id": "4"})
    before = contents(redis)
    expected = {
        b"tt:agent:1": "destination exists and differs in new, state",
        b"tt:task:2": "destination exists and differs in tags",
        b"tt:task:3": "destination exists and differs",
        b"tt:task:4": "destination exists with the same fields, one a JSON string and one a hash",
    }
    assert Migrator(redis, "town", MERGE).preview().conflicts == expected
    assert merge(redis).conflicts == expected
    assert contents(redis) == before


def test_what_cannot_be_joined_stays_with_the_reason(redis: Redis) -> None:
    redis.set("tt:inbox:1", "a string")
    redis.rpush("tt:town:inbox:1", "a list")
    redis.sadd("tt:urgent:2", "a")
    redis.sadd("tt:town:urgent:2", "b")
    before = contents(redis)
    assert merge(redis).conflicts == {
        b"tt:inbox:1": "destination exists and is a list, this a string",
        b"tt:urgent:2": "destination exists, and a set cannot be merged",
    }
    assert contents(redis) == before


def test_long_lists_are_joined_completely(redis: Redis) -> None:
    for family in ("inbox", "urgent"):
        redis.rpush(f"tt:{family}:1", *(f"o{n}" for n in range(9500)))
        redis.rpush(f"tt:town:{family}:1", *(f"n{n}" for n in range(8200)))
    merge(redis)
    old, new = [b"o%d" % n for n in range(9500)], [b"n%d" % n for n in range(8200)]
    assert values(redis, "tt:town:inbox:1") == old + new
    assert values(redis, "tt:town:urgent:1") == new + old


@pytest.mark.parametrize("denied", ["rename", "rpush", "lrange", "type"])
def test_a_missing_permission_leaves_both_lists_as_they_were(server: Server, denied: str) -> None:
    redis = server.client()
    redis.rpush("tt:inbox:1", "old")
    redis.rpush("tt:town:inbox:1", "new")
    redis.execute_command("ACL", "SETUSER", "less", "on", ">secret", "~*", "+@all", f"-{denied}")
    before = contents(redis)
    result = merge(server.client(username="less", password="secret"))
    assert list(result.failed) == [b"tt:inbox:1"]
    assert contents(redis) == before


def test_a_full_server_loses_nothing_in_a_merge(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "old")
    redis.rpush("tt:town:inbox:1", "new")
    redis.config_set("maxmemory", 1)
    try:
        merge(redis)
    finally:
        redis.config_set("maxmemory", 0)
    merge(redis)
    assert values(redis, "tt:town:inbox:1") == [b"old", b"new"]


def test_an_oldest_key_gives_way_to_the_younger_old_one(redis: Redis) -> None:
    redis.rpush("mt:inbox:1", "oldest")
    redis.rpush("tt:inbox:1", "old")
    redis.set("mt:agent:2", "a")
    redis.set("tt:agent:2", "b")
    preview = Migrator(redis, "town", UPGRADE).preview()
    assert sorted(preview.moves) == [b"tt:agent:2", b"tt:inbox:1"]
    assert sorted(preview.conflicts) == [b"mt:agent:2", b"mt:inbox:1"]
    result = Migrator(redis, "town", UPGRADE).migrate()
    assert sorted(result.conflicts) == [b"mt:agent:2", b"mt:inbox:1"]
    assert redis.get("tt:town:agent:2") == b"b"
    merged = Migrator(redis, "town", Plan("rename", rename="forward", oldest=True, merge=True))
    assert merged.migrate().merged["inbox"] == 1
    assert values(redis, "tt:town:inbox:1") == [b"oldest", b"old"]


@pytest.mark.parametrize("key", ["mt:urgent:1", "mt:backlog", "mt:stop:1", "mt:agent:1:2", "mt:"])
def test_what_version_0_1_never_had_is_not_touched(newest: Server, key: str) -> None:
    redis = newest.client()
    redis.set(key, 1)
    assert Migrator(redis, "town", UPGRADE).migrate().total == 0
    assert redis.keys() == [key.encode()]


def test_oldest_keys_move_only_when_asked_for(newest: Server) -> None:
    redis = newest.client()
    redis.mset({"mt:agent:1": "{}", "mt:task:backlog": "{}", "mt:inbox:2": "x"})
    assert Migrator(redis, "town").migrate().total == 0
    done = tt("--legacy-prefix", "mt", "--force", url=newest.url, town="town")
    assert "Total: 3 key(s) migrated" in done.stdout
    expected = [b"tt:town:agent:1", b"tt:town:inbox:2", b"tt:town:task:backlog"]
    assert sorted(redis.keys()) == expected


def test_the_preview_shows_for_each_key_what_a_merge_would_do(newest: Server) -> None:
    redis = newest.client()
    redis.rpush("tt:inbox:1", "a", "b")
    redis.rpush("tt:town:inbox:1", "c")
    redis.set("tt:stop:1", "1", ex=100)
    redis.set("tt:town:stop:1", "1", ex=200)
    options = ("--on-conflict", "merge")
    text = tt(*options, "--dry-run", url=newest.url, town="town").stdout
    assert "tt:inbox:1 → tt:town:inbox:1 (merge: 2 older, then 1 newer)" in text
    assert "tt:stop:1 → tt:town:stop:1 (merge: the longer time to live)" in text
    assert "2 would be merged" in text
    found = json.loads(tt(*options, "--dry-run", "--json", url=newest.url, town="town").stdout)
    assert found["merges"][0] == {
        "from": "tt:inbox:1",
        "to": "tt:town:inbox:1",
        "how": "merge: 2 older, then 1 newer",
    }
    asked = tt(*options, url=newest.url, town="town", answer="y\n")
    assert "Conflicts: 2 (destination exists: they will be merged where that" in asked.stdout
    assert "Total: 0 key(s) migrated, 2 merged" in asked.stdout
    assert asked.returncode == 0


LISTS = st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=14)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(old=LISTS, new=LISTS, family=st.sampled_from(["inbox", "urgent", "activity", "backlog"]))
def test_nothing_is_lost_or_doubled_by_a_merge_or_by_a_second_one(
    server: Server, old: list[bytes], new: list[bytes], family: str
) -> None:
    redis = server.client()
    redis.flushall()
    name = family if family == "backlog" else f"{family}:1"
    redis.rpush(f"tt:{name}", *old)
    redis.rpush(f"tt:town:{name}", *new)
    expected = old + new if family in ("inbox", "backlog") else new + old
    if old == new:
        expected = new
    elif family == "activity":
        expected = expected[:10]
    for _ in range(2):
        assert merge(redis).complete
        assert values(redis, f"tt:town:{name}") == expected
        assert redis.dbsize() == 1

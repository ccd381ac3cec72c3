"""--on-conflict merge: two keys that would get the same name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ResponseError

from tests.command import tt
from tests.keyspaces import EXPIRY_STEP_MS, contents
from tests.servers import Server
from tests.tables import each
from tests.users import user_without
from tt_migrate import RENAME, UPGRADE, Migration, Migrator, Plan, Progress
from tt_migrate.engine.calls.scripts import source

MERGE = Plan("rename", rename="forward", merge=True)
OLDEST = replace(RENAME, oldest=True)
# Calls merge.lua's functions directly.
MERGE_LUA = source("migrate", MERGE).partition("-- migrate.lua")[0]


def merge(redis: Redis) -> Migration:
    return Migrator(redis, "town", MERGE).migrate()


def values(redis: Redis, key: str) -> list[Any]:
    return list(redis.lrange(key, 0, -1))


@each(
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


@each(
    ("family", "old", "new", "merged"),
    [
        ("stop", 1000, 3000, 3000),
        ("stop", 3000, 1000, 3000),
        ("stop", None, 1000, None),
        ("stop", 1000, None, None),
        ("activity", 3000, 1000, 3000),
        ("activity", None, 1000, None),
        ("activity", None, 1, None),
        ("activity", 1000, None, None),
        ("urgent", 3000, 1000, 3000),
        ("urgent", 1000, 3000, 3000),
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


def test_of_two_stop_values_the_newer_one_stays_with_the_longer_ttl(redis: Redis) -> None:
    redis.set("tt:stop:1", "older", ex=3000)
    redis.set("tt:town:stop:1", "newer", ex=1000)
    redis.set("tt:stop:2", "older", ex=1000)
    redis.set("tt:town:stop:2", "newer", ex=3000)
    how = {"merge: the newer value, the longer time to live"}
    assert set(Migrator(redis, "town", MERGE).preview().merges.values()) == how
    assert merge(redis).merged["stop"] == 2
    assert redis.mget("tt:town:stop:1", "tt:town:stop:2") == [b"newer", b"newer"]
    assert all(2990 < redis.ttl(f"tt:town:stop:{n}") <= 3000 for n in (1, 2))


@pytest.mark.parametrize("fields", [3, 2000])
@pytest.mark.parametrize("family", ["agent", "inbox"])
def test_hashes_whose_fields_live_on_different_terms_are_not_equal(
    server: Server, family: str, fields: int
) -> None:
    redis = server.client()
    keys = [f"{start}{family}:{n}" for n in range(4) for start in ("tt:", "tt:town:")]
    for key in keys:
        redis.hset(key, mapping={f"f{n}": n for n in range(fields)})
    soon, later = EXPIRY_STEP_MS * 40_000_000, EXPIRY_STEP_MS * 40_000_001
    expiries = {f"tt:{family}:0": soon, f"tt:town:{family}:1": soon}
    expiries |= {f"tt:{family}:2": soon, f"tt:town:{family}:2": later}
    for key, when in expiries.items():
        try:
            redis.execute_command("HPEXPIREAT", key, when, "FIELDS", 1, "f1")
        except ResponseError:
            pytest.skip(f"{server.kind.name}: no times to live for fields")
    before = contents(redis)
    planned = Migrator(redis, "town", MERGE).preview()
    result = merge(redis)
    left = {f"tt:{family}:{n}".encode() for n in range(3)}
    assert set(planned.conflicts) == set(result.conflicts) == left
    assert set(planned.merges) == {f"tt:{family}:3".encode()}
    del before[f"tt:{family}:3".encode()]
    assert contents(redis) == before


def test_hashes_whose_fields_live_on_the_same_terms_are_equal(server: Server) -> None:
    redis = server.client()
    for key in ("tt:agent:1", "tt:town:agent:1"):
        redis.hset(key, mapping={"a": "1", "b": "2"})
        try:
            redis.execute_command("HPEXPIREAT", key, 4_000_000_000_000, "FIELDS", 1, "a")
        except ResponseError:
            pytest.skip(f"{server.kind.name}: no times to live for fields")
    value = redis.dump("tt:agent:1")
    assert merge(redis).merged["agent"] == 1
    assert redis.keys() == [b"tt:town:agent:1"]
    assert redis.dump("tt:town:agent:1") == value


def test_equal_hashes_in_other_encodings_and_orders_are_equal(redis: Redis) -> None:
    redis.hset("tt:agent:1", mapping={"a": "1", "b": "2", "long": "x" * 1000})
    redis.hset("tt:town:agent:1", mapping={"long": "x" * 1000, "b": "2", "a": "1"})
    redis.hset("tt:agent:2", mapping={"a": "1", "b": "2"})
    redis.hset("tt:town:agent:2", mapping={"b": "2", "long": "x" * 1000, "a": "1"})
    redis.hdel("tt:town:agent:2", "long")
    assert merge(redis).merged["agent"] == 2


@pytest.mark.parametrize("fields", [3, 2000])
def test_a_hash_that_has_all_fields_of_the_other_and_one_more_is_not_equal(
    newest: Server, fields: int
) -> None:
    redis = newest.client()
    for n, longer in enumerate(("tt:agent:0", "tt:town:agent:1")):
        for key in (f"tt:agent:{n}", f"tt:town:agent:{n}"):
            redis.hset(key, mapping={f"f{i}": i for i in range(fields)})
        redis.hset(longer, "more", "x")
    before = contents(redis)
    assert merge(redis).merged["agent"] == 0
    assert contents(redis) == before


@each("length", [1, 50, 51, 120, 12_800, 12_801, 13_057])
def test_lists_that_differ_in_one_place_are_not_equal(newest: Server, length: int) -> None:
    """Tries places at each edge of the compared parts, and between the edges.

    A part has 50 to 52 values. Of the last parts, which are compared last, only some places
    between the edges are tried.
    """
    redis = newest.client()
    edges = {0, 1, 49, 50, 51}
    last = {n for n in range(length - 110, length) if {n % 50, n % 51, n % 52} & edges}
    last |= {length - 1, *range(length - 110, length, 7)}
    places = sorted({n for n in (*range(120), *last) if 0 <= n < length})
    for key in ("a", "b"):
        redis.rpush(key, *range(length))
    test = """
      local missed = {}
      for _, place in ipairs(ARGV) do
        local value = redis.call('LINDEX', KEYS[1], place)
        redis.call('LSET', KEYS[1], place, 'other')
        if equal_lists(KEYS[1], KEYS[2]) then
          missed[#missed + 1] = place
        end
        redis.call('LSET', KEYS[1], place, value)
      end
      return {missed, equal_lists(KEYS[1], KEYS[2])}
    """
    assert redis.eval(MERGE_LUA + test, 2, "a", "b", *places) == [[], 1]
    redis.rpush("a", "more")
    assert redis.eval(MERGE_LUA + "return equal_lists(KEYS[1], KEYS[2])", 2, "a", "b") is None


def test_comparing_long_lists_takes_linear_time(newest: Server) -> None:
    """Limits the number of LRANGE calls, because each one walks the list to reach its part."""
    redis = newest.client()
    for key in ("a", "b"):
        redis.rpush(key, *(0 for _ in range(100_000)))
    redis.config_resetstat()
    assert redis.eval(MERGE_LUA + "return equal_lists(KEYS[1], KEYS[2])", 2, "a", "b") == 1
    assert redis.info("commandstats")["cmdstat_lrange"]["calls"] <= 2 * 256


@pytest.mark.parametrize("family", ["inbox", "urgent", "activity"])
def test_no_value_is_lost_or_turned_round_at_the_edge_of_what_is_moved_at_once(
    newest: Server, family: str
) -> None:
    redis = newest.client()
    lengths = [1, 2, 9, 10, 11, 999, 1000, 1001, 1999, 2000, 2001, 3000]
    # The list with the longer TTL receives the values of the other list.
    cases = [(old, new, ttl) for old in lengths for new in (1, 1000, 1001) for ttl in (1, 2)]
    expected = {}
    for n, (old, new, ttl) in enumerate(cases):
        key, destination = f"tt:{family}:{n}", f"tt:town:{family}:{n}"
        redis.rpush(key, *(f"o{i}" for i in range(old)))
        redis.rpush(destination, *(f"n{i}" for i in range(new)))
        redis.pexpireat(key, EXPIRY_STEP_MS * (40_000_000 + 2))
        redis.pexpireat(destination, EXPIRY_STEP_MS * (40_000_000 + 2 * ttl - 1))
        older, newer = [b"o%d" % i for i in range(old)], [b"n%d" % i for i in range(new)]
        whole = older + newer if family == "inbox" else newer + older
        expected[destination] = whole[:10] if family == "activity" else whole
    assert merge(redis).merged[family] == len(cases)
    assert {key: values(redis, key) for key in expected} == expected
    assert redis.dbsize() == len(cases)


def test_a_key_whose_destination_is_protected_is_listed_and_the_rest_goes_on(
    server: Server,
) -> None:
    redis = server.client()
    for n in range(20):
        redis.rpush(f"tt:inbox:{n}", "old")
        redis.rpush(f"tt:town:inbox:{n}", "new")
    allowed = [f"~{start}inbox:{n}" for n in range(19) for start in ("tt:", "tt:town:")]
    allowed.append("~tt:inbox:19")
    redis.execute_command("ACL", "SETUSER", "some", "on", ">secret", "+@all", *allowed)
    result = merge(server.client(username="some", password="secret"))
    assert (result.merged["inbox"], list(result.failed)) == (19, [b"tt:inbox:19"])
    assert values(redis, "tt:inbox:19") == [b"old"]
    assert values(redis, "tt:town:inbox:19") == [b"new"]


@each("agents", [0, 200])
@each("denied", ["type", "lrange", "pttl", "ltrim", "lpush"])
def test_a_command_that_a_merge_may_not_run_ends_the_run_and_what_was_moved_is_told(
    server: Server, denied: str, agents: int
) -> None:
    redis = server.client()
    # Equal values are merged even if a push or a trim is denied.
    redis.mset({f"{start}task:{n}": n for n in range(100) for start in ("tt:", "tt:town:")})
    redis.mset({"other": 1, **{f"tt:agent:{n}": n for n in range(agents)}})
    for n in range(20):
        redis.rpush(f"tt:inbox:{n}", "older")
        redis.rpush(f"tt:town:inbox:{n}", "newer")
    before = contents(redis)
    redis.execute_command("ACL", "SETUSER", "less", "on", ">secret", "~*", "+@all", f"-{denied}")
    less = server.client(username="less", password="secret")
    told: list[Progress] = []
    with pytest.raises(ResponseError, match=r"no permissions|can't run"):
        Migrator(less, "town", MERGE, progress=told.append).migrate()
    moved = len(redis.keys("tt:town:agent:*"))
    merged = 100 - len(redis.keys("tt:task:*"))
    if told:
        assert isinstance(told[-1].so_far, Migration)
        assert told[-1].so_far.changed == moved + merged
    else:
        assert moved == merged == 0
    after = contents(redis)
    assert {key: after[key] for key in after if b"inbox" in key} == {
        key: before[key] for key in before if b"inbox" in key
    }
    assert len(after) == len(before) - merged
    result = merge(redis)
    assert (result.total, result.merged["inbox"]) == (agents - moved, 20)
    assert result.merged["task"] == 100 - merged


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


def test_of_one_id_the_younger_key_gets_the_name_whichever_is_found_first(redis: Redis) -> None:
    numbers = range(100)
    for family in ("agent", "inbox", "task"):
        redis.mset({f"mt:{family}:{n}": "oldest" for n in numbers})
        redis.mset({f"tt:{family}:{n}": "old" for n in numbers})
    oldest = {f"mt:{family}:{n}".encode() for family in ("agent", "inbox", "task") for n in numbers}
    preview = Migrator(redis, "town", OLDEST).preview()
    assert set(preview.conflicts) == oldest
    assert set(preview.moves) == {b"tt" + key[2:] for key in oldest}
    assert Migrator(redis, "town", OLDEST).count().conflicts == 300
    result = Migrator(redis, "town", OLDEST).migrate()
    assert set(result.conflicts) == oldest
    assert (result.total, result.remaining) == (300, 300)
    assert all(redis.get(b"tt:town" + key[2:]) == b"old" for key in oldest)


def test_of_one_id_the_oldest_messages_come_first_whichever_is_found_first(redis: Redis) -> None:
    for n in range(50):
        redis.rpush(f"mt:inbox:{n}", "oldest")
        redis.rpush(f"tt:inbox:{n}", "old")
        redis.rpush(f"tt:town:inbox:{n}", "new")
    result = Migrator(redis, "town", replace(OLDEST, merge=True)).migrate()
    # The younger messages are merged first, then the oldest go before them.
    assert result.merged["inbox"] == 100
    for n in range(50):
        assert values(redis, f"tt:town:inbox:{n}") == [b"oldest", b"old", b"new"]


@each("name", ["backlog", "events", "broadcast"])
@each("family", ["agent", "inbox", "task"])
def test_version_0_1_knew_no_towns_so_that_its_names_are_never_ambiguous(
    newest: Server, family: str, name: str
) -> None:
    """mt:task:backlog is a task. tt:task:backlog is town task's backlog: not a conflict."""
    redis = newest.client()
    redis.set(f"mt:{family}:{name}", "oldest")
    redis.set(f"tt:{family}:{name}", "of a town")
    ambiguous = {f"tt:{family}:{name}".encode()}
    count = Migrator(redis, "town", OLDEST).count()
    assert (count.keys[family], count.conflicts, count.ambiguous) == (1, 0, 1)
    preview = Migrator(redis, "town", OLDEST).preview()
    assert (set(preview.moves), set(preview.ambiguous)) == (
        {f"mt:{family}:{name}".encode()},
        ambiguous,
    )
    result = Migrator(redis, "town", OLDEST).migrate()
    assert (result.keys[family], set(result.ambiguous), result.complete) == (1, ambiguous, True)
    assert redis.get(f"tt:town:{family}:{name}") == b"oldest"
    assert redis.get(f"tt:{family}:{name}") == b"of a town"


@each("key", ["mt:urgent:1", "mt:backlog", "mt:stop:1", "mt:agent:1:2", "mt:"])
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
    assert "Total: 3 keys migrated" in done.stdout
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
    assert "Conflicts: 2 (destination exists: they will be merged where possible)" in asked.stdout
    assert "Total: 0 keys migrated, 2 merged" in asked.stdout
    assert asked.returncode == 0


LISTS = st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=14)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(old=LISTS, new=LISTS, family=st.sampled_from(["inbox", "urgent", "activity", "backlog"]))
def test_nothing_is_lost_or_doubled_by_a_merge_or_by_a_second_one(
    either: Server, old: list[bytes], new: list[bytes], family: str
) -> None:
    redis = either.client()
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


@pytest.mark.parametrize("name", ["backlog", "events", "broadcast"])
def test_nothing_is_joined_with_what_may_be_another_towns_own(newest: Server, name: str) -> None:
    """`tt:town:inbox:backlog` may be the backlog of a town `town:inbox`."""
    redis = newest.client()
    redis.rpush(f"mt:inbox:{name}", "of version 0.1")
    redis.rpush(f"tt:town:inbox:{name}", "theirs")
    before = contents(redis)
    plan = replace(UPGRADE, merge=True)
    for act in ("preview", "migrate"):
        result = getattr(Migrator(redis, "town", plan), act)()
        assert list(result.conflicts) == [f"mt:inbox:{name}".encode()]
    assert contents(redis) == before


def test_conflicts_that_take_longer_than_a_batch_may_are_settled_in_the_next_ones(
    server: Server,
) -> None:
    redis = server.client()
    keys = [f"inbox:{n}" for n in range(200)]
    for key in keys:
        redis.rpush(f"tt:{key}", "old")
        redis.rpush(f"tt:town:{key}", "new")
    redis.mset({"tt:agent:1": "moves", "tt:agent:2": "stays", "tt:town:agent:2": "is taken"})
    hurried = Migrator(redis, "town", replace(RENAME, merge=True), max_pause_ms=0.05)
    preview = hurried.preview()
    assert (len(preview.moves), len(preview.merges), len(preview.conflicts)) == (1, 200, 1)
    assert preview.effort.batches > 5
    result = hurried.migrate()
    assert (result.total, sum(result.merged.values()), len(result.conflicts)) == (1, 200, 1)
    assert all(redis.lrange(f"tt:town:{key}", 0, -1) == [b"old", b"new"] for key in keys)


@pytest.mark.parametrize("denied", [(), ("time",)], ids=["clock", "no clock"])
def test_three_keys_with_one_new_name_end_whatever_comparing_them_takes(
    server: Server, denied: tuple[str, ...]
) -> None:
    """The pair of an old key and its rival was postponed again and again."""
    redis = server.client()
    for n in range(4):
        for start in ("mt:agent:", "tt:agent:", "tt:town:agent:"):
            redis.set(f"{start}{n}", start + "x" * 300_000)
    client = user_without(server, *denied)
    result = Migrator(
        client, "town", replace(RENAME, oldest=True, merge=True), max_pause_ms=0.01
    ).migrate()
    assert len(result.conflicts) == 8
    assert result.effort.batches < 60


@pytest.mark.parametrize("denied", [(), ("time",)], ids=["clock", "no clock"])
def test_no_call_settles_many_large_conflicts(server: Server, denied: tuple[str, ...]) -> None:
    redis = server.client()
    for n in range(30):
        redis.set(f"tt:agent:{n}", "x" * 200_000)
        redis.set(f"tt:town:agent:{n}", "y" * 200_000)
    client = user_without(server, *denied)
    result = Migrator(client, "town", replace(RENAME, merge=True), max_pause_ms=0.1).migrate()
    assert len(result.conflicts) == 30
    assert result.effort.batches > 10


def test_a_postponed_key_that_is_gone_is_not_previewed(server: Server) -> None:
    redis = server.client()
    script = source("preview", replace(RENAME, merge=True))
    redis.rpush("tt:town:inbox:1", "new")
    _, _, _, _, moves, odd, merges, conflicts, failed, *_ = redis.eval(
        script, 0, "town", "0", 100, 1000, "", "", 0, 0, "tt:inbox:1", "tt:inbox:2"
    )
    assert (moves, odd, merges, conflicts, failed) == (b"", [], [], [], [])

"""The scripts' contract, called directly: arguments, replies, error codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.servers import Kind, Server, StartServer
from tt_migrate.plan import HASH, RENAME, REVERSE, UPGRADE, Plan
from tt_migrate.scripts import source

OPERATIONS = ("count", "left", "preview", "migrate")
PLANS = (RENAME, UPGRADE, REVERSE, replace(RENAME, merge=True))


def call(redis: Redis, operation: str, *args: object) -> list[Any]:
    reply: list[Any] = redis.eval(source(operation, RENAME), 0, *args)  # type: ignore[arg-type]
    return reply


def whole_pass(redis: Redis, operation: str, town: bytes | str = "town") -> list[Any]:
    """The fields after the fourth of a single batch that does everything."""
    cursor, _, _, _, *fields = call(redis, operation, town, 0, 1000, 1_000_000)
    assert cursor == b"0"
    return fields


def test_count_counts_families_conflicts_ambiguous_keys_and_towns(redis: Redis) -> None:
    for key in ("tt:agent:1", "tt:agent:2", "tt:inbox:1", "tt:stop:1", "tt:backlog"):
        redis.set(key, 1)
    redis.set("tt:town:agent:1", "taken")
    redis.set("tt:task:backlog", "of town task")
    redis.set("tt:other:town:inbox:7", 1)
    families, conflicts, ambiguous, towns, *_ = whole_pass(redis, "count")
    assert families == [2, 1, 0, 0, 0, 1, 1]
    assert (conflicts, ambiguous) == (1, 1)
    assert towns == [b"other:town"]


def test_preview_names_moves_conflicts_and_ambiguous_keys(redis: Redis) -> None:
    for key in ("tt:agent:1", "tt:agent:2", "tt:backlog", "tt:urgent:events", "tt:town:agent:2"):
        redis.set(key, 1)
    redis.set("tt:inbox:a\nb", 1)
    moves, odd_moves, merges, conflicts, failed, ambiguous = whole_pass(redis, "preview")
    assert sorted(moves.split(b"\n")) == [b"tt:agent:1", b"tt:backlog"]
    assert odd_moves == [b"tt:inbox:a\nb"]
    assert conflicts == [b"tt:agent:2", b"destination exists"]
    assert merges == failed == []
    assert ambiguous == [b"tt:urgent:events"]


def test_migrate_renames_and_tells_what_it_left(redis: Redis) -> None:
    for key in ("tt:agent:1", "tt:agent:2", "tt:backlog", "tt:urgent:events", "tt:town:agent:2"):
        redis.set(key, key)
    families, merged, conflicts, failed, ambiguous, error = whole_pass(redis, "migrate")
    assert families == [1, 0, 0, 0, 0, 0, 1]
    assert sum(merged) == 0
    assert error == b""
    assert conflicts == [b"tt:agent:2", b"destination exists"]
    assert failed == []
    assert ambiguous == [b"tt:urgent:events"]
    assert redis.get("tt:town:agent:1") == b"tt:agent:1"
    assert redis.get("tt:town:agent:2") == b"tt:town:agent:2"
    assert redis.exists("tt:agent:1", "tt:backlog") == 0


@pytest.mark.parametrize(
    "key",
    [
        "tt:agent",
        "tt:agent:",
        "tt::1",
        "tt:",
        "tt",
        "xtt:agent:1",
        "TT:agent:1",
        "tt:Agent:1",
        "tt:broadcast",
        "tt:backlog:1",
        "tt:backlog:",
        "tt:events",
        "tt:docket:1",
        "tt:agent:1:2",
        "tt:agent::1",
        "tt:agents:1",
        "mt:agent:1",
        "tt:town:backlog",
        "tt:town:agent:1",
    ],
)
def test_migrate_leaves_what_is_no_old_key(redis: Redis, key: str) -> None:
    redis.set(key, 1)
    families, _, conflicts, failed, ambiguous, _ = whole_pass(redis, "migrate")
    assert sum(families) == 0
    assert conflicts == failed == ambiguous == []
    assert redis.keys() == [key.encode()]


@pytest.mark.parametrize("family", ["agent", "inbox", "urgent", "task", "activity", "stop"])
@pytest.mark.parametrize("name", ["backlog", "events", "broadcast"])
def test_a_town_named_like_a_family_keeps_its_own_keys(
    redis: Redis, family: str, name: str
) -> None:
    key = f"tt:{family}:{name}"
    redis.set(key, 1)
    assert whole_pass(redis, "count")[2] == 1
    *_, ambiguous, _ = whole_pass(redis, "migrate")
    assert ambiguous == [key.encode()]
    assert redis.keys() == [key.encode()]


@pytest.mark.parametrize("family", ["agent", "inbox", "urgent", "task", "activity", "stop"])
@pytest.mark.parametrize("name", ["backlog", "events", "broadcast"])
def test_of_a_town_named_like_a_family_the_own_keys_are_not_ambiguous(
    newest: Server, family: str, name: str
) -> None:
    redis = newest.client()
    other = "task" if family != "task" else "stop"
    redis.mset({f"tt:{family}:{name}": 1, f"tt:{other}:{name}": 1, f"tt:{family}:1": 1})
    ambiguous = [f"tt:{other}:{name}".encode()]
    for operation in ("preview", "migrate", "migrate"):
        fields = whole_pass(redis, operation, family)
        assert ambiguous in fields
        assert f"tt:{family}:{name}" not in repr(fields)
    families, _, ambiguous_count, towns, *_ = whole_pass(redis, "count", family)
    assert (sum(families), ambiguous_count) == (0, 1)
    assert set(towns) <= {family.encode()}
    assert redis.exists(f"tt:{family}:{name}", f"tt:{family}:{family}:1") == 2


@pytest.mark.parametrize("family", ["agent", "inbox", "urgent", "task", "activity", "stop"])
@pytest.mark.parametrize("name", ["backlog", "events", "broadcast"])
def test_the_own_keys_of_a_town_that_ends_like_a_family_are_no_records_of_another(
    newest: Server, family: str, name: str
) -> None:
    """tt:x:task:backlog is the backlog of town x:task and no task of town x."""
    redis = newest.client()
    redis.mset({f"tt:x:{family}:{name}": 1, "tt:x:agent:1": 1, f"tt:x:{family}:{name}s": 1})
    _, _, _, towns, strings, *_ = whole_pass(redis, "count", "x")
    assert towns == [f"x:{family}".encode()]
    assert strings == [1 + (family == "agent"), int(family == "task")]
    assert whole_pass(redis, "left", "x")[1] == strings
    reply = redis.eval(source("records", HASH), 0, "x", 0, 1000, 1_000_000, 1000, 0)
    assert f"tt:x:{family}:{name}".encode() not in reply[4]
    # The other way round each town's keys are its own as well.
    _, _, _, towns, strings, *_ = whole_pass(redis, "count", f"x:{family}")
    assert set(towns) - {f"x:{family}".encode()} == {b"x"}
    assert strings == [0, 0]


@pytest.mark.parametrize(
    "key_id", [b"\x00", b"\xff\xfe", b"%s", b"*", b"a b", b"\r\n", "日本".encode(), b"x" * 10_000]
)
def test_an_id_may_hold_any_byte_but_a_colon(redis: Redis, key_id: bytes) -> None:
    redis.set(b"tt:agent:" + key_id, 1)
    assert whole_pass(redis, "migrate", b"a%1\x00")[0][0] == 1
    assert redis.keys() == [b"tt:a%1\x00:agent:" + key_id]


def test_a_batch_goes_on_from_its_cursor_and_reports_what_it_did(redis: Redis) -> None:
    for n in range(1000):
        redis.set(f"tt:task:{n}", n)
    cursor, moved, batches = b"0", 0, 0
    while True:
        cursor, steps, elapsed, dbsize, families, *_ = call(redis, "migrate", "t", cursor, 10, 1)
        assert steps == 1
        assert elapsed >= 0
        assert dbsize == 1000
        moved += sum(families)
        batches += 1
        if cursor == b"0":
            break
    assert moved == 1000
    assert batches > 10


def test_a_batch_stops_at_its_time_budget(redis: Redis) -> None:
    for n in range(0, 20_000, 1000):
        redis.mset({f"tt:task:{m}": m for m in range(n, n + 1000)})
    cursor, short, elapsed, *_ = call(redis, "count", "t", 0, 10, 2000)
    assert cursor != b"0"
    assert elapsed > 0
    cursor, whole, *_ = call(redis, "count", "t", 0, 10, 60_000_000)
    assert cursor == b"0"
    assert 1 <= short < whole


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.command)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), "town, cursor, count, budget"),
        (("t", "0", "10"), "town, cursor, count, budget"),
        (("t", "0", "10", "1000", "more"), "town, cursor, count, budget"),
        (("", "0", "10", "1000"), "town"),
        (("t", "", "10", "1000"), "cursor"),
        (("t", "-1", "10", "1000"), "cursor"),
        (("t", "x", "10", "1000"), "cursor"),
        (("t", "0", "0", "1000"), "count"),
        (("t", "0", "1.5", "1000"), "count"),
        (("t", "0", "1e3", "1000"), "count"),
        (("t", "0", "9999999999", "1000"), "count"),
        (("t", "0", "10", "0"), "budget"),
        (("t", "0", "10", "soon"), "budget"),
    ],
)
def test_a_malformed_argument_is_named_and_nothing_is_written(
    newest: Server, plan: Plan, operation: str, args: tuple[str, ...], named: str
) -> None:
    redis = newest.client()
    redis.set("tt:agent:1", 1)
    with pytest.raises(ResponseError, match=f"^BADARG.*{named}"):
        redis.eval(source(operation, plan), 0, *args)
    assert redis.keys() == [b"tt:agent:1"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_keys_are_refused(newest: Server, operation: str) -> None:
    with pytest.raises(ResponseError, match=r"^BADARG"):
        newest.client().eval(source(operation, RENAME), 1, "key", "t", "0", "10", "1000")


@pytest.mark.parametrize("operation", ["count", "left", "preview", "records", "fetch"])
def test_the_server_refuses_a_write_by_a_reading_script(server: Server, operation: str) -> None:
    if server.kind.version < (7, 0):
        pytest.skip(f"{server.kind.name} knows no script flags")
    redis = server.client()
    writing = source(operation, RENAME, read_only=True).replace(
        f"-- {operation}.lua", f"redis.call('SET', 'a', 'b')\n-- {operation}.lua"
    )
    with pytest.raises(ResponseError, match="Write commands are not allowed"):
        redis.eval(writing, 0, "t", "0", "10", "1000")
    assert redis.dbsize() == 0


@pytest.mark.parametrize("operation", ["count", "preview"])
def test_reading_scripts_name_no_write_command(operation: str) -> None:
    text = source(operation, RENAME).partition(f"-- {operation}.lua")[2]
    for write in ("RENAME", "SET", "DEL", "PUSH", "EXPIRE"):
        assert f"call('{write}" not in text


def test_a_key_that_vanished_is_no_failure(redis: Redis) -> None:
    """As after an expiry between SCAN and RENAMENX; here the script itself deletes the key."""
    redis.set("tt:agent:1", 1)
    deleting = source("migrate", RENAME).replace(
        "local reply = rename('RENAMENX'",
        "redis.call('DEL', key)\n  local reply = rename('RENAMENX'",
    )
    assert deleting != source("migrate", RENAME)
    _, _, _, _, families, _, conflicts, failed, *_ = redis.eval(deleting, 0, "t", "0", "10", "1000")
    assert sum(families) == 0
    assert conflicts == failed == []


def test_a_key_the_user_may_not_rename_does_not_stop_the_rest(server: Server) -> None:
    redis = server.client()
    redis.mset({"tt:agent:yes": 1, "tt:agent:no": 2, "tt:inbox:yes": 3})
    allowed = ("~tt:agent:yes", "~tt:inbox:*", "~tt:town:*")
    redis.execute_command("ACL", "SETUSER", "some", "on", ">secret", "+@all", *allowed)
    some = server.client(username="some", password="secret")
    families, _, conflicts, failed, *_ = whole_pass(some, "migrate")
    assert families == [1, 1, 0, 0, 0, 0, 0]
    assert conflicts == []
    assert failed[0] == b"tt:agent:no"
    assert b"key" in failed[1]
    assert redis.get("tt:agent:no") == b"2"


@pytest.mark.parametrize(
    ("denied", "operation"),
    [("scan", "count"), ("exists", "preview"), ("scan", "migrate"), ("renamenx", "migrate")],
)
def test_a_command_the_user_may_not_run_is_one_refusal(
    server: Server, denied: str, operation: str
) -> None:
    redis = server.client()
    redis.mset({f"tt:agent:{n}": n for n in range(10)})
    redis.execute_command("ACL", "SETUSER", "less", "on", ">secret", "~*", "+@all", f"-{denied}")
    less = server.client(username="less", password="secret")
    with pytest.raises(ResponseError, match=r"permission|can't run this command"):
        whole_pass(less, operation)
    assert len(redis.keys("tt:agent:*")) == 10


def test_a_command_that_the_server_lacks_is_one_refusal(
    kind: Kind, own_server: StartServer
) -> None:
    redis = own_server("--rename-command", "RENAMENX", "", kind=kind).client()
    redis.mset({f"tt:agent:{n}": n for n in range(10)})
    with pytest.raises(ResponseError, match=r"nknown .*command called"):
        whole_pass(redis, "migrate")
    assert len(redis.keys("tt:agent:*")) == 10


def test_a_server_that_replicates_scripts_as_text_takes_the_renames(server: Server) -> None:
    if server.kind.version >= (7, 0):
        pytest.skip(f"{server.kind.name} always replicates a script's effects")
    redis = server.client()
    redis.config_set("lua-replicate-commands", "no")
    redis.set("tt:agent:1", 1)
    assert whole_pass(redis, "migrate")[0][0] == 1


def test_without_permission_to_ask_the_time_a_batch_is_short_or_has_another_clock(
    server: Server,
) -> None:
    redis = server.client()
    redis.mset({f"tt:agent:{n}": n for n in range(300)})
    redis.execute_command("ACL", "SETUSER", "less", "on", ">secret", "~*", "+@all", "-time")
    less = server.client(username="less", password="secret")
    _, steps, elapsed, *_ = call(less, "migrate", "town", 0, 50, 1_000_000)
    assert (steps == 1) == (elapsed == 0) == (server.kind.name in ("redis-6.2", "redis-7.0"))


def test_a_server_that_takes_no_writes_is_one_refusal(redis: Redis) -> None:
    redis.mset({f"tt:agent:{n}": n for n in range(10)})
    redis.config_set("min-replicas-to-write", 1)
    with pytest.raises(ResponseError, match=r"^NOREPLICAS"):
        whole_pass(redis, "migrate")
    redis.config_set("min-replicas-to-write", 0)
    assert len(redis.keys("tt:agent:*")) == 10


def test_count_tells_records_by_type_and_what_has_no_old_form(redis: Redis) -> None:
    redis.mset({"tt:town:agent:1": 1, "tt:agent:2": 2, "tt:agent:1": "in conflict"})
    redis.hset("tt:town:task:1", "id", "1")
    redis.hset("tt:task:3", "id", "3")
    redis.rpush("tt:town:task:2", "x")
    redis.mset({"tt:town:events": 1, "tt:town:events:agent:1": 1, "tt:town:mission:x:work": 1})
    *_, strings, old_strings, hashes, others, untyped, new_only = whole_pass(redis, "count")
    assert (strings, old_strings) == ([1, 0], [1, 0])
    assert (hashes, others, untyped, new_only) == (1, 1, 0, 3)


def test_left_counts_keys_that_move_and_strings(redis: Redis) -> None:
    redis.mset({"tt:town:agent:1": 1, "tt:agent:2": 2, "tt:backlog": 3, "tt:task:events": 4})
    redis.mset({"tt:town:stop:1": 1, "tt:town:task:1": 1, "tt:town:task:": 1, "tt:agents:1": 1})
    redis.hset("tt:town:task:2", "id", "2")
    families, strings = whole_pass(redis, "left")
    assert families == [1, 0, 0, 0, 0, 0, 1]
    assert strings == [1, 1]


@pytest.mark.parametrize("town", ["task", "a:b", "x[1]*?\\^-", "backlog", "agent"])
def test_left_finds_the_same_as_count_whatever_the_town_is_called(
    newest: Server, town: str
) -> None:
    redis = newest.client()
    names = ["agent:1", "inbox:1", "urgent:1", "task:1", "activity:1", "stop:1", "backlog"]
    redis.mset({f"{start}{name}": 1 for name in names for start in ("tt:", f"tt:{town}:")})
    families, *_, strings, _, _, _, _, _ = whole_pass(redis, "count", town)
    assert whole_pass(redis, "left", town) == [families, strings]
    assert sum(families) >= 7
    assert strings == [1, 1]


def test_records_reads_strings_and_names_those_to_come(redis: Redis) -> None:
    redis.mset({"tt:town:agent:1": "a", "tt:agent:2": "b", "mt:task:3": "c", "tt:agent:1": "d"})
    redis.hset("tt:town:task:4", "id", "4")
    redis.rpush("tt:town:task:5", "x")
    script = source("records", UPGRADE)
    cursor, _, _, dbsize, *fields = redis.eval(script, 0, "town", 0, 1000, 1_000_000, 1000, 1)
    records, coming, failed = fields
    assert (cursor, dbsize) == (b"0", 6)
    assert records == [b"tt:town:agent:1", b"a"]
    pairs = sorted(zip(coming[::2], coming[1::2], strict=True))
    assert pairs == [(b"tt:town:agent:2", b"b"), (b"tt:town:task:3", b"c")]
    assert failed == [b"tt:town:task:5", b"is a list, neither string nor hash"]
    *_, coming, _ = redis.eval(script, 0, "town", 0, 1000, 1_000_000, 1000, 0)
    assert coming == []


def test_records_stops_when_it_has_enough(redis: Redis) -> None:
    redis.mset({f"tt:town:task:{n}": n for n in range(1000)})
    cursor, _, _, _, records, _, _ = redis.eval(
        source("records", HASH), 0, "town", 0, 10, 60_000_000, 50, 0
    )
    assert cursor != b"0"
    assert 50 <= len(records) / 2 < 100


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("t", "0", "10", "1000"), "town, cursor, count, budget, enough, old"),
        (("t", "0", "10", "1000", "0", "1"), "enough"),
        (("t", "0", "10", "1000", "many", "1"), "enough"),
        (("t", "0", "10", "1000", "10", "yes"), "old"),
        (("", "0", "10", "1000", "10", "1"), "town"),
    ],
)
def test_records_names_a_malformed_argument(
    newest: Server, args: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ResponseError, match=f"^BADARG.*{named}"):
        newest.client().eval(source("records", HASH), 0, *args)


def test_convert_stops_at_its_budget_and_tells_how_far_it_came(redis: Redis) -> None:
    keys = [f"tt:town:task:{n}" for n in range(500)]
    redis.mset(dict.fromkeys(keys, "x"))
    args = ["1"]
    for n in range(500):
        args += ["x", "1", "id", str(n)]
    done, converted, elapsed, changed, failed = redis.eval(
        source("convert", HASH), 500, *keys, *args
    )
    assert 1 <= done < 500
    assert converted == list(range(1, done + 1))
    assert elapsed > 0
    assert changed == failed == []
    assert [redis.type(key) for key in keys[: done + 1]] == [b"hash"] * done + [b"string"]


def test_convert_leaves_a_record_that_is_gone_or_no_string_any_more(redis: Redis) -> None:
    redis.hset("tt:town:task:2", "id", "2")
    reply = redis.eval(
        source("convert", HASH),
        2,
        "tt:town:task:1",
        "tt:town:task:2",
        *("5000", "x", "1", "id", "1", "x", "1", "id", "2"),
    )
    done, converted, _, changed, failed = reply
    assert (done, converted, changed, failed) == (2, [], [], [])
    assert redis.keys() == [b"tt:town:task:2"]


@pytest.mark.parametrize(
    ("keys", "args"),
    [
        ((), ("1000",)),
        (("k",), ()),
        (("k",), ("0", "x", "1", "id", "1")),
        (("k",), ("soon", "x", "1", "id", "1")),
        (("k",), ("1000",)),
        (("k",), ("1000", "x")),
        (("k",), ("1000", "x", "0")),
        (("k",), ("1000", "x", "1", "id")),
        (("k",), ("1000", "x", "2", "id", "1", "name")),
        (("k",), ("1000", "x", "1", "id", "1", "more")),
        (("k", "l"), ("1000", "x", "1", "id", "1")),
        (("k", ""), ("1000", "x", "1", "id", "1", "x", "1", "id", "1")),
    ],
)
def test_convert_refuses_malformed_arguments_before_it_writes(
    newest: Server, keys: tuple[str, ...], args: tuple[str, ...]
) -> None:
    redis = newest.client()
    redis.set("k", "x")
    with pytest.raises(ResponseError, match=r"^BADARG"):
        redis.eval(source("convert", HASH), len(keys), *keys, *args)
    assert redis.get("k") == b"x"


def test_fetch_reads_strings_and_hashes(redis: Redis) -> None:
    redis.set("a", 1)
    redis.hset("b", "f", "v")
    redis.rpush("c", "x")
    script = source("fetch", RENAME)
    assert redis.eval(script, 4, "a", "b", "c", "none") == [b"1", [b"f", b"v"], None, None]
    for keys, args in (((), ()), (("a",), ("x",))):
        with pytest.raises(ResponseError, match=r"^BADARG"):
            redis.eval(script, len(keys), *keys, *args)

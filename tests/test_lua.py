"""The scripts' contract (arguments, replies, error codes), tested by direct calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.servers import Kind, Server, StartServer
from tests.waiting import wait_until
from tt_migrate.engine.scripts import GUARDS, headed, script_for, source
from tt_migrate.plan import DOWNGRADE, HASH, RENAME, REVERSE, UPGRADE, Plan, from_town
from tt_migrate.terminal.words import command_for

pytestmark = pytest.mark.every_kind

OPERATIONS = ("count", "left", "preview", "migrate")
MORE = {
    "migrate": ("", "", "0", "0"),
    "count": ("", "", "0"),
    "left": ("", "", "0"),
    "records": ("", "", "0"),
    "preview": ("",),
}
"""Arguments after `denied`, except for those of records.lua alone."""
PLANS = (RENAME, UPGRADE, REVERSE, replace(RENAME, merge=True))


def call(redis: Redis, operation: str, *args: object) -> list[Any]:
    """Call a scanning script for one batch, with no denied commands."""
    args = (*args, "", *MORE[operation])
    reply: list[Any] = redis.eval(source(operation, RENAME), 0, *args)  # type: ignore[arg-type]
    return reply


def packed(*texts: bytes) -> bytes:
    """Return a MessagePack array of strings."""
    head = b"\xdd" + len(texts).to_bytes(4, "big")
    return head + b"".join(b"\xdb" + len(text).to_bytes(4, "big") + text for text in texts)


def whole_pass(redis: Redis, operation: str, town: bytes | str = "town") -> list[Any]:
    """Return the reply's fields after the fourth, from one batch that scans all keys.

    Without `kept`, which is 0 here.
    """
    cursor, _, _, _, *fields = call(redis, operation, town, 0, 1000, 1_000_000)
    assert cursor == b"0"
    if operation != "preview":
        assert fields.pop(-2 if operation == "migrate" else -1) == 0
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
    assert sorted(towns) == [b"other:town", b"town"]


def test_preview_names_moves_conflicts_and_ambiguous_keys(redis: Redis) -> None:
    for key in ("tt:agent:1", "tt:agent:2", "tt:backlog", "tt:urgent:events", "tt:town:agent:2"):
        redis.set(key, 1)
    redis.set("tt:inbox:a\nb", 1)
    redis.set("tt:other:inbox:1", 1)
    moves, odd_moves, merges, conflicts, failed, ambiguous, _, towns = whole_pass(redis, "preview")
    assert sorted(moves.split(b"\n")) == [b"tt:agent:1", b"tt:backlog"]
    assert odd_moves == [b"tt:inbox:a\nb"]
    assert conflicts == [b"tt:agent:2", b"destination exists"]
    assert merges == failed == []
    assert ambiguous == [b"tt:urgent:events"]
    assert sorted(towns) == [b"other", b"town"]


def test_migrate_renames_and_tells_what_it_left(redis: Redis) -> None:
    for key in ("tt:agent:1", "tt:agent:2", "tt:backlog", "tt:urgent:events", "tt:town:agent:2"):
        redis.set(key, key)
    families, merged, conflicts, failed, ambiguous, _, renamed, joined, towns, error = whole_pass(
        redis, "migrate"
    )
    assert families == [1, 0, 0, 0, 0, 0, 1]
    assert sum(merged) == 0
    assert (renamed, joined, towns, error) == ([], [], [b"town"], b"")
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
    families, _, conflicts, failed, ambiguous, *_ = whole_pass(redis, "migrate")
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
    ambiguous = whole_pass(redis, "migrate")[4]
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
    """tt:x:task:backlog is the backlog of town x:task, not a task of town x."""
    redis = newest.client()
    redis.mset({f"tt:x:{family}:{name}": 1, "tt:x:agent:1": 1, f"tt:x:{family}:{name}s": 1})
    _, _, _, towns, strings, *_ = whole_pass(redis, "count", "x")
    assert {*towns} == {f"x:{family}".encode(), b"x"}
    assert strings == [1 + (family == "agent"), int(family == "task")]
    assert whole_pass(redis, "left", "x")[1] == strings
    reply = redis.eval(
        source("records", HASH), 0, "x", 0, 1000, 1_000_000, "", "", "", 0, 1000, 0, "string"
    )
    assert f"tt:x:{family}:{name}".encode() not in reply[4]
    # The same holds the other way round.
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


@pytest.mark.parametrize("plan", PLANS, ids=command_for)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), "town, cursor, count, budget, denied, from"),
        (("t", "0", "10", "1000"), "town, cursor, count, budget, denied, from"),
        (("", "0", "10", "1000", ""), "town"),
        (("t", "", "10", "1000", ""), "cursor"),
        (("t", "-1", "10", "1000", ""), "cursor"),
        (("t", "x", "10", "1000", ""), "cursor"),
        (("t", "0", "0", "1000", ""), "count"),
        (("t", "0", "1.5", "1000", ""), "count"),
        (("t", "0", "1e3", "1000", ""), "count"),
        (("t", "0", "9999999999", "1000", ""), "count"),
        (("t", "0", "10", "0", ""), "budget"),
        (("t", "0", "10", "soon", ""), "budget"),
    ],
)
def test_a_malformed_argument_is_named_and_nothing_is_written(
    newest: Server, plan: Plan, operation: str, args: tuple[str, ...], named: str
) -> None:
    redis = newest.client()
    redis.set("tt:agent:1", 1)
    with pytest.raises(ResponseError, match=rf"^BADARG (takes .*: )?{named}[:,]?"):
        redis.eval(source(operation, plan), 0, *args, *MORE[operation])
    assert redis.keys() == [b"tt:agent:1"]


@pytest.mark.parametrize("operation", [*OPERATIONS, "agents", "records"])
@pytest.mark.parametrize("start", ["x", "tt:", "tt:old", "old:", ":"])
def test_the_start_of_keys_with_a_former_name_is_checked(
    newest: Server, operation: str, start: str
) -> None:
    more = {**MORE, "agents": ("",), "records": ("", "", "0", "1000", "1", "string")}[operation]
    script = source(operation, RENAME)
    with pytest.raises(ResponseError, match=r"^BADARG from: "):
        newest.client().eval(script, 0, "t", "0", "10", "1000", "", start, *more[1:])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("start", ["", "tt:town:"])
def test_a_former_name_is_needed_where_keys_move_from_it(
    newest: Server, operation: str, start: str
) -> None:
    redis = newest.client()
    redis.set("tt:town:stop:1", 1)
    script = source(operation, from_town("old"))
    with pytest.raises(ResponseError, match=r"^BADARG from: is empty, or of the town itself"):
        redis.eval(script, 0, "town", "0", "10", "1000", "", start, *MORE[operation][1:])
    assert redis.keys() == [b"tt:town:stop:1"]


def test_agents_names_the_agents_of_both_names_of_a_town(redis: Redis) -> None:
    redis.hset("tt:town:agent:1", "name", "hash")
    redis.set("tt:old:agent:2", '{"name": "text \\u00e9"}')
    # Agents without a name, and of another town.
    redis.hset("tt:town:agent:3", "id", "3")
    for n, text in enumerate(("", "[]", '"x"', "null", '{"name": 1}', '{"name"', "{}")):
        redis.set(f"tt:old:agent:1{n}", text)
    redis.rpush("tt:old:agent:4", "x")
    redis.hset("tt:other:agent:5", "name", "other")
    redis.hset("tt:old:agent:events", "name", "of another town")
    script = source("agents", from_town("old"))
    args = ("town", "0", "1000", "1000000", "", "tt:old:")
    cursor, _, _, dbsize, found = redis.eval(script, 0, *args)
    assert (cursor, dbsize) == (b"0", 13)
    assert as_pairs(found) == [(b"1", b"hash"), (b"2", "text é".encode())]
    assert as_pairs(redis.eval(script, 0, *args[:-1], "")[-1]) == [(b"1", b"hash")]
    assert redis.eval(script, 0, *args[:4], "TYPE", "tt:old:")[-1] == []


@pytest.mark.parametrize("names", ["", "2", "yes", "tt:agent:1"])
def test_names_are_asked_for_with_1_and_not_with_0(newest: Server, names: str) -> None:
    redis = newest.client()
    redis.set("tt:agent:1", 1)
    with pytest.raises(ResponseError, match=r"^BADARG names: "):
        redis.eval(source("migrate", RENAME), 0, "t", "0", "10", "1000", "", "", "", "0", names)
    assert redis.keys() == [b"tt:agent:1"]


@pytest.mark.parametrize("names", ["0", "1"])
def test_migrate_names_what_it_renamed_and_merged_if_asked(redis: Redis, names: str) -> None:
    redis.mset({"tt:agent:1": 1, "tt:stop:1": 1, "tt:town:stop:1": 2})
    redis.rpush("tt:inbox:1", "older")
    redis.rpush("tt:town:inbox:1", "newer")
    script = source("migrate", replace(RENAME, merge=True))
    args = ("town", 0, 100, 1_000_000, "", "", "", "0", names)
    *_, renamed, joined, _, _, error = redis.eval(script, 0, *args)
    assert error == b""
    if names == "0":
        assert (renamed, joined) == ([], [])
    else:
        assert renamed == [b"tt:agent:1"]
        assert as_pairs(joined) == [
            (b"tt:inbox:1", b"older values first"),
            (b"tt:stop:1", b"the newer value"),
        ]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_keys_are_refused(newest: Server, operation: str) -> None:
    args = ("t", "0", "10", "1000", "", *MORE[operation])
    with pytest.raises(ResponseError, match=r"^BADARG"):
        newest.client().eval(source(operation, RENAME), 1, "key", *args)


@pytest.mark.parametrize("operation", ["count", "left", "preview", "records", "fetch", "agents"])
def test_the_server_refuses_a_write_by_a_reading_script(server: Server, operation: str) -> None:
    if server.kind.version < (7, 0):
        pytest.skip(f"{server.kind.name}: no script flags")
    redis = server.client()
    writing = headed(script_for(operation, RENAME), GUARDS).text.replace(
        f"-- {operation}.lua", f"redis.call('SET', 'a', 'b')\n-- {operation}.lua"
    )
    with pytest.raises(ResponseError, match="Write commands are not allowed"):
        redis.eval(writing, 0, "t", "0", "10", "1000", "")
    assert redis.dbsize() == 0


@pytest.mark.parametrize("operation", ["count", "preview"])
def test_reading_scripts_name_no_write_command(operation: str) -> None:
    text = source(operation, RENAME).partition(f"-- {operation}.lua")[2]
    for write in ("RENAME", "SET", "DEL", "PUSH", "EXPIRE"):
        assert f"call('{write}" not in text


@pytest.mark.parametrize("operation", ["preview", "migrate"])
def test_conflicts_that_are_found_when_the_time_is_spent_are_postponed(
    redis: Redis, operation: str
) -> None:
    keys = [f"tt:inbox:{n}" for n in range(50)]
    for n, key in enumerate(keys):
        redis.rpush(key, "old")
        redis.rpush(f"tt:town:inbox:{n}", "new")
    script = source(operation, replace(RENAME, merge=True))

    def merges(fields: list[Any]) -> int:
        return len(fields[2]) // 2 if operation == "preview" else sum(fields[1])

    more = MORE[operation]
    cursor, steps, _, _, *fields = redis.eval(script, 0, "town", 0, 1000, 1, "", *more)
    postponed = fields[6] if operation == "preview" else fields[5]
    # On Redis 8 and Valkey, a script's clock has a resolution of some microseconds.
    assert (cursor, steps, merges(fields) + len(postponed)) == (b"0", 1, 50)
    assert 1 <= merges(fields) < 50
    cursor, steps, _, _, *fields = redis.eval(
        script, 0, "town", "7", 1000, 60_000_000, "", *more, *postponed
    )
    assert (cursor, steps, merges(fields)) == (b"7", 0, len(postponed))


@pytest.mark.parametrize("operation", ["preview", "migrate"])
def test_without_a_clock_a_call_settles_one_conflict(server: Server, operation: str) -> None:
    if server.kind.version >= (8, 0):
        pytest.skip(f"{server.kind.name}: its clock needs no permission")
    redis = server.client()
    for n in range(20):
        redis.rpush(f"tt:inbox:{n}", "old")
        redis.rpush(f"tt:town:inbox:{n}", "new")
    script = source(operation, replace(RENAME, merge=True))
    reply = redis.eval(script, 0, "town", 0, 1000, 60_000_000, "TIME", *MORE[operation])
    assert len(reply[10] if operation == "preview" else reply[9]) == 19


def test_a_conflict_that_takes_no_time_is_not_postponed(redis: Redis) -> None:
    for n in range(50):
        redis.mset({f"tt:agent:{n}": n, f"tt:town:agent:{n}": n})
    for operation, at in (("preview", 3), ("migrate", 2)):
        _, _, _, _, *fields = call(redis, operation, "town", 0, 1000, 1)
        assert len(fields[at]) == 100


def test_a_key_that_vanished_is_no_failure(redis: Redis) -> None:
    """Like an expiry between SCAN and RENAMENX; here the script itself deletes the key."""
    redis.set("tt:agent:1", 1)
    deleting = source("migrate", RENAME).replace(
        "local reply = rename(key", "redis.call('DEL', key)\n  local reply = rename(key"
    )
    assert deleting != source("migrate", RENAME)
    args = ("t", "0", "10", "1000", "", *MORE["migrate"])
    _, _, _, _, families, _, conflicts, failed, *_ = redis.eval(deleting, 0, *args)
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
    with pytest.raises(ResponseError, match=r"^NOCOMMAND"):
        whole_pass(redis, "migrate")
    assert len(redis.keys("tt:agent:*")) == 10


def test_a_server_that_replicates_scripts_as_text_takes_the_renames(server: Server) -> None:
    if server.kind.version >= (7, 0):
        pytest.skip(f"{server.kind.name}: always replicates the effects of a script")
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
    assert (hashes, others, untyped, new_only) == ([0, 1], 1, 0, 3)


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
    families, _, _, _, strings, *_ = whole_pass(redis, "count", town)
    assert whole_pass(redis, "left", town) == [families, strings]
    assert sum(families) >= 7
    assert strings == [1, 1]


def records(redis: Redis, enough: int, *, old: int, count: int = 1000) -> list[Any]:
    args = ("town", 0, count, 60_000_000, "", "", "", "0", enough, old, "string")
    reply: list[Any] = redis.eval(source("records", UPGRADE), 0, *args)
    assert reply.pop() == 0
    return reply


def as_pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return sorted(zip(flat[::2], flat[1::2], strict=True))


def test_records_reads_strings_by_the_names_that_they_have_or_will_have(redis: Redis) -> None:
    redis.mset({"tt:town:agent:1": "a", "tt:agent:2": "b", "mt:task:3": "c", "tt:agent:1": "d"})
    redis.hset("tt:town:task:4", "id", "4")
    redis.rpush("tt:town:task:5", "x")
    cursor, _, _, dbsize, found, unread, failed = records(redis, 100_000, old=1)
    assert (cursor, dbsize, unread) == (b"0", 6, [])
    assert as_pairs(found) == [
        (b"tt:town:agent:1", b"a"),
        (b"tt:town:agent:2", b"b"),
        (b"tt:town:task:3", b"c"),
    ]
    assert failed == [b"tt:town:task:5", b"is a list, neither string nor hash"]
    *_, found, _, _ = records(redis, 100_000, old=0)
    assert found == [b"tt:town:agent:1", b"a"]


def test_records_begins_no_step_when_it_has_enough(redis: Redis) -> None:
    redis.mset({f"tt:town:task:{n}": n for n in range(1000)})
    cursor, _, _, _, found, unread, _ = records(redis, 25 * 300, old=0, count=10)
    assert cursor != b"0"
    assert 25 <= len(found) / 2 + len(unread) / 2 < 100


@pytest.mark.parametrize("size", [1, 10_000, 1_000_000])
def test_records_names_what_it_found_and_did_not_read(redis: Redis, size: int) -> None:
    redis.mset({f"tt:agent:{n}": "x" * size for n in range(20)})
    redis.mset({f"tt:town:task:{n}": "x" * size for n in range(20)})
    cursor, _, _, _, found, unread, _ = records(redis, 3 * (size + 300), old=1)
    assert (cursor, len(found) / 2, len(unread) / 2) == (b"0", 3, 37)
    names = {*found[::2], *unread[1::2]}
    assert names == {b"tt:town:%b:%d" % (f, n) for f in (b"agent", b"task") for n in range(20)}
    for key, name in as_pairs(unread):
        assert key in (name, name.replace(b"tt:town:", b"tt:"))
        assert redis.exists(key)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("t", "0", "10", "1000"), "(takes no .*, enough, old, kind$)"),
        (("t", "0", "10", "1000", "", "", "", "0", "-1", "1", "hash"), "enough: "),
        (("t", "0", "10", "1000", "", "", "", "0", "many", "1", "hash"), "enough: "),
        (("t", "0", "10", "1000", "", "", "", "0", "10", "yes", "hash"), "old: "),
        (("t", "0", "10", "1000", "", "", "", "0", "10", "1", "list"), "kind: "),
        (("", "0", "10", "1000", "", "", "", "0", "10", "1", "hash"), "town: "),
    ],
)
def test_records_names_a_malformed_argument(
    newest: Server, args: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ResponseError, match=f"^BADARG {named}"):
        newest.client().eval(source("records", HASH), 0, *args)


def convert(redis: Redis, *records: tuple[str, str, bytes]) -> list[Any]:
    """Call convert.lua with keys, the expected values and the hash."""
    args = [
        word for key, expected, new in records for word in (key, f"{key}:tt-migrate", expected, new)
    ]
    reply: list[Any] = redis.eval(source("convert", HASH), 0, "", *args)
    return reply


def test_convert_tells_which_it_converted_and_which_have_changed(redis: Redis) -> None:
    redis.mset({"tt:town:task:1": "x", "tt:town:task:2": "newer"})
    redis.hset("tt:town:task:3", "id", "3")
    new = packed(b"id", b"1", b"\xff\x00", b"")
    keys = [f"tt:town:task:{n}" for n in (2, 3, 4, 1)]
    elapsed, converted, changed, failed, error = convert(redis, *((key, "x", new) for key in keys))
    assert (converted, changed, failed, error) == ([4], [1], [], b"")
    assert elapsed > 0
    assert redis.hgetall("tt:town:task:1") == {b"id": b"1", b"\xff\x00": b""}
    assert redis.get("tt:town:task:2") == b"newer"
    assert len(redis.keys()) == 3


@pytest.mark.parametrize("fields", [1, 500, 501, 4001, 70_000])
def test_convert_builds_hashes_of_any_size(redis: Redis, fields: int) -> None:
    redis.set("tt:town:task:1", "x")
    texts = [b"%d" % n for n in range(2 * fields)]
    assert convert(redis, ("tt:town:task:1", "x", packed(*texts)))[1] == [1]
    assert redis.hgetall("tt:town:task:1") == dict(zip(texts[::2], texts[1::2], strict=True))


def test_convert_keeps_a_time_to_live_and_makes_none(redis: Redis) -> None:
    redis.set("tt:town:task:1", "x", px=60_000)
    redis.set("tt:town:task:2", "x")
    new = packed(b"id", b"1")
    assert convert(redis, *((f"tt:town:task:{n}", "x", new) for n in (1, 2)))[1] == [1, 2]
    assert 50_000 < redis.pttl("tt:town:task:1") <= 60_000
    assert redis.pttl("tt:town:task:2") == -1


def test_convert_swaps_a_record_in_its_last_millisecond(redis: Redis) -> None:
    redis.set("tt:town:task:1", "x", px=60_000)
    hurried = source("convert", HASH).replace("call('PTTL', key)", "0")
    assert hurried != source("convert", HASH)
    _, converted, _, failed, _ = redis.eval(
        hurried, 0, "", "tt:town:task:1", "site", "x", packed(b"id", b"1")
    )
    assert (converted, failed) == ([1], [])
    wait_until(lambda: not redis.exists("tt:town:task:1"))


def test_convert_keeps_the_counts_of_what_it_did_before_a_refusal(server: Server) -> None:
    redis = server.client()
    redis.mset({"tt:town:task:1": "x", "tt:town:task:2": "x"})
    new = packed(b"id", b"1")
    stopping = source("convert", HASH).replace(
        "swap(record, 'hash', function(site)",
        "swap(record, 'hash', function(site)\n  if site == 'site 2' then"
        " error({err = 'READONLY no more'}) end",
    )
    args = ("", "tt:town:task:1", "site 1", "x", new, "tt:town:task:2", "site 2", "x", new)
    reply = redis.eval(stopping, 0, *args)
    _, converted, changed, failed, error = reply
    assert (converted, changed, failed, error) == ([1], [], [], b"READONLY no more")
    assert redis.get("tt:town:task:2") == b"x"
    assert len(redis.keys()) == 2


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("",),
        ("", "k"),
        ("", "k", "s"),
        ("", "k", "s", "x"),
        ("", "k", "s", "x", b""),
        ("", "k", "s", "x", packed()),
        ("", "k", "s", "x", packed(b"id")),
        ("", "k", "s", "x", packed(b"id", b"1", b"name")),
        ("", "k", "s", "x", packed(b"id", b"1")[:-1]),
        ("", "k", "s", "x", b"\x91\x01"),
        ("", "k", "s", "x", b"\x92\xa1a\x01"),
        ("", "k", "s", "x", b"\xa1a"),
        ("", "", "s", "x", packed(b"id", b"1")),
        ("", "k", "", "x", packed(b"id", b"1")),
        ("", "k", "s", "x", packed(b"id", b"1"), "more"),
        ("", "k", "s", "x", packed(b"id", b"1"), "l", "s", "x"),
        ("", "k", "s", "x", packed(b"id", b"1"), "", "s", "x", packed(b"id", b"1")),
    ],
)
def test_convert_refuses_malformed_arguments_before_it_writes(
    newest: Server, args: tuple[str | bytes, ...]
) -> None:
    redis = newest.client()
    redis.set("k", "x")
    with pytest.raises(ResponseError, match=r"^BADARG"):
        redis.eval(source("convert", HASH), 0, *args)
    with pytest.raises(ResponseError, match=r"^BADARG"):
        redis.eval(source("convert", HASH), 1, "k", "", "k", "s", "x", packed(b"id", b"1"))
    assert redis.get("k") == b"x"


def test_fetch_reads_strings_and_hashes_and_names_other_types(redis: Redis) -> None:
    redis.set("a", 1)
    redis.hset("b", "f", "v")
    redis.rpush("c", "x")
    elapsed, *found = redis.eval(source("fetch", RENAME), 0, "", 9999, "a", "b", "c", "none")
    assert elapsed >= 0
    assert found == [b"string", b"1", b"hash", [b"f", b"v"], b"list", b"", b"none", b""]


def test_fetch_reads_one_at_least_and_no_more_than_enough(redis: Redis) -> None:
    redis.mset({f"k{n}": "x" * 1000 for n in range(10)})
    redis.hset("h", mapping={f"f{n}": "x" * 10 for n in range(1000)})
    keys = [f"k{n}" for n in range(10)]
    for enough, read in ((1, 1), (1300, 1), (1301, 2), (3900, 3)):
        _, *found = redis.eval(source("fetch", RENAME), 0, "", enough, *keys)
        assert len(found) / 2 == read
    _, *found = redis.eval(source("fetch", RENAME), 0, "", 10_000, "h", "k1")
    assert found[::2] == [b"hash"]


def test_fetch_tells_of_a_key_that_may_not_be_read_and_reads_the_rest(server: Server) -> None:
    redis = server.client()
    redis.mset({"a": 1, "b": 2, "c": 3})
    redis.execute_command("ACL", "SETUSER", "some", "on", ">secret", "+@all", "~a", "~c")
    some = server.client(username="some", password="secret")
    _, *found = some.eval(source("fetch", RENAME), 0, "", 9999, "a", "b", "c")
    assert found[::2] == [b"string", b"error", b"string"]


@pytest.mark.parametrize(
    "args", [(), ("",), ("", "10"), ("", "0", "a"), ("", "all", "a"), ("", "4294967297", "a")]
)
def test_fetch_refuses_malformed_arguments(newest: Server, args: tuple[str, ...]) -> None:
    with pytest.raises(ResponseError, match=r"^BADARG"):
        newest.client().eval(source("fetch", RENAME), 0, *args)
    with pytest.raises(ResponseError, match=r"^BADARG"):
        newest.client().eval(source("fetch", RENAME), 1, "b", "", "10", "a")


def test_revert_tells_which_it_converted_and_which_have_changed(redis: Redis) -> None:
    fields = [b"id", b"1", b"name", b""]
    for n in (1, 2, 4):
        redis.hset(f"tt:town:task:{n}", mapping={"id": "1", "name": "newer" if n == 2 else ""})
    redis.set("tt:town:task:3", "a string by now")
    redis.pexpire("tt:town:task:4", 60_000)
    args: list[Any] = []
    for n in (1, 2, 3, 4, 5):
        args += [f"tt:town:task:{n}", f"site {n}", packed(*fields), "{}"]
    _, converted, changed, failed, error = redis.eval(source("revert", DOWNGRADE), 0, "", *args)
    assert (converted, changed, failed, error) == ([1, 4], [2], [], b"")
    assert [redis.get(f"tt:town:task:{n}") for n in (1, 3, 4)] == [
        *(b"{}", b"a string by now", b"{}")
    ]
    assert 50_000 < redis.pttl("tt:town:task:4") <= 60_000
    assert len(redis.keys()) == 4


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("",),
        ("", "k", "s", packed(b"id", b"1")),
        ("", "k", "s", "no fields", "{}"),
        ("", "k", "s", packed(), "{}"),
        ("", "k", "s", packed(b"id"), "{}"),
        ("", "", "s", packed(b"id", b"1"), "{}"),
        ("", "k", "", packed(b"id", b"1"), "{}"),
        ("", "k", "s", packed(b"id", b"1"), "{}", "more"),
    ],
)
def test_revert_refuses_malformed_arguments(newest: Server, args: tuple[str | bytes, ...]) -> None:
    with pytest.raises(ResponseError, match=r"^BADARG"):
        newest.client().eval(source("revert", DOWNGRADE), 0, *args)


def test_revert_keeps_a_record_whose_temporary_name_is_taken(redis: Redis) -> None:
    redis.hset("tt:town:task:1", "id", "1")
    redis.hset("site", "somebody's", "1")
    lua = source("revert", DOWNGRADE)
    reply = redis.eval(lua, 0, "", "tt:town:task:1", "site", packed(b"id", b"1"), "{}")
    assert [reply[1], reply[3][0]] == [[], b"tt:town:task:1"]
    assert redis.hgetall("site") == {b"somebody's": b"1"}

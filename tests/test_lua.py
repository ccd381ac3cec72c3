"""The scripts' contract (arguments, replies, error codes), tested by direct calls."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.keyspaces import contents, read_hash, write_hash
from tests.servers import Kind, Server, StartServer
from tests.tables import each
from tests.waiting import wait_until
from tt_migrate.engine.calls.replies import MigrateReply, PreviewReply, apart
from tt_migrate.engine.calls.scripts import GUARDS, headed, script_for, source
from tt_migrate.plan import DOWNGRADE, HASH, RENAME, REVERSE, UPGRADE, Plan, from_town
from tt_migrate.terminal.words import command_for

pytestmark = pytest.mark.every_kind

OPERATIONS = ("count", "left", "preview", "migrate")
MORE = {
    "migrate": ("", "", "0", "0", "0"),
    "left": ("", "", "0"),
    **dict.fromkeys(("count", "preview", "agents"), ("", "0", "0")),
}
"""Arguments after `denied`."""
PLANS = (RENAME, HASH, UPGRADE, REVERSE, DOWNGRADE, replace(RENAME, merge=True))


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

    Without those about the cursor.
    """
    cursor, _, _, _, *fields = call(redis, operation, town, 0, 1000, 1_000_000)
    assert cursor == b"0"
    if operation in ("migrate", "left"):
        assert fields.pop(-2 if operation == "migrate" else -1) == 0
    else:
        *fields, begin, passing = fields
        assert (begin, passing) == (b"0", 0)
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
    moves, odd_moves, merges, conflicts, failed, ambiguous, _, towns, *records = whole_pass(
        redis, "preview"
    )
    assert sorted(moves.split(b"\n")) == [b"tt:agent:1", b"tt:backlog"]
    assert odd_moves == [b"tt:inbox:a\nb"]
    assert conflicts == [b"tt:agent:2", b"destination exists"]
    assert merges == failed == []
    assert ambiguous == [b"tt:urgent:events"]
    assert sorted(towns) == [b"other", b"town"]
    assert records[:4] == [b"", [], [], []]
    assert not any(map(any, records[4:]))


def test_migrate_renames_and_tells_what_it_left(redis: Redis) -> None:
    for key in ("tt:agent:1", "tt:agent:2", "tt:backlog", "tt:urgent:events", "tt:town:agent:2"):
        redis.set(key, key)
    families, merged, conflicts, failed, ambiguous, _, renamed, joined, towns, *more = whole_pass(
        redis, "migrate"
    )
    assert families == [1, 0, 0, 0, 0, 0, 1]
    assert sum(merged) == 0
    assert (renamed, joined, towns) == ([], [], [b"town"])
    assert more == [[0, 0], [], [], [], more[4], b""]
    # Incomplete after a change: one agent of the town, if it was visited before.
    assert (more[4][0] in (0, 1), sum(more[4][1:])) == (True, 0)
    assert conflicts == [b"tt:agent:2", b"destination exists"]
    assert failed == []
    assert ambiguous == [b"tt:urgent:events"]
    assert redis.get("tt:town:agent:1") == b"tt:agent:1"
    assert redis.get("tt:town:agent:2") == b"tt:town:agent:2"
    assert redis.exists("tt:agent:1", "tt:backlog") == 0


def test_migrate_leaves_what_is_no_old_key(redis: Redis) -> None:
    keys = {
        *("tt:agent", "tt:agent:", "tt::1", "tt:", "tt", "xtt:agent:1", "TT:agent:1"),
        *("tt:Agent:1", "tt:broadcast", "tt:backlog:1", "tt:backlog:", "tt:events"),
        *("tt:docket:1", "tt:agent:1:2", "tt:agent::1", "tt:agents:1", "mt:agent:1"),
        *("tt:town:backlog", "tt:town:agent:1"),
    }
    redis.mset(dict.fromkeys(keys, 1))
    families, _, conflicts, failed, ambiguous, *_ = whole_pass(redis, "migrate")
    assert sum(families) == 0
    assert conflicts == failed == ambiguous == []
    assert {key.decode() for key in redis.scan_iter()} == keys


LIKE_FAMILIES = [
    (family, name)
    for family in ("agent", "inbox", "urgent", "task", "activity", "stop")
    for name in ("backlog", "events", "broadcast")
]


def test_a_town_named_like_a_family_keeps_its_own_keys(redis: Redis) -> None:
    keys = {f"tt:{family}:{name}".encode() for family, name in LIKE_FAMILIES}
    redis.mset(dict.fromkeys(keys, 1))
    assert whole_pass(redis, "count")[2] == len(keys)
    ambiguous = whole_pass(redis, "migrate")[4]
    assert set(ambiguous) == {*redis.scan_iter()} == keys


def test_of_a_town_named_like_a_family_the_own_keys_are_not_ambiguous(newest: Server) -> None:
    redis = newest.client()
    for family, name in LIKE_FAMILIES:
        redis.flushall()
        other = "task" if family != "task" else "stop"
        redis.mset({f"tt:{family}:{name}": 1, f"tt:{other}:{name}": 1, f"tt:{family}:1": 1})
        ambiguous = [f"tt:{other}:{name}".encode()]
        for operation in ("preview", "migrate", "migrate"):
            fields = whole_pass(redis, operation, family)
            assert ambiguous in fields, (family, name)
            assert f"tt:{family}:{name}" not in repr(fields)
        families, _, ambiguous_count, towns, *_ = whole_pass(redis, "count", family)
        assert (sum(families), ambiguous_count) == (0, 1), (family, name)
        assert set(towns) <= {family.encode()}
        assert redis.exists(f"tt:{family}:{name}", f"tt:{family}:{family}:1") == 2, (family, name)


def test_the_own_keys_of_a_town_that_ends_like_a_family_are_no_records_of_another(
    newest: Server,
) -> None:
    """tt:x:task:backlog is the backlog of town x:task, not a task of town x."""
    redis = newest.client()
    for family, name in LIKE_FAMILIES:
        redis.flushall()
        town, key = f"x:{family}", f"tt:x:{family}:{name}"
        redis.mset({key: 1, "tt:x:agent:1": 1, f"{key}s": 1})
        _, _, _, towns, counted = whole_pass(redis, "count", "x")
        assert {*towns} == {town.encode(), b"x"}, key
        assert counted[:2] == [1 + (family == "agent"), int(family == "task")], key
        assert whole_pass(redis, "left", "x")[1] == counted[:2], key
        assert key.encode() not in looked_at(redis, HASH, "x").unconverted
        # The same holds the other way round.
        _, _, _, towns, counted = whole_pass(redis, "count", town)
        assert set(towns) - {town.encode()} == {b"x"}, key
        assert counted[:2] == [0, 0], key


def test_an_id_may_hold_any_byte_but_a_colon(redis: Redis) -> None:
    ids = [b"\x00", b"\xff\xfe", b"%s", b"*", b"a b", b"\r\n", "日本".encode(), b"x" * 10_000]
    redis.mset({b"tt:agent:" + key_id: 1 for key_id in ids})
    assert whole_pass(redis, "migrate", b"a%1\x00")[0][0] == len(ids)
    assert {*redis.scan_iter()} == {b"tt:a%1\x00:agent:" + key_id for key_id in ids}


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


@each("plan", PLANS)
@each("operation", OPERATIONS)
def test_a_malformed_argument_is_named_and_nothing_is_written(
    newest: Server, plan: Plan, operation: str
) -> None:
    redis = newest.client()
    redis.set("tt:agent:1", 1)
    for args, named in (
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
    ):
        said = refusal(redis, source(operation, plan), *args, *MORE[operation])
        assert re.match(rf"BADARG (takes .*: )?{named}[:,]?", said), args
    assert redis.keys() == [b"tt:agent:1"]


def refusal(redis: Redis, script: str, *args: str) -> str:
    """The error of a call that is refused."""
    with pytest.raises(ResponseError) as error:
        redis.eval(script, 0, *args)
    return str(error.value)


@each("operation", [*OPERATIONS, "agents"])
def test_the_start_of_keys_with_a_former_name_is_checked(newest: Server, operation: str) -> None:
    for start in ("x", "tt:", "tt:old", "old:", ":"):
        args = ("t", "0", "10", "1000", "", start, *MORE[operation][1:])
        said = refusal(newest.client(), source(operation, RENAME), *args)
        assert said.startswith("BADARG from: "), start


@each("operation", OPERATIONS)
@each("start", ["", "tt:town:"])
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
    args, more = ("town", "0", "1000", "1000000"), ("0", "0")
    cursor, _, _, dbsize, found, *_ = redis.eval(script, 0, *args, "", "tt:old:", *more)
    assert (cursor, dbsize) == (b"0", 13)
    assert as_pairs(found) == [(b"1", b"hash"), (b"2", "text é".encode())]
    assert as_pairs(redis.eval(script, 0, *args, "", "", *more)[4]) == [(b"1", b"hash")]
    assert redis.eval(script, 0, *args, "TYPE", "tt:old:", *more)[4] == []


@each("names", ["", "2", "yes", "tt:agent:1"])
def test_names_are_asked_for_with_1_and_not_with_0(newest: Server, names: str) -> None:
    redis = newest.client()
    redis.set("tt:agent:1", 1)
    with pytest.raises(ResponseError, match=r"^BADARG names: "):
        redis.eval(source("migrate", RENAME), 0, "t", 0, 10, 1000, "", "", "", "0", names, "0")
    assert redis.keys() == [b"tt:agent:1"]


@each("max_lag", ["", "-1", "1.5", "1e3", "1000000000001", "tt:agent:1"])
def test_how_far_a_replica_may_be_behind_is_checked(newest: Server, max_lag: str) -> None:
    redis = newest.client()
    redis.set("tt:agent:1", 1)
    with pytest.raises(ResponseError, match=r"^BADARG max_lag: "):
        redis.eval(source("migrate", RENAME), 0, "t", 0, 10, 1000, "", "", "", 0, 0, max_lag)
    assert redis.keys() == [b"tt:agent:1"]


@pytest.mark.parametrize("names", ["0", "1"])
def test_migrate_names_what_it_renamed_and_merged_if_asked(redis: Redis, names: str) -> None:
    renamable = [b"tt:agent:1", b"tt:agent:2", b"tt:agent:line\nfeed"]
    redis.mset({**dict.fromkeys(renamable, 1), "tt:stop:1": 1, "tt:town:stop:1": 2})
    redis.rpush("tt:inbox:1", "older")
    redis.rpush("tt:town:inbox:1", "newer")
    script = source("migrate", replace(RENAME, merge=True))
    args = ("town", 0, 100, 1_000_000, "", "", "", "0", names, "0")
    reply = MigrateReply(*redis.eval(script, 0, *args))
    renamed, joined = reply.renamed, reply.joined
    assert reply.error == b""
    if names == "0":
        assert (renamed, joined) == ([], [])
    else:
        assert sorted(renamed[0].split(b"\n")) == renamable[:2]
        assert renamed[1:] == renamable[2:]
        assert as_pairs(joined) == [
            (b"tt:inbox:1", b"older values first"),
            (b"tt:stop:1", b"the newer value"),
        ]


@each("operation", OPERATIONS)
def test_keys_are_refused(newest: Server, operation: str) -> None:
    args = ("t", "0", "10", "1000", "", *MORE[operation])
    with pytest.raises(ResponseError, match=r"^BADARG"):
        newest.client().eval(source(operation, RENAME), 1, "key", *args)


@pytest.mark.parametrize("operation", ["count", "preview", "agents"])
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


@each(
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
    strings, old_strings, hashes = [1, 0], [1, 0], [0, 1]
    counted = [*strings, *old_strings, *hashes, 1, 0, 3]
    assert whole_pass(redis, "count")[4] == counted
    assert looked_at(redis, UPGRADE).counted == counted


def test_left_counts_keys_that_move_and_strings(redis: Redis) -> None:
    redis.mset({"tt:town:agent:1": 1, "tt:agent:2": 2, "tt:backlog": 3, "tt:task:events": 4})
    redis.mset({"tt:town:stop:1": 1, "tt:town:task:1": 1, "tt:town:task:": 1, "tt:agents:1": 1})
    redis.hset("tt:town:task:2", "id", "2")
    families, strings = whole_pass(redis, "left")
    assert families == [1, 0, 0, 0, 0, 0, 1]
    assert strings == [1, 1]


@each("town", ["task", "a:b", "x[1]*?\\^-", "backlog", "agent"])
def test_left_finds_the_same_as_count_whatever_the_town_is_called(
    newest: Server, town: str
) -> None:
    redis = newest.client()
    names = ["agent:1", "inbox:1", "urgent:1", "task:1", "activity:1", "stop:1", "backlog"]
    redis.mset({f"{start}{name}": 1 for name in names for start in ("tt:", f"tt:{town}:")})
    families, _, _, _, counted = whole_pass(redis, "count", town)
    strings = counted[:2]
    assert whole_pass(redis, "left", town) == [families, strings]
    assert sum(families) >= 7
    assert strings == [1, 1]


def as_pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return sorted(zip(flat[::2], flat[1::2], strict=True))


ID = "12345678-9abc-def0-1234-56789abcdef0"
TIME = "2025-01-31T01:02:03Z"
TASK = {"id": ID, "description": "x", "state": "pending", "created_at": TIME, "updated_at": TIME}
TASK_OF_0_6 = TASK | dict.fromkeys(("assigned_to", "completed_at", "result", "parent_id"))
OLD_KEY, KEY = f"tt:task:{ID}", f"tt:town:task:{ID}"
WAYS = pytest.mark.parametrize("plan", [HASH, UPGRADE, DOWNGRADE], ids=command_for)


def name_before(plan: Plan, name: str = ID) -> str:
    return f"tt:task:{name}" if plan == UPGRADE else f"tt:town:task:{name}"


def name_after(plan: Plan, name: str = ID) -> str:
    return f"tt:task:{name}" if plan == DOWNGRADE else f"tt:town:task:{name}"


def put(redis: Redis, plan: Plan, name: str = ID, **more: str) -> str:
    """Store a record that a plan converts. Returns its key."""
    key = name_before(plan, name)
    if plan == DOWNGRADE:
        write_hash(redis, key, {**TASK, "id": name, **more})
    else:
        redis.set(key, json.dumps({**TASK_OF_0_6, "id": name, **more}))
    return key


def is_converted(redis: Redis, plan: Plan, name: str = ID, **more: object) -> bool:
    """Whether a record of put() is whole, in its new form, and only under its new name."""
    before, after = name_before(plan, name), name_after(plan, name)
    is_alone = before == after or not redis.exists(before)
    return is_alone and has_become(redis, plan, after, id=name, **more)


def has_become(redis: Redis, plan: Plan, key: str | bytes, **more: object) -> bool:
    """Whether a key is a record of put() in its new form."""
    if plan == DOWNGRADE:
        text: Any = redis.get(key) if redis.type(key) == b"string" else b"null"
        return bool(json.loads(text) == {**TASK_OF_0_6, "tags": [], **more})
    return redis.type(key) == b"hash" and read_hash(redis, key) == {**TASK, **more}


def migrated(
    redis: Redis,
    plan: Plan,
    *keys: str | bytes,
    budget: int = 1_000_000,
    lua: str = "",
    denied: str = "",
) -> MigrateReply:
    """Call migrate.lua for one batch that asks for names. `keys`: those to visit, if not all."""
    args = ("town", 0, 1000, budget, "", "", "", "0", "1", "0", *keys)
    return MigrateReply(*redis.eval(lua or source("migrate", plan), 0, *args))


def looked_at(
    redis: Redis, plan: Plan, town: str = "town", *keys: bytes, budget: int = 1_000_000
) -> PreviewReply:
    """Call preview.lua for one batch."""
    args = (town, 0, 1000, budget, "", "", "0", "0", *keys)
    return PreviewReply(*redis.eval(source("preview", plan), 0, *args))  # type: ignore[arg-type]


@WAYS
def test_a_record_is_converted_and_keeps_its_time_to_live_and_gets_none(
    redis: Redis, plan: Plan
) -> None:
    other = ID.replace("1", "a")
    expiring, lasting = put(redis, plan), put(redis, plan, other)
    redis.pexpire(expiring, 60_000)
    before = contents(redis)
    seen = looked_at(redis, plan)
    names = sorted((expiring.encode(), lasting.encode()))
    assert sorted(seen.conversions.split(b"\n")) == names
    assert sorted(seen.moves.split()) == ([] if plan == HASH else names)
    assert (seen.unconverted, seen.adjusted, seen.failed) == ([], [], [])
    assert {key: value for key, (value, _) in contents(redis).items()} == {
        key: value for key, (value, _) in before.items()
    }
    done = migrated(redis, plan)
    assert (done.converted, done.unconverted, done.error) == ([0, 2], [], b"")
    assert (sum(done.families), done.conflicts) == (0 if plan == HASH else 2, [])
    # Records are named as they are called in the town.
    assert sorted(apart(done.changed)) == sorted([KEY.encode(), f"tt:town:task:{other}".encode()])
    assert is_converted(redis, plan)
    assert is_converted(redis, plan, other)
    assert 50_000 < redis.pttl(name_after(plan)) <= 60_000
    assert redis.pttl(name_after(plan, other)) == -1
    assert redis.dbsize() == 2


@WAYS
def test_records_of_any_size_are_converted(redis: Redis, plan: Plan) -> None:
    for more in (0, 495, 496, 3996):
        assert_a_record_of_this_size_is_converted(redis, plan, more)


def assert_a_record_of_this_size_is_converted(redis: Redis, plan: Plan, more: int) -> None:
    redis.flushall()
    texts = {f"field {n}": f"value {n}" for n in range(more)}
    redis.pexpire(put(redis, plan, **texts), 60_000)
    assert migrated(redis, plan).converted == [0, 1], more
    assert is_converted(redis, plan, **texts), more
    assert 50_000 < redis.pttl(name_after(plan)) <= 60_000, more


@pytest.mark.parametrize("plan", [HASH, UPGRADE], ids=command_for)
def test_a_record_in_its_last_millisecond_does_not_live_for_ever(redis: Redis, plan: Plan) -> None:
    put(redis, plan)
    hurried = source("migrate", plan).replace("call('PTTL', key)", "0")
    assert hurried != source("migrate", plan)
    done = migrated(redis, plan, lua=hurried)
    assert (done.converted, done.unconverted) == ([0, 1], [])
    wait_until(lambda: not redis.exists(name_after(plan)))


@WAYS
def test_other_types_and_what_is_converted_already_are_told_apart(redis: Redis, plan: Plan) -> None:
    redis.rpush("tt:town:task:1", "x")
    redis.set("tt:town:agent:2", "{}")
    redis.hset("tt:town:agent:3", "id", "3")
    done, seen = "tt:town:agent:3", "tt:town:agent:2"
    if plan == DOWNGRADE:
        done, seen = seen, done
    why = b"id is no UUID" if plan == DOWNGRADE else b"has no id"
    expected = [(b"tt:town:agent:" + seen[-1:].encode(), why)]
    expected += [(b"tt:town:task:1", b"is a list, neither string nor hash")]
    before = contents(redis)
    assert as_pairs(looked_at(redis, plan).unconverted) == expected
    assert as_pairs(migrated(redis, plan).unconverted) == expected
    after = contents(redis)
    if plan == DOWNGRADE:
        assert after.pop(b"tt:agent:2") == before.pop(b"tt:town:agent:2")
    assert after == before


@WAYS
def test_the_rules_that_were_applied_are_counted(redis: Redis, plan: Plan) -> None:
    for n in range(3):
        put(redis, plan, f"{n}{ID[1:]}", state="in_flight")
    expected = [b"state in_flight became running", b"3"] if plan == DOWNGRADE else []
    assert looked_at(redis, plan).adjusted == expected
    assert migrated(redis, plan).adjusted == expected


@WAYS
def test_records_that_are_found_when_the_time_is_spent_are_postponed(
    redis: Redis, plan: Plan
) -> None:
    names = [f"{n:02}{ID[2:]}" for n in range(50)]
    for name in names:
        put(redis, plan, name, result="x" * 20_000)
    seen = looked_at(redis, plan, budget=1)
    assert seen.cursor == b"0"
    assert 1 <= len(seen.conversions.split()) == 50 - len(seen.postponed) < 50
    rest = looked_at(redis, plan, "town", *seen.postponed, budget=60_000_000)
    assert len(rest.conversions.split()) == len(seen.postponed)
    done = migrated(redis, plan, budget=1)
    assert done.cursor == b"0"
    assert 1 <= done.converted[1] == 50 - len(done.postponed) < 50
    done = migrated(redis, plan, *done.postponed, budget=60_000_000)
    assert done.postponed == []
    assert all(is_converted(redis, plan, name, result="x" * 20_000) for name in names)


@WAYS
def test_a_record_that_may_not_be_read_is_named_and_the_others_are_converted(
    server: Server, plan: Plan
) -> None:
    redis = server.client()
    names = [f"{n}{ID[1:]}" for n in range(3)]
    keys = [put(redis, plan, name) for name in names]
    before = redis.dump(keys[1])
    allowed = [f"~*:{names[0]}", f"~*:{names[2]}"]
    redis.execute_command("ACL", "SETUSER", "some", "on", ">secret", "+@all", *allowed)
    some = server.client(username="some", password="secret")
    for key, why in as_pairs([*looked_at(some, plan).unconverted, *looked_at(some, plan).failed]):
        assert (key, b"key" in why) == (keys[1].encode(), True)
    done = migrated(some, plan)
    assert (done.converted, done.error) == ([0, 2], b"")
    [(key, why)] = as_pairs([*done.unconverted, *done.failed])
    assert (key, b"key" in why) == (keys[1].encode(), True)
    assert redis.dump(keys[1]) == before


@pytest.mark.parametrize("place", ["call('PEXPIRE', key", "call('DEL', key)", "call('HSET', key"])
def test_a_hash_whose_record_could_not_be_removed_is_removed(redis: Redis, place: str) -> None:
    """Like a command that is refused for one of the two names; here the script refuses it."""
    key = put(redis, UPGRADE, **{f"field {n}": "x" for n in range(2000)})
    redis.pexpire(key, 60_000)
    before = redis.dump(key)
    start, separator, end = source("migrate", UPGRADE).partition("-- conversions/to_hash.lua")
    name = "name" if "DEL" in place else "key"
    refusal = f"if redis.call('HLEN', {name}) > 400 then error({{err = 'ERR refused'}}, 0) end\n"
    refusing = end.replace(place, refusal + place, 1)
    assert refusing != end
    done = migrated(redis, UPGRADE, lua=start + separator + refusing)
    assert (done.converted, done.unconverted) == ([0, 0], [KEY.encode(), b"ERR refused"])
    assert redis.keys() == [KEY.encode()]
    assert redis.dump(KEY) == before
    assert 50_000 < redis.pttl(KEY) <= 60_000


@WAYS
def test_what_was_done_before_an_error_that_ends_a_batch_is_counted(
    server: Server, plan: Plan
) -> None:
    redis = server.client()
    first, second = [put(redis, plan, f"{n}{ID[1:]}", result="x") for n in "12"]
    before = redis.dump(second)
    conversion = "convert(key, name, value)\n"
    error = f"key == '{second}' and {{err = 'READONLY no more'}} or {conversion}"
    stopping = source("migrate", plan).replace(f"= {conversion}", f"= {error}")
    assert stopping != source("migrate", plan)
    done = migrated(redis, plan, first, second, lua=stopping)
    assert (done.cursor, done.converted, done.unconverted) == (b"0", [0, 1], [])
    assert done.error == b"READONLY no more"
    assert redis.dump(second) == before
    with pytest.raises(ResponseError, match="no more"):
        migrated(redis, plan, second, lua=stopping)


@WAYS
def test_a_full_server_refuses_a_record_or_takes_it_whole(server: Server, plan: Plan) -> None:
    redis = server.client()
    key = put(redis, plan)
    before = redis.dump(key)
    redis.config_set("maxmemory", 1)
    try:
        done = migrated(redis, plan)
    finally:
        redis.config_set("maxmemory", 0)
    if plan == UPGRADE:
        # RENAMENX is not refused, and a script that has written may use memory.
        assert (done.converted, done.unconverted) == ([0, 1], [])
        assert is_converted(redis, plan)
    else:
        assert (done.converted, done.changed) == ([0, 0], [])
        assert done.unconverted[0] == key.encode()
        assert done.unconverted[1].startswith(b"OOM ")
        assert redis.keys() == [key.encode()]
        assert redis.dump(key) == before


@pytest.mark.parametrize("plan", [UPGRADE, DOWNGRADE], ids=command_for)
def test_a_record_whose_new_name_is_taken_stays(redis: Redis, plan: Plan) -> None:
    key = put(redis, plan)
    redis.set(name_after(plan), "somebody's")
    seen, before = looked_at(redis, plan), redis.dump(key)
    assert seen.conflicts == [key.encode(), b"destination exists"]
    assert seen.moves == b""
    done = migrated(redis, plan)
    assert done.conflicts == [key.encode(), b"destination exists"]
    assert redis.get(name_after(plan)) == b"somebody's"
    if plan == UPGRADE:
        assert (seen.conversions, done.converted) == (b"", [0, 0])
        assert redis.dump(key) == before
    else:
        assert (seen.conversions, done.converted) == (key.encode(), [0, 1])
        assert redis.type(key) == b"string"


@pytest.mark.parametrize("names", ["0", "1"])
def test_converted_records_are_named_if_asked(newest: Server, names: str) -> None:
    redis = newest.client()
    put(redis, UPGRADE)
    reply = redis.eval(source("migrate", UPGRADE), 0, "town", 0, 9, 9, "", "", "", 0, names, 0)
    done = MigrateReply(*reply)
    assert (done.converted, done.changed) == ([0, 1], [KEY.encode()] if names == "1" else [])


def test_a_preview_lists_names_with_a_line_feed_apart(newest: Server) -> None:
    redis = newest.client()
    put(redis, HASH)
    put(redis, HASH, "a\nb")
    seen = looked_at(redis, HASH)
    assert (seen.conversions, seen.odd_conversions) == (KEY.encode(), [b"tt:town:task:a\nb"])

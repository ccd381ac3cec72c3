"""The contracts of the scripts for clusters of several shards, called directly."""

from __future__ import annotations

import time
from collections.abc import Sequence
from os import urandom
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.servers import Server
from tests.tables import each
from tests.test_lua import packed
from tt_migrate import RENAME
from tt_migrate.engine.calls.scripts import source
from tt_migrate.engine.cluster.hidden import Transfer, mark_of
from tt_migrate.plan import Plan

pytestmark = pytest.mark.every_kind

MERGE = Plan("rename", rename="forward", merge=True)
ITEMS = {
    "freeze": ("key", "hidden"),
    "apply": ("destination", "mark", "staged", "hidden", "inbox", "0", "value"),
    "finish": ("hidden", "0"),
    "forget": ("mark", "0"),
    "give_back": ("hidden", "key", "inbox", "0", "1"),
    "facts": ("key", "digest", "agent"),
    "weigh": ("destination", "inbox", "list", "1", "digest", ""),
}
"""The operations, each with the words of an item."""
LATER, NEVER = 2**52, 0


def call(
    redis: Redis, operation: str, *items: Sequence[Any], plan: Plan = RENAME, until: int = LATER
) -> tuple[list[str], list[Any]]:
    """Call a script. Returns the words and the values of its reply."""
    words = [word if isinstance(word, bytes) else str(word).encode() for i in items for word in i]
    lua = source(operation, plan, "shards")
    elapsed, said, values = redis.eval(lua, 0, "", 60_000_000, until, packed(*words))
    assert elapsed >= 0
    return said.decode().split("\n"), values


def transfer(key: str = "tt:inbox:1", number: int = 1) -> Transfer:
    nonce = b"%d-0123abcd-%d" % (time.time() * 1000, number)
    return Transfer(key.encode(), b"tt:town:" + key.encode()[3:], nonce)


def application(move: Transfer, value: bytes, expires: int | bytes = 0) -> tuple[Any, ...]:
    names = (move.destination, move.mark, move.staged, move.hidden)
    return (*names, move.key.split(b":")[1], expires, value)


def frozen(redis: Redis, move: Transfer) -> bytes:
    """Freeze a key and return its value."""
    (word,), (value,) = call(redis, "freeze", (move.key, move.hidden))
    assert word.startswith("+frozen ")
    return bytes(value)


@each("operation", ITEMS)
def test_malformed_arguments_are_refused_before_anything_is_changed(
    newest: Server, operation: str
) -> None:
    redis, lua = newest.client(), source(operation, RENAME, "shards")
    redis.set("key", 1)
    item = packed(*(word.encode() for word in ITEMS[operation]))
    wrong: list[tuple[Any, ...]] = [
        (),
        ("", "1000", "0"),
        ("", "0", "0", item),
        ("", "x", "0", item),
        ("", "1000", "-1", item),
        ("", "1000", "", item),
        ("", "1000", "0", item, "more"),
        ("", "1000", "0", b""),
        ("", "1000", "0", packed()),
        ("", "1000", "0", item[:-1]),
        ("", "1000", "0", packed(b"one more", *(word.encode() for word in ITEMS[operation]))),
        ("", "1000", "0", b"\x91\x01"),
        ("", "1000", "0", b"\xdd\x00\x00\x00\x02\xa1k\x01"),
    ]
    for args in wrong:
        with pytest.raises(ResponseError, match=r"^BADARG"):
            redis.eval(lua, 0, *args)
    assert redis.keys() == [b"key"]


@each("operation", ITEMS)
def test_a_call_ends_when_its_time_is_used_but_does_one_item(redis: Redis, operation: str) -> None:
    redis.set("key", 1)
    words = [word.encode() for word in ITEMS[operation]] * 500
    elapsed, said, _ = redis.eval(
        source(operation, RENAME, "shards"), 0, "", 1, LATER, packed(*words)
    )
    assert 1 <= said.count(b"\n") + 1 < 500
    assert elapsed > 0


def test_a_key_is_frozen_and_its_value_and_expiry_are_read(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "a", "b")
    redis.set("tt:stop:1", 1, px=100_000)
    moves = [transfer(), transfer("tt:stop:1", 2), transfer("tt:stop:2", 3)]
    dumps = [redis.dump("tt:inbox:1"), redis.dump("tt:stop:1")]
    words, values = call(redis, "freeze", *((move.key, move.hidden) for move in moves))
    assert (words[0], words[2], values) == ("+frozen 0", "gone", dumps)
    expires = int(words[1].removeprefix("+frozen "))
    assert abs(expires - time.time() * 1000 - 100_000) < 5_000
    assert sorted(redis.keys()) == sorted(move.hidden for move in moves[:2])


def test_a_frozen_key_is_read_again(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "a")
    redis.pexpire("tt:inbox:1", 100_000)
    move = transfer()
    value = frozen(redis, move)
    (word,), (again,) = call(redis, "freeze", (move.hidden, move.hidden))
    assert (word.startswith("+frozen 1"), again) == (True, value)
    assert redis.keys() == [move.hidden]
    assert 90_000 < redis.pttl(move.hidden) <= 100_000


def test_a_key_that_cannot_be_read_keeps_its_name(server: Server) -> None:
    redis = server.client()
    redis.rpush("tt:inbox:1", "a")
    redis.execute_command("ACL", "SETUSER", "some", "on", ">secret", "+@all", "-dump", "~*")
    some = server.client(username="some", password="secret")
    (word,), values = call(some, "freeze", (transfer().key, transfer().hidden))
    assert (word.startswith("error NOPERM"), values) == (True, [])
    assert redis.keys() == [b"tt:inbox:1"]


def test_many_large_values_are_read_in_several_calls(newest: Server) -> None:
    redis = newest.client()
    moves = [transfer(f"tt:stop:{n}", n) for n in range(6)]
    for move in moves:
        redis.set(move.key, urandom(500_000))
    words, values = call(redis, "freeze", *((move.key, move.hidden) for move in moves))
    assert 2 <= len(words) == len(values) < 6


def test_a_key_is_applied_once_however_often_it_is_tried(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "a", "b")
    move = transfer()
    value = frozen(redis, move)
    for word in ("moved", "was moved"):
        assert call(redis, "apply", application(move, value))[0] == [word]
        assert redis.lrange(move.destination, 0, -1) == [b"a", b"b"]
    redis.delete(move.destination)  # consumed
    assert call(redis, "apply", application(move, value))[0] == ["was moved"]
    assert call(redis, "apply", application(move, value), until=NEVER)[0] == ["was moved"]
    assert not redis.exists(move.destination)
    assert redis.get(move.mark) == b"moved\n" + move.hidden
    assert redis.pttl(move.mark) == -1


def changes(redis: Redis) -> int:
    """Return how many writes the server has made, which WAIT would wait for."""
    return int(redis.info("persistence")["rdb_changes_since_last_save"])


def test_what_was_done_before_is_a_write_again(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "a")
    move = transfer()
    value = frozen(redis, move)
    operations: list[tuple[str, tuple[Any, ...]]] = [
        ("freeze", (move.hidden, move.hidden)),
        ("apply", application(move, value)),
        ("finish", (move.hidden, LATER)),
    ]
    for operation, item in operations:
        call(redis, operation, item)
        before = changes(redis)
        call(redis, operation, item)
        assert changes(redis) > before, operation


def test_a_user_who_may_not_restore_leaves_no_mark(server: Server) -> None:
    redis = server.client()
    redis.rpush("tt:inbox:1", "a")
    move = transfer()
    value = frozen(redis, move)
    redis.execute_command("ACL", "SETUSER", "some", "on", ">secret", "+@all", "-restore", "~*")
    some = server.client(username="some", password="secret")
    assert call(some, "apply", application(move, value))[0][0].startswith("error NOPERM")
    assert redis.keys() == [move.hidden]


def test_a_refusal_is_remembered_too(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "a")
    redis.rpush("tt:town:inbox:1", "new")
    move = transfer()
    value = frozen(redis, move)
    for word in ("refused destination exists", "was refused destination exists"):
        assert call(redis, "apply", application(move, value))[0] == [word]
        redis.delete(move.destination)
    assert not redis.exists(move.destination)


def test_nothing_new_is_decided_after_the_time(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "a")
    move = transfer()
    value = frozen(redis, move)
    assert call(redis, "apply", application(move, value), until=NEVER)[0] == ["late"]
    assert redis.keys() == [move.hidden]


def test_a_merge_leaves_no_staged_value(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "old")
    redis.rpush("tt:town:inbox:1", "new")
    redis.set("tt:agent:1", "a")
    redis.set("tt:town:agent:1", "b")
    moves = [transfer(), transfer("tt:agent:1", 2)]
    items = [application(move, frozen(redis, move)) for move in moves]
    words, _ = call(redis, "apply", *items, plan=MERGE)
    assert words == ["merged older values first", "refused destination exists and differs"]
    assert redis.lrange("tt:town:inbox:1", 0, -1) == [b"old", b"new"]
    names = {move.hidden for move in moves} | {move.mark for move in moves}
    assert {*redis.keys()} == names | {move.destination for move in moves}


def test_a_value_of_no_redis_is_refused(redis: Redis) -> None:
    assert call(redis, "apply", application(transfer(), b"no dump"))[0][0].startswith("refused ERR")
    assert len(redis.keys()) == 1  # the mark


def test_a_full_server_refuses_and_remembers_it(server: Server) -> None:
    redis = server.client()
    redis.rpush("tt:inbox:1", "a")
    move = transfer()
    value = frozen(redis, move)
    redis.config_set("maxmemory", 1)
    assert call(redis, "apply", application(move, value))[0][0].startswith("refused OOM")
    redis.config_set("maxmemory", 0)
    assert call(redis, "apply", application(move, value))[0][0].startswith("was refused OOM")
    assert not redis.exists(move.destination)


def test_a_full_server_refuses_every_key_of_a_call(newest: Server) -> None:
    redis = newest.client()
    moves = [transfer(f"tt:stop:{n}", n) for n in range(20)]
    for move in moves:
        redis.set(move.key, "1")
    items = [application(move, frozen(redis, move)) for move in moves]
    redis.config_set("maxmemory", 1)
    words, _ = call(redis, "apply", *items)
    assert all(word.startswith("refused OOM") for word in words)
    assert redis.exists(*(move.destination for move in moves)) == 0


def test_a_key_named_like_a_mark_stops_only_its_own_key(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "a")
    move = transfer()
    value = frozen(redis, move)
    redis.rpush(move.mark, "somebody's")
    assert call(redis, "apply", application(move, value))[0][0].startswith("error WRONGTYPE")
    assert redis.lrange(move.mark, 0, -1) == [b"somebody's"]
    assert not redis.exists(move.destination)


def test_a_user_who_may_not_write_marks_changes_nothing(server: Server) -> None:
    redis = server.client()
    redis.rpush("tt:inbox:1", "a")
    move = transfer()
    value = frozen(redis, move)
    redis.execute_command("ACL", "SETUSER", "some", "on", ">secret", "+@all", "~tt:town:*")
    some = server.client(username="some", password="secret")
    assert call(some, "apply", application(move, value))[0][0].startswith("error ")
    assert redis.keys() == [move.hidden]


def test_an_expired_value_is_applied_to_nothing(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "a")
    move = transfer()
    value = frozen(redis, move)
    assert call(redis, "apply", application(move, value, expires=1000))[0] == ["moved"]
    assert not redis.exists(move.destination)


def test_a_key_is_finished_alone_only_while_it_is_young(redis: Redis) -> None:
    for young, word in ((LATER, "alone"), (NEVER, "deleted")):
        redis.rpush("tt:inbox:1", "a")
        move = transfer()
        frozen(redis, move)
        assert call(redis, "finish", (move.hidden, young))[0] == [word]
        assert redis.keys() == []
    assert call(redis, "finish", (move.hidden, LATER))[0] == ["deleted"]
    assert redis.keys() == []


def test_a_mark_is_forgotten_at_once_or_later_but_never_kept_longer(redis: Redis) -> None:
    redis.mset({"a": 1, "b": 1})
    redis.set("c", 1, px=1000)
    assert call(redis, "forget", ("a", 0), ("b", 60_000), ("c", 60_000))[0] == ["done"] * 3
    assert not redis.exists("a")
    assert 50_000 < redis.pttl("b") <= 60_000
    assert 0 < redis.pttl("c") <= 1000


def given_back(redis: Redis, move: Transfer, young: int = LATER, decided: int = 1) -> str:
    family = move.key.split(b":")[1]
    ((word,), _) = call(redis, "give_back", (move.hidden, move.key, family, young, decided))
    return word


def test_a_key_gets_its_name_back_if_that_is_decided_or_it_is_young(redis: Redis) -> None:
    cases = ((LATER, 1, "alone"), (NEVER, 1, "back"), (LATER, 0, "alone"), (NEVER, 0, "hidden"))
    for young, decided, word in cases:
        redis.flushall()
        redis.rpush("tt:inbox:1", "a")
        move = transfer()
        frozen(redis, move)
        assert given_back(redis, move, young, decided) == word
        assert redis.keys() == [move.hidden if word == "hidden" else move.key]
    redis.flushall()
    assert given_back(redis, move) == "gone"


@pytest.mark.parametrize(
    ("family", "push", "expected"),
    [
        ("inbox", "RPUSH", [b"a", b"b", b"a", b"b"]),
        ("urgent", "LPUSH", [b"b", b"a", b"b", b"a"]),
        ("activity", "LPUSH", [b"b", b"a", b"b", b"a"]),
    ],
)
def test_a_list_that_was_made_anew_gets_every_message_even_equal_ones(
    redis: Redis, family: str, push: str, expected: list[bytes]
) -> None:
    key = f"tt:{family}:1"
    redis.execute_command(push, key, "a", "b")
    move = transfer(key)
    frozen(redis, move)
    redis.execute_command(push, key, "a", "b")
    assert given_back(redis, move) == "alone"
    assert redis.lrange(key, 0, -1) == expected
    assert redis.keys() == [key.encode()]


def test_an_activity_list_that_is_given_back_is_not_cut(redis: Redis) -> None:
    redis.lpush("tt:activity:1", *range(9))
    move = transfer("tt:activity:1")
    frozen(redis, move)
    redis.lpush("tt:activity:1", *range(9))
    assert given_back(redis, move) == "alone"
    assert redis.llen("tt:activity:1") == 18


def test_a_stop_flag_that_was_made_anew_keeps_the_newer_value(redis: Redis) -> None:
    redis.set("tt:stop:1", "old", px=100_000)
    move = transfer("tt:stop:1")
    frozen(redis, move)
    redis.set("tt:stop:1", "new", px=50_000)
    assert given_back(redis, move) == "alone"
    assert redis.get("tt:stop:1") == b"new"
    assert redis.pttl("tt:stop:1") > 90_000


def test_a_record_that_was_made_anew_stays_hidden_unless_it_is_equal(redis: Redis) -> None:
    for newer, word in (("x", "alone"), ("y", "hidden")):
        redis.flushall()
        redis.set("tt:agent:1", "x")
        move = transfer("tt:agent:1")
        frozen(redis, move)
        redis.set("tt:agent:1", newer)
        assert given_back(redis, move) == word
        assert redis.get("tt:agent:1") == newer.encode()
        assert redis.exists(move.hidden) == (word == "hidden")


def test_facts_of_equal_values_are_equal_whatever_their_encoding(redis: Redis) -> None:
    redis.rpush("a", *range(2000))
    redis.rpush("b", *(str(n) for n in range(2000)))
    redis.hset("c", mapping={f"f{n}": n for n in range(600)})
    redis.hset("d", mapping={f"f{n}": n for n in reversed(range(600))})
    redis.rpush("e", "1", "23")
    redis.rpush("f", "12", "3")
    redis.set("g", "text")
    words, values = call(redis, "facts", *((key, "digest", "") for key in "abcdefgh"))
    assert (words[0], words[2]) == (words[1], words[3])
    assert words[4] != words[5]
    kinds = ["+list", "+list", "+hash", "+hash", "+list", "+list", "+string", "none"]
    assert [word.split(" ")[0] for word in words] == kinds
    assert words[0].split(" ")[1] == "2000"
    assert len(values) == 7
    words, values = call(redis, "facts", ("g", "type", ""), ("e", "type", ""), ("h", "type", ""))
    assert (words, values) == (["string", "list", "none"], [])


def test_keys_are_weighed_without_their_values(redis: Redis) -> None:
    redis.rpush("tt:inbox:1", "a", "b")
    redis.rpush("tt:town:inbox:1", "c")
    redis.set("tt:stop:1", "1")
    redis.set("tt:town:stop:1", "2")
    redis.hset("tt:town:agent:1", mapping={"id": "1", "name": "x"})
    redis.set("tt:agent:1", '{"id":"1","name":"y"}')
    redis.set("tt:agent:2", "no record")
    keys = ("inbox:1", "stop:1", "agent:1", "agent:2")
    asked = [(f"tt:{key}", "digest", key.partition(":")[0]) for key in keys]
    said, values = call(redis, "facts", *asked)
    inbox, stop, agent, other = (
        (*word.removeprefix("+").split(), value) for word, value in zip(said, values, strict=True)
    )
    empty = b"\x90"  # an empty array in MessagePack
    assert [value == empty for value in values] == [True, True, False, True]
    items = [
        ("tt:town:inbox:1", "inbox", *inbox),
        ("tt:town:stop:1", "stop", *stop),
        ("tt:town:agent:1", "agent", *agent),
        ("tt:town:agent:1", "agent", *other),
        ("tt:town:stop:1", "inbox", *inbox),
    ]
    assert call(redis, "weigh", *items, plan=MERGE)[0] == [
        "merge: 2 older, then 1 newer",
        "merge: the newer value, the longer time to live",
        "destination exists and differs in name",
        "destination exists and is a hash, this a string",
        "destination exists and is a string, this a list",
    ]


@pytest.mark.parametrize(
    ("name", "command", "values", "grouped", "expected"),
    [
        ("mission:active", "SADD", ["a", "b"], False, {b"a", b"b"}),
        ("events", "XADD", ["1-1", "2-1"], False, [b"1-1", b"2-1"]),
        ("events", "XADD", ["1-1", "2-1"], True, None),
    ],
)
def test_missions_and_events_that_were_made_anew_are_united(
    redis: Redis, name: str, command: str, values: list[str], grouped: bool, expected: Any
) -> None:
    key = f"tt:old:{name}".encode()
    move = Transfer(key, f"tt:town:{name}".encode(), b"5-0123abcd-0")
    for where, value in zip((move.hidden, key), values, strict=True):
        fields = ("f", "v") if command == "XADD" else ()
        redis.execute_command(command, where, value, *fields)
    if grouped:
        redis.xgroup_create(key, "group", id="0")
    family = move.family("town")
    item = (move.hidden, key, family, LATER, 1)
    assert call(redis, "give_back", item)[0] == ["hidden" if grouped else "alone"]
    if grouped:
        assert {*redis.keys()} == {key, move.hidden}
    elif command == "SADD":
        assert redis.smembers(key) == expected
    else:
        entries: Any = redis.xrange(key)
        assert [entry for entry, _ in entries] == expected


@each(
    ("key", "destination", "family"),
    [
        ("tt:agent:1", "tt:town:agent:1", "agent"),
        ("mt:agent:1", "tt:town:agent:1", "agent"),
        ("tt:town:backlog", "tt:backlog", "backlog"),
        ("tt:old:events", "tt:town:events", "events"),
        ("tt:town:mission:1:work", "tt:old:mission:1:work", "mission"),
        ("tt:a:b:docket:tasks", "tt:town:docket:tasks", "docket"),
        ("tt::agent:1", "tt:town:agent:1", "agent"),
        ("tt:town:x:agent:1", "tt:town:agent:1", "agent"),
        ("tt:agent:1", "tt:other:agent:1", ""),
        ("tt:old:agent:1", "tt:other:agent:1", ""),
        ("tt:agent:1", "tt:town:agent:2", ""),
        ("tt:events", "tt:town:events", ""),
        ("tt:old:odd:1", "tt:town:odd:1", ""),
        ("tt:old:agent:1:2", "tt:town:agent:1:2", ""),
        ("x:agent:1", "tt:town:agent:1", ""),
        ("tt:town:agent:1", "tt:town:agent:1", ""),
        ("tt:old:", "tt:town:", ""),
    ],
)
def test_a_transfer_is_a_towns_by_what_its_two_names_have_in_common(
    key: str, destination: str, family: str
) -> None:
    move = Transfer(key.encode(), destination.encode(), b"5-0123abcd-0")
    assert move.family("town") == family


@each(
    ("destination", "is_of"),
    [
        ("tt:town:events", True),
        ("tt:town:mission:1:work", True),
        ("tt:inbox:1", True),
        ("tt:town:odd", False),
        ("tt:other:events", False),
        ("tt:events", False),
    ],
)
def test_a_mark_is_a_towns_by_its_name(destination: str, *, is_of: bool) -> None:
    mark = mark_of(Transfer(b"tt:old:x", destination.encode(), b"5-0123abcd-0").mark)
    assert mark
    assert mark.is_of("town") == is_of

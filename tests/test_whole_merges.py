"""A merge happens completely or not at all, even if the server refuses a command in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis

from tests.keyspaces import EXPIRY_STEP_MS
from tests.servers import Server, StartServer, newest_kind
from tests.tables import each
from tests.test_merge import MERGE_LUA

pytestmark = pytest.mark.every_kind

INBOX, URGENT, ACTIVITY, STOP, TASK = "inbox", "urgent", "activity", "stop", "task"
MISSION, EVENTS = "mission", "events"

SETTLE = """
  local settled = {}
  for n = 1, #ARGV, 2 do
    local key, destination = 'old:' .. ARGV[n + 1], 'new:' .. ARGV[n + 1]
    local reply, gone, _, problem = redis.pcall('RENAMENX', key, destination)
    if reply == 0 then
      gone, _, problem = settle_conflict(ARGV[n], key, destination)
    end
    settled[#settled + 1] = problem or tostring(gone)
  end
  return settled
"""

# All commands that read or write one of the two keys. A merge uses some of them.
COMMANDS = (
    *("type", "get", "hlen", "hgetall", "llen", "lrange", "lindex", "dump", "pttl", "exists"),
    *("rpush", "lpush", "ltrim", "lpop", "rpop", "lmove", "set", "rename", "renamenx", "copy"),
    *("del", "unlink", "restore", "expire", "pexpire", "pexpireat", "persist"),
    *("smembers", "sadd", "scard", "xinfo", "xrange", "xadd", "xlen"),
)


@dataclass(frozen=True)
class Pair:
    """Two keys, `old:<name>` and `new:<name>`, and their merged value. Expiries are in steps.

    A tuple is a stream: its entries, each with its id and fields.
    """

    name: str
    family: str
    old: Any
    new: Any
    joined: Any
    old_expiry: int
    new_expiry: int

    def write(self, redis: Redis) -> None:
        for key, value, expiry in (
            (f"old:{self.name}", self.old, self.old_expiry),
            (f"new:{self.name}", self.new, self.new_expiry),
        ):
            if isinstance(value, list):
                redis.rpush(key, *value)
            elif isinstance(value, dict):
                redis.hset(key, mapping=value)
            elif isinstance(value, set):
                redis.sadd(key, *value)
            elif isinstance(value, tuple):
                for entry_id, fields in value:
                    redis.xadd(key, fields, id=entry_id)
            else:
                redis.set(key, value)
            if expiry > 0:
                redis.pexpireat(key, EXPIRY_STEP_MS * expiry)

    @property
    def apart(self) -> list[Any]:
        """What read() returns before the merge."""
        return [(self.old, self.old_expiry), (self.new, self.new_expiry)]

    @property
    def whole(self) -> list[Any]:
        """What read() returns after the merge."""
        forever = min(self.old_expiry, self.new_expiry) < 0
        return [None, (self.joined, -1 if forever else max(self.old_expiry, self.new_expiry))]


def read(redis: Redis, some: Sequence[Pair]) -> list[Any]:
    """Return both keys' values and expiry times in steps for each pair; None for a missing key."""
    keys = [f"{start}:{pair.name}" for pair in some for start in ("old", "new")]
    batch = redis.pipeline(transaction=False)
    for key in keys:
        batch.type(key)
    kinds = batch.execute()
    readers = {"list": ("LRANGE", 0, -1), "hash": ("HGETALL",), "set": ("SMEMBERS",)}
    readers["stream"] = ("XRANGE", "-", "+")
    for key, kind in zip(keys, kinds, strict=True):
        command, *args = readers.get(kind, ("GET",))
        batch.execute_command(command, key, *args)
        batch.pttl(key)
    batch.time()
    *replies, (seconds, micros) = batch.execute()
    now = seconds * 1000 + micros // 1000
    found = [
        None
        if ttl == -2
        else (
            tuple(value) if kind == "stream" else value,
            ttl if ttl < 0 else round((now + ttl) / EXPIRY_STEP_MS),
        )
        for kind, value, ttl in zip(kinds, replies[::2], replies[1::2], strict=True)
    ]
    return [list(both) for both in zip(found[::2], found[1::2], strict=True)]


def streams() -> tuple[Any, Any, Any]:
    """Return the entries of an older and of a newer stream, and of both in order."""
    old = [("5-1", {"f": "old"}), ("5-2", {"f": "same"}), ("90-0", {"f": "1", "g": "2"})]
    new = [("5-2", {"f": "same"}), ("10-0", {"f": "new"}), ("9007199254740993-1", {"f": "x"})]
    return tuple(old), tuple(new), (*old[:2], new[1], old[2], new[2])


def pairs() -> list[Pair]:
    """Return a pair for each way to merge two values, combined with each order of two TTLs."""
    soon, late = 40_000_000, 40_000_001
    lists = [f"o{n}" for n in range(7)], [f"n{n}" for n in range(8)]
    numbered = {f"f{n}": str(n) for n in range(20)}
    older, newer, entries = streams()
    values: dict[str, tuple[str, Any, Any, Any]] = {
        "queue": (INBOX, *lists, lists[0] + lists[1]),
        "stack": (URGENT, *lists, lists[1] + lists[0]),
        "activity": (ACTIVITY, *lists, (lists[1] + lists[0])[:10]),
        "flag": (STOP, "1", "1", "1"),
        "flags": (STOP, "older", "newer", "newer"),
        "string": (TASK, "x" * 50, "x" * 50, "x" * 50),
        "list": (INBOX, lists[0], lists[0], lists[0]),
        "hash": (TASK, numbered, numbered, numbered),
        "set": (URGENT, {"a", "b"}, {"a", "b"}, {"a", "b"}),
        "active": (MISSION, {"a", "b"}, {"b", "c"}, {"a", "b", "c"}),
        "events": (EVENTS, older, newer, entries),
    }
    expiries = [(-1, -1), (-1, soon), (soon, -1), (soon, late), (late, soon), (soon, soon)]
    return [
        Pair(f"{name}:{old}:{new}", *value, old, new)
        for name, value in values.items()
        for old, new in expiries
    ]


def write_pairs(server: Server) -> list[Pair]:
    """Write all pairs to the newest server; elsewhere each way and each order of TTLs once."""
    found = pairs() if server.kind == newest_kind() else pairs()[::5]
    batch = server.client().pipeline(transaction=False)
    for pair in found:
        pair.write(batch)
    batch.execute()
    return found


@pytest.fixture
def some(server: Server) -> list[Pair]:
    return write_pairs(server)


def settle(redis: Redis, *some: Pair) -> list[str]:
    """Merge pairs. Returns `true` for each, or why it was not merged."""
    args = [arg for pair in some for arg in (pair.family, pair.name)]
    # Keys are passed as ARGV, because a server checks KEYS before the script begins.
    reply: list[str] = redis.eval(MERGE_LUA + SETTLE, 0, *args)
    return reply


def assert_each_is_whole_or_apart(redis: Redis, some: list[Pair], told: list[str]) -> None:
    """Check that each pair matches its reply. Then merge the rest with all permissions."""
    expected = [
        pair.whole if says == "true" else pair.apart for pair, says in zip(some, told, strict=True)
    ]
    assert read(redis, some) == expected
    apart = [pair for pair, says in zip(some, told, strict=True) if says != "true"]
    assert set(settle(redis, *apart)) <= {"true"}
    assert read(redis, some) == [pair.whole for pair in some]


def test_all_pairs_are_joined(server: Server, some: list[Pair]) -> None:
    redis = server.client(decode_responses=True)
    redis.config_resetstat()
    told = settle(redis, *some)
    assert set(told) == {"true"}
    # On some servers the clock moves during a script, so two readings can differ.
    assert redis.info("commandstats")["cmdstat_pttl"]["calls"] == 2 * len(some)
    assert_each_is_whole_or_apart(redis, some, told)


@each("denied", COMMANDS)
def test_a_command_that_the_user_lacks(server: Server, denied: str) -> None:
    assert_each_is_whole_or_apart_for(server, "~*", f"-{denied}")


@each(
    "rules",
    [
        ("~old:*",),
        ("~new:*",),
        ("~old:*", "%R~new:*"),
        ("%R~old:*", "~new:*"),
        ("~old:*", "%W~new:*"),
        ("%R~*",),
        ("%W~*",),
        ("~*", "-rename", "(+rename ~old:*)", "(+rename ~new:*)"),
        ("~*", "-restore", "-rename"),
        ("~*", "-ltrim", "(+ltrim ~old:*)"),
        ("~*", "-ltrim", "(+ltrim ~new:*)"),
        ("~*", "-rpush", "(+rpush ~old:*)"),
        ("~*", "-lpush", "(+lpush ~new:*)"),
    ],
)
def test_keys_that_the_user_may_not_touch(server: Server, rules: tuple[str, ...]) -> None:
    # Redis 6.2 has one set of rules for all commands, and does not tell reading from writing.
    if server.kind.version >= (7, 0) or rules in (("~old:*",), ("~new:*",)):
        assert_each_is_whole_or_apart_for(server, *rules)


def assert_each_is_whole_or_apart_for(server: Server, *rules: str) -> None:
    """Merge pairs as a user with these rules, and check that each is whole or apart."""
    some, redis = write_pairs(server), server.client(decode_responses=True)
    redis.execute_command("ACL", "SETUSER", "less", "on", ">secret", "+@all", *rules)
    less = server.client(username="less", password="secret", decode_responses=True)
    assert_each_is_whole_or_apart(redis, some, settle(less, *some))


@pytest.mark.parametrize(
    "missing",
    ["LTRIM", "LPUSH", "RPUSH", "RENAME", "SET", "PTTL", "SADD", "XADD", "DEL"],
)
def test_a_command_that_the_server_lacks(
    server: Server, some: list[Pair], own_server: StartServer, missing: str
) -> None:
    redis = server.client(decode_responses=True)
    lacking = own_server("--rename-command", missing, "HIDDEN", kind=server.kind)
    copy_all(server, lacking)
    told = settle(lacking.client(decode_responses=True), *some)
    # Use the server with all commands again, to read the pairs and merge the rest.
    copy_all(lacking, server)
    assert_each_is_whole_or_apart(redis, some, told)


def copy_all(source: Server, target: Server) -> None:
    redis, other = source.client(), target.client()
    other.flushall()
    keys: Any = redis.keys()
    for key in keys:
        value: Any = redis.dump(key)
        seconds: Any = redis.ttl(key)
        other.restore(key, max(0, seconds) * 1000, value)


def test_a_full_server(server: Server, some: list[Pair]) -> None:
    redis = server.client(decode_responses=True)
    redis.config_set("maxmemory", 1)
    told = [settle(redis, pair)[0] for pair in some]
    redis.config_set("maxmemory", 0)
    # After RENAMENX, as after any write command, a full server lets the script go on writing.
    assert set(told) == {"true"}
    assert_each_is_whole_or_apart(redis, some, told)

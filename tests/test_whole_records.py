"""A record is converted whole or not at all, whatever the server refuses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.keyspaces import EXPIRY_STEP_MS, contents, read_hash, write_hash
from tests.servers import Server
from tests.test_downgrade import AGENT, TASK
from tt_migrate import DOWNGRADE, HASH, UPGRADE, Plan
from tt_migrate.engine.calls.scripts import Layout, source
from tt_migrate.plan import COPYING_COMMANDS, OPTIONAL_COMMANDS
from tt_migrate.terminal.words import command_for

pytestmark = pytest.mark.every_kind

OLD, NEW = ("~tt:agent:*", "~tt:task:*"), ("~tt:town:agent:*", "~tt:town:task:*")
EXPIRY = EXPIRY_STEP_MS * 40_000_000
STARTS = {UPGRADE: "tt:", HASH: "tt:town:", DOWNGRADE: "tt:town:"}
PLANS = pytest.mark.parametrize("plan", STARTS, ids=command_for)
State = dict[bytes, dict[bytes, Any]]


def put(redis: Redis, plan: Plan) -> None:
    """Write an agent that expires, a task that does not, and two that take several commands."""
    redis.flushdb()
    large = TASK | {f"x{n}": "x" for n in range(600)}
    for n, record in enumerate((AGENT, TASK, large, large)):
        record_id = f"{AGENT['id'][:-1]}{n}"
        key = f"{STARTS[plan]}{'agent' if n == 0 else 'task'}:{record_id}"
        fields = {**record, "id": record_id}
        if plan is DOWNGRADE:
            texts = {name: str(value) for name, value in fields.items() if value not in (None, [])}
            write_hash(redis, key, texts)
        else:
            redis.set(key, json.dumps(fields))
        if n % 2 == 0:
            redis.pexpireat(key, EXPIRY)


def put_again(redis: Redis, dumps: dict[bytes, tuple[bytes, int]]) -> None:
    """Write what contents() has found, in a twentieth of the time of put()."""
    batch = redis.pipeline(transaction=False)
    batch.flushdb()
    for key, (dump, expiry) in dumps.items():
        batch.restore(key, max(0, expiry * EXPIRY_STEP_MS), dump, absttl=True)
    batch.execute()


def state_of(redis: Redis, known: dict[bytes, Any]) -> State:
    """What each record has, and when it expires, by its id and its key. Fields have no order.

    `known`: what is in a DUMP, of those that were read before.
    """
    state: State = {}
    for key, (dump, expiry) in contents(redis).items():
        if dump not in known:
            known[dump] = dump if redis.type(key) == b"string" else read_hash(redis, key)
        state.setdefault(key.rpartition(b":")[2], {})[key] = (known[dump], expiry)
    return state


def rules(commands: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Rules of users who lack one command, altogether or on some keys, or access to some keys."""
    for keys in (OLD, NEW):
        yield (*keys, "+@all")
    for command in commands:
        less = ("~*", "+@all", f"-{command}")
        yield less
        for keys in (OLD, NEW):
            yield (*less, f"({' '.join(keys)} +{command})")


@PLANS
def test_a_refused_command_leaves_each_record_whole_and_listed(either: Server, plan: Plan) -> None:
    redis = either.client()
    layout: Layout = "shard" if redis.info("cluster")["cluster_enabled"] else "server"
    script, args = (
        source("migrate", plan, layout),
        ("town", 0, 1000, 60_000_000, "", "", "", 0, 0, 0),
    )
    put(redis, plan)
    dumps, known = contents(redis), dict[bytes, Any]()
    put_again(redis, dumps)  # a hash that was restored can have its fields in another order
    before = state_of(redis, known)
    sha: Any = redis.script_load(script)
    redis.evalsha(sha, 0, *args)
    after = state_of(redis, known)
    assert all(before[record] != after[record] for record in before)
    commands = (*plan.commands, *OPTIONAL_COMMANDS, *(COPYING_COMMANDS * (layout == "shard")))
    wrong: list[tuple[object, ...]] = []
    redis.execute_command("ACL", "SETUSER", "less", "on", ">secret")
    less = either.client(username="less", password="secret")
    for rule in rules(dict.fromkeys(commands)):
        try:
            redis.execute_command("ACL", "SETUSER", "less", "reset", "on", ">secret", *rule)
        except ResponseError:  # Redis 6.2 has no rules for a command on some keys.
            continue
        put_again(redis, dumps)
        try:
            reply: Any = less.evalsha(sha, 0, *args)
            said, changed, ended = repr(reply), True, reply[-1] != b""
        except ResponseError as error:
            said, changed, ended = str(error), False, True
        found = state_of(redis, known)
        if not changed and found != before:
            wrong.append((rule, "raised", said))
        for record in before:
            values = [*found.get(record, {}).values()]
            whole = [*before[record].values(), *after[record].values()]
            listed = found.get(record) == after[record] or ended or record.decode() in said
            if len(values) != 1 or values[0] not in whole or not listed:
                wrong.append((rule, record, [*found.get(record, {})], said))
    assert not wrong, "\n".join(map(str, wrong))

"""Clusters of several shards: everything that works on one server works there."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count, product
from os import urandom
from pathlib import Path
from threading import Barrier, Lock
from typing import Any
from uuid import UUID

import pytest
import trustme
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from interop import keys
from tests.clusters import Cluster, fill
from tests.command import tt_in_process
from tests.keyspaces import contents
from tests.servers import Kind, Pool, Server, StartError, newest_kind
from tests.services import service, spreading
from tests.test_downgrade import FIXTURE
from tests.waiting import wait_until
from tt_migrate import (
    DOWNGRADE,
    HASH,
    RENAME,
    REVERSE,
    UPGRADE,
    Change,
    Migrator,
    Progress,
    from_town,
)
from tt_migrate.engine.calls.retry import PassingError
from tt_migrate.engine.calls.scripts import Script
from tt_migrate.engine.cluster.hidden import Transfer
from tt_migrate.engine.cluster.in_transit import InTransit
from tt_migrate.engine.cluster.pipeline import Failure, Pipeline
from tt_migrate.engine.cluster.router import Operation, Router
from tt_migrate.engine.cluster.side_by_side import Worker
from tt_migrate.plan import Plan
from tt_migrate.terminal.words import command_for

AGENT: dict[str, Any] = {
    "name": "worker",
    "state": "idle",
    "cli": "claude",
    "created_at": "2025-01-01T00:00:00Z",
    "last_heartbeat": "2025-01-01T00:00:00Z",
    "tasks_completed": 0,
    "rounds_completed": 0,
}
MERGE = replace(RENAME, merge=True)
MOVING = ("freeze", "apply", "finish", "forget", "give_back")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs wait shortly, and take no key of theirs for an old one on a slow machine."""
    monkeypatch.setattr("tt_migrate.engine.cluster.sharded._STEADY_SECONDS", 0.05)
    monkeypatch.setattr("tt_migrate.engine.cluster.relocation.YOUNG_MILLISECONDS", 600_000)


def agent(number: int, **more: Any) -> str:
    return json.dumps({"id": f"{number:032x}", **AGENT, **more})


def town(size: int = 16) -> Iterator[tuple[str, ...]]:
    """The commands that make a town with keys of each family, and with conflicts of each kind."""
    for n in range(size):
        key = f"{n:032x}"
        yield "SET", f"tt:agent:{key}", agent(n)
        yield "RPUSH", f"tt:inbox:{key}", f"m{n}", f"n{n}", f"m{n}"
        yield "LPUSH", f"tt:urgent:{key}", f"u{n}"
        yield "SET", f"tt:stop:{key}", "1", "EX", "100000"
        yield "LPUSH", f"tt:activity:{key}", *(f"a{n}-{i}" for i in range(9))
    yield "RPUSH", "tt:backlog", "1", "2", "3"
    yield "SET", "tt:task:backlog", "somebody's"
    yield "SET", "mt:agent:old", agent(1000)
    yield "SET", f"mt:agent:{1:032x}", agent(1001)
    yield "HSET", "tt:other:agent:1", "id", "1"
    task = {"id": str(UUID(int=1)), "description": "d", "state": "in_flight"}
    task |= dict.fromkeys(("created_at", "updated_at"), AGENT["created_at"])
    yield "HSET", f"tt:town:task:{task['id']}", *(text for field in task.items() for text in field)
    for n in range(size // 2):
        key = f"{n:032x}"
        yield "RPUSH", f"tt:town:inbox:{key}", f"new{n}"
        yield "LPUSH", f"tt:town:activity:{key}", f"a{n}-new", f"a{n}-newer"
        yield "LPUSH", f"tt:town:urgent:{key}", f"u{n}"
        yield "SET", f"tt:town:stop:{key}", "1" if n % 2 else "2"
        yield "SET", f"tt:town:agent:{key}", agent(n, state="busy" if n % 2 else "idle")
    for odd in ("{a}b", "a}b{", "a{b", "{}", "}{x}", "a\nb", "{{a}}", "é", "\x00"):
        yield "RPUSH", f"tt:inbox:{odd}", "1", "2"
        yield "SET", f"tt:agent:{odd}", json.dumps({**AGENT, "id": odd})


def town_with_two_names(size: int = 14) -> Iterator[tuple[str, ...]]:
    """The commands that make a town with keys of all forms under two names, and other towns."""
    for name in ("former", "town", "former:events", "former:agent"):
        start = f"tt:{name}:"
        for n in range(size):
            key = str(UUID(int=n, version=4))
            yield "RPUSH", f"{start}inbox:{key}", f"{name}{n}", "same"
            yield "LPUSH", f"{start}urgent:{key}", f"{name}{n}"
            yield "HSET", f"{start}task:{key}", "id", key, "state", name if n % 2 else "idle"
            yield "RPUSH", f"{start}mission:{key}:events", name if n % 2 else "same"
            yield "HSET", f"{start}mission:{key}:work", "a", "b"
            if name in ("former", "town"):
                yield "XADD", f"{start}events:agent:{key}", f"{n}-{len(name)}", "from", name
                yield "XADD", f"{start}events:agent:{key}", "1000-0", "both", "one"
                if n % 10:
                    yield "HSET", f"{start}agent:{key}", "id", key, "name", f"agent {n % 11}"
                if n == 5:
                    yield "XGROUP", "CREATE", f"{start}events:agent:{key}", "group", "0"
        yield "SADD", f"{start}mission:active", name, "both"
        yield "XADD", f"{start}events", "5-1", "from", name
        yield "XADD", f"{start}docket:tasks", "5-1", "from", name
        yield "XGROUP", "CREATE", f"{start}docket:tasks", "workers", "0"
        yield "XADD", f"{start}docket:events", "5-1", "from", name
        yield "RPUSH", f"{start}backlog", name
    for n in range(100, 100 + size):
        key = str(UUID(int=n, version=4))
        yield "SET", f"tt:former:stop:{key}", "1", "EX", "100000"
        yield "HSET", f"tt:former:agent:{key}", "id", key, "name", f"{n}"
        yield "SET", f"tt:former:mission:{key}", "{}"
    yield "SET", "tt:former:odd", "1"


def commands_for(plan: Plan, *size: int) -> list[tuple[str, ...]]:
    """The commands that make the town for a plan."""
    return [*(town if plan.from_town is None else town_with_two_names)(*size)]


def send(redis: Redis, commands: Iterable[tuple[str, ...]]) -> None:
    """Send commands to one server."""
    batch = redis.pipeline(transaction=False)
    for command in commands:
        batch.execute_command(*command)
    batch.execute()


def everything(cluster: Cluster) -> dict[bytes, Any]:
    """Return what contents() does, of all masters."""
    found: dict[bytes, Any] = {}
    for server in cluster.masters:
        found |= contents(server.client())
    return found


MERGING = [replace(UPGRADE, merge=True), replace(REVERSE, merge=True)]
PLANS = [RENAME, MERGE, UPGRADE, HASH, REVERSE, DOWNGRADE, replace(RENAME, oldest=True)]
RENAMING = [from_town("former"), from_town("former", merge=True)]


def compare_looks(there: Migrator, here: Migrator) -> None:
    """Assert that counts and previews say the same."""
    one, other = there.count(), here.count()
    numbers = ("keys", "conflicts", "ambiguous", "dbsize", "strings", "old_strings", "hashes")
    for name in (*numbers, "others", "new_only", "to_convert", "total", "undone", "promising"):
        assert getattr(one, name) == getattr(other, name), name
    assert set(one.towns) == set(other.towns)
    assert one.has_keys == other.has_keys

    seen, wanted = there.preview(), here.preview()
    lists = ("moves", "ambiguous", "conversions", "towns")
    for name in (*lists, "namesakes", "merges", "conflicts", "failed", "unconverted"):
        found, expected = getattr(seen, name), getattr(wanted, name)
        both = (found, expected) if isinstance(found, dict) else map(set, (found, expected))
        one_side, other_side = both
        assert one_side == other_side, name
    assert seen.total == wanted.total
    assert seen.remaining == wanted.remaining
    if seen.count and wanted.count:
        assert seen.count.conflicts == wanted.count.conflicts


def compare_migrations(there: Migrator, here: Migrator) -> None:
    """Assert that migrations say that they did the same."""
    done, expected_done = there.migrate(), here.migrate()
    names = ("keys", "merged", "converted", "conflicts", "failed", "unconverted", "remaining")
    assert done.left == expected_done.left or done.plan.needs_count
    for name in (*names, "complete", "records_left", "left_behind"):
        assert getattr(done, name) == getattr(expected_done, name), name
    assert set(done.ambiguous) == set(expected_done.ambiguous)
    assert not done.hidden


@pytest.mark.parametrize("plan", [*MERGING, RENAMING[1]], ids=command_for)
def test_a_cluster_of_each_kind_is_left_like_a_single_server(
    cluster: Cluster, server: Server, plan: Plan
) -> None:
    is_left_alike(cluster, server, plan)


def test_an_upgrade_and_a_downgrade_give_back_what_0_6_wrote(newest_cluster: Cluster) -> None:
    commands = {"string": "SET", "list": "RPUSH"}
    written = ((key["name"], key["type"], key["value"]) for key in keys.load(FIXTURE))
    fill(
        newest_cluster,
        (
            (commands[kind], name, *(value if kind == "list" else [value]))
            for name, kind, value in written
        ),
    )
    before = everything(newest_cluster)
    client = newest_cluster.client()
    assert Migrator(client, "my-town", UPGRADE).migrate().complete
    preview = Migrator(client, "my-town", DOWNGRADE).preview()
    done = Migrator(client, "my-town", DOWNGRADE).migrate()
    assert (done.complete, done.keys, done.converted) == (True, preview.keys, preview.to_convert)
    assert everything(newest_cluster) == before


@pytest.mark.parametrize("plan", [*PLANS, RENAMING[0]], ids=command_for)
def test_a_cluster_is_left_like_a_single_server(
    newest_cluster: Cluster, newest: Server, plan: Plan
) -> None:
    is_left_alike(newest_cluster, newest, plan)


def is_left_alike(cluster: Cluster, server: Server, plan: Plan) -> None:
    fill(cluster, commands_for(plan))
    redis = server.client()
    send(redis, commands_for(plan))
    there, here = (Migrator(client, "town", plan) for client in (cluster.client(), redis))

    before = everything(cluster)
    compare_looks(there, here)
    assert everything(cluster) == before
    compare_migrations(there, here)
    assert everything(cluster) == contents(redis)


@pytest.mark.parametrize("plan", [UPGRADE, DOWNGRADE], ids=command_for)
def test_records_that_stay_are_listed_beside_keys_that_stay(
    newest_cluster: Cluster, plan: Plan
) -> None:
    client = newest_cluster.client()
    is_upgrade = plan is UPGRADE
    for n in range(12):
        if is_upgrade:
            client.set(f"tt:task:{n}", "no JSON")
        else:
            client.hset(f"tt:town:task:{n}", "id", "another")
        client.rpush(f"tt:inbox:{n}", "old")
        client.rpush(f"tt:town:inbox:{n}", "new")
    done = Migrator(client, "town", plan).migrate()
    assert len(done.conflicts) == 12
    assert sorted(done.unconverted) == sorted(b"tt:town:task:%d" % n for n in range(12))
    assert done.records_left == 12


@pytest.mark.parametrize("plan", [*MERGING, DOWNGRADE, RENAMING[1]], ids=command_for)
def test_a_service_that_wants_declared_keys_is_left_like_a_single_server(
    newest_cluster: Cluster, newest: Server, plan: Plan
) -> None:
    # Each call is about one key, and goes through the imitation.
    commands = commands_for(plan, 6)
    fill(newest_cluster, commands)
    redis = newest.client()
    send(redis, commands)
    with service(spreading(newest_cluster), *newest_cluster.masters) as address:
        host, _, port = address.partition(":")
        there = Migrator(Redis(host, int(port), protocol=3), "town", plan)
        here = Migrator(redis, "town", plan)
        compare_looks(there, here)
        compare_migrations(there, here)
        assert everything(newest_cluster) == contents(redis)


class KilledError(BaseException):
    """Stands for the end of the process."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, *, is_done: bool) -> list[str]:
    """Let a run end at a call of an operation, before it is sent or before its reply is read.

    Returns the list that will name the operations that were called.
    """
    called: list[str] = []
    carry = Router.carry

    def dying(router: Router, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        name = operation.script.operation
        if name not in MOVING or not args[0]:
            return carry(router, operation, *args, **kwargs)
        called.append(name)
        if len(called) > number:
            if len(called) == number + 1 and is_done:
                carry(router, operation, *args, **kwargs)
            raise KilledError
        return carry(router, operation, *args, **kwargs)

    monkeypatch.setattr(Router, "carry", dying)
    return called


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs take over all keys that are hidden when they begin."""
    monkeypatch.setattr("tt_migrate.engine.cluster.round.TAKE_OVER_MILLISECONDS", -1000)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_done", [False, True], ids=["unsent", "reply lost"])
@pytest.mark.parametrize("number", range(8))
def test_a_run_that_is_killed_at_any_step_is_finished_by_the_next(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, number: int, is_done: bool
) -> None:
    commands: list[tuple[str, ...]] = [("RPUSH", f"tt:inbox:{n}", "a", "b") for n in range(30)]
    commands += [("RPUSH", f"tt:town:inbox:{n}", "new") for n in range(10)]
    commands += [("SET", f"tt:agent:{n}", "old") for n in range(6)]
    commands += [("SET", f"tt:town:agent:{n}", "new") for n in range(6)]
    fill(newest_cluster, commands)
    with monkeypatch.context() as patched:
        called = killed_at(patched, number, is_done=is_done)
        with pytest.raises(KilledError):
            Migrator(newest_cluster.client(), "town", MERGE).migrate()
    assert len(called) > number
    migrator = Migrator(newest_cluster.client(), "town", MERGE)
    counted = migrator.count()
    names = {name for name in everything(newest_cluster) if b":moving:" in name}
    assert {*counted.hidden.values()} == names
    assert counted.undone >= len(names)
    assert set(counted.towns) == set()
    done = migrator.migrate()
    assert (dict(done.hidden), done.remaining) == ({}, 6)
    assert {*done.conflicts} == {b"tt:agent:%d" % n for n in range(6)}
    left = everything(newest_cluster)
    assert [name for name in left if b":moving:" in name or b":staged:" in name] == []
    marks = {name: expiry for name, (_, expiry) in left.items() if b":moved:" in name}
    assert -1 not in marks.values()
    client = newest_cluster.client()
    for n in range(30):
        wanted = [b"a", b"b", b"new"] if n < 10 else [b"a", b"b"]
        assert client.lrange(f"tt:town:inbox:{n}", 0, -1) == wanted
    for n in range(6):
        assert (client.get(f"tt:agent:{n}"), client.get(f"tt:town:agent:{n}")) == (b"old", b"new")
    assert len(left) - len(marks) == 30 + 12


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("town", "plan"),
    [
        ("town", UPGRADE),
        ("town", RENAMING[0]),
        ("former", RENAME),
        ("newer", RENAMING[0]),
        ("newest", from_town("town")),
    ],
)
@pytest.mark.parametrize("step", ["apply", "finish"])
def test_keys_that_a_renaming_has_hidden_are_finished_by_any_run_of_either_name(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, step: str, town: str, plan: Plan
) -> None:
    key = str(UUID(int=1, version=4))
    names = [f"{family}:{key}" for family in ("agent", "mission", "task", "stop", "inbox")]
    names += ["backlog", "events", "mission:active", "docket:tasks", f"events:agent:{key}"]
    names += [f"mission:{key}:{part}" for part in ("work", "watch", "events", "control")]
    commands: list[tuple[str, ...]] = [("RPUSH", f"tt:former:{name}", name) for name in names]
    for name in ("events", f"events:agent:{key}"):
        commands[names.index(name)] = ("XADD", f"tt:former:{name}", "1-1", "a", name)
    for name in (f"agent:{key}", f"task:{key}"):
        commands[names.index(name)] = ("HSET", f"tt:former:{name}", "id", key)
    fill(newest_cluster, commands)
    before = everything(newest_cluster)
    client = newest_cluster.client()
    carry = Router.carry
    homes = {client.get_node_from_key(name.decode()).port for name in before}
    # All threads get that far, so that it is known what has been done with each key.
    together = Barrier(len(homes))

    def dying(router: Router, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        if operation.script.operation == step and args[0]:
            together.wait(60)
            raise KilledError
        return carry(router, operation, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Router, "carry", dying)
        with pytest.raises(KilledError):
            Migrator(client, "town", RENAMING[0]).migrate()
    stopped = everything(newest_cluster)
    hidden = {name for name in stopped if b":moving:" in name}
    assert len(hidden) == len(names)
    assert {*Migrator(client, town, plan).count().hidden.values()} == hidden
    assert not Migrator(client, "other", UPGRADE).count().hidden
    done = Migrator(client, town, plan).migrate()
    is_of_other_plan = (town, plan) != ("town", RENAMING[0])
    assert (dict(done.hidden), done.finished) == (
        {},
        len(hidden) if is_of_other_plan and step == "apply" else 0,
    )
    assert Migrator(client, "town", RENAMING[0]).migrate().complete
    after = everything(newest_cluster)
    end = b"tt:newest:" if town == "newest" else b"tt:town:"
    assert {name: value for name, value in after.items() if b":moved:" not in name} == {
        name.replace(b"tt:former:", end): value for name, value in before.items()
    }


@pytest.mark.usefixtures("impatient")
def test_hidden_keys_are_shown_and_the_next_run_finishes_them(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(newest_cluster, [("RPUSH", "tt:inbox:1", "a")])
    with monkeypatch.context() as patched:
        killed_at(patched, 1, is_done=False)
        with pytest.raises(KilledError):
            Migrator(newest_cluster.client(), "town").migrate()
    (name,) = everything(newest_cluster)
    hidden = name.decode()
    assert hidden.startswith("tt:{tt:inbox:1}:moving:")
    assert hidden.endswith(":10:tt:inbox:1tt:town:inbox:1")

    url = ("--redis-url", newest_cluster.url, "--town-name", "town")
    check = tt_in_process("--check", *url)
    assert (check.returncode, "1 key is hidden" in check.stdout) == (1, True)
    preview = tt_in_process("--dry-run", *url)
    assert f"tt:inbox:1 (hidden as {hidden})" in preview.stdout
    quiet = tt_in_process("--dry-run", "--quiet", *url)
    assert hidden in quiet.stdout
    document = json.loads(tt_in_process("--check", "--json", *url).stdout)
    assert document["hidden"] == [{"from": "tt:inbox:1", "hidden": hidden}]

    asked = tt_in_process(*url, answer=b"y\n")
    assert (asked.returncode, hidden in asked.stdout) == (0, True)
    assert "1 key migrated" in asked.stdout
    assert tt_in_process("--check", *url).returncode == 0
    assert newest_cluster.client().lrange("tt:town:inbox:1", 0, -1) == [b"a"]


@pytest.mark.usefixtures("impatient")
def test_a_report_says_what_a_run_of_another_plan_finished(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(newest_cluster, [("RPUSH", "tt:former:inbox:1", "a")])
    with monkeypatch.context() as patched:
        killed_at(patched, 1, is_done=False)
        with pytest.raises(KilledError):
            Migrator(newest_cluster.client(), "town", RENAMING[0]).migrate()
    url = ("--redis-url", newest_cluster.url, "--town-name", "town")
    done = tt_in_process("--force", *url)
    assert "   This run finished 1 key that a run with another plan had hidden.\n" in done.stdout
    assert newest_cluster.client().lrange("tt:town:inbox:1", 0, -1) == [b"a"]


@pytest.mark.usefixtures("impatient")
def test_keys_that_a_run_the_other_way_has_hidden_are_finished_and_moved(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(newest_cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(20)])
    with monkeypatch.context() as patched:
        killed_at(patched, 1, is_done=False)
        with pytest.raises(KilledError):
            Migrator(newest_cluster.client(), "town").migrate()
    done = Migrator(newest_cluster.client(), "town", REVERSE).migrate()
    assert done.complete
    assert done.finished <= done.keys["inbox"]
    assert {name for name in everything(newest_cluster) if b":moved:" not in name} == {
        b"tt:inbox:%d" % n for n in range(20)
    }


def test_a_record_that_is_written_anew_while_it_is_hidden_is_reported_and_kept(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(newest_cluster, [("SET", "tt:agent:1", "old"), ("SET", "tt:town:agent:1", "new")])
    client = newest_cluster.client()
    carry = Router.carry

    def rewriting(router: Router, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        if operation.script.operation == "apply":
            client.set("tt:agent:1", "newest")
        return carry(router, operation, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Router, "carry", rewriting)
        done = Migrator(client, "town").migrate()
    assert [*done.hidden] == [b"tt:agent:1"]
    assert not done.complete
    (hidden,) = done.hidden.values()
    assert [client.get(key) for key in (hidden, "tt:agent:1", "tt:town:agent:1")] == [
        *(b"old", b"newest", b"new")
    ]
    monkeypatch.setattr("tt_migrate.engine.cluster.round.TAKE_OVER_MILLISECONDS", 0)
    assert dict(Migrator(client, "town").migrate().hidden) == dict(done.hidden)
    (mark,) = (name for name in everything(newest_cluster) if b":moved:" in name)
    assert client.pttl(mark) == -1  # as long as the key is hidden
    client.delete("tt:agent:1")
    again = Migrator(client, "town").migrate()
    assert (dict(again.hidden), client.get("tt:agent:1")) == ({}, b"old")


def test_names_that_look_like_hidden_ones_are_left_alone(newest_cluster: Cluster) -> None:
    names = (
        "tt:{x}:moving:1-0123abcd-1:1:xfoo",
        "tt:{tt:agent:1}:moving:1-0123abcd-1:10:tt:agent:1tt:other:agent:1",
        "tt:{tt:agent:1}:moving:1-0123abcd-1:9:tt:agent:1tt:town:agent:1",
        "tt:{y}:moving:1-0123abcd-1:10:tt:agent:1tt:town:agent:1",
        "tt:{tt:nobody:1}:moving:1-0123abcd-1:11:tt:nobody:1tt:town:nobody:1",
        "tt:{tt:agent:1}:moving:x",
    )
    fill(newest_cluster, [("RPUSH", name, "a") for name in names])
    fill(newest_cluster, [("RPUSH", "tt:inbox:1", "a")])
    marks = ["tt:{tt:town:agent:1}:moved:1-0123abcd-1:tt:town:agent:1"]
    fill(newest_cluster, [("RPUSH", mark, "a") for mark in marks])
    migrator = Migrator(newest_cluster.client(), "town")
    assert dict(migrator.count().hidden) == {}
    assert migrator.migrate().complete
    assert {*map(str.encode, names)} < {*everything(newest_cluster)}


def test_progress_and_the_record_are_told_in_the_callers_thread(newest_cluster: Cluster) -> None:
    fill(newest_cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(3000)])
    threads: set[int] = set()
    told: list[Change] = []
    seen: list[tuple[str, int, int]] = []

    def progress(now: Progress) -> None:
        threads.add(threading.get_ident())
        seen.append((now.stage, now.scanned, now.dbsize))

    def record(changes: Sequence[Change]) -> None:
        threads.add(threading.get_ident())
        told.extend(changes)

    done = Migrator(newest_cluster.client(), "town", progress=progress, record=record).migrate()
    assert threads == {threading.get_ident()}
    assert {change.key for change in told} == {b"tt:inbox:%d" % n for n in range(3000)}
    assert {change.action for change in told} == {"renamed"}
    assert done.keys["inbox"] == len(told) == 3000
    assert {stage for stage, _, _ in seen} == {"migrating", "verifying"}
    assert all(scanned <= dbsize for _, scanned, dbsize in seen)
    # A key that goes from one shard to another is counted on both for a while.
    assert seen[-1][2] == 3000


def test_an_exception_from_progress_ends_the_run_and_hides_nothing(
    newest_cluster: Cluster,
) -> None:
    fill(newest_cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(6000)])
    seen: list[Any] = []

    def progress(now: Progress) -> None:
        seen.append(now.so_far)
        if len(seen) > 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Migrator(newest_cluster.client(), "town", progress=progress).migrate()
    left = everything(newest_cluster)
    assert [name for name in left if name.startswith(b"tt:{")] == []
    assert len(left) == 6000
    assert 0 < seen[-1].total == sum(name.startswith(b"tt:town:") for name in left) < 6000


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 2}, {"protocol": 3}])
def test_a_client_with_other_options_is_used_as_it_is(
    newest_cluster: Cluster, options: dict[str, Any]
) -> None:
    fill(newest_cluster, town())
    client = newest_cluster.client(**options)
    before = Migrator(client, "town", UPGRADE).preview()
    done = Migrator(client, "town", UPGRADE).migrate()
    assert (done.keys, done.converted) == (before.keys, before.to_convert)


def test_nodes_behind_another_address_are_reached_as_the_client_says(
    newest_cluster: Cluster,
) -> None:
    """As behind NAT: the addresses that the cluster names lead nowhere."""
    ports = {server.port: 40_000 + n for n, server in enumerate(newest_cluster.masters)}
    try:
        for server in newest_cluster.masters:
            server.client().config_set("cluster-announce-port", ports[server.port])
        inside = {announced: port for port, announced in ports.items()}
        wait_until(
            lambda: all(
                str(port) in str(server.client().execute_command("CLUSTER", "SLOTS"))
                for server in newest_cluster.masters
                for port in inside
            )
        )
        client = newest_cluster.client(
            address_remap=lambda address: (address[0], inside.get(address[1], address[1]))
        )
        for n in range(50):
            client.rpush(f"tt:inbox:{n}", "a")
        assert Migrator(client, "town").migrate().keys["inbox"] == 50
    finally:
        for server in newest_cluster.masters:
            server.client().config_set("cluster-announce-port", 0)
        wait_until(
            lambda: all(
                str(port) not in str(server.client().execute_command("CLUSTER", "SLOTS"))
                for server in newest_cluster.masters
                for port in inside
            )
        )


def test_a_cluster_client_of_one_shard_uses_the_first_engine(shards: Pool[Server]) -> None:
    for shard in shards.lend(newest_kind()):
        client = RedisCluster(host="127.0.0.1", port=shard.port)
        client.rpush("tt:inbox:1", "a")
        done = Migrator(client, "town").migrate()
        assert (done.complete, shard.client().keys()) == (True, [b"tt:town:inbox:1"])
        assert done.server
        assert done.server.shards == 1
        client.close()


def test_a_full_node_refuses_keys_which_keep_their_names(newest_cluster: Cluster) -> None:
    fill(newest_cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(300)])
    full = newest_cluster.masters[0]
    full.client().config_set("maxmemory", 1)
    client = newest_cluster.client()
    done = Migrator(client, "town").migrate()
    there = {b"tt:inbox:%d" % n for n in range(300)}
    there = {
        key for key in there if client.get_node_from_key(b"tt:town:" + key[3:]).port == full.port
    }
    assert {*done.failed} == there
    assert all(reason.startswith("OOM") for reason in done.failed.values())
    assert dict(done.hidden) == {}
    assert done.keys["inbox"] == 300 - len(there)
    full.client().config_set("maxmemory", 0)
    assert Migrator(client, "town").migrate().complete


def test_large_and_special_values_arrive_whole(newest_cluster: Cluster) -> None:
    client = newest_cluster.client()
    client.set("tt:agent:big", urandom(5 << 20))
    client.set("tt:agent:empty", "")
    client.xadd("tt:task:stream", {"a": "b"})
    client.xgroup_create("tt:task:stream", "group", 0)
    client.xreadgroup("group", "me", {"tt:task:stream": ">"})
    client.hset("tt:task:hash", mapping={"a": "1", "b": "2"})
    client.execute_command("HPEXPIRE", "tt:task:hash", 10**7, "FIELDS", 1, "a")
    before = newest_cluster.snapshot()
    done = Migrator(client, "town").migrate()
    assert done.complete
    after = newest_cluster.snapshot()
    assert {b"tt:" + key[8:]: value for key, value in after.items()} == before
    assert client.xpending("tt:town:task:stream", "group")["pending"] == 1


def test_a_user_without_permissions_is_told_before_anything_changes(
    newest_cluster: Cluster,
) -> None:
    fill(newest_cluster, [("RPUSH", "tt:inbox:1", "a"), ("RPUSH", "tt:former:inbox:1", "a")])
    lacking = ("no-dump", "no-wait", "no-rpush", "no-xinfo")
    for server in newest_cluster.masters:
        client = server.client()
        for name in lacking:
            rights = ("+@all", f"-{name.removeprefix('no-')}")
            client.execute_command("ACL", "SETUSER", name, "on", ">pw", "~*", *rights)
    before = everything(newest_cluster)
    try:
        migrator = Migrator(newest_cluster.client(username="no-dump", password="pw"), "town")
        with pytest.raises(NoPermissionError, match="DUMP"):
            migrator.migrate()
        assert everything(newest_cluster) == before
        assert "DUMP" in migrator.preview().refused
        migrator = Migrator(newest_cluster.client(username="no-wait", password="pw"), "town")
        for operation in (migrator.check, migrator.migrate):
            with pytest.raises(NoPermissionError, match="wait"):
                operation()
        # A key that was made anew meanwhile is joined when it is given back.
        for name, plan in (("no-rpush", RENAME), ("no-xinfo", RENAMING[0])):
            less = newest_cluster.client(username=name, password="pw")
            with pytest.raises(NoPermissionError, match=name.removeprefix("no-").upper()):
                Migrator(less, "town", plan).migrate()
        assert everything(newest_cluster) == before
    finally:
        for server in newest_cluster.masters:
            server.client().execute_command("ACL", "DELUSER", *lacking)


def test_a_user_of_one_town_leaves_other_keys_alone(newest_cluster: Cluster) -> None:
    """docs/cluster.md names the patterns that a user needs."""
    fill(newest_cluster, town())
    families = ("agent:*", "inbox:*", "urgent:*", "activity:*", "stop:*", "task:*", "backlog")
    patterns = ["~tt:town:*", "~tt:{*", *(f"~tt:{family}" for family in families)]
    for server in newest_cluster.masters:
        server.client().execute_command("ACL", "SETUSER", "some", "on", ">pw", "+@all", *patterns)
    try:
        client = newest_cluster.client(username="some", password="pw")
        done = Migrator(client, "town", MERGE).migrate()
        assert not done.failed
        assert done.keys["agent"] == 17
    finally:
        for server in newest_cluster.masters:
            server.client().execute_command("ACL", "DELUSER", "some")


def test_a_node_that_is_down_is_said_in_one_line(newest_cluster: Cluster) -> None:
    lists(newest_cluster, 30)
    newest_cluster.masters[2].kill()
    for options in (["--check"], ["--dry-run"], ["--force"]):
        done = tt_in_process(*options, "--redis-url", newest_cluster.url, "--town-name", "town")
        assert done.returncode == 3
        assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("impatient")
def test_a_mark_outlives_an_apply_that_may_still_arrive(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(newest_cluster, [("RPUSH", "tt:inbox:1", "a")])
    receive = Pipeline.receive
    lost: list[Any] = []

    def losing(pipeline: Pipeline, script: Script) -> list[Any]:
        replies = receive(pipeline, script)
        if script.operation == "apply" and not lost:
            lost.append(replies)
            raise RedisTimeoutError
        return replies

    monkeypatch.setattr(Pipeline, "receive", losing)
    done = Migrator(newest_cluster.client(), "town").migrate()
    assert done.keys["inbox"] == 1
    left = everything(newest_cluster)
    (mark,) = (name for name in left if b":moved:" in name)
    assert left[mark][1] > 0
    assert {*left} - {mark} == {b"tt:town:inbox:1"}


@pytest.mark.parametrize("name", ["{t}", "a:b", "}", "{", "x}{y", "\udcff"])
def test_a_town_can_have_any_name(newest_cluster: Cluster, name: str) -> None:
    fill(newest_cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(50)])
    before = everything(newest_cluster)
    client = newest_cluster.client()
    assert Migrator(client, name).migrate().keys["inbox"] == 50
    assert Migrator(client, name, REVERSE).migrate().keys["inbox"] == 50
    assert everything(newest_cluster) == before


@pytest.mark.usefixtures("impatient")
def test_marks_and_hidden_keys_of_another_town_are_left_alone(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(newest_cluster, [("RPUSH", "tt:inbox:1", "a")])
    with monkeypatch.context() as patched:
        killed_at(patched, 2, is_done=False)
        with pytest.raises(KilledError):
            Migrator(newest_cluster.client(), "other").migrate()
    before = everything(newest_cluster)
    assert len(before) == 3
    done = Migrator(newest_cluster.client(), "town", UPGRADE).migrate()
    assert (done.total, dict(done.hidden), set(done.towns)) == (0, {}, {b"other"})
    assert everything(newest_cluster) == before


@pytest.mark.usefixtures("impatient")
def test_keys_that_a_dead_run_has_applied_are_finished_but_not_counted(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(newest_cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(30)])
    carry = Router.carry

    def dying(router: Router, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        said = carry(router, operation, *args, **kwargs)
        if operation.script.operation == "apply":
            raise KilledError
        return said

    with monkeypatch.context() as patched:
        patched.setattr(Router, "carry", dying)
        with pytest.raises(KilledError):
            Migrator(newest_cluster.client(), "town").migrate()
    applied = sum(name.startswith(b"tt:town:") for name in everything(newest_cluster))
    assert applied > 0
    done = Migrator(newest_cluster.client(), "town").migrate()
    assert (done.keys["inbox"], done.complete) == (30 - applied, True)


@pytest.mark.usefixtures("impatient")
def test_keys_are_safe_while_replicas_do_not_answer(
    replicated: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tt_migrate.engine.cluster.pipeline._WAIT_MILLISECONDS", 100)
    lists(replicated, 300)
    # redis-py may ask the replica, too, where the slots are.
    client = replicated.client(socket_timeout=0.5)
    replica = replicated.replicas[0]
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        seen: list[str] = []
        migrator = Migrator(
            client,
            "town",
            retry=Retry(NoBackoff(), 1, (RedisConnectionError,)),
            progress=lambda now: seen.append(now.waiting),
        )
        with pytest.raises(PassingError, match="UNREPLICATED 0 of 1"):
            migrator.migrate()
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    assert "replicas behind" in seen
    left = everything(replicated)
    old, new = (
        {name.removeprefix(start) for name in left if name.startswith(start)}
        for start in (b"tt:inbox:", b"tt:town:inbox:")
    )
    hidden = {name.rpartition(b":")[2] for name in left if b":moving:" in name}
    assert not old & new
    assert not old & hidden
    assert old | new | hidden == {b"%d" % n for n in range(300)}
    client = replicated.client()
    assert Migrator(client, "town").migrate().complete
    assert len(client.keys("tt:town:inbox:*", target_nodes="primaries")) == 300


def test_passwords_and_tls_count_for_all_nodes(kind: Kind, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    issued.cert_chain_pems[0].write_to_path(files["cert"])
    issued.private_key_pem.write_to_path(files["key"])
    options = {
        "port": "0",
        "tls-port": "{port}",
        "tls-cluster": "yes",
        "tls-ca-cert-file": files["ca"],
        "tls-cert-file": files["cert"],
        "tls-key-file": files["key"],
    }
    args = [part for name, value in options.items() for part in (f"--{name}", value)]
    try:
        cluster = Cluster.start(kind, *args)
    except StartError as error:
        if "tls" not in str(error).lower():
            raise
        pytest.skip(f"{kind.name}: built without TLS")
    try:
        for server in cluster.masters:
            server.client().config_set("requirepass", "s3cret")
        names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        tls = dict(zip(names, files.values(), strict=True))
        client = cluster.client(ssl=True, password="s3cret", **tls)
        for n in range(50):
            client.rpush(f"tt:inbox:{n}", "a")
        query = "&".join(f"{name}={file}" for name, file in tls.items())
        url = f"rediss://:s3cret@127.0.0.1:{cluster.masters[0].port}?{query}"
        done = tt_in_process("--force", "--redis-url", url, "--town-name", "town")
        assert (done.returncode, "50 keys migrated" in done.stdout) == (0, True), done
        assert "s3cret" not in done.stdout + done.stderr
        url = url.replace("s3cret", "wrong")
        refused = tt_in_process("--check", "--redis-url", url, "--town-name", "town")
        assert (refused.returncode, "wrong user name or password" in refused.stderr) == (3, True)
    finally:
        cluster.stop()


def test_keys_whose_new_slots_nobody_serves_stay_as_they_are(newest_cluster: Cluster) -> None:
    lists(newest_cluster, 300)
    client = newest_cluster.client(require_full_coverage=False)
    unserved = {client.keyslot(f"tt:town:inbox:{n}") for n in range(20)}
    lost = {n for n in range(300) if client.keyslot(f"tt:town:inbox:{n}") in unserved}
    unserved -= {client.keyslot(f"tt:inbox:{n}") for n in range(300)}
    owners = {slot: client.nodes_manager.slots_cache[slot][0].port for slot in unserved}
    for server in newest_cluster.masters:
        server.client().config_set("cluster-require-full-coverage", "no")
    nodes = [server.client() for server in newest_cluster.masters]

    def are_unserved() -> bool:
        """Delete the slots everywhere. A message on its way can make a node know them again."""
        deleted = 0
        for node, slot in product(nodes, unserved):
            with suppress(ResponseError):  # it is deleted there
                node.execute_command("CLUSTER", "DELSLOTS", slot)
                deleted += 1
        return not deleted

    wait_until(are_unserved)
    try:
        client.nodes_manager.initialize()
        retry = Retry(NoBackoff(), 1, (RedisConnectionError,))
        with pytest.raises(PassingError, match=r"slot \d+ is not served"):
            Migrator(client, "town", retry=retry).migrate()
        left = {name for name in everything(newest_cluster) if not name.startswith(b"tt:town:")}
        assert left == {b"tt:inbox:%d" % n for n in lost}
    finally:
        for server in newest_cluster.masters:
            own = [slot for slot, port in owners.items() if port == server.port]
            server.client().execute_command("CLUSTER", "ADDSLOTS", *own)


def lists(cluster: Cluster, number: int) -> None:
    fill(cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(number)])


def test_keys_of_a_freeze_whose_reply_is_lost_are_given_back(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists(newest_cluster, 100)
    receive = Pipeline.receive

    def losing(pipeline: Pipeline, script: Script) -> list[Any]:
        replies = receive(pipeline, script)
        if script.operation == "freeze":
            raise RedisTimeoutError
        return replies

    monkeypatch.setattr(Pipeline, "receive", losing)
    retry = Retry(NoBackoff(), 0, (RedisTimeoutError,))
    with pytest.raises(RedisTimeoutError):
        Migrator(newest_cluster.client(), "town", retry=retry).migrate()
    assert {*everything(newest_cluster)} == {b"tt:inbox:%d" % n for n in range(100)}


def test_keys_that_cannot_be_applied_anywhere_are_given_back(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists(newest_cluster, 100)
    send = Router._send

    def refusing(router: Router, name: str, operation: Operation, *args: Any, **kw: Any) -> Any:
        if operation.script.operation == "apply":
            return Failure(RedisConnectionError("down"), is_unsure=False)
        return send(router, name, operation, *args, **kw)

    monkeypatch.setattr(Router, "_send", refusing)
    retry = Retry(NoBackoff(), 0, (RedisConnectionError,))
    with pytest.raises(RedisConnectionError):
        Migrator(newest_cluster.client(), "town", retry=retry).migrate()
    assert {*everything(newest_cluster)} == {b"tt:inbox:%d" % n for n in range(100)}


def test_marks_are_kept_for_a_while_when_another_server_has_taken_a_place(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists(newest_cluster, 10)
    versions = count()
    monkeypatch.setattr(Router, "version", property(lambda router: next(versions)))
    assert Migrator(newest_cluster.client(), "town").migrate().complete
    left = everything(newest_cluster)
    marks = [expiry for name, (_, expiry) in left.items() if b":moved:" in name]
    assert len(marks) == 10
    assert min(marks) > 0


def test_marks_of_keys_that_were_hidden_for_long_are_kept_for_a_while(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists(newest_cluster, 10)
    monkeypatch.setattr("tt_migrate.engine.cluster.relocation.YOUNG_MILLISECONDS", -1)
    assert Migrator(newest_cluster.client(), "town").migrate().complete
    left = everything(newest_cluster)
    assert (
        len([name for name, (_, expiry) in left.items() if b":moved:" in name and expiry > 0]) == 10
    )


def test_each_step_that_the_next_one_relies_on_waits_for_replicas(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists(newest_cluster, 10)
    waiting: dict[str, set[bool]] = {}
    carry = Router.carry

    def noting(router: Router, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        waits = waiting.setdefault(operation.script.operation, set())
        waits.add(operation.waits)
        return carry(router, operation, *args, **kwargs)

    monkeypatch.setattr(Router, "carry", noting)
    Migrator(newest_cluster.client(), "town").migrate()
    for operation in ("freeze", "apply", "finish"):
        assert waiting[operation] == {True}


def test_version_0_1_gives_way_to_younger_keys_on_other_servers(newest_cluster: Cluster) -> None:
    for start in ("mt:", "tt:"):
        fill(newest_cluster, [("SET", f"{start}agent:{n}", start) for n in range(60)])
    client = newest_cluster.client()
    done = Migrator(client, "town", replace(RENAME, oldest=True)).migrate()
    assert (done.keys["agent"], len(done.conflicts)) == (60, 60)
    assert {client.get(f"tt:town:agent:{n}") for n in range(60)} == {b"tt:"}


def test_a_mark_of_another_town_keeps_its_time(newest_cluster: Cluster) -> None:
    client = newest_cluster.client()
    mark = Transfer(b"tt:inbox:1", b"tt:other:inbox:1", b"1-0123abcd-1").mark
    own = Transfer(b"tt:inbox:1", b"tt:town:inbox:1", b"1-0123abcd-1").mark
    for name in (mark, own):
        client.set(name, "moved")
    assert Migrator(client, "town").migrate().complete
    assert client.pttl(mark) == -1
    assert 0 < client.pttl(own) <= 24 * 60 * 60 * 1000


@pytest.mark.usefixtures("impatient")
def test_keys_that_another_run_hides_during_the_final_pass_are_finished(
    newest_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists(newest_cluster, 10)
    client = newest_cluster.client()
    there = client.get_node_from_key("tt:inbox:late").name
    looks, look = count(), InTransit.look

    def hiding(way: InTransit, worker: Worker, lock: Lock) -> None:
        if worker.name == there and next(looks) == 1:
            nonce = b"%d-0123abcd-1" % (time.time() * 1000)
            move = Transfer(b"tt:inbox:late", b"tt:town:inbox:late", nonce)
            client.rpush(move.hidden, "a")
        look(way, worker, lock)

    monkeypatch.setattr(InTransit, "look", hiding)
    done = Migrator(client, "town").migrate()
    assert (done.complete, done.keys["inbox"]) == (True, 11)
    assert client.lrange("tt:town:inbox:late", 0, -1) == [b"a"]


def test_a_name_that_another_key_leaves_is_free(newest_cluster: Cluster) -> None:
    commands: list[tuple[str, ...]] = []
    for n in range(20):
        commands.append(("HSET", f"tt:a:agent:{n}", "id", str(n)))
        commands.append(("XADD", f"tt:a:events:agent:{n}", "1-1", "a", str(n)))
    fill(newest_cluster, commands)
    before = everything(newest_cluster)
    client = newest_cluster.client()
    for new, old in (("a:events", "a"), ("a", "a:events")):
        migrator = Migrator(client, new, from_town(old))
        preview, done = migrator.preview(), migrator.migrate()
        assert (preview.total, dict(preview.conflicts)) == (40, {})
        assert (done.total, done.complete) == (40, True)
    assert everything(newest_cluster) == before

"""A cluster with one shard: keys move between its slots as they do on any other server."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import NoPermissionError, ReadOnlyError, ResponseError

from bench.machinery.process import delayed
from tests.command import tt
from tests.keyspaces import EXPIRY_STEP_MS, contents
from tests.midway import quick_retry
from tests.servers import Kind, Server, StartServer, cluster_state, newest_kind
from tests.tables import each
from tests.test_recovery import at_batch
from tests.users import refusals, user_without
from tests.waiting import wait_until
from tt_migrate import DOWNGRADE, HASH, RENAME, REVERSE, UPGRADE, Migrator, Plan, from_town
from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.scripts import Layout, source
from tt_migrate.engine.calls.server import ObstacleError, UnsupportedServerError
from tt_migrate.terminal.words import command_for

MERGE = replace(UPGRADE, merge=True)
PLANS = (RENAME, HASH, UPGRADE, MERGE, REVERSE, replace(REVERSE, merge=True))


def at(step: int) -> int:
    """A time far ahead that contents() reads back exactly."""
    return EXPIRY_STEP_MS * (40_000_000 + step)


def write_town(redis: Redis) -> None:
    """Write keys of every family, type and kind of conflict."""
    for n in range(30):
        redis.set(f"tt:agent:{n}", json.dumps({"id": str(n), "name": "x", "tags": [1, {}]}))
        redis.set(f"tt:task:{{{n % 5}}}{n}", json.dumps({"id": f"{{{n % 5}}}{n}"}), pxat=at(n))
        redis.rpush(f"tt:inbox:{n}", *(f"o{m}" for m in range(n + 1)))
        redis.lpush(f"tt:urgent:{n}", "u")
        redis.set(f"tt:stop:{n}", 1, pxat=at(n))
    redis.set("tt:town:agent:30", json.dumps({"id": "30"}))
    redis.hset("tt:town:agent:31", mapping={"id": "31"})
    redis.rpush("tt:backlog", "a", "b")
    redis.hset("tt:activity:h", "f", "v")
    redis.zadd("tt:activity:z", {"a": 1.5})
    redis.sadd("tt:activity:s", *range(300))
    redis.xadd("tt:activity:x", {"f": "v"}, id="1-1")
    redis.xgroup_create("tt:activity:x", "group", id="0")
    # Conflicts: equal, flags, queues, stacks, and records that differ.
    redis.set("tt:town:agent:1", redis.get("tt:agent:1"))  # type: ignore[arg-type]
    redis.hset("tt:town:agent:2", mapping={"id": "2"})
    redis.set("tt:town:stop:1", 2, pxat=at(40))
    redis.set("tt:town:stop:2", 1)
    redis.rpush("tt:town:inbox:1", "n1")
    redis.rpush("tt:town:inbox:2", "n1")
    redis.pexpireat("tt:town:inbox:2", at(50))
    redis.lpush("tt:town:urgent:3", "n3")
    redis.set("tt:agent:{}", json.dumps({"id": "{}"}))
    redis.set("tt:agent:a}b{c", json.dumps({"id": "a}b{c"}))


@each("plan", [*PLANS, DOWNGRADE, from_town("x", merge=True)])
@each("layout", ["server", "shard", "shards"])
def test_no_script_is_near_the_limit_of_local_variables(
    newest: Server, plan: Plan, layout: Layout
) -> None:
    """Lua allows 200, and compiles no script with more."""
    room = "".join(f"local _{n}\n" for n in range(5))
    for operation in ("inspect", "find", "preview", "facts", "weigh", *plan.operations):
        newest.client().script_load(room + source(operation, plan, layout))


@contextmanager
def watched_commands(server: Server) -> Iterator[list[list[bytes]]]:
    """Collect the commands that scripts call."""
    seen: list[list[bytes]] = []
    with server.client(decode_responses=False).monitor() as monitor:
        ended = threading.Event()

        def listen() -> None:
            for said in monitor.listen():
                if said["command"] == "ECHO tt-ends":
                    break
                if said["client_type"] == "lua":
                    seen.append([part.encode() for part in said["command"].split(" ")])
            ended.set()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield seen
        server.client().echo("tt-ends")
        assert ended.wait(60)


def is_usable(server: Server) -> bool:
    """Whether scripts still run: on Valkey 9.1, a command across slots ends that."""
    redis = server.client()
    keys = [f"probe:{n}" for n in range(3)]
    lua = "for _, key in ipairs(ARGV) do redis.call('SET', key, 1) redis.call('DEL', key) end"
    return bool(redis.eval(f"{lua} return 7", 0, *keys) == 7)


@pytest.mark.parametrize("plan", PLANS, ids=command_for)
def test_a_plan_does_what_it_does_on_a_plain_server(
    server: Server, shard: Server, plan: Plan
) -> None:
    ends = []
    for where in (server, shard):
        redis = where.client()
        write_town(redis)
        with Redis(unix_socket_path=where.socket) as client:
            preview = Migrator(client, "town", plan).preview()
            count = Migrator(client, "town", plan).count()
            done = Migrator(client, "town", plan).migrate()
        assert is_usable(where)
        ends.append(
            (
                (set(preview.moves), preview.merges, preview.conflicts, preview.failed),
                (set(preview.conversions), preview.unconverted, preview.ambiguous),
                (count.keys, count.conflicts, count.strings, count.old_strings, count.hashes),
                (done.keys, done.merged, done.converted, done.unconverted, done.failed),
                (done.conflicts, done.ambiguous, done.remaining),
                contents(redis),
            )
        )
    assert ends[0] == ends[1]


@pytest.mark.parametrize("plan", PLANS, ids=command_for)
def test_no_command_has_keys_of_two_slots(shard: Server, plan: Plan) -> None:
    redis = shard.client()
    write_town(redis)
    with watched_commands(shard) as seen:
        less = user_without(shard, "SAVE")
        for client in (redis, less):
            Migrator(client, "town", plan).preview()
            Migrator(client, "town", plan).check()
            Migrator(client, "town", plan).migrate()
    two_keys = {b"RENAME", b"RENAMENX"}
    one_key = {b"EXISTS", b"DEL", b"TYPE", b"GET", b"DUMP", b"PTTL", b"RESTORE"}
    assert {command for command, *_ in seen} & one_key
    for command, *args in seen:
        if command in two_keys:
            assert key_slot(args[0]) == key_slot(args[1]), args
        elif command in (b"EXISTS", b"DEL"):
            assert len(args) == 1
    assert is_usable(shard)


@pytest.mark.every_kind
def test_a_key_whose_name_keeps_its_slot_is_renamed_and_another_one_copied(shard: Server) -> None:
    redis = shard.client()
    redis.set("tt:agent:{a}1", 1)
    redis.set("tt:agent:2", 2)
    with watched_commands(shard) as seen:
        assert Migrator(redis, "town").migrate().total == 2
    assert [b"RENAMENX", b"tt:agent:{a}1", b"tt:town:agent:{a}1"] in seen
    assert [args[0] for command, *args in seen if command == b"RESTORE"] == [b"tt:town:agent:2"]


@pytest.mark.every_kind
def test_a_full_server_is_migrated_and_merged(shard: Server) -> None:
    redis = shard.client()
    write_town(redis)
    redis.rpush("tt:inbox:big", *("x" * 1000 for _ in range(1000)))
    redis.config_set("maxmemory", 1)
    merging = replace(RENAME, merge=True)
    assert Migrator(redis, "town", merging).preview().merges
    done = Migrator(redis, "town", merging).migrate()
    assert (done.failed, done.remaining) == ({}, len(done.conflicts))
    assert sum(done.merged.values()) == 6
    converted = Migrator(redis, "town", HASH).migrate()
    assert not any(converted.converted.values())
    assert all(
        "OOM" in reason or "maxmemory" in reason for reason in converted.unconverted.values()
    )
    redis.config_set("maxmemory", 0)
    assert redis.llen("tt:town:inbox:big") == 1000
    assert redis.get("tt:town:agent:1")[:1] == b"{"  # type: ignore[index]


@pytest.mark.parametrize("denied", [(), ("TIME",)])
def test_large_values_do_not_hold_the_server_longer_than_a_batch_may(
    shard: Server, denied: tuple[str, ...]
) -> None:
    redis = shard.client()
    for n in range(20):
        # A DUMP of the first is small.
        redis.set(f"tt:inbox:{n}", "x" * 1_000_000)
        redis.set(f"tt:urgent:{n}", random.randbytes(1_000_000))
        redis.set(f"tt:agent:{n}", "y")
    client = user_without(shard, *denied)
    stages: list[int] = []
    done = Migrator(client, "town", max_pause_ms=2, progress=lambda _: stages.append(1)).migrate()
    assert done.total == 60
    # Two values a call at most would be 20 calls; without a clock, a call has 64 KiB of DUMPs.
    assert len(stages) >= (15 if not denied or shard.kind.version >= (8, 0) else 8)
    assert redis.strlen("tt:town:inbox:7") == 1_000_000


@pytest.mark.every_kind
def test_times_to_live_of_keys_and_of_fields_are_kept(shard: Server) -> None:
    redis = shard.client()
    redis.set("tt:agent:1", 1, px=777_000_000)
    redis.hset("tt:agent:2", mapping={"a": "1", "b": "2"})
    has_field_ttls = shard.kind.name in ("redis-8.2", "valkey-9.1")
    if has_field_ttls:
        redis.execute_command("HPEXPIRE", "tt:agent:2", 888_000_000, "FIELDS", 1, "a")
    assert Migrator(redis, "town").migrate().total == 2
    assert 776_900_000 < redis.pttl("tt:town:agent:1") <= 777_000_010
    assert redis.pttl("tt:town:agent:2") == -1
    if has_field_ttls:
        ttls: Any = redis.execute_command("HPTTL", "tt:town:agent:2", "FIELDS", 2, "a", "b")
        assert 887_900_000 < ttls[0] <= 888_000_010
        assert ttls[1] == -1


def test_a_key_that_expires_soon_does_not_become_one_that_never_does(shard: Server) -> None:
    redis = shard.client()
    batch = redis.pipeline(transaction=False)
    for n in range(2000):
        batch.set(f"tt:stop:{n}", 1, px=1 + n // 10)
    batch.execute()
    Migrator(redis, "town").migrate()
    wait_until(lambda: redis.dbsize() == 0)


def test_a_reader_that_waits_for_a_list_gets_it(shard: Server) -> None:
    redis = shard.client()
    redis.rpush("tt:inbox:1", "first", "second")
    got: list[Any] = []
    waiting = threading.Thread(
        target=lambda: got.append(shard.client().blpop(["tt:town:inbox:1"], timeout=60))
    )
    waiting.start()
    wait_until(lambda: redis.info("clients")["blocked_clients"] == 1)
    assert Migrator(redis, "town").migrate().total == 1
    waiting.join()
    assert got == [(b"tt:town:inbox:1", b"first")]
    assert redis.lrange("tt:town:inbox:1", 0, -1) == [b"second"]


@pytest.mark.far
def test_calls_are_sent_ahead_to_a_shard_far_away(shard: Server) -> None:
    redis = shard.client()
    for n in range(3000):
        redis.set(f"tt:inbox:{n}", n)
    with delayed(shard.port, 15) as port, Redis(port=port) as far:
        done = Migrator(far, "town", max_pause_ms=1).migrate()
    assert (done.total, done.effort.one_at_a_time) == (3000, "")
    assert redis.dbsize() == 3000
    assert is_usable(shard)


def rename(redis: Redis, *args: str) -> Any:
    """Call the function of rename_across_slots.lua alone."""
    lua = source("migrate", RENAME, "shard").partition("-- migrate.lua")[0]
    ending = "deny(ARGV[3] or '') local r = rename(ARGV[1], ARGV[2])"
    return redis.eval(f"{lua} {ending} return type(r) == 'table' and r.err or r", 0, *args)


@pytest.mark.every_kind
def test_rename_replies_like_renamenx(shard: Server) -> None:
    redis = shard.client()
    redis.set("old", 1)
    redis.set("taken", 2)
    redis.set("{t}old", 3)
    assert rename(redis, "old", "taken") == 0
    assert (redis.get("old"), redis.get("taken")) == (b"1", b"2")
    assert rename(redis, "old", "taken", "EXISTS") == 0
    assert rename(redis, "{t}old", "{t}new") == 1
    assert b"no such key" in rename(redis, "none", "new")
    assert rename(redis, "old", "new") == 1
    assert sorted(redis.keys()) == [b"new", b"taken", b"{t}new"]
    assert redis.get("new") == b"1"


@pytest.mark.every_kind
@each("command", ["PTTL", "DUMP", "RESTORE", "DEL"])
def test_a_rename_that_is_refused_half_way_leaves_the_key_where_it_was(
    shard: Server, command: str
) -> None:
    redis = shard.client()
    redis.set("old", 1)
    for less, denied in ((user_without(shard, command), ""), (redis, command)):
        assert isinstance(rename(less, "old", "new", denied), bytes)
        assert redis.exists("old")
        redis.delete("new")


@pytest.mark.every_kind
def test_a_key_that_may_be_read_and_not_deleted_is_not_copied(shard: Server) -> None:
    if shard.kind.version < (7, 0):
        pytest.skip(f"{shard.kind.name}: does not tell reading from writing")
    redis = shard.client()
    redis.set("old", 1)
    reader = user_without(shard, keys=("%R~old", "%RW~new"))
    assert isinstance(rename(reader, "old", "new"), bytes)
    assert redis.keys() == [b"old"]


def test_a_slot_that_is_not_served_for_a_while_is_waited_for(shard: Server) -> None:
    redis = shard.client()
    for n in range(2000):
        redis.set(f"tt:inbox:{n}", n)

    def away() -> None:
        redis.execute_command("CLUSTER", "DELSLOTS", 0)
        wait_until(lambda: cluster_state(redis)["cluster_state"] == "fail")

    def back() -> None:
        shard.client().execute_command("CLUSTER", "ADDSLOTS", 0)

    progress, retry = at_batch(2, away), quick_retry(at=3, act=back)
    done = Migrator(redis, "town", max_pause_ms=1, progress=progress, retry=retry).migrate()
    assert (done.complete, done.failed) == (True, {})


@pytest.mark.every_kind
def test_a_key_that_the_user_may_not_touch_stays_and_the_rest_moves(shard: Server) -> None:
    redis = shard.client()
    for name in ("yes", "no", "left"):
        redis.set(f"tt:agent:{name}", name)
    allowed = ("~tt:agent:yes", "~tt:agent:left", "~tt:town:agent:yes", "~tt:town:agent:no")
    done = Migrator(user_without(shard, keys=allowed), "town").migrate()
    assert sorted(done.failed) == [b"tt:agent:left", b"tt:agent:no"]
    assert sorted(redis.keys()) == [b"tt:agent:left", b"tt:agent:no", b"tt:town:agent:yes"]
    assert max(refusals(shard).values()) <= 3


@pytest.mark.every_kind
@each("command", ["PTTL", "DUMP", "RESTORE", "DEL"])
def test_a_permission_to_copy_is_missed_before_the_first_write(shard: Server, command: str) -> None:
    redis = shard.client()
    write_town(redis)
    before = contents(redis)
    less = user_without(shard, command)
    # A preview on Redis 6.2 does not try commands that write.
    if shard.kind.version >= (7, 0) or command in ("PTTL", "DUMP"):
        assert command in Migrator(less, "town").preview().refused
    for attempt in (Migrator(less, "town").check, Migrator(less, "town").migrate):
        with pytest.raises(NoPermissionError, match=command):
            attempt()
    assert contents(redis) == before


@pytest.mark.every_kind
def test_without_cluster_info_nothing_is_done(shard: Server) -> None:
    shard.client().set("tt:agent:1", 1)
    command = "CLUSTER" if shard.kind.version < (7, 0) else "CLUSTER|INFO"
    with pytest.raises(NoPermissionError, match="cluster"):
        Migrator(user_without(shard, command), "town").migrate()
    assert shard.client().keys() == [b"tt:agent:1"]


@pytest.mark.every_kind
def test_the_command_says_that_the_server_is_in_cluster_mode(shard: Server) -> None:
    write_town(shard.client())
    previewed = tt("--dry-run", "--upgrade", url=shard.url, town="town")
    assert previewed.returncode == 0
    assert "in cluster mode" in previewed.stderr.splitlines()[0]
    done = tt("--upgrade", "--force", "--on-conflict", "merge", url=shard.url, town="town")
    assert "Migration" in done.stdout
    other = tt("--check", url=shard.url.replace("/0", "/1"), town="town")
    assert (other.returncode, other.stderr.count("\n")) == (3, 1)
    if shard.kind.name != "valkey-9.1":
        assert "it is in cluster mode, which has database 0 only" in other.stderr


def in_cluster(start: StartServer, kind: Kind, *args: str) -> Server:
    return start("--cluster-enabled", "yes", "--cluster-node-timeout", "60000", *args, kind=kind)


def joined(server: Server, other: Server) -> None:
    """Let two nodes know each other."""
    server.client().execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
    known = [server.client(), other.client()]
    wait_until(lambda: all(cluster_state(one)["cluster_known_nodes"] == "2" for one in known))


def test_a_replica_of_the_shard_is_previewed_and_never_migrated(
    kind: Kind, own_server: StartServer
) -> None:
    master, replica = in_cluster(own_server, kind), in_cluster(own_server, kind)
    master.own_all_slots()
    joined(replica, master)
    master_id: Any = master.client().execute_command("CLUSTER", "MYID")
    wait_until(lambda: cluster_state(replica.client())["cluster_slots_assigned"] == "16384")
    replica.client().execute_command("CLUSTER", "REPLICATE", master_id)
    write_town(master.client())
    wait_until(lambda: replica.client().dbsize() == master.client().dbsize())
    wait_until(lambda: cluster_state(replica.client())["cluster_state"] == "ok")
    theirs = Migrator(replica.client(), "town", MERGE).preview()
    ours = Migrator(master.client(), "town", MERGE).preview()
    assert (theirs.moves, theirs.merges, theirs.conflicts) == (
        ours.moves,
        ours.merges,
        ours.conflicts,
    )
    with pytest.raises(ReadOnlyError):
        Migrator(replica.client(), "town").migrate()
    assert Migrator(master.client(), "town", MERGE).migrate().complete is False
    assert master.client().wait(1, 5000) == 1
    reader = replica.client(single_connection_client=True)
    reader.readonly()
    for key in master.client().scan_iter(count=1000):
        assert reader.dump(key) == master.client().dump(key)
    assert reader.dbsize() == master.client().dbsize()
    assert is_usable(master)


def test_a_cluster_that_is_down_after_a_restart_is_waited_for(shard: Server) -> None:
    redis = shard.client()
    batch = redis.pipeline(transaction=False)
    for n in range(5000):
        batch.set(f"tt:inbox:{n}", n)
    batch.execute()

    def crash() -> None:
        redis.save()
        shard.kill()
        shard.restart()

    done = Migrator(redis, "town", max_pause_ms=1, progress=at_batch(2, crash)).migrate()
    assert done.complete
    assert not done.failed
    assert done.effort.reconnects >= 1
    assert redis.dbsize() == 5000
    if shard.kind == newest_kind():
        redis.save()
        shard.restart()
        assert cluster_state(redis)["cluster_state"] == "fail"
        assert Migrator(redis, "town", REVERSE).migrate().total == 5000


def refused(client: Redis, error: type[Exception], words: str) -> None:
    for attempt in (Migrator(client, "town").preview, Migrator(client, "town").migrate):
        with pytest.raises(error, match=words):
            attempt()


def test_a_slot_that_left_unnoticed_is_noticed_at_the_end(
    shard: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = shard.client()
    redis.set("tt:agent:1", 1)
    said: list[str] = []
    ask = Refusals.ask

    def another_shard_came(self: Refusals, client: Redis, command: str, *args: Any) -> Any:
        reply = ask(self, client, command, *args)
        if command == "CLUSTER":
            said.append(command)
            if len(said) > 1:
                return reply.replace(b"cluster_size:1", b"cluster_size:2")
        return reply

    monkeypatch.setattr(Refusals, "ask", another_shard_came)
    with pytest.raises(UnsupportedServerError, match="one of 2 shards"):
        Migrator(redis, "town").migrate()


def test_only_a_node_that_keeps_all_slots_is_migrated(kind: Kind, own_server: StartServer) -> None:
    server, other = in_cluster(own_server, kind), in_cluster(own_server, kind)
    redis = server.client()
    refused(redis, UnsupportedServerError, "the cluster has no slots")
    server.own_all_slots()
    joined(server, other)
    batch = redis.pipeline(transaction=False)
    for n in range(3000):
        batch.set(f"tt:inbox:{n}", n)
    batch.execute()
    wait_until(lambda: cluster_state(other.client())["cluster_state"] == "ok")
    refused(other.client(), ObstacleError, "NOTLOCAL")
    said = tt("--check", url=other.url, town="town")
    assert (said.returncode, said.stderr.count("\n")) == (3, 1)
    assert "slots are moving, so run it again" in said.stderr
    other_id: Any = other.client().execute_command("CLUSTER", "MYID")

    def give_away() -> None:
        # This drops the node's own claim at once, as a reshard does at its end.
        batch = redis.pipeline(transaction=False)
        for slot in range(0, 16_384, 4):
            batch.execute_command("CLUSTER", "SETSLOT", slot, "NODE", other_id)
        # A slot with keys in it is refused.
        batch.execute(raise_on_error=False)

    with pytest.raises(ResponseError, match="NOTLOCAL"):
        Migrator(redis, "town", max_pause_ms=1, progress=at_batch(2, give_away)).migrate()
    # Every key is there, under one of its names. On a slow machine, the cursor's key is, too.
    keys = redis.scan_iter("tt:*inbox:*", count=5000)
    names = sorted(int(key.split(b":")[-1]) for key in keys)
    assert names == list(range(3000))
    other.client().execute_command("CLUSTER", "BUMPEPOCH")
    batch = other.client().pipeline(transaction=False)
    for slot in range(0, 16_384, 4):
        batch.execute_command("CLUSTER", "SETSLOT", slot, "NODE", other_id)
    batch.execute(raise_on_error=False)
    wait_until(lambda: cluster_state(redis)["cluster_size"] == "2")
    refused(redis, UnsupportedServerError, "one of 2 shards of a cluster")


@pytest.mark.every_kind
@pytest.mark.parametrize("plan", [RENAME, from_town("{old}")], ids=lambda plan: plan.name)
def test_the_strings_of_a_town_with_a_hash_tag_are_counted_once(shard: Server, plan: Plan) -> None:
    """All its keys are in one slot, and a pattern with its name looks at that slot only."""
    redis = shard.client()
    for n in range(300):
        redis.set(f"tt:{{x}}:task:{n}", "{}")
        redis.set(f"foreign:{n}", n)
    left = Migrator(redis, "{x}", plan, max_pause_ms=0.1).migrate().left
    assert left
    assert left.strings == {"agent": 0, "task": 300}

"""The guarantees of the Python API on every kind of server."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from redis import BlockingConnectionPool, Redis
from redis.asyncio import Redis as AsyncRedis
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from tests.clusters import Cluster
from tests.command import tt
from tests.keyspaces import EXPIRY_STEP_MS, contents
from tests.midway import fill, follow
from tests.servers import Server, StartServer
from tests.tables import each
from tests.waiting import wait_until
from tt_migrate import RENAME, UPGRADE, Migration, Migrator, Progress
from tt_migrate.engine.calls.scripts import GUARDS, headed, script_for


def test_values_and_ttls_of_every_type_arrive_unchanged(redis: Redis) -> None:
    redis.set("tt:agent:string", b"\x00\xff{}")
    redis.rpush("tt:inbox:list", *range(500))
    redis.hset("tt:task:hash", mapping={str(n): n for n in range(500)})
    redis.sadd("tt:urgent:set", "a", "b")
    redis.zadd("tt:activity:zset", {"a": 1.5, "b": 2})
    redis.xadd("tt:stop:stream", {"k": "v"}, id="1-1")
    redis.xgroup_create("tt:stop:stream", "group", id="0")
    redis.xreadgroup("group", "consumer", {"tt:stop:stream": ">"})
    redis.pfadd("tt:agent:hll", "a", "b")
    redis.rpush("tt:backlog", "t1", "t2")
    redis.pexpireat("tt:inbox:list", EXPIRY_STEP_MS * 40_000_000)
    redis.pexpireat("tt:stop:stream", EXPIRY_STEP_MS * 40_000_001)
    before = contents(redis)
    result = Migrator(redis, "town").migrate()
    assert result.total == 8
    assert contents(redis) == {key.replace(b"tt:", b"tt:town:", 1): v for key, v in before.items()}
    assert redis.xpending("tt:town:stop:stream", "group")["pending"] == 1
    assert redis.xinfo_groups("tt:town:stop:stream")[0]["name"] == b"group"


def test_a_destination_that_exists_is_never_overwritten(redis: Redis) -> None:
    redis.set("tt:agent:1", "old", pxat=EXPIRY_STEP_MS * 40_000_000)
    redis.set("tt:town:agent:1", "new", pxat=EXPIRY_STEP_MS * 40_000_001)
    redis.set("tt:agent:2", "free")
    before = contents(redis)
    result = Migrator(redis, "town").migrate()
    assert result.keys["agent"] == 1
    assert list(result.conflicts) == [b"tt:agent:1"]
    assert (result.remaining, result.left_behind, result.appeared) == (1, 1, 0)
    assert redis.mget("tt:agent:1", "tt:town:agent:1", "tt:town:agent:2") == [
        b"old",
        b"new",
        b"free",
    ]
    assert contents(redis)[b"tt:agent:1"] == before[b"tt:agent:1"]
    assert contents(redis)[b"tt:town:agent:1"] == before[b"tt:town:agent:1"]


def test_other_keys_towns_and_databases_are_not_touched(redis: Redis, server: Server) -> None:
    foreign = {"app:1": 1, "tt:other:agent:1": 2, "tt:task:backlog": 3, "mt:agent:1": 4, "": 5}
    redis.mset(foreign)
    elsewhere = server.client(db=5)
    elsewhere.set("tt:agent:1", "of database 5")
    redis.set("tt:agent:1", 1)
    assert Migrator(redis, "town").migrate().total == 1
    assert sorted(redis.keys()) == sorted([b"tt:town:agent:1", *map(str.encode, foreign)])
    assert elsewhere.keys() == [b"tt:agent:1"]


def test_only_the_clients_database_is_migrated(server: Server) -> None:
    server.client(db=0).set("tt:agent:1", 1)
    server.client(db=2).set("tt:agent:1", 1)
    Migrator(server.client(db=2), "town").migrate()
    assert server.client(db=0).keys() == [b"tt:agent:1"]
    assert server.client(db=2).keys() == [b"tt:town:agent:1"]


@each("town", ["task", "agent", "backlog", "a:b", "x[1]*?\\", "日本", " ", "%", "tt"])
def test_a_second_run_moves_nothing_whatever_the_town_is_called(redis: Redis, town: str) -> None:
    for key in (b"tt:agent:\xff\x00", b"tt:task:1", b"tt:inbox:agent", b"tt:stop:x", b"tt:backlog"):
        redis.set(key, key)
    first = Migrator(redis, town).migrate()
    assert (first.total, first.remaining) == (5, 0)
    after = sorted(redis.keys())
    second = Migrator(redis, town).migrate()
    assert (second.total, second.remaining, second.left_behind) == (0, 0, 0)
    assert sorted(redis.keys()) == after
    assert redis.get(b"tt:" + town.encode() + b":agent:\xff\x00") == b"tt:agent:\xff\x00"


def test_a_preview_finds_what_a_migration_then_does(redis: Redis) -> None:
    redis.mset({f"tt:inbox:{n}": n for n in range(300)})
    redis.mset({"tt:backlog": 1, "tt:inbox:events": 1, "tt:town:inbox:7": 1, "tt:else": 1})
    preview = Migrator(redis, "town").preview()
    count = Migrator(redis, "town").count()
    assert preview.keys == {**dict.fromkeys(count.keys, 0), "inbox": 299, "backlog": 1}
    assert preview.total == count.total - count.conflicts == 300
    assert list(preview.conflicts) == [b"tt:inbox:7"]
    assert list(preview.ambiguous) == [b"tt:inbox:events"]
    migration = Migrator(redis, "town").migrate()
    assert migration.keys == preview.keys
    assert set(migration.conflicts) == set(preview.conflicts)
    assert set(migration.ambiguous) == set(preview.ambiguous)


def test_count_names_the_other_towns(redis: Redis) -> None:
    redis.mset({"tt:mine:agent:1": 1, "tt:a:b:inbox:1": 1, "tt:c:events": 1, "tt:d:docket:x:y": 1})
    redis.set("tt:agent:1", 1)
    assert sorted(Migrator(redis, "mine").count().towns) == [b"a:b", b"c", b"d"]


def test_counting_and_previewing_write_nothing(redis: Redis) -> None:
    redis.mset({f"tt:task:{n}": n for n in range(100)})
    redis.config_resetstat()
    before = int(redis.info("persistence")["rdb_changes_since_last_save"])
    Migrator(redis, "town").count()
    Migrator(redis, "town").preview()
    assert int(redis.info("persistence")["rdb_changes_since_last_save"]) == before
    assert "cmdstat_renamenx" not in redis.info("commandstats")


@pytest.mark.every_kind
def test_a_preview_works_without_any_permission_to_write(server: Server) -> None:
    redis = server.client()
    redis.set("tt:agent:1", 1)
    redis.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-@write")
    reader = server.client(username="reader", password="secret")
    assert list(Migrator(reader, "town").preview().moves) == [b"tt:agent:1"]
    with pytest.raises(ResponseError, match=r"permission|can't run this command"):
        Migrator(reader, "town").migrate()
    assert redis.keys() == [b"tt:agent:1"]


def test_a_preview_works_on_a_replica_and_a_migration_is_refused(
    server: Server, own_server: StartServer
) -> None:
    master, client = own_server(kind=server.kind), server.client()
    master.client().set("tt:agent:1", 1)
    follow(client, master)
    assert list(Migrator(client, "town").preview().moves) == [b"tt:agent:1"]
    assert Migrator(client, "town").count().total == 1
    with pytest.raises(ReadOnlyError, match="replica"):
        Migrator(client, "town").migrate()
    assert master.client().keys() == [b"tt:agent:1"]


def test_a_replica_that_takes_writes_is_refused_too(redis: Redis) -> None:
    """The master would undo the writes at the next synchronisation."""
    redis.set("tt:agent:1", 1)
    redis.config_set("replica-read-only", "no")
    redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(ReadOnlyError, match="replica"):
        Migrator(redis, "town").migrate()
    assert redis.keys() == [b"tt:agent:1"]


@pytest.mark.every_kind
@pytest.mark.parametrize("operation", ["count", "preview"])
def test_reading_runs_with_the_servers_own_guard_where_it_has_one(
    server: Server, operation: str
) -> None:
    redis = server.client()
    getattr(Migrator(redis, "town"), operation)()
    script = script_for(operation, RENAME)
    has_guard = server.kind.version >= (7, 0)
    assert redis.script_exists(headed(script, GUARDS).sha, script.sha) == [has_guard, not has_guard]


def test_a_migration_reaches_replicas_and_the_append_only_file(
    server: Server, own_server: StartServer
) -> None:
    master = own_server("--appendonly", "yes", "--appendfsync", "always", kind=server.kind)
    replica = server.client()
    follow(replica, master)
    master.client().mset({f"tt:agent:{n}": n for n in range(200)})
    Migrator(master.client(), "town").migrate()
    expected = sorted(master.client().keys())
    assert len(expected) == 200
    wait_until(lambda: sorted(replica.keys()) == expected)
    master.kill()
    master.args = (*master.args, "--appendonly", "yes")
    master.restart()
    assert sorted(master.client().keys()) == expected


@pytest.mark.every_kind
def test_a_full_server_can_be_previewed_and_migrated(redis: Redis) -> None:
    redis.mset({f"tt:agent:{n}": "x" * 100 for n in range(2000)})
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        redis.set("other", 1)
    assert Migrator(redis, "town").preview().total == 2000
    assert Migrator(redis, "town").migrate().total == 2000


def test_a_waiting_consumer_gets_a_list_that_arrives(server: Server) -> None:
    redis = server.client()
    consumer = server.client(single_connection_client=True)
    connection = consumer.connection
    assert connection
    connection.send_command("BLPOP", "tt:town:inbox:1", 10)
    wait_until(lambda: redis.info("clients")["blocked_clients"] == 1)
    redis.rpush("tt:inbox:1", "message")
    result = Migrator(redis, "town").migrate()
    assert connection.read_response() == [b"tt:town:inbox:1", b"message"]
    assert (result.total, result.left_behind) == (1, 0)


def test_keys_that_appear_meanwhile_are_reported(redis: Redis) -> None:
    redis.set("tt:agent:1", 1)

    def old_tinytown(progress: Progress) -> None:
        if progress.stage == "migrating":
            redis.set("tt:agent:late", 1)

    result = Migrator(redis, "town", progress=old_tinytown).migrate()
    assert (result.total, result.remaining, result.appeared) == (1, 1, 1)


def test_progress_tells_stage_scanned_size_and_totals(redis: Redis) -> None:
    fill(redis, 2000)
    seen: list[Progress] = []
    Migrator(redis, "town", max_pause_ms=0.5, progress=seen.append).migrate()
    assert [p.stage for p in seen] == sorted(p.stage for p in seen)
    assert {p.stage for p in seen} == {"migrating", "verifying"}
    assert all(p.dbsize == 2000 for p in seen)
    last = [p for p in seen if p.stage == "migrating"][-1]
    assert isinstance(last.so_far, Migration)
    assert last.so_far.total == 2000
    assert last.scanned >= 1600
    assert seen[-1].so_far.effort.batches == len(seen)


def test_an_exception_in_progress_ends_the_run_between_batches(redis: Redis) -> None:
    fill(redis, 5000)
    totals: list[int] = []

    class EnoughError(Exception):
        pass

    def stop(progress: Progress) -> None:
        totals.append(progress.so_far.total)
        if len(totals) == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        Migrator(redis, "town", max_pause_ms=1, progress=stop).migrate()
    assert len(redis.keys("tt:town:agent:*")) == totals[-1] < 5000
    assert Migrator(redis, "town").migrate().total == 5000 - totals[-1]


def test_a_longer_pause_means_fewer_batches(redis: Redis) -> None:
    fill(redis, 3000)
    short = Migrator(redis, "town", max_pause_ms=0.1).count().effort
    long = Migrator(redis, "town", max_pause_ms=1000).count().effort
    assert short.batches > 3 * long.batches


def test_migrating_takes_constant_memory_on_the_client(newest: Server) -> None:
    redis = newest.client()

    def peak(keys: int) -> int:
        redis.flushall()
        fill(redis, keys)
        gc.collect()
        tracemalloc.start()
        try:
            assert Migrator(redis, "town", max_pause_ms=2).migrate().total == keys
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1000)
    # Garbage that is not collected yet takes some bytes a batch. The name of a key would take 60.
    assert (peak(10_000) - peak(1000)) / 9000 < 15


@each(
    "make_client",
    [
        lambda server: server.client(decode_responses=True),
        lambda server: server.client(protocol=2),
        lambda server: server.client(protocol=3, decode_responses=True),
        lambda server: server.client(single_connection_client=True),
        lambda server: Redis.from_pool(
            BlockingConnectionPool.from_url(server.url, max_connections=1)
        ),
    ],
)
def test_any_redis_py_client_will_do(
    newest: Server, make_client: Callable[[Server], Redis]
) -> None:
    newest.client().set(b"tt:agent:\xff", 1)
    client = make_client(newest)
    assert list(Migrator(client, "town").preview().moves) == [b"tt:agent:\xff"]
    assert Migrator(client, "town").migrate().total == 1
    assert client.exists(b"tt:town:agent:\xff") == 1
    client.close()


def test_the_clients_own_connection_comes_back_as_it_was(newest: Server) -> None:
    retry = Retry(NoBackoff(), 7)
    client = newest.client(retry=retry)
    Migrator(client, "town").migrate()
    connection = client.connection_pool.get_connection()
    assert connection.retry.get_retries() == 7
    client.connection_pool.release(connection)


def test_a_client_of_another_library_or_asyncio_is_refused() -> None:
    with pytest.raises(TypeError, match="redis-py"):
        Migrator(AsyncRedis(), "town")  # type: ignore[arg-type]


def test_an_empty_town_and_a_senseless_pause_are_refused(newest: Server) -> None:
    with pytest.raises(ValueError, match="town"):
        Migrator(newest.client(), "")
    for nice in (-1, 1001, float("nan")):
        with pytest.raises(ValueError, match="nice"):
            Migrator(newest.client(), "town", nice=nice)
    for pause in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_pause_ms"):
            Migrator(newest.client(), "town", max_pause_ms=pause)


def test_a_server_that_is_not_there_is_an_error_at_once(own_server: StartServer) -> None:
    server = own_server()
    client = server.client(retry=Retry(NoBackoff(), 0))
    server.kill()
    with pytest.raises(RedisError):
        Migrator(client, "town").count()


def test_nice_waits_in_proportion_to_what_each_batch_took(newest: Server) -> None:
    redis = newest.client()
    fill(redis, 4000)
    seen: list[Progress] = []
    began = time.monotonic()
    Migrator(redis, "town", max_pause_ms=1, nice=10, progress=seen.append).migrate()
    took = time.monotonic() - began
    waits = [p for p in seen if p.waiting]
    assert {p.waiting for p in waits} == {"nice pause"}
    # There is no rest after the last batch of a pass. sleep() never ends early.
    assert len(waits) == len(seen) - 2
    worked = redis.info("commandstats")["cmdstat_evalsha"]["usec"] / 1_000_000
    assert took > 3 * worked


def test_few_round_trips_come_before_the_first_batch(newest: Server) -> None:
    redis = newest.client()
    redis.set("tt:agent:1", 1)
    redis.script_flush()
    redis.config_resetstat()
    done = tt("--force", url=newest.url, town="town")
    assert done.returncode == 0
    calls = {name: stat["calls"] for name, stat in redis.info("commandstats").items()}
    for inside in ("scan", "renamenx", "exists", "dbsize", "info"):
        calls.pop(f"cmdstat_{inside}", None)
    calls.pop("cmdstat_config|resetstat", None)
    # HELLO when connecting; the scripts and the call of inspect.lua together; one batch for each
    # pass.
    assert calls == {"cmdstat_hello": 1, "cmdstat_script|load": 3, "cmdstat_evalsha": 3}


@pytest.mark.every_kind
def test_a_count_without_conflicts_looks_for_no_new_name(either: Server) -> None:
    redis = either.client()
    for n in range(300):
        redis.set(f"tt:inbox:{n}", n)
        redis.set(f"tt:task:{n}", "{}")
    redis.set("tt:town:inbox:7", 1)
    for plan in (RENAME, UPGRADE):
        redis.config_resetstat()
        quick = Migrator(redis, "town", plan).count(conflicts=False)
        asked: Any = redis.info("commandstats").get("cmdstat_exists", {"calls": 0})
        # That of inspect.lua.
        assert asked["calls"] <= 2
        whole = Migrator(redis, "town", plan).count()
        assert (quick.conflicts, whole.conflicts) == (0, 1)
        assert (quick.keys, quick.old_strings) == (whole.keys, whole.old_strings)
        assert (quick.towns, quick.has_keys) == (whole.towns, whole.has_keys)


def test_a_count_of_shards_without_conflicts_asks_no_other_shard(newest_cluster: Cluster) -> None:
    client = newest_cluster.client()
    for n in range(60):
        client.set(f"tt:inbox:{n}", n)
    client.set("tt:town:inbox:7", 1)
    migrator = Migrator(newest_cluster.client(), "town")
    quick, whole = migrator.count(conflicts=False), migrator.count()
    assert (quick.total, quick.conflicts, quick.dbsize) == (60, 0, 61)
    assert (whole.total, whole.conflicts, whole.dbsize) == (60, 1, 61)
    assert quick.effort.batches < whole.effort.batches

"""Operations of one run share a session: the server is asked once who it is."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ReadOnlyError

from tests.clusters import Cluster
from tests.keyspaces import contents
from tests.midway import cut_connections, fill, quick_retry
from tests.servers import Server
from tests.users import user_without
from tt_migrate import Migrator, Progress


def asked(redis: Redis, command: str) -> int:
    """How often clients have sent a command since CONFIG RESETSTAT."""
    found = redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])


def filled_shards(cluster: Cluster) -> list[Redis]:
    """Fill a cluster with 60 lists, and return clients of its masters."""
    client = cluster.client()
    for n in range(60):
        client.rpush(f"tt:inbox:{n}", n)
    return [master.client() for master in cluster.masters]


def test_a_run_with_a_prompt_shakes_hands_once(newest: Server) -> None:
    admin = newest.client()
    fill(admin, 100)
    admin.config_resetstat()
    known = admin.info("stats")["total_connections_received"]
    with Migrator(Redis(port=newest.port), "town").opened(writes=True) as run:
        run.check()
        assert run.count().total == 100
        assert run.migrate().total == 100
    assert admin.info("stats")["total_connections_received"] == known + 1
    # That of redis-py, and that of the session.
    assert asked(admin, "hello") <= 2


@pytest.mark.every_kind
def test_nothing_is_written_before_migrate(server: Server) -> None:
    redis = server.client()
    fill(redis, 300)
    before = contents(redis)
    redis.config_resetstat()
    with Migrator(redis, "town", max_pause_ms=0.1).opened(writes=True) as run:
        run.check()
        run.count()
        run.preview()
        assert contents(redis) == before
        assert not any(asked(redis, command) for command in ("set", "renamenx"))
        assert run.migrate().total == 300


@pytest.mark.every_kind
def test_a_connection_that_died_at_the_prompt_is_made_anew(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server.client(), 10)
    monkeypatch.setattr("tt_migrate.engine.calls.idle.SILENT_SECONDS", 0)
    with Migrator(Redis(port=server.port), "town").opened(writes=True) as run:
        assert run.count().total == 10
        server.client().client_kill_filter(_type="normal", skipme=True)
        done = run.migrate()
    assert (done.total, done.effort.lost_replies) == (10, 0)


def test_a_master_that_became_a_replica_at_the_prompt_is_not_migrated(
    newest: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = newest.client()
    fill(redis, 10)
    monkeypatch.setattr("tt_migrate.engine.calls.idle.SILENT_SECONDS", 0)
    migrator = Migrator(Redis(port=newest.port), "town", retry=quick_retry(3))
    with migrator.opened(writes=True) as run:
        run.check()
        redis.replicaof("localhost", newest.port + 1)
        with pytest.raises(ReadOnlyError):
            run.migrate()
    redis.replicaof("NO", "ONE")
    assert len(redis.keys("tt:town:*")) == 0


def test_a_reading_run_needs_no_permission_to_write(newest: Server) -> None:
    fill(newest.client(), 10)
    migrator = Migrator(user_without(newest, "renamenx"), "town")
    with migrator.opened(writes=False) as run:
        assert (run.count().total, run.preview().total) == (10, 10)
    with migrator.opened(writes=True) as run, pytest.raises(NoPermissionError, match="RENAMENX"):
        run.check()


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.every_kind
def test_permissions_that_changed_at_the_prompt_are_noticed_before_the_first_write(
    server: Server, lost: bool
) -> None:
    admin = server.client()
    fill(admin, 100)
    before = contents(admin)
    with Migrator(user_without(server), "town").opened(writes=True) as run:
        assert run.count().total == 100
        admin.execute_command("ACL", "SETUSER", "less", "-renamenx")
        if lost:
            cut_connections(admin)
        with pytest.raises(NoPermissionError, match="RENAMENX"):
            run.migrate()
        with pytest.raises(NoPermissionError, match="RENAMENX"):
            run.check()
    assert contents(admin) == before


@pytest.mark.every_kind
def test_a_server_that_was_started_anew_at_the_prompt_is_asked_anew(server: Server) -> None:
    user_without(server)
    fill(server.client(), 100)
    migrator = Migrator(server.client(username="less", password="secret"), "town")
    with migrator.opened(writes=True) as run:
        run.check()
        server.close_clients()
        server.restart()
        user_without(server, "renamenx")
        fill(server.client(), 100)
        with pytest.raises(NoPermissionError, match="RENAMENX"):
            run.migrate()
    assert server.client().keys("tt:town:*") == []


def test_a_server_that_is_gone_after_the_prompt_is_an_error_at_once(newest: Server) -> None:
    retries: list[int] = []
    retry = quick_retry(at=1, act=lambda: retries.append(1))
    with Migrator(newest.client(), "town", retry=retry).opened(writes=True) as run:
        run.check()
        newest.kill()
        with pytest.raises(RedisConnectionError):
            run.migrate()
    assert retries == []


@pytest.mark.parametrize("silent_seconds", [0, 60])
@pytest.mark.every_kind
def test_the_shards_of_a_cluster_are_migrated_after_a_wait(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, silent_seconds: int
) -> None:
    admins = filled_shards(cluster)
    monkeypatch.setattr("tt_migrate.engine.calls.idle.SILENT_SECONDS", silent_seconds)
    with Migrator(cluster.client(), "town").opened(writes=True) as run:
        run.check()
        counted = run.count()
        if not silent_seconds:
            for admin in admins:
                cut_connections(admin)
        done = run.migrate()
    assert (counted.total, done.total, done.effort.lost_replies) == (60, 60, 0)


@pytest.mark.parametrize("lost", [False, True])
def test_permissions_on_shards_that_changed_at_the_prompt_are_noticed(
    newest_cluster: Cluster, lost: bool
) -> None:
    admins = filled_shards(newest_cluster)
    before = newest_cluster.snapshot()
    for admin in admins:
        admin.execute_command("ACL", "SETUSER", "less", "on", ">secret", "~*", "+@all")
    client = newest_cluster.client(username="less", password="secret")
    with Migrator(client, "town").opened(writes=True) as run:
        assert run.count().total == 60
        for admin in admins:
            admin.execute_command("ACL", "SETUSER", "less", "-restore")
            if lost:
                cut_connections(admin)
        with pytest.raises(NoPermissionError, match="RESTORE"):
            run.migrate()
    assert newest_cluster.snapshot() == before


def test_what_shards_evict_at_the_prompt_is_not_counted(newest_cluster: Cluster) -> None:
    admins = filled_shards(newest_cluster)
    with Migrator(newest_cluster.client(), "town").opened(writes=True) as run:
        for admin in admins:
            admin.config_set("maxmemory-policy", "volatile-ttl")
            admin.config_set("maxmemory", "1gb")
        run.check()
        for admin in admins:
            admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 3_000_000)
        client = newest_cluster.client()
        for n in range(600):
            client.set(f"filler:{n}", "x" * 30_000, ex=10_000)
        assert all(admin.info("stats")["evicted_keys"] for admin in admins)
        for admin in admins:
            admin.config_set("maxmemory", "1gb")
        done = run.migrate()
    assert (done.total, done.effort.evicted) == (60, 0)


def test_a_shard_that_is_lost_as_the_migration_begins_is_not_said_to_be_counted(
    newest_cluster: Cluster,
) -> None:
    admins = filled_shards(newest_cluster)
    told: list[Progress] = []
    migrator = Migrator(newest_cluster.client(), "town", progress=told.append)
    with migrator.opened(writes=True) as run:
        run.count()
        told.clear()
        for admin in admins:
            cut_connections(admin)
        assert run.migrate().total == 60
    assert "counting" not in {progress.stage for progress in told}

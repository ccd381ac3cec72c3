"""Operations of one run share a session: the server is asked once who it is."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ReadOnlyError

from tests.clusters import Cluster
from tests.keyspaces import contents
from tests.midway import cut_connections, fill, quick_retry
from tests.servers import Server
from tests.users import user_without
from tt_migrate import Migrator


def asked(redis: Redis, command: str) -> int:
    """How often clients have sent a command since CONFIG RESETSTAT."""
    found = redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])


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


@pytest.mark.parametrize("silent_seconds", [0, 60])
@pytest.mark.every_kind
def test_the_shards_of_a_cluster_are_migrated_after_a_wait(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, silent_seconds: int
) -> None:
    client = cluster.client()
    for n in range(60):
        client.rpush(f"tt:inbox:{n}", n)
    monkeypatch.setattr("tt_migrate.engine.calls.idle.SILENT_SECONDS", silent_seconds)
    with Migrator(cluster.client(), "town").opened(writes=True) as run:
        run.check()
        counted = run.count()
        if not silent_seconds:
            for master in cluster.masters:
                cut_connections(master.client())
        done = run.migrate()
    assert (counted.total, done.total, done.effort.lost_replies) == (60, 60, 0)

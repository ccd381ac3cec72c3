"""The connection, the scripts or the server are lost during a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, RedisError
from redis.retry import Retry

from tests.midway import at_batches, cut_connections, fill, quick_retry
from tests.servers import Kind, Server, StartServer
from tests.users import user_without
from tt_migrate import UPGRADE, Migration, Migrator, Progress
from tt_migrate.engine.calls.caller import ScriptCaller
from tt_migrate.engine.calls.retry import RETRY

KEYS, PAUSE_MS = 2000, 0.5
"""A pass over so many keys takes several batches."""


def at_batch(number: int, act: Callable[[], object]) -> Callable[[Progress], None]:
    """Return a progress callback that acts once, after the given batch."""
    return at_batches([(number, act)])


def migrator(
    redis: Redis, progress: Callable[[Progress], None], retry: Retry | None = None
) -> Migrator:
    """Return a Migrator that makes several batches, and retries soon."""
    return Migrator(
        *(redis, "town"),
        max_pause_ms=PAUSE_MS,
        progress=progress,
        retry=retry or quick_retry(),
    )


def moved_keys(redis: Redis) -> int:
    return len(redis.keys("tt:town:agent:*"))


def test_a_lost_connection_is_made_again_and_everything_is_migrated(server: Server) -> None:
    redis, other = server.client(), server.client()
    fill(redis, KEYS)

    progress = at_batch(3, lambda: cut_connections(other))
    result = migrator(redis, progress).migrate()
    assert result.effort.reconnects == 1
    assert (result.total, result.remaining) == (KEYS, 0)
    assert moved_keys(other) == KEYS


def test_a_connection_lost_while_previewing_costs_no_key_and_doubles_none(newest: Server) -> None:
    redis, other = newest.client(), newest.client()
    fill(redis, KEYS)

    def cut() -> Callable[[Progress], None]:
        return at_batch(3, lambda: cut_connections(other))

    assert migrator(redis, cut()).preview().total == KEYS
    count = migrator(redis, cut()).count()
    assert (count.total, count.effort.reconnects) == (KEYS, 1)


def test_a_restarted_server_is_scanned_from_the_start(kind: Kind, own_server: StartServer) -> None:
    server = own_server("--appendonly", "yes", "--appendfsync", "always", kind=kind)
    fill(server.client(), KEYS)

    seen: list[Progress] = []
    acting = at_batch(3, server.kill)

    def progress(now: Progress) -> None:
        seen.append(now)
        acting(now)

    back = quick_retry(at=3, act=server.restart)
    result = migrator(server.client(), progress, back).migrate()
    assert (result.total, result.remaining) == (KEYS, 0)
    assert moved_keys(server.client()) == KEYS
    assert result.effort.reconnects >= 1
    last_wait = max(n for n, p in enumerate(seen) if p.waiting)
    assert seen[last_wait + 1].scanned < seen[last_wait].scanned


def test_a_redis_py_retry_of_the_clients_own_never_repeats_a_batch_unseen(
    own_server: StartServer,
) -> None:
    """With redis-py's retries, a batch would reach the restarted server with the old cursor."""
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    client = server.client(retry=Retry(ConstantBackoff(0.1), 100))
    fill(client, KEYS)

    def restart() -> None:
        server.kill()
        server.restart()

    result = migrator(client, at_batch(3, restart)).migrate()
    assert result.effort.reconnects >= 1
    assert (result.total, result.remaining) == (KEYS, 0)


def test_a_server_that_stays_away_is_given_up_after_a_bounded_time(
    own_server: StartServer,
) -> None:
    server = own_server()
    fill(server.client(), KEYS)
    seen: list[Progress] = []
    killing = at_batch(3, server.kill)

    def progress(now: Progress) -> None:
        seen.append(now)
        killing(now)

    with pytest.raises(RedisConnectionError):
        migrator(server.client(), progress, quick_retry(5)).migrate()
    assert len([p for p in seen if p.waiting]) == 6
    so_far = seen[-1].so_far
    assert isinstance(so_far, Migration)
    assert 0 < so_far.total < KEYS


def test_the_default_retry_is_bounded() -> None:
    waits = [RETRY._backoff.compute(n) for n in range(1, RETRY.get_retries() + 1)]
    assert 15 < sum(waits) < 40


def test_a_failover_that_makes_the_server_a_replica_is_waited_for(
    server: Server,
) -> None:
    redis, other = server.client(), server.client()
    fill(redis, KEYS)

    def demote() -> None:
        # Without a link to a master, the replica keeps its data and answers writes with READONLY.
        other.execute_command("REPLICAOF", "127.0.0.1", "1")

    def promote() -> None:
        other.execute_command("REPLICAOF", "NO", "ONE")

    retry = quick_retry(at=3, act=promote)
    result = migrator(redis, at_batch(3, demote), retry).migrate()
    assert result.effort.reconnects >= 1
    assert (result.total, result.remaining) == (KEYS, 0)


def test_script_flush_before_every_batch_is_survived(server: Server) -> None:
    redis, other = server.client(), server.client()
    fill(redis, KEYS)
    result = Migrator(
        redis, "town", max_pause_ms=PAUSE_MS, progress=lambda _: other.script_flush()
    ).migrate()
    assert (result.total, result.remaining) == (KEYS, 0)
    assert result.effort.reconnects == 0


@pytest.mark.parametrize("denied", [(), ("eval",)], ids=["all", "no EVAL"])
def test_script_flush_in_a_tight_loop_is_survived(server: Server, denied: tuple[str, ...]) -> None:
    other = server.client()
    fill(other, KEYS)
    redis = user_without(server, *denied)
    ended = threading.Event()

    def flush() -> None:
        while not ended.is_set():
            other.script_flush()

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    finally:
        ended.set()
        thread.join()
    assert (result.total, result.remaining) == (KEYS, 0)


def test_keys_created_renamed_and_deleted_meanwhile_are_not_lost(newest: Server) -> None:
    """Other clients make the table resize and consume inboxes during the passes."""
    redis, other = newest.client(), newest.client()
    fill(redis, KEYS)
    other.mset({f"foreign:{n}": n for n in range(5000)})

    def churn(progress: Progress) -> None:
        batch = other.pipeline(transaction=False)
        start = progress.scanned % 5000
        batch.delete(*(f"foreign:{n}" for n in range(start, start + 300)))
        batch.execute()

    preview = Migrator(redis, "town", max_pause_ms=PAUSE_MS, progress=churn).preview()
    assert preview.total == KEYS
    result = Migrator(redis, "town", max_pause_ms=PAUSE_MS, progress=churn).migrate()
    assert (result.total, result.remaining) == (KEYS, 0)
    assert moved_keys(other) == KEYS


def test_a_first_call_that_fails_is_not_retried(own_server: StartServer) -> None:
    server = own_server("--requirepass", "secret")
    client = server.client(password="wrong", retry=Retry(NoBackoff(), 0))
    seen: list[Progress] = []
    with pytest.raises(RedisError):
        Migrator(client, "town", progress=seen.append).migrate()
    assert seen == []


def test_a_server_that_takes_over_with_fewer_permissions_ends_the_run_before_it_writes_there(
    kind: Kind, own_server: StartServer
) -> None:
    server = own_server(kind=kind)
    redis = server.client()
    fill(redis, KEYS)
    redis.set("tt:task:1", '{"id": "1"}')
    less = user_without(server)
    moved: list[int] = []
    hashes: list[bool] = []

    def restart_with_other_permissions() -> None:
        redis.save()
        server.restart()
        moved.append(moved_keys(redis))
        hashes.append(redis.type("tt:town:task:1") == b"hash")
        user_without(server, "hset")

    progress = at_batch(3, restart_with_other_permissions)
    with pytest.raises(NoPermissionError, match="HSET"):
        Migrator(less, "town", UPGRADE, max_pause_ms=0.5, progress=progress).migrate()
    assert hashes == [redis.type("tt:town:task:1") == b"hash"]
    assert 0 < moved[0] == moved_keys(redis) < KEYS


def test_a_user_without_eval_survives_many_flushes_between_loading_and_calling(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server.client(), 1000)
    load_and_call, flushes = ScriptCaller._load_and_call, iter(range(10))

    def flushed(self: ScriptCaller, *args: Any) -> Any:
        if next(flushes, None) is not None:
            raise NoScriptError("NOSCRIPT")
        return load_and_call(self, *args)

    monkeypatch.setattr(ScriptCaller, "_load_and_call", flushed)
    assert Migrator(user_without(server, "eval"), "town").migrate().total == 1000

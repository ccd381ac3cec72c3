"""Calls sent ahead of replies to a server far away: the cursor stays on the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from bench.machinery.process import delayed
from tests.command import environment, started
from tests.midway import at_batches, cut_connections, quick_retry, stay_near
from tests.midway import fill as fill_with
from tests.processes import Process
from tests.servers import Kind, Server, StartServer
from tests.tables import each
from tests.test_recovery import at_batch
from tests.users import refusals, user_without
from tests.waiting import wait_until
from tt_migrate import HASH, RENAME, REVERSE, UPGRADE, Migration, Migrator, Plan, Progress
from tt_migrate.engine.calls.scripts import Call, source
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.passes.driver import Driver
from tt_migrate.results import Server as SaidServer

pytestmark = pytest.mark.far

KEYS, PAUSE_MS = 1500, 0.5
"""A pass over so many keys takes several batches."""
RTT_MS, JITTER_MS = 6, 4
"""A client sends ahead at once if a round trip takes 5 ms or more."""
ROOT = Path(__file__).parent.parent
KEPT = "tt:town:flight:token:"


def fill(redis: Redis, keys: int = KEYS) -> None:
    fill_with(redis, keys, "tt:inbox:")


def calls(redis: Redis, command: str) -> int:
    return int(redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def flight_keys(redis: Redis) -> list[bytes]:
    return list(redis.keys("*flight*"))  # type: ignore[arg-type]


Line = Callable[[int, float], int]
Far = Callable[..., Redis]


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """Gives the port of a proxy that makes a server far away. Each server and jitter has one."""
    with ExitStack() as stack:

        @cache
        def port(port: int, jitter_ms: float) -> int:
            return stack.enter_context(delayed(port, RTT_MS, jitter_ms))

        yield port


@pytest.fixture
def far(line: Line) -> Far:
    """Makes clients of servers far away, with options of redis-py."""

    def client(server: Server, jitter_ms: float = 0, **options: Any) -> Redis:
        return Redis(port=line(server.port, jitter_ms), **options)

    return client


def all_expire(redis: Redis) -> bool:
    """Whether each kept cursor is gone after ten seconds at most."""
    # A key that has expired since it was listed has -2.
    return all(redis.pttl(key) in {-2, *range(10_001)} for key in flight_keys(redis))


def check_moved(redis: Redis, result: Migration, keys: int = KEYS) -> None:
    assert (result.total, result.remaining, result.complete) == (keys, 0, True)
    assert len(redis.keys("tt:town:inbox:*")) == keys
    assert flight_keys(redis) == []


def scan(redis: Redis, cursor: object, kept_in: str = KEPT, nice: object = 0) -> list[Any]:
    """Call migrate.lua for a batch of one step of 10 keys. The last field is `kept`."""
    args = ("town", cursor, 10, 1, "", "", kept_in, nice, 0, 0)
    reply: list[Any] = redis.eval(source("migrate", RENAME), 0, *args)  # type: ignore[arg-type]
    return reply if len(reply) == 1 else reply[:-1]


def next_batch(redis: Redis) -> list[Any]:
    """Call until the rest after the last batch is over."""
    for _ in range(100_000):
        reply = scan(redis, "kept")
        if reply != [b"early"]:
            return reply
    pytest.fail("the next batch never begins")


@pytest.mark.every_kind
def test_a_cursor_is_kept_until_the_last_batch(redis: Redis) -> None:
    fill(redis, 1000)
    assert scan(redis, 0)[-1] == 1
    [key] = flight_keys(redis)
    cursor, ready, wait = redis.get(key).split()  # type: ignore[union-attr]
    assert (int(ready), int(wait)) == (0, 200)
    assert 0 < redis.pttl(key) <= 10_000
    assert scan(redis, "kept") == [b"early"]
    reply = next_batch(redis)
    assert reply[1] == 1
    assert reply[0] != cursor
    while flight_keys(redis):
        reply = next_batch(redis)
    assert reply[0] == b"0"
    assert reply[-1] == 0
    assert scan(redis, "kept") == [b"gone"]


@pytest.mark.every_kind
def test_a_batch_that_is_the_last_keeps_nothing(redis: Redis) -> None:
    assert scan(redis, 0)[-1] == 0
    fill(redis, 1000)
    assert scan(redis, 0, kept_in="")[-1] == 0
    assert flight_keys(redis) == []


@pytest.mark.every_kind
def test_nice_is_kept_by_the_server(redis: Redis) -> None:
    fill(redis, 1000)
    scan(redis, 0, nice=1000)
    [key] = flight_keys(redis)
    at_once = redis.pipeline()
    at_once.eval(source("migrate", RENAME), 0, "town", "kept", 10, 1, "", "", KEPT, 1000, 0, 0)
    at_once.get(key)
    at_once.time()
    reply, kept, (seconds, micros) = at_once.execute()
    assert reply == [b"early"]
    _, ready, wait = map(int, kept.split())
    assert 0 < ready - (seconds * 1_000_000 + micros) <= wait
    assert wait > 200


@pytest.mark.every_kind
def test_a_clock_that_is_set_back_delays_a_batch_by_its_wait_at_most(redis: Redis) -> None:
    fill(redis, 1000)
    scan(redis, 0)
    [key] = flight_keys(redis)
    cursor, _, _ = redis.get(key).split()  # type: ignore[union-attr]
    seconds, _ = redis.time()
    redis.set(key, f"{int(cursor)} {(seconds + 3600) * 1_000_000} 5000")
    assert scan(redis, "kept") == [b"early"]
    assert len(next_batch(redis)) > 1


@pytest.mark.every_kind
def test_end_makes_the_server_forget_the_cursor(redis: Redis) -> None:
    fill(redis, 1000)
    scan(redis, 0)
    assert scan(redis, "end") == [b"ended"]
    assert flight_keys(redis) == []
    assert scan(redis, "end") == [b"ended"]


@pytest.mark.parametrize("word", ["kept", "end"])
def test_a_word_for_a_cursor_needs_the_key_that_keeps_it(newest: Server, word: str) -> None:
    with pytest.raises(ResponseError, match=r"^BADARG kept_in: "):
        scan(newest.client(), word, kept_in="")


@each("kept_in", ["x", "tt:town:agent:1", "tt:other:flight:", "tt:agent:1"])
@each("cursor", [0, "kept", "end"])
def test_only_a_key_of_a_flight_can_keep_a_cursor(
    newest: Server, cursor: object, kept_in: str
) -> None:
    fill(newest.client(), 1000)
    newest.client().set(kept_in, "precious")
    with pytest.raises(ResponseError, match=r"^BADARG kept_in: "):
        scan(newest.client(), cursor, kept_in)
    assert newest.client().get(kept_in) == b"precious"


@each("nice", ["", "-1", "nan", "1001", "much", "inf"])
def test_a_malformed_nice_is_named(newest: Server, nice: str) -> None:
    fill(newest.client(), 1000)
    with pytest.raises(ResponseError, match=r"^BADARG nice: "):
        scan(newest.client(), 0, nice=nice)
    assert flight_keys(newest.client()) == []


@each("value", ["", "0 0 0", "x 0 200", "5 0", "5 0 200 7", "5 -1 200"])
def test_a_value_that_is_no_cursor_is_gone(newest: Server, value: str) -> None:
    redis = newest.client()
    fill(redis, 1000)
    scan(redis, 0)
    redis.set(flight_keys(redis)[0], value)
    assert scan(redis, "kept") == [b"gone"]


def test_a_key_of_another_type_is_gone(newest: Server) -> None:
    redis = newest.client()
    fill(redis, 1000)
    scan(redis, 0)
    [key] = flight_keys(redis)
    redis.delete(key)
    redis.rpush(key, "1 0 200")
    assert scan(redis, "kept") == [b"gone"]


@pytest.mark.parametrize("persistence", ["rdb", "aof"])
def test_a_cursor_means_nothing_to_the_process_after_a_restart(
    own_server: StartServer, kind: Kind, persistence: str
) -> None:
    options = ("--appendonly", "yes") if persistence == "aof" else ()
    server = own_server(*options, kind=kind)
    redis = server.client()
    fill(redis, 1000)
    assert scan(redis, 0)[-1] == 1
    if persistence == "rdb":
        redis.save()
    server.kill()
    server.restart()
    redis = server.client()
    assert redis.dbsize() >= 1000
    assert scan(redis, "kept") == [b"gone"]


def test_the_append_only_file_does_not_get_the_cursor(own_server: StartServer, far: Far) -> None:
    server = own_server("--appendonly", "yes")
    fill(server.client())
    with far(server) as redis:
        check_moved(server.client(), Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate())
    assert calls(server.client(), "set") > 0, "nothing was sent ahead"
    wait_until(lambda: server.client().info("persistence")["aof_pending_bio_fsync"] == 0)
    written = b"".join(path.read_bytes() for path in server.directory.rglob("*.aof"))
    assert b"inbox" in written
    assert b"flight" not in written


@pytest.mark.parametrize("jitter", [0, 10])
def test_all_keys_are_moved_once_and_no_key_stays(server: Server, jitter: float, far: Far) -> None:
    fill(server.client())
    with far(server, jitter) as redis:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    check_moved(server.client(), result)
    assert calls(server.client(), "set") > 0, "nothing was sent ahead"


def test_nothing_is_kept_near(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_near(monkeypatch)
    redis = server.client()
    fill(redis)
    check_moved(redis, Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate())
    assert calls(redis, "set") == 0


@pytest.mark.parametrize("plan", [RENAME, UPGRADE, HASH, REVERSE])
def test_a_preview_and_a_check_write_nothing(newest: Server, plan: Plan, far: Far) -> None:
    fill(newest.client(), 1000)
    with far(newest) as redis:
        migrator = Migrator(redis, "town", plan, max_pause_ms=PAUSE_MS)
        migrator.count()
        migrator.preview()
        migrator.check()
    assert calls(newest.client(), "set") == 0
    assert flight_keys(newest.client()) == []


class StopError(Exception):
    """The caller's own."""


def forget_cursor(admin: Redis) -> None:
    for key in flight_keys(admin):
        admin.delete(key)


ACTS: dict[str, Callable[[Redis], object]] = {
    "the connection is lost": cut_connections,
    "the scripts are flushed": lambda admin: admin.script_flush(),
    "the cursor is deleted": forget_cursor,
    "another client's script is running": lambda admin: admin.eval(
        "local n = 0 repeat n = n + 1 until n > 3e6", 0
    ),
}


def set_clock_back(admin: Redis) -> None:
    """Make the kept time look as if the clock had been set back by an hour."""
    for key in flight_keys(admin):
        kept: Any = admin.get(key)
        cursor, ready, wait = (kept or b"0 0 200").split()
        admin.set(key, b" ".join((cursor, b"%d" % (int(ready) + 3_600_000_000), wait)), px=10_000)


def run_beside(admin: Redis) -> None:
    """Let another run migrate some keys."""
    with suppress(StopError):
        Migrator(admin, "town", max_pause_ms=0.3, progress=at_batch(3, stop_it)).migrate()


def stop_it() -> None:
    raise StopError


WEATHER: dict[str, Callable[[Redis], object]] = {
    **ACTS,
    "the clock is set back": set_clock_back,
    "another run moves some keys": run_beside,
    "everything is deleted": lambda admin: admin.flushall(),
}


def migrator(
    redis: Redis,
    progress: Callable[[Progress], None] | None,
    plan: Plan = RENAME,
    max_pause_ms: float = PAUSE_MS,
) -> Migrator:
    """Return a Migrator that connects anew soon after a loss."""
    return Migrator(*(redis, "town", plan, max_pause_ms), progress=progress, retry=quick_retry())


ACTS_OF_A_PREVIEW = ("the connection is lost", "the scripts are flushed")


@pytest.mark.parametrize("act", ["nothing", *ACTS_OF_A_PREVIEW])
def test_a_preview_lists_the_same_far_away(server: Server, act: str, far: Far) -> None:
    admin = server.client()
    put_records(admin, 300)
    fill(admin, 500)
    admin.mset({"tt:web:inbox:1": 1, "tt:town:agent:7": "no JSON"})
    near = Migrator(admin, "town", UPGRADE, max_pause_ms=PAUSE_MS).preview()
    progress = at_batch(6, lambda: ACTS[act](admin) if act in ACTS else None)
    admin.config_resetstat()
    with far(server) as redis:
        found = migrator(redis, progress, UPGRADE).preview()
    assert (found.moves, found.conversions) == (near.moves, near.conversions)
    assert (found.unconverted, found.towns) == (near.unconverted, near.towns)
    assert found.count
    assert near.count
    assert found.count.keys == near.count.keys
    assert found.effort.one_at_a_time == ""
    assert calls(admin, "set") == 0
    if act == "nothing":
        assert "NOSCRIPT" not in str(admin.info("errorstats"))


RECORD = {"name": "n", "agent_type": "worker", "state": "idle", "tasks_completed": 3}


def put_records(redis: Redis, number: int, size: int = 10) -> None:
    records = ({"id": str(n), **RECORD, "text": "x" * size} for n in range(number))
    redis.mset(
        {f"tt:{('agent', 'task')[n % 2]}:{n}": json.dumps(one) for n, one in enumerate(records)}
    )


def test_records_are_converted_as_near(server: Server, far: Far) -> None:
    put_records(server.client(), 400)
    put_records(server.client(), 6, size=100_000)
    server.client().set("tt:agent:broken", "no JSON")
    with far(server, jitter_ms=JITTER_MS) as redis:
        result = Migrator(redis, "town", UPGRADE, max_pause_ms=PAUSE_MS).migrate()
    admin = server.client()
    assert sum(result.converted.values()) == 400
    assert list(result.unconverted) == [b"tt:town:agent:broken"]
    assert result.left
    assert (result.left.not_hashes, result.remaining) == (1, 0)
    assert admin.hget("tt:town:agent:2", "text") == b"x" * 100_000
    assert admin.hgetall("tt:town:task:399")[b"tasks_completed"] == b"3"
    assert flight_keys(admin) == []


@pytest.mark.parametrize("act", ACTS)
def test_whatever_happens_in_mid_flight_all_keys_are_moved(
    server: Server, act: str, far: Far
) -> None:
    admin = server.client()
    fill(admin)
    with far(server) as redis:
        progress = at_batch(5, lambda: ACTS[act](admin))
        result = migrator(redis, progress).migrate()
    assert (result.remaining, result.complete) == (0, True)
    assert len(admin.keys("tt:town:inbox:*")) == KEYS
    if act == "the connection is lost":
        assert result.effort.reconnects == 1
    else:
        assert result.total == KEYS
    if act in ("the connection is lost", "the scripts are flushed"):
        # Neither another connection nor another Lua interpreter knows the key.
        assert all_expire(admin)
    else:
        assert flight_keys(admin) == []


@pytest.mark.parametrize("act", ACTS)
def test_whatever_happens_while_records_are_in_flight_each_is_converted(
    newest: Server, act: str, far: Far
) -> None:
    admin = newest.client()
    put_records(admin, 400)
    acted: list[bool] = []

    def progress(now: Progress) -> None:
        if now.stage == "migrating" and not acted:
            acted.append(True)
            ACTS[act](admin)

    with far(newest) as redis:
        result = migrator(redis, progress, UPGRADE).migrate()
    assert acted
    assert result.complete
    assert result.left
    assert result.left.count
    assert result.left.count.hashes_total == 400


def test_what_is_in_flight_when_the_caller_stops_is_counted(server: Server, far: Far) -> None:
    admin = server.client()
    fill(admin, 10_000)
    totals: list[int] = []

    def progress(now: Progress) -> None:
        assert isinstance(now.so_far, Migration)
        totals.append(now.so_far.total)
        if len(totals) == 4:
            raise StopError

    with far(server) as redis, pytest.raises(StopError):
        # Even where 96 calls are in flight, they are far from moving all keys.
        Migrator(redis, "town", max_pause_ms=0.1, progress=progress).migrate()
    moved = len(admin.keys("tt:town:inbox:*"))
    assert 0 < moved < 10_000
    assert totals[-1] == moved
    assert flight_keys(admin) == []


def slow_run(port: int) -> AbstractContextManager[Process]:
    """A process that migrates with calls in flight. It takes some seconds for `fill()`."""
    options = ("--force", "--max-pause", "1", "--nice", "200", "--town-name", "town")
    return started(*options, "--redis-url", f"redis://127.0.0.1:{port}")


def test_a_signal_lets_what_is_in_flight_finish_and_counts_it(newest: Server, line: Line) -> None:
    admin = newest.client()
    fill(admin, 20_000)
    with slow_run(line(newest.port, 0)) as process:
        wait_until(lambda: len(admin.keys("tt:town:inbox:*")) > 300)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    moved = len(admin.keys("tt:town:inbox:*"))
    assert process.returncode == 143, err
    assert moved < 20_000
    assert f"Total: {moved} keys migrated" in out
    assert flight_keys(admin) == []


def test_a_killed_run_leaves_a_key_that_expires(newest: Server, line: Line) -> None:
    admin = newest.client()
    fill(admin, 20_000)
    with slow_run(line(newest.port, 0)) as process:
        wait_until(lambda: bool(flight_keys(admin)))
        process.kill()
    assert all_expire(admin)


def test_two_runs_at_once_move_every_key(newest: Server, far: Far) -> None:
    fill(newest.client(), 6000)
    results: list[Migration] = []

    def run() -> None:
        with far(newest) as redis:
            results.append(Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.total for result in results) == 6000
    assert len(newest.client().keys("tt:town:inbox:*")) == 6000
    assert flight_keys(newest.client()) == []


@pytest.mark.parametrize("command", ["set", "get", "time"])
def test_a_user_who_may_not_keep_a_cursor_sends_one_call_at_a_time(
    server: Server, command: str, far: Far
) -> None:
    admin = server.client()
    fill(admin, 2000)
    user_without(server, command)
    with far(server, username="less", password="secret") as redis:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    assert (result.total, result.complete) == (2000, True)
    assert calls(admin, "set") <= 1, "Redis 6.2 cannot be asked, so it is tried once"
    assert command.upper() in result.effort.one_at_a_time


def test_a_user_who_may_not_set_the_key_is_refused_once_a_pass(server: Server, far: Far) -> None:
    admin = server.client()
    fill(admin)
    keys = ("~tt:inbox:*", "~tt:town:inbox:*", "~tt:town:agent:*", "~tt:agent:*")
    user_without(server, keys=keys)
    with far(server, username="less", password="secret") as redis:
        # The final pass takes more than one batch.
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    check_moved(admin, result)
    assert result.effort.one_at_a_time == "the server does not keep the cursor"
    refused = refusals(server)
    assert sum(refused[name] for name in refused if "flight" in name) <= 4


def test_a_cursor_that_is_lost_again_and_again_is_not_kept_any_more(
    newest: Server, far: Far
) -> None:
    admin = newest.client()
    fill(admin)
    with far(newest) as redis:
        migrator = Migrator(
            redis, "town", max_pause_ms=PAUSE_MS, progress=lambda _: forget_cursor(admin)
        )
        check_moved(admin, migrator.migrate())


def test_a_client_that_decodes_replies_sends_one_call_at_a_time(newest: Server, far: Far) -> None:
    fill(newest.client(), 1000)
    with far(newest, decode_responses=True) as redis:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    check_moved(newest.client(), result, 1000)
    assert result.effort.one_at_a_time == "the client decodes replies"


def test_a_health_check_of_the_client_comes_not_between_replies(newest: Server, far: Far) -> None:
    fill(newest.client())
    often: Any = 0.01
    with far(newest, health_check_interval=often) as redis:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    check_moved(newest.client(), result)
    assert result.effort.one_at_a_time == ""


def test_a_connection_with_replies_to_come_is_not_given_back(
    newest: Server, monkeypatch: pytest.MonkeyPatch, far: Far
) -> None:
    monkeypatch.setattr("tt_migrate.engine.passes.driver._LANDING_SECONDS", 0.05)
    admin = newest.client()
    fill(admin)

    def stop() -> None:
        admin.execute_command("CLIENT", "PAUSE", 300, "ALL")
        raise StopError

    with far(newest) as redis:
        with pytest.raises(StopError):
            Migrator(redis, "town", max_pause_ms=PAUSE_MS, progress=at_batch(4, stop)).migrate()
        assert redis.ping() is True


@pytest.mark.parametrize("name", ["", "keydb"])
def test_a_server_of_another_kind_gets_one_call_at_a_time(
    newest: Server, monkeypatch: pytest.MonkeyPatch, name: str, far: Far
) -> None:
    fill(newest.client(), 1000)
    said = SaidServer(name, "7.0.0", "master")
    monkeypatch.setattr("tt_migrate.engine.calls.session.server_of", lambda handshake: said)
    with far(newest) as redis:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    check_moved(newest.client(), result, 1000)
    assert result.effort.one_at_a_time == "the server is neither Redis nor Valkey"


@pytest.mark.parametrize("folder", ["", "redis-py/lowest", "redis-py/8.0.0", "hiredis"])
def test_replies_in_flight_are_read_by_every_parser(
    newest: Server, line: Line, folder: str
) -> None:
    libraries = ROOT / ".cache" / folder
    if folder and not (libraries / "installed").exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{folder} is not installed")
    fill(newest.client())
    there_and_back = f"""if True:
        from redis import Redis
        from tt_migrate import RENAME, REVERSE, Migrator
        for protocol, plan in ((2, RENAME), (3, REVERSE)):
            redis = Redis(port={line(newest.port, 0)}, protocol=protocol)
            print(Migrator(redis, "town", plan, max_pause_ms=0.2).migrate().total)
            print(Redis(port={newest.port}).info("commandstats")["cmdstat_set"]["calls"])
    """
    done = subprocess.run(
        [sys.executable, "-c", there_and_back],
        env=environment(PYTHONPATH=str(libraries) if folder else ""),
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    there, sent_ahead, back, more_sent_ahead = map(int, done.stdout.split())
    assert there == back == KEYS
    assert more_sent_ahead - 5 > sent_ahead > 5, "nothing was sent ahead"


def test_a_cursor_means_nothing_to_a_replica_that_became_the_master(
    kind: Kind, own_server: StartServer
) -> None:
    master, replica = (own_server(kind=kind) for _ in range(2))
    fill(master.client(), 1000)
    follower = replica.client()
    follower.replicaof("127.0.0.1", master.port)
    wait_until(lambda: follower.dbsize() == 1000)
    assert scan(master.client(), 0)[-1] == 1
    wait_until(lambda: master.client().wait(1, 1000) == 1)
    assert flight_keys(follower) == []
    follower.replicaof("NO", "ONE")
    assert scan(follower, "kept") == [b"gone"]


def test_a_server_that_refuses_writes_in_mid_flight_ends_the_run(newest: Server, far: Far) -> None:
    admin = newest.client()
    fill(admin)
    refuse = at_batch(2, lambda: admin.config_set("min-replicas-to-write", 1))
    with far(newest) as redis, pytest.raises(ResponseError, match="NOREPLICAS"):
        Migrator(redis, "town", max_pause_ms=PAUSE_MS, progress=refuse).migrate()
    admin.config_set("min-replicas-to-write", 0)
    assert 0 < len(admin.keys("tt:town:inbox:*")) < KEYS


@pytest.mark.every_kind
def test_a_full_server_keeps_the_cursor(server: Server, far: Far) -> None:
    admin = server.client()
    fill(admin)
    admin.config_set("maxmemory", 1)
    with far(server) as redis:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    admin.config_set("maxmemory", 0)
    check_moved(admin, result)
    assert result.effort.one_at_a_time == ""


def test_nice_is_kept_with_calls_in_flight(newest: Server, far: Far) -> None:
    admin = newest.client()
    fill(admin)
    with far(newest) as redis:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS, nice=10).migrate()
    check_moved(admin, result)
    busy = admin.info("commandstats")["cmdstat_evalsha"]["usec"] / 1_000_000
    assert result.effort.seconds > 2 * busy


def test_a_cursor_that_is_evicted_is_begun_from_again(server: Server, far: Far) -> None:
    admin = server.client()
    fill(admin)
    # Of all keys, only the one that keeps the cursor has a time to live.
    admin.config_set("maxmemory-policy", "volatile-ttl")
    admin.config_set("maxmemory", 1)
    with far(server) as redis:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    admin.config_set("maxmemory", 0)
    check_moved(admin, result)
    assert admin.info("stats")["evicted_keys"] > 0


def test_io_threads_do_not_disturb_the_distance(
    own_server: StartServer, kind: Kind, far: Far
) -> None:
    server = own_server("--io-threads", "3", kind=kind)
    fill(server.client())
    with far(server, jitter_ms=JITTER_MS) as redis:
        result = Migrator(redis, "town", max_pause_ms=PAUSE_MS).migrate()
    check_moved(server.client(), result)
    assert calls(server.client(), "set") > 0, "nothing was sent ahead"


def test_merges_work_at_a_distance(newest: Server, far: Far) -> None:
    admin = newest.client()
    for n in range(300):
        admin.rpush(f"tt:inbox:{n}", "old")
        admin.rpush(f"tt:town:inbox:{n}", "new")
    with far(newest) as redis:
        plan = replace(RENAME, merge=True)
        result = Migrator(redis, "town", plan, max_pause_ms=PAUSE_MS).migrate()
    assert sum(result.merged.values()) == 300
    assert admin.lrange("tt:town:inbox:7", 0, -1) == [b"old", b"new"]
    assert result.complete


def test_postponed_keys_are_sent_ahead_too(
    newest: Server, monkeypatch: pytest.MonkeyPatch, far: Far
) -> None:
    """A call that is made alone costs a round trip, and another to drain what is in flight."""
    admin = newest.client()
    for n in range(1500):
        admin.rpush(f"tt:inbox:{n}", "old")
        admin.rpush(f"tt:town:inbox:{n}", "new")
    made: Counter[str] = Counter()

    def noting(name: str) -> Callable[[Session, Call], Any]:
        way = getattr(Session, name)

        def note(self: Session, call: Call) -> Any:
            made[name] += bool(call.about)
            return way(self, call)

        return note

    monkeypatch.setattr(Session, "call", noting("call"))
    monkeypatch.setattr(Session, "send", noting("send"))
    with far(newest) as redis:
        plan = replace(RENAME, merge=True)
        result = Migrator(redis, "town", plan, max_pause_ms=PAUSE_MS).migrate()
    assert (sum(result.merged.values()), result.complete) == (1500, True)
    assert all(admin.llen(f"tt:town:inbox:{n}") == 2 for n in range(0, 1500, 50))
    assert made["send"] >= 10


def test_a_flight_key_is_no_town_and_no_key_to_move(newest: Server) -> None:
    redis = newest.client()
    for town in ("x", "x:docket", "agent", "x:mission:y"):
        redis.flushall()
        redis.set(f"tt:{town}:flight:{'ab' * 8}:0x7f12ab", "1 0 200")
        redis.set("tt:inbox:1", 1)
        for plan in (RENAME, UPGRADE, REVERSE):
            for other in (town, "z"):
                count = Migrator(redis, other, plan).count()
                assert set(count.towns) <= set()
                assert count.total == (0 if plan is REVERSE else 1)


@settings(
    max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    acts=st.lists(st.tuples(st.integers(1, 30), st.sampled_from([*WEATHER])), max_size=4),
    jitter=st.sampled_from([0, 5]),
    pause=st.sampled_from([0.3, 1, 5]),
)
def test_every_key_is_moved_in_any_weather(
    newest: Server, acts: list[tuple[int, str]], jitter: float, pause: float, far: Far
) -> None:
    admin = newest.client()
    admin.flushall()
    fill(admin)
    happened: set[str] = set()

    def act(name: str) -> None:
        WEATHER[name](admin)
        happened.add(name)

    progress = at_batches([(number, partial(act, name)) for number, name in acts])
    with far(newest, jitter) as redis:
        result = migrator(redis, progress, max_pause_ms=pause).migrate()
    assert result.complete
    assert admin.keys("tt:inbox:*") == []
    if "everything is deleted" not in happened:
        assert len(admin.keys("tt:town:inbox:*")) == KEYS
        if not result.effort.reconnects and "another run moves some keys" not in happened:
            assert result.total == KEYS


def test_a_connection_that_is_lost_while_the_cursor_is_forgotten_does_not_end_the_run(
    newest: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Far away, the lost connection's cursor would stay until it expires.
    stay_near(monkeypatch)
    admin = newest.client()
    fill(admin, 1000)
    lost: list[bool] = []

    def forget(self: Driver, work: object) -> None:
        if not lost:
            lost.append(True)
            raise RedisConnectionError

    monkeypatch.setattr(Driver, "_forget", forget)
    check_moved(admin, migrator(admin, None).migrate(), 1000)
    assert lost

"""The benchmark's parts measure what they claim. No test depends on the machine's speed."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from bench.distance import INTERPRETER, PINGS, STARTS
from bench.machinery import (
    Contestant,
    Run,
    asking,
    data,
    delayed,
    measure,
    ours,
    present,
    round_trip_ms,
    run,
)
from bench.machinery.contestants import (
    CLIENT_SIDE,
    CLIENT_SIDE_UPGRADE,
    LIMIT,
    OURS,
    REPLAY,
    SCANNING,
    TINYTOWN,
)
from bench.results import Bar, Latency, Results
from bench.table import bars, table
from bench.upgrade import UPGRADE
from tests.servers import Server, newest_kind
from tests.waiting import wait_until
from tt_migrate import Migrator

KEYS = 700


def contestants() -> list[Contestant]:
    looks = ours("--dry-run", moves=False)
    moving = (OURS, REPLAY, SCANNING, looks, LIMIT, CLIENT_SIDE)
    return [*present(newest_kind(), *moving, UPGRADE, CLIENT_SIDE_UPGRADE)]


@pytest.mark.parametrize("contestant", contestants(), ids=lambda c: c.name)
def test_a_contestant_moves_every_key_and_no_other(contestant: Contestant, newest: Server) -> None:
    found = measure(newest, contestant, KEYS, foreign=100)
    assert found.seconds > 0
    assert found.server_seconds > 0
    assert found.client_mb > 1


def test_round_trips_are_those_that_the_client_makes(newest: Server) -> None:
    replayed = measure(newest, REPLAY, KEYS).round_trips
    assert replayed is not None
    # One round trip for each key, and six scans in steps of 100.
    assert KEYS + 6 * KEYS / 100 <= replayed <= KEYS + 6 * KEYS / 50
    mine = measure(newest, OURS, KEYS).round_trips
    assert mine is not None
    assert 4 <= mine < 15


def test_a_key_that_was_not_moved_or_lost_its_value_is_noticed(newest: Server) -> None:
    redis = newest.client()
    data.fill(redis, 100)
    with pytest.raises(SystemExit, match="not all as they should"):
        data.check(redis, data.new_key, 100)
    Migrator(redis, data.TOWN).migrate()
    data.check(redis, data.new_key, 100)
    redis.set(data.new_key(3), "other")
    with pytest.raises(SystemExit, match="not all as they should"):
        data.check(redis, data.new_key, 100)
    redis.delete(data.new_key(3))
    with pytest.raises(SystemExit, match="99 keys"):
        data.check(redis, data.new_key, 100)


@pytest.mark.far
def test_the_proxy_delays_each_round_trip_and_not_what_is_in_a_row(newest: Server) -> None:
    with delayed(newest.port, 100) as port:
        assert round_trip_ms(port, 3) >= 100
        with Redis(port=port) as redis:
            redis.ping()
            pipeline = redis.pipeline(transaction=False)
            for n in range(10_000):
                pipeline.set(f"k{n}", "x" * 100)
            began = time.perf_counter()
            pipeline.execute()
            # More than 200 pieces: a delay for each of them would take 20 seconds.
            assert time.perf_counter() - began < 10


@pytest.mark.far
def test_batches_at_a_distance_are_as_large_as_near_by(newest: Server) -> None:
    redis = newest.client()
    data.fill(redis, 30_000)
    near = Migrator(redis, data.TOWN).count().effort.batches
    with delayed(newest.port, 30) as port, Redis(port=port) as far_redis:
        far = Migrator(far_redis, data.TOWN).count().effort.batches
    # Each passes over what those before it read, and takes less than half of its time for that.
    assert far <= 4 * near + 10


def answered(redis: Redis) -> int:
    """How many GETs the server has answered."""
    return int(redis.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"])


def test_all_who_would_have_asked_feel_a_server_that_stands_still(newest: Server) -> None:
    latencies: list[float] = []
    with asking(newest.port, latencies):
        client = newest.client()
        client.execute_command("CLIENT", "PAUSE", "400")
        asked = answered(client)  # comes after the pause
        wait_until(lambda: answered(client) > asked + 500)
    assert max(latencies) > 300
    # A client that waits for each reply would notice it only once.
    assert sum(latency > 100 for latency in latencies) > 100


def test_peak_memory_is_that_of_the_process() -> None:
    ballast = b"x" * 100_000_000
    small = run([sys.executable, "-S", "-c", "pass"])
    large = run([sys.executable, "-S", "-c", "b'x' * 200_000_000"])
    assert small.peak_mb < len(ballast) / 2**20
    assert large.peak_mb > 190


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        run([sys.executable, "-c", "raise SystemExit('no such thing')"])


def results() -> Results:
    def one(experiment: str, name: str, seconds: float) -> Run:
        return Run("redis-9.0", name, 1000, 0, 0, seconds, 5, 1.0, 30, 4, 0, experiment)

    found: list[Run | Latency] = []
    found += [one("local", OURS.name, seconds) for seconds in (1, 2, 30)]
    found.append(one("local", REPLAY.name, 41))
    found.append(one("local", CLIENT_SIDE.name, 2469))
    found.append(Run("redis-9.0", "PING", 0, rtt_ms=10, seconds=0.0101, experiment=PINGS))
    found.append(Latency("nobody", 0, 5, 5000, 0.1, 0.2, 0.3, 0.4))
    for slow, p999, most in ((0, 5.3, 6.4), (3, 9.5, 90.0), (0, 1.5, 2.0)):
        found.append(replace(one("gentle", OURS.name, 5), slow=slow))
        found.append(Latency(OURS.name, 1000, 5, 5000, 2.1, 4.2, p999, most))
    found += [one(STARTS, INTERPRETER, seconds) for seconds in (0.02, 0.03, 0.9)]
    return Results.made(1000, "redis-9.0", found)


def test_bars_compare_medians_and_say_what_was_not_measured() -> None:
    found = {bar.what: bar for bar in bars(results())}
    replay = found[f"local, 1,000 keys: faster than {REPLAY.name}"]
    assert (replay.got, replay.verdict) == (20.5, "yes")
    tinytown = found[f"local, 1,000 keys: faster than {TINYTOWN.name}"]
    assert (tinytown.got, tinytown.verdict) == (None, "not measured")
    worst = found["SLOWLOG entries at 10 ms over 1,000 keys, in the worst of the runs"]
    assert (worst.got, worst.verdict) == (3, "no")
    assert found["another client's p99.9 over 1,000 keys, above that without a migration"].got == 5


def test_a_bar_is_reached_from_its_side() -> None:
    assert [Bar("", 2, got).verdict for got in (1, 2, 3)] == ["yes", "yes", "no"]
    assert [Bar("", 2, got, at_least=True).verdict for got in (1, 2, 3)] == ["no", "yes", "yes"]


def test_results_survive_their_file_and_make_a_table(tmp_path: Path) -> None:
    results().save(tmp_path / "results.json")
    read = Results.load(tmp_path / "results.json")
    assert read == results()
    text = table(read)
    assert "| redis-9.0 | replay of Tinytown | 1,000 |  | 0 | 41.00 | 5 | 1.00 | 30 | 4.0 |" in text
    assert f"faster than {CLIENT_SIDE.name} | ≥ 1.4x | 1,234x | yes |" in text
    assert "RTT 10: a PING took 10.10 ms" in text
    assert "| tt-migrate migrates | 1,000 | 5.0 | 15,000 | 2.10 | 4.20 | 5.30 | 90.00 |" in text

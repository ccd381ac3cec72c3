"""Every way to look, and the ways to write that wait for replies: near, far, and with jitter."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from math import nan
from pathlib import Path

from redis import Redis

from bench.far import FAR, JITTERY, NEAR, VERY_FAR, Distance
from bench.machinery import Run, asking, data, delayed, run, running
from bench.machinery.measure import server_cpu
from bench.results import ROUNDS, Bar, Latency, Results
from tests.servers import Kind, Server
from tt_migrate import RENAME, UPGRADE, Migrator

IDLE = "nobody, before a look far away"
_FORMER = "old-project"
_TRIPS_SECONDS = 0.35
"""The round trips of a run that does nothing, and the calls of the first and the last of them."""


@dataclass(frozen=True)
class Way:
    """Options, the keys that they need, and which share of the keys that is."""

    options: tuple[str, ...]
    fill: Callable[[Redis, int], object]
    share: float = 1
    note: str = ""

    @property
    def name(self) -> str:
        """For the tables."""
        return " ".join(["tt-migrate", *self.options]) + self.note

    def at(self, distance: Distance) -> str:
        """The name at a distance."""
        return f"{self.name}, {distance.name}" if distance.rtt else self.name


def _migrated(redis: Redis, keys: int) -> None:
    data.fill(redis, keys)
    Migrator(redis, data.TOWN, RENAME).migrate()


def _upgraded(redis: Redis, keys: int) -> None:
    data.fill_records(redis, keys)
    Migrator(redis, data.TOWN, UPGRADE).migrate()


def _former(redis: Redis, keys: int) -> None:
    data.fill(redis, keys)
    Migrator(redis, _FORMER, RENAME).migrate()


def _flags(redis: Redis, keys: int) -> None:
    redis.flushall()
    batch = redis.pipeline(transaction=False)
    for n in range(keys // 2):
        batch.set(f"tt:stop:{n}", 1)
        batch.set(f"tt:{data.TOWN}:stop:{n}", 1)
    batch.execute()


def _lists(redis: Redis, keys: int) -> None:
    redis.flushall()
    batch = redis.pipeline(transaction=False)
    for n in range(keys // 2):
        batch.rpush(f"tt:inbox:{n}", "older")
        batch.rpush(f"tt:{data.TOWN}:inbox:{n}", "newer")
    batch.execute()


_LOOK, _DO, _MERGE = ("--dry-run",), ("--force",), ("--on-conflict", "merge")
CHECK = Way(("--check",), data.fill)
DRY_RUN = Way(_LOOK, data.fill)
LOOKS = (
    CHECK,
    DRY_RUN,
    Way((*_LOOK, *_MERGE), _lists, note=", lists"),
    Way((*_LOOK, "--reverse"), _migrated),
    Way((*_LOOK, "--upgrade"), data.fill_records, 0.2),
    Way((*_LOOK, "--downgrade"), _upgraded, 0.2),
    Way((*_LOOK, "--from-town", _FORMER), _former),
)
WRITES = (
    Way((*_DO, "--from-town", _FORMER), _former),
    Way((*_DO, *_MERGE), _flags, note=", flags"),
    Way((*_DO, *_MERGE), _lists, note=", lists"),
)


def runs(kind: Kind, keys: int) -> Iterator[Run | Latency]:
    """All ways in turn. The other client asks while one looks over the line with jitter."""
    with running(kind) as server:
        for way in (*LOOKS, *WRITES) * ROUNDS:
            for distance in (NEAR, FAR, JITTERY):
                yield from _measured(server, way, int(keys * way.share), distance)
        for way in (CHECK, DRY_RUN):
            yield from _measured(server, way, keys, VERY_FAR)
        idle: list[float] = []
        with asking(server.port, idle):
            time.sleep(2)
        yield Latency.of(idle, IDLE, 0, 2)


def _measured(server: Server, way: Way, keys: int, distance: Distance) -> Iterator[Run | Latency]:
    redis = server.client()
    way.fill(redis, keys)
    tt = str(Path(sys.executable).with_name("tt"))
    # A check that finds something ends with status 1.
    command = ["sh", "-c", '"$@" || [ $? = 1 ]', "sh", tt, "migrate", *way.options]
    felt: list[float] = []
    is_felt = distance == JITTERY and way in (CHECK, DRY_RUN)
    with (
        tempfile.TemporaryDirectory() as folder,
        delayed(server.port, distance.rtt, distance.jitter) as far,
    ):
        port = far if distance.rtt else server.port
        environment = {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "TT_TOWN": data.TOWN}
        (Path(folder) / "tinytown.toml").write_text(f'name = "{data.TOWN}"\n')
        cpu = server_cpu(redis)
        with asking(server.port, felt) if is_felt else nullcontext():
            process = run(command, directory=Path(folder), environment=environment)
        cpu = server_cpu(redis) - cpu
    name = way.at(distance)
    yield Run(
        *(server.kind.name, name, keys),
        rtt_ms=distance.rtt,
        seconds=process.seconds,
        server_seconds=cpu,
        client_mb=process.peak_mb,
    )
    if felt:
        yield Latency.of(felt, name, keys, process.seconds)


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""

    def median(what: str, way: Way, distance: Distance) -> float:
        return results.median(what, experiment="looks", contestant=way.at(distance))

    for way in (*LOOKS, *WRITES):
        far, near = median("seconds", way, FAR), median("seconds", way, NEAR)
        what = f"`{way.name}`: {FAR.name}, less {_TRIPS_SECONDS} s, as long as near"
        yield Bar(what, 1.7, (far - _TRIPS_SECONDS) / near, unit="x")
    for way in LOOKS:
        cost = median("server_seconds", way, FAR) / median("server_seconds", way, NEAR)
        yield Bar(f"`{way.name}`: server CPU {FAR.name}, as much as near", 2, cost, unit="x")
    felt = {x.contestant: x for x in results.felt()}
    for way in (CHECK, DRY_RUN):
        name = way.at(JITTERY)
        above = felt[name].p99 - felt[IDLE].p99 if {name, IDLE} <= {*felt} else nan
        yield Bar(f"another client's p99, `{name}`, above idle", 10, above, unit=" ms")

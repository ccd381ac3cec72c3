"""Which contestants meet on which data: each experiment yields its runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from bench.contestants import (
    CLIENT_SIDE,
    OURS,
    REPLAY,
    SCANNING,
    Contestant,
    limit,
    ours,
    tinytown,
)
from bench.data import TOWN
from bench.gentle import Latency, during, without
from bench.measure import Run, measure, measure_within
from bench.process import run
from bench.proxy import delayed, round_trip_ms
from tests.servers import Kind, Server
from tt_migrate import Migrator

ROUNDS = 3
"""How often the quick ones run; those that send a command a key run once."""

PATIENT = ours("--max-pause", "100")
NICE = ours("--nice", "3")
PREVIEW = ours("--dry-run", moves=False)
INTERPRETER = "a bare interpreter"
LIBRARIES = "an interpreter with redis-py and click"
BARE_SCAN = "bare SCAN"
SCRIPT_SCAN = "SCAN in a script"
FLOOR = "a script that checks nothing"
AGAIN = "tt-migrate once more, finding nothing"
_OLD_KEYS, _COUNT, _STEPS = "tt:[^m]*", 50, 20


@dataclass(frozen=True)
class Delay:
    """A round trip through the proxy as asked for and as measured, milliseconds."""

    rtt_ms: float
    measured_ms: float


def those(*contestants: Contestant | str) -> list[Contestant]:
    """The contestants that are here; says of the others why not."""
    here = []
    for contestant in contestants:
        if isinstance(contestant, Contestant):
            here.append(contestant)
        else:
            print(f"skipped: {contestant}", file=sys.stderr)
    return here


def local(kind: Kind, keys: int, *, is_main: bool) -> Iterator[Run]:
    """Everybody on one machine. Where it is not the main server, the slow ones get fewer keys."""
    name = "local"
    with _server(kind) as server:
        for _ in range(ROUNDS):
            for contestant in those(OURS, CLIENT_SIDE, limit()):
                yield measure(name, server, contestant, keys)
            yield measure_within(name, server, BARE_SCAN, keys, _scan)
            yield measure_within(name, server, SCRIPT_SCAN, keys, _scan_in_script)
            yield measure_within(name, server, FLOOR, keys, _rename_all)
            yield measure_within(name, server, AGAIN, keys, _migrate, before=_migrate)
        for contestant in those(REPLAY, tinytown(kind)):
            yield measure(name, server, contestant, keys if is_main else keys // 10)


def distance(kind: Kind, keys: int, rtts: list[float]) -> Iterator[Run | Delay]:
    """The server at a distance, with a tenth of the keys and with all."""
    name = "distance"
    with _server(kind) as server:
        # The others' commands are the same at any distance, so they are counted where it is short.
        for contestant in (REPLAY, *[OURS] * ROUNDS):
            yield measure(name, server, contestant, keys // 10)
        with delayed(server.port, 0) as port:
            own_ms = round_trip_ms(port)
        for rtt in rtts:
            with delayed(server.port, max(0.0, rtt - own_ms)) as port:
                yield Delay(rtt, round_trip_ms(port))
                for _ in range(ROUNDS):
                    for contestant in (OURS, PATIENT, CLIENT_SIDE):
                        yield measure(name, server, contestant, keys // 10, rtt_ms=rtt, port=port)
                    for contestant in (OURS, CLIENT_SIDE):
                        yield measure(name, server, contestant, keys, rtt_ms=rtt, port=port)


def size(kind: Kind, sizes: list[int]) -> Iterator[Run]:
    """From few keys to many."""
    with _server(kind) as server:
        for keys in sizes:
            for _ in range(ROUNDS):
                yield measure("size", server, OURS, keys)
            yield measure("size", server, CLIENT_SIDE, keys)
            if keys <= 10_000:
                yield measure("size", server, REPLAY, keys)
        for _ in range(ROUNDS):
            yield measure("size", server, PREVIEW, max(sizes))


def foreign(kind: Kind, keys: int) -> Iterator[Run]:
    """Ten times as many keys of others."""
    with _server(kind) as server:
        for _ in range(ROUNDS):
            for contestant in (OURS, CLIENT_SIDE):
                yield measure("foreign", server, contestant, keys, foreign=10 * keys)
        yield measure("foreign", server, SCANNING, keys, foreign=10 * keys)


def gentle(kind: Kind, keys: int, most: int) -> Iterator[Run | Latency]:
    """What another client feels.

    The default also meets the most keys, here and on another server: there, the other client feels
    only that the machine is busier.
    """
    with _server(kind) as server, _server(kind) as other:
        for _ in range(ROUNDS):
            yield without(server)
            yield from during(server, OURS, most)
            yield during(other, OURS, most, asked=server)[1]
            for contestant in (OURS, NICE):
                yield from during(server, contestant, keys)
        for pause in ("1", "5", "20"):
            yield from during(server, ours("--max-pause", pause), keys)
        for contestant in those(CLIENT_SIDE, limit()):
            yield from during(server, contestant, keys)
        for contestant in those(REPLAY, tinytown(kind)):
            yield from during(server, contestant, keys // 10)


def start_seconds(times: int = 11) -> Iterator[tuple[str, float]]:
    """How long programs take to start, several times each."""
    for _ in range(times):
        yield INTERPRETER, run([sys.executable, "-c", "pass"]).seconds
        yield LIBRARIES, run([sys.executable, "-c", "import redis, click"]).seconds


def _scan(redis: Redis) -> None:
    cursor = 0
    while True:
        cursor, _ = redis.scan(cursor, count=1000)
        if cursor == 0:
            return


def _scan_in_script(redis: Redis) -> None:
    _drive(redis, "scan.lua", _OLD_KEYS, _COUNT, _STEPS)


def _rename_all(redis: Redis) -> None:
    _drive(redis, "floor.lua", _OLD_KEYS, _COUNT, _STEPS, f"tt:{TOWN}:")


def _drive(redis: Redis, file: str, *arguments: str | int) -> None:
    sha: Any = redis.script_load(Path(__file__).with_name(file).read_text("utf-8"))
    cursor: Any = b"0"
    while True:
        cursor = redis.evalsha(sha, 0, cursor, *arguments)
        if cursor == b"0":
            return


def _migrate(redis: Redis) -> None:
    Migrator(redis, TOWN).migrate()


@contextmanager
def _server(kind: Kind) -> Iterator[Server]:
    server = Server.start(kind)
    try:
        yield server
    finally:
        server.stop()

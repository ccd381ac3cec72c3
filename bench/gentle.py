"""What another client of the server feels while a migration runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.contestants import Contestant
from bench.measure import Run, measure
from tests.servers import Server

RATE = 1000
"""GETs a second."""

NOBODY = "nobody"
"""Who migrates while nothing happens."""

ELSEWHERE = ", on another server,"
"""Put after the name of a contestant that the other client shares only the machine with."""

_IDLE_SECONDS = 5


@dataclass(frozen=True)
class Latency:
    """Latencies of GETs in milliseconds; `asked`: how many there were."""

    contestant: str
    server: str
    keys: int
    seconds: float
    asked: int
    p50: float
    p99: float
    p999: float
    most: float


def without(server: Server) -> Latency:
    """The latencies while nothing else happens."""
    with _asking(server) as latencies:
        time.sleep(_IDLE_SECONDS)
    return _latency(NOBODY, server, 0, _IDLE_SECONDS, latencies)


def during(
    server: Server, contestant: Contestant, keys: int, *, asked: Server | None = None
) -> tuple[Run, Latency]:
    """A contestant's run, and the latencies from its process' start to its end.

    `asked`: the server that the other client asks, where it is another one.
    """
    latencies: list[float] = []

    @contextmanager
    def beside() -> Iterator[None]:
        with _asking(asked or server) as found:
            yield
        latencies.extend(found)

    run = measure("gentle", server, contestant, keys, beside=beside())
    name = f"{contestant.name}{ELSEWHERE if asked else ''}"
    return run, _latency(name, server, keys, run.seconds, latencies)


@contextmanager
def _asking(server: Server) -> Iterator[list[float]]:
    command = [sys.executable, "-m", "bench.gets", str(server.port), str(RATE)]
    latencies: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout, "it has a pipe"
        process.stdout.readline()
        yield latencies
        output, _ = process.communicate()
    latencies.extend(json.loads(output))


def _latency(
    name: str, server: Server, keys: int, seconds: float, latencies: list[float]
) -> Latency:
    ordered = sorted(latencies)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Latency(
        contestant=name,
        server=server.kind.name,
        keys=keys,
        seconds=seconds,
        asked=len(ordered),
        p50=at(0.5),
        p99=at(0.99),
        p999=at(0.999),
        most=ordered[-1],
    )

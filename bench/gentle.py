"""What another client of the server feels while a migration runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from math import nan

from bench.machinery import SLOW_MS, Contestant, Run, asking, measure, ours, present, running
from bench.machinery.contestants import CLIENT_SIDE, LIMIT, OURS, REPLAY, TINYTOWN
from bench.results import ROUNDS, Bar, Latency, Results
from tests.servers import Kind, Server

NICE = ours("--nice", "3")
NOBODY = "nobody"
"""Who migrates while nothing happens."""

ELSEWHERE = f"{OURS.name}, on another server,"
"""Who shares only the machine with the other client."""

_IDLE_SECONDS = 5


def runs(kind: Kind, keys: int, most: int) -> Iterator[Run | Latency]:
    """The default also meets the most keys, here and on another server.

    There, the other client feels only that the machine is busier.
    """
    with running(kind) as server, running(kind) as other:
        for _ in range(ROUNDS):
            yield _without(server)
            yield from _during(server, OURS, most)
            _, felt = _during(other, OURS, most, asked=server)
            yield replace(felt, contestant=ELSEWHERE)
            for contestant in (OURS, NICE):
                yield from _during(server, contestant, keys)
        pauses = [ours("--max-pause", pause) for pause in ("1", "5", "20")]
        for contestant in present(kind, *pauses, CLIENT_SIDE, LIMIT):
            yield from _during(server, contestant, keys)
        for contestant in present(kind, REPLAY, TINYTOWN):
            yield from _during(server, contestant, keys // 10)


def _without(server: Server) -> Latency:
    latencies: list[float] = []
    with asking(server.port, latencies):
        time.sleep(_IDLE_SECONDS)
    return Latency.of(latencies, NOBODY, 0, _IDLE_SECONDS)


def _during(
    server: Server, contestant: Contestant, keys: int, *, asked: Server | None = None
) -> tuple[Run, Latency]:
    """A contestant's run, and the latencies from its process' start to its end."""
    latencies: list[float] = []
    beside = asking((asked or server).port, latencies)
    run = measure(server, contestant, keys, beside=beside)
    return run, Latency.of(latencies, contestant.name, keys, run.seconds)


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""
    most = max((x.keys for x in results.latencies), default=0)
    slow = [r.slow for r in results.of(experiment="gentle", contestant=OURS.name, keys=most)]

    def felt(what: str, name: str, keys: int) -> float:
        return next(
            (getattr(x, what) for x in results.felt() if (x.contestant, x.keys) == (name, keys)),
            nan,
        )

    what = f"SLOWLOG entries at {SLOW_MS} ms over {most:,} keys, in the worst of the runs"
    yield Bar(what, 0, max(slow, default=nan))
    here = felt("p999", OURS.name, most)
    what = f"another client's p99.9 over {most:,} keys, above that without a migration"
    yield Bar(what, 8, here - felt("p999", NOBODY, 0), unit=" ms")
    what = "the same, above that with the migration on another server of the machine"
    yield Bar(what, 8, here - felt("p999", ELSEWHERE, most), unit=" ms")
    nice = felt("p50", NICE.name, results.keys) - felt("p50", NOBODY, 0)
    yield Bar("with `--nice 3` its p50, above that without a migration", 1, nice, unit=" ms")
    nice, default = (felt("seconds", c.name, results.keys) for c in (NICE, OURS))
    yield Bar("`--nice 3`: times as long", 4.5, nice / default, unit="x")

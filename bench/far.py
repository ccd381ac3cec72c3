"""How much longer a run takes far away than near: calls are sent ahead of replies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import nan

from bench.machinery import SLOW_MS, Contestant, Run, asking, delayed, measure, ours, running
from bench.machinery.contestants import OURS
from bench.results import ROUNDS, Bar, Latency, Results
from tests.servers import Kind

UPGRADE = ours("--upgrade", converts=True)
UPGRADE_PREVIEW = ours("--upgrade", "--dry-run", moves=False, converts=True)
FEW = 20
NEARBY = "nobody, before a run far away"
_IDLE_SECONDS = 3


@dataclass(frozen=True)
class Distance:
    """A round-trip time and how much longer a round trip takes by chance, in milliseconds."""

    rtt: float
    jitter: float = 0

    @property
    def name(self) -> str:
        """For the tables."""
        jitter = f" with {self.jitter:g} ms of jitter" if self.jitter else ""
        return f"{self.rtt:g} ms away{jitter}"


NEAR, TEN, FAR, VERY_FAR = map(Distance, (0, 10, 50, 200))
JITTERY = Distance(50, 10)
FELT = Distance(50, 5)


def contestant_at(contestant: Contestant, distance: Distance) -> str:
    """The name of a contestant at a distance."""
    return f"{contestant.name}, {distance.name}" if distance.rtt else contestant.name


def runs(kind: Kind, keys: int) -> Iterator[Run | Latency]:
    """The same runs near and far, in turn."""
    records = keys // 5
    plans = [
        (OURS, keys, (NEAR, TEN, FAR, JITTERY, VERY_FAR)),
        (UPGRADE, records, (NEAR, FAR, JITTERY)),
        (UPGRADE_PREVIEW, records, (NEAR, FAR)),
        (OURS, FEW, (NEAR, FAR, VERY_FAR)),
    ]
    with running(kind) as server:
        for contestant, number, distances in plans * ROUNDS:
            for distance in distances:
                with delayed(server.port, distance.rtt, distance.jitter) as far:
                    port = far if distance.rtt else server.port
                    run = measure(server, contestant, number, port=port)
                name = contestant_at(contestant, distance)
                yield replace(run, contestant=name, rtt_ms=distance.rtt)
        for _ in range(ROUNDS):
            idle: list[float] = []
            with asking(server.port, idle):
                time.sleep(_IDLE_SECONDS)
            yield Latency.of(idle, NEARBY, 0, _IDLE_SECONDS)
            felt: list[float] = []
            with delayed(server.port, FELT.rtt, FELT.jitter) as port:
                beside = asking(server.port, felt)
                run = measure(server, OURS, keys, port=port, beside=beside)
            name = contestant_at(OURS, FELT)
            yield replace(run, contestant=name, rtt_ms=FELT.rtt)
            yield Latency.of(felt, name, keys, run.seconds)


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""
    keys, records = results.keys, results.keys // 5

    def seconds(contestant: Contestant, number: int, distance: Distance) -> float:
        name = contestant_at(contestant, distance)
        return results.median("seconds", experiment="far", contestant=name, keys=number)

    for contestant, number, distance, wanted in (
        (OURS, keys, FAR, 1.6),
        (OURS, keys, JITTERY, 3.5),
        (OURS, keys, VERY_FAR, 3.0),
        (UPGRADE, records, FAR, 2.5),
        (UPGRADE_PREVIEW, records, FAR, 4.0),
    ):
        what = f"`{contestant.name}`, {number:,} keys: {distance.name}, as long as near"
        far, near = seconds(contestant, number, distance), seconds(contestant, number, NEAR)
        yield Bar(what, wanted, far / near, unit="x")
    trips = seconds(OURS, FEW, VERY_FAR) - seconds(OURS, FEW, NEAR)
    what = f"{FEW} keys: round trips, from the time above near"
    yield Bar(what, 4.6, trips / (VERY_FAR.rtt / 1000))
    felt = {x.contestant: x for x in results.felt()}
    name = contestant_at(OURS, FELT)
    above = felt[name].p99 - felt[NEARBY].p99 if {name, NEARBY} <= {*felt} else nan
    yield Bar(f"another client's p99, {FELT.name}, above idle", 10, above, unit=" ms")
    slow = [run.slow for run in results.of(experiment="far", contestant=name)]
    what = f"SLOWLOG entries at {SLOW_MS} ms in these runs, in the worst"
    yield Bar(what, 0, max(slow, default=nan))

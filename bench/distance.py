"""The server at a distance, and what a process costs before it sends anything."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from bench.machinery import Run, delayed, measure, ours, round_trip_ms, run, running
from bench.machinery.contestants import CLIENT_SIDE, OURS, REPLAY
from bench.results import ROUNDS, Bar, Results
from tests.servers import Kind

PATIENT = ours("--max-pause", "100")
PINGS, STARTS = "pings", "starts"
"""Experiments within this one, which are no migrations."""

INTERPRETER = "a bare interpreter"
LIBRARIES = "an interpreter with redis-py and click"


def runs(kind: Kind, keys: int, rtts: list[float]) -> Iterator[Run]:
    """With a tenth of the keys and with all."""
    with running(kind) as server:
        # The replay's commands are the same at any distance, so they are counted where it is short.
        for contestant in (REPLAY, *[OURS] * ROUNDS):
            yield measure(server, contestant, keys // 10)
        with delayed(server.port, 0) as port:
            own_ms = round_trip_ms(port)
        for rtt in rtts:
            with delayed(server.port, max(0.0, rtt - own_ms)) as port:
                seconds = round_trip_ms(port) / 1000
                yield Run(kind.name, "PING", 0, rtt_ms=rtt, seconds=seconds, experiment=PINGS)
                few = [(contestant, keys // 10) for contestant in (OURS, PATIENT, CLIENT_SIDE)]
                for contestant, n in [*few, (OURS, keys), (CLIENT_SIDE, keys)] * ROUNDS:
                    yield replace(measure(server, contestant, n, port=port), rtt_ms=rtt)
    for _ in range(11):
        for name, code in ((INTERPRETER, "pass"), (LIBRARIES, "import redis, click")):
            seconds = run([sys.executable, "-c", code]).seconds
            yield Run("", name, 0, seconds=seconds, experiment=STARTS)


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""
    few = results.keys // 10

    def median(what: str, name: str, keys: int, rtt: float) -> float:
        wanted = {"contestant": name, "keys": keys, "rtt_ms": rtt}
        return results.median(what, experiment="distance", **wanted)

    what = f"{few:,} keys: fewer round trips than the {REPLAY.name}"
    got = median("round_trips", REPLAY.name, few, 0) / median("round_trips", OURS.name, few, 0)
    yield Bar(what, 1000, got, at_least=True, unit="x")
    for rtt in filter(lambda rtt: rtt >= 10, results.values("rtt_ms", experiment=PINGS)):
        what = f"{rtt:g} ms away, {results.keys:,} keys: faster than {CLIENT_SIDE.name}"
        slow, fast = (median("seconds", c.name, results.keys, rtt) for c in (CLIENT_SIDE, OURS))
        yield Bar(what, 2, slow / fast, at_least=True, unit="x")

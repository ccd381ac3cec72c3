"""What is to be reached, and whether it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.contestants import CLIENT_SIDE, LIMIT, OURS, REPLAY, SCANNING, TINYTOWN
from bench.experiments import BARE_SCAN, INTERPRETER, NICE, PATIENT, PREVIEW
from bench.gentle import ELSEWHERE, NOBODY
from bench.measure import SLOW_MS, Run
from bench.results import Results


@dataclass(frozen=True)
class Bar:
    """One figure that was wanted and what was measured, None where nothing was."""

    what: str
    wanted: float
    got: float | None
    at_least: bool = False
    unit: str = ""

    @property
    def verdict(self) -> str:
        """`yes`, `no` or `not measured`."""
        if self.got is None:
            return "not measured"
        reached = self.got >= self.wanted if self.at_least else self.got <= self.wanted
        return "yes" if reached else "no"


def bars(results: Results) -> list[Bar]:
    """All bars in the order of the table."""
    return [
        *_server_cpu(results),
        *_local(results),
        *_distance(results),
        *_many(results),
        *_gentle(results),
        *_small(results),
    ]


def _seconds(run: Run) -> float:
    return run.seconds


def _server_seconds(run: Run) -> float:
    return run.server_seconds


def _or_none(compute: Callable[..., float], *args: Any) -> float | None:
    """What a function returns, None where it finds no run."""
    try:
        return compute(*args)
    except (KeyError, ValueError):
        return None


def cpu_ratio(results: Results, server: str, contestant: str) -> float:
    """A contestant's CPU on the server, as a multiple of the limit's and a bare SCAN's together."""

    def cpu(name: str) -> float:
        return results.median(
            _server_seconds,
            experiment="local",
            server=server,
            contestant=name,
            keys=results.keys,
        )

    return cpu(contestant) / (cpu(LIMIT) + cpu(BARE_SCAN))


def _server_cpu(results: Results) -> Iterator[Bar]:
    for server in dict.fromkeys(run.server for run in results.of(experiment="local")):
        yield Bar(
            f"{server}: server CPU, against `redis-cli --pipe` and a bare SCAN",
            1.25,
            _or_none(cpu_ratio, results, server, OURS.name),
            unit="x",
        )


def _local(results: Results) -> Iterator[Bar]:
    def seconds(name: str) -> float:
        return results.median(
            _seconds,
            experiment="local",
            server=results.server,
            contestant=name,
            keys=results.keys,
        )

    def faster_than(name: str) -> float:
        return seconds(name) / seconds(OURS.name)

    for name, wanted in ((REPLAY.name, 20), (TINYTOWN, 8), (CLIENT_SIDE.name, 1.4)):
        yield Bar(
            f"local, {results.keys:,} keys: faster than {name}",
            wanted,
            _or_none(faster_than, name),
            at_least=True,
            unit="x",
        )


def _distance(results: Results) -> Iterator[Bar]:
    few = results.keys // 10

    def seconds(name: str, keys: int, rtt: float) -> float:
        return results.median(
            _seconds, experiment="distance", contestant=name, keys=keys, rtt_ms=rtt
        )

    def round_trips(name: str) -> float:
        return results.median(
            lambda run: run.round_trips or 0,
            experiment="distance",
            contestant=name,
            keys=few,
            rtt_ms=0,
        )

    def faster(rtt: float) -> float:
        slow = seconds(CLIENT_SIDE.name, results.keys, rtt)
        return slow / seconds(OURS.name, results.keys, rtt)

    def against_ideal(name: str, rtt: float) -> float:
        wanted = {"experiment": "distance", "contestant": name, "keys": few, "rtt_ms": rtt}
        server = results.median(_server_seconds, **wanted)
        return seconds(name, few, rtt) / (server + 3 * rtt / 1000 + start_of(results, INTERPRETER))

    yield Bar(
        f"{few:,} keys: fewer round trips than the {REPLAY.name}",
        1000,
        _or_none(lambda: round_trips(REPLAY.name) / round_trips(OURS.name)),
        at_least=True,
        unit="x",
    )
    for delay in results.delays:
        rtt = delay.rtt_ms
        if rtt < 10:
            continue
        yield Bar(
            f"{rtt:g} ms away, {results.keys:,} keys: faster than {CLIENT_SIDE.name}",
            2,
            _or_none(faster, rtt),
            at_least=True,
            unit="x",
        )
        for contestant in (OURS, PATIENT):
            name = contestant.name
            yield Bar(
                f"{rtt:g} ms away, {few:,} keys: `{name}` against server time, 3 round trips and"
                " interpreter start",
                1.5,
                _or_none(against_ideal, name, rtt),
                unit="x",
            )


def _many(results: Results) -> Iterator[Bar]:
    def seconds(name: str) -> float:
        return results.median(_seconds, experiment="foreign", contestant=name)

    yield Bar(
        f"{results.keys:,} keys among ten times as many others: faster than {SCANNING.name}",
        5,
        _or_none(lambda: seconds(SCANNING.name) / seconds(OURS.name)),
        at_least=True,
        unit="x",
    )
    costs = [
        results.median(_server_seconds, experiment="size", contestant=OURS.name, keys=keys) / keys
        for keys in {run.keys for run in results.of(experiment="size", contestant=OURS.name)}
        if keys >= 10_000
    ]
    yield Bar(
        "server time a key from 10,000 to the most keys: highest against lowest",
        1.3,
        _or_none(lambda: max(costs) / min(costs)),
        unit="x",
    )


def _gentle(results: Results) -> Iterator[Bar]:
    most = max((x.keys for x in results.latencies), default=0)

    def p999_above(name: str, keys: int) -> float:
        here = results.felt_during(OURS.name, most)
        return here.p999 - results.felt_during(name, keys).p999

    def nice_p50() -> float:
        nice = results.felt_during(NICE.name, results.keys)
        return nice.p50 - results.felt_during(NOBODY, 0).p50

    def slow() -> float:
        runs = results.of(experiment="gentle", contestant=OURS.name, keys=most)
        return max(run.slow for run in runs)

    def nice_against_default() -> float:
        nice, default = (results.felt_during(c.name, results.keys) for c in (NICE, OURS))
        return nice.seconds / default.seconds

    yield Bar(
        f"SLOWLOG entries at {SLOW_MS} ms over {most:,} keys, in the worst of the runs",
        0,
        _or_none(slow),
    )
    yield Bar(
        f"another client's p99.9 over {most:,} keys, above that without a migration",
        8,
        _or_none(p999_above, NOBODY, 0),
        unit=" ms",
    )
    yield Bar(
        "the same, above that with the migration on another server of the machine",
        8,
        _or_none(p999_above, OURS.name + ELSEWHERE, most),
        unit=" ms",
    )
    yield Bar(
        "with `--nice 3` its p50, above that without a migration",
        1,
        _or_none(nice_p50),
        unit=" ms",
    )
    yield Bar("`--nice 3`: times as long", 4.5, _or_none(nice_against_default), unit="x")


def _small(results: Results) -> Iterator[Bar]:
    most = max((run.keys for run in results.of(experiment="size")), default=0)

    def of_most(name: str, what: Callable[[Run], float]) -> float | None:
        return _or_none(lambda: results.median(what, experiment="size", contestant=name, keys=most))

    yield Bar(
        f"memory for {most:,} keys", 60, of_most(OURS.name, lambda r: r.client_mb), unit=" MiB"
    )
    yield Bar(
        f"memory to list {most:,} keys",
        300,
        of_most(PREVIEW.name, lambda r: r.client_mb),
        unit=" MiB",
    )
    yield Bar(f"time to list {most:,} keys", 10, of_most(PREVIEW.name, _seconds), unit=" s")


def start_of(results: Results, name: str) -> float:
    """The median of a program's starts, seconds. Raises KeyError where it never started."""
    times = sorted(results.starts[name])
    return times[len(times) // 2]

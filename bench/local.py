"""Everybody on one machine, on every kind of server, and parts of the work alone."""

from __future__ import annotations

from collections.abc import Iterator

from bench.machinery import BARE_SCAN, Run, measure, measure_parts, present, running
from bench.machinery.contestants import CLIENT_SIDE, LIMIT, OURS, REPLAY, TINYTOWN
from bench.results import ROUNDS, Bar, Results
from tests.servers import Kind


def runs(kind: Kind, keys: int, few: int) -> Iterator[Run]:
    """All on the same keys. Those that send a command a key get few, and run once."""
    with running(kind) as server:
        for _ in range(ROUNDS):
            for contestant in present(kind, OURS, CLIENT_SIDE, LIMIT):
                yield measure(server, contestant, keys)
            yield from measure_parts(server, keys)
        for contestant in present(kind, REPLAY, TINYTOWN):
            yield measure(server, contestant, few)


def cpu_ratio(results: Results, server: str, contestant: str) -> float:
    """A contestant's CPU on the server, as a multiple of the limit's and a bare SCAN's together."""

    def cpu(name: str) -> float:
        wanted = {"server": server, "contestant": name, "keys": results.keys}
        return results.median("server_seconds", experiment="local", **wanted)

    return cpu(contestant) / (cpu(LIMIT.name) + cpu(BARE_SCAN))


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""
    for server in results.values("server", experiment="local"):
        what = f"{server}: server CPU, against `{LIMIT.name}` and a bare SCAN"
        yield Bar(what, 1.25, cpu_ratio(results, server, OURS.name), unit="x")

    def seconds(name: str) -> float:
        wanted = {"server": results.server, "contestant": name, "keys": results.keys}
        return results.median("seconds", experiment="local", **wanted)

    for contestant, wanted in ((REPLAY, 20), (TINYTOWN, 8), (CLIENT_SIDE, 1.4)):
        what = f"local, {results.keys:,} keys: faster than {contestant.name}"
        got = seconds(contestant.name) / seconds(OURS.name)
        yield Bar(what, wanted, got, at_least=True, unit="x")

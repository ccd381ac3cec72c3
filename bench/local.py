"""Everybody on one machine, on every kind of server, and parts of the work alone."""

from __future__ import annotations

from collections.abc import Iterator

from bench.machinery import (
    CLIENT_SIDE,
    LIMIT,
    OURS,
    REPLAY,
    TINYTOWN,
    Run,
    limit,
    measure,
    measure_within,
    migrate,
    rename_all,
    running,
    scan,
    scan_in_script,
    tinytown,
)
from bench.results import ROUNDS, Bar, Results
from tests.servers import Kind

BARE_SCAN = "bare SCAN"
SCRIPT_SCAN = "SCAN in a script"
FLOOR = "a script that checks nothing"
AGAIN = "tt-migrate once more, finding nothing"


def runs(kind: Kind, keys: int, few: int) -> Iterator[Run]:
    """All on the same keys. Those that send a command a key get few, and run once."""
    with running(kind) as server:
        for _ in range(ROUNDS):
            for contestant in (OURS, CLIENT_SIDE, *limit()):
                yield measure(server, contestant, keys)
            yield measure_within(server, BARE_SCAN, keys, scan)
            yield measure_within(server, SCRIPT_SCAN, keys, scan_in_script)
            yield measure_within(server, FLOOR, keys, rename_all)
            yield measure_within(server, AGAIN, keys, migrate, before=migrate)
        for contestant in (REPLAY, *tinytown(kind)):
            yield measure(server, contestant, few)


def cpu_ratio(results: Results, server: str, contestant: str) -> float:
    """A contestant's CPU on the server, as a multiple of the limit's and a bare SCAN's together."""

    def cpu(name: str) -> float:
        wanted = {"server": server, "contestant": name, "keys": results.keys}
        return results.median("server_seconds", experiment="local", **wanted)

    return cpu(contestant) / (cpu(LIMIT) + cpu(BARE_SCAN))


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""
    for server in results.values("server", experiment="local"):
        what = f"{server}: server CPU, against `{LIMIT}` and a bare SCAN"
        yield Bar(what, 1.25, cpu_ratio(results, server, OURS.name), unit="x")

    def seconds(name: str) -> float:
        wanted = {"server": results.server, "contestant": name, "keys": results.keys}
        return results.median("seconds", experiment="local", **wanted)

    for name, wanted in ((REPLAY.name, 20), (TINYTOWN, 8), (CLIENT_SIDE.name, 1.4)):
        what = f"local, {results.keys:,} keys: faster than {name}"
        got = seconds(name) / seconds(OURS.name)
        yield Bar(what, wanted, got, at_least=True, unit="x")

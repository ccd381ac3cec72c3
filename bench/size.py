"""From few keys to many, and a preview of the most."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan

from bench.machinery import Run, measure, ours, running
from bench.machinery.contestants import CLIENT_SIDE, OURS, REPLAY
from bench.results import ROUNDS, Bar, Results
from tests.servers import Kind

PREVIEW = ours("--dry-run", moves=False)


def runs(kind: Kind, most: int) -> Iterator[Run]:
    """1,000 keys, and on tenfold to the most."""
    with running(kind) as server:
        sizes = [10**n for n in range(3, len(str(most))) if 10**n < most]
        for keys in (*sizes, most):
            for _ in range(ROUNDS):
                yield measure(server, OURS, keys)
            yield measure(server, CLIENT_SIDE, keys)
            if keys <= 10_000:
                yield measure(server, REPLAY, keys)
        for _ in range(ROUNDS):
            yield measure(server, PREVIEW, most)


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""
    sizes = results.values("keys", experiment="size")
    most = max(sizes, default=0)

    def median(what: str, name: str = OURS.name, keys: int = most) -> float:
        return results.median(what, experiment="size", contestant=name, keys=keys)

    costs = [median("server_seconds", keys=keys) / keys for keys in sizes if keys >= 10_000]
    what = "server time a key from 10,000 to the most keys: highest against lowest"
    yield Bar(what, 1.3, max(costs, default=nan) / min(costs, default=nan), unit="x")
    yield Bar(f"memory for {most:,} keys", 60, median("client_mb"), unit=" MiB")
    listing = median("client_mb", PREVIEW.name)
    yield Bar(f"memory to list {most:,} keys", 300, listing, unit=" MiB")
    yield Bar(f"time to list {most:,} keys", 10, median("seconds", PREVIEW.name), unit=" s")

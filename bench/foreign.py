"""A town among ten times as many keys of others."""

from __future__ import annotations

from collections.abc import Iterator

from bench.machinery import Run, measure, running
from bench.machinery.contestants import CLIENT_SIDE, OURS, SCANNING
from bench.results import ROUNDS, Bar, Results
from tests.servers import Kind


def runs(kind: Kind, keys: int) -> Iterator[Run]:
    """The replay only scans, and once."""
    with running(kind) as server:
        for contestant in (*[OURS, CLIENT_SIDE] * ROUNDS, SCANNING):
            yield measure(server, contestant, keys, foreign=10 * keys)


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""
    what = f"{results.keys:,} keys among ten times as many others: faster than {SCANNING.name}"
    slow, fast = (
        results.median("seconds", experiment="foreign", contestant=contestant.name)
        for contestant in (SCANNING, OURS)
    )
    yield Bar(what, 5, slow / fast, at_least=True, unit="x")

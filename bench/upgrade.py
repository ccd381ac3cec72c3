"""The upgrade of a town's records, near and far, against a pipeline and Tinytown's own commands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.far import FAR, JITTERY, contestant_at
from bench.machinery import Run, delayed, measure, ours, present, running
from bench.machinery.contestants import CLIENT_SIDE_UPGRADE, TINYTOWN_UPGRADE
from bench.results import ROUNDS, Bar, Results
from tests.servers import Kind

UPGRADE = ours("--upgrade", converts=True)
PREVIEW = ours("--upgrade", "--dry-run", moves=False, converts=True)
_TINYTOWNS_SHARE = 20


def runs(kind: Kind, keys: int) -> Iterator[Run]:
    """All near, and ours and the pipeline far away. Tinytown gets few, and runs once."""
    records = keys // 5
    with running(kind) as server:
        for _ in range(ROUNDS):
            for number in (records, keys):
                for contestant in present(kind, UPGRADE, CLIENT_SIDE_UPGRADE):
                    yield measure(server, contestant, number)
            yield measure(server, PREVIEW, records)
            for contestant in present(kind, UPGRADE, CLIENT_SIDE_UPGRADE):
                for distance in (FAR, JITTERY):
                    with delayed(server.port, distance.rtt, distance.jitter) as port:
                        run = measure(server, contestant, records, port=port)
                    name = contestant_at(contestant, distance)
                    yield replace(run, contestant=name, rtt_ms=distance.rtt)
        for contestant in present(kind, TINYTOWN_UPGRADE):
            yield measure(server, contestant, records // _TINYTOWNS_SHARE)


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""
    few, many = results.keys // 5, results.keys

    def median(what: str, name: str, keys: int) -> float:
        return results.median(what, experiment="upgrade", contestant=name, keys=keys)

    ours_, theirs = UPGRADE.name, CLIENT_SIDE_UPGRADE.name
    for keys, wanted in ((few, 1.0), (many, 1.5)):
        got = median("seconds", theirs, keys) / median("seconds", ours_, keys)
        what = f"`{ours_}`, {keys:,} records: faster than {theirs}"
        yield Bar(what, wanted, got, at_least=True, unit="x")
    for keys, wanted in ((few, 4.0), (many, 2.5)):
        got = median("server_seconds", ours_, keys) / median("server_seconds", theirs, keys)
        yield Bar(f"`{ours_}`, {keys:,} records: server CPU of {theirs}", wanted, got, unit="x")
    near = median("seconds", ours_, few)
    for distance, wanted in ((FAR, 1.3), (JITTERY, 1.6)):
        got = median("seconds", contestant_at(UPGRADE, distance), few) / near
        what = f"`{ours_}`, {few:,} records: {distance.name}, as long as near"
        yield Bar(what, wanted, got, unit="x")
    there = contestant_at(CLIENT_SIDE_UPGRADE, FAR)
    got = median("seconds", there, few) / median("seconds", contestant_at(UPGRADE, FAR), few)
    what = f"`{ours_}`, {few:,} records: faster than {there}"
    yield Bar(what, 4.0, got, at_least=True, unit="x")

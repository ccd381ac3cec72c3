"""A cluster with one shard, where a key is copied and deleted, against a plain server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.machinery import Run, measure, ours, running
from bench.machinery.contestants import OURS
from bench.results import ROUNDS, Bar, Results
from tests.servers import Kind

UPGRADE = ours("--upgrade", converts=True)


def runs(kind: Kind, keys: int) -> Iterator[Run]:
    """Renaming, and an upgrade of a fifth as many records."""
    with running(kind) as plain, running(kind, in_cluster=True) as shard:
        for _ in range(ROUNDS):
            for contestant, number in ((OURS, keys), (UPGRADE, keys // 5)):
                yield measure(plain, contestant, number)
                run = measure(shard, contestant, number)
                yield replace(run, server=_shard(kind.name))


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""

    def seconds(server: str, name: str, keys: int) -> float:
        wanted = {"server": server, "contestant": name, "keys": keys}
        return results.median("seconds", experiment="shard", **wanted)

    for contestant, keys in ((OURS, results.keys), (UPGRADE, results.keys // 5)):
        shard, plain = (
            seconds(server, contestant.name, keys)
            for server in (_shard(results.server), results.server)
        )
        what = f"one shard, {keys:,} keys, `{contestant.name}`: as long as on a plain server"
        yield Bar(what, 2.5, shard / plain, unit="x")


def _shard(server: str) -> str:
    return f"{server}, one shard"

"""Clusters of several shards, against scripts that a person would write for the purpose."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from bench.machinery import Contestant, Run, data, run
from bench.machinery.contestants import OURS
from bench.machinery.process import program
from bench.results import ROUNDS, Bar, Results
from tests.clusters import Cluster, fill
from tests.servers import Kind

PIPELINED = Contestant(
    "pipelined DUMP, RESTORE, DEL", lambda url: program("cluster", data.TOWN, "pipelined")
)
ONE_BY_ONE = Contestant(
    "one key after the other", lambda url: program("cluster", data.TOWN, "one-by-one")
)
MASTERS = (1, 3, 6)
_FEWER = 20
"""One key after the other is slow: it gets so many times fewer keys."""


def runs(kind: Kind, keys: int) -> Iterator[Run]:
    """All of them on three masters, and ours also on one and on six."""
    for masters in MASTERS:
        with _cluster(kind, masters) as cluster:
            for _ in range(ROUNDS):
                yield _measure(cluster, OURS, keys)
                if masters == 3:
                    yield _measure(cluster, PIPELINED, keys)
                    yield _measure(cluster, ONE_BY_ONE, keys // _FEWER)


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""

    def speed(name: str, keys: int) -> float:
        wanted = {"server": _named(results.server, 3), "contestant": name, "keys": keys}
        return keys / results.median("seconds", experiment="cluster", **wanted)

    mine = speed(OURS.name, results.keys)
    for contestant, keys, wanted in (
        (PIPELINED, results.keys, 1.2),
        (ONE_BY_ONE, results.keys // _FEWER, 20),
    ):
        what = f"three masters, {results.keys:,} keys: as fast as {contestant.name}"
        measured = mine / speed(contestant.name, keys)
        yield Bar(what, wanted, measured, at_least=True, unit="x")


@contextmanager
def _cluster(kind: Kind, masters: int) -> Iterator[Cluster]:
    cluster = Cluster.start(kind, masters=masters)
    try:
        yield cluster
    finally:
        cluster.stop()


def _measure(cluster: Cluster, contestant: Contestant, keys: int) -> Run:
    """Fill the cluster, run the contestant, check that it has moved every key."""
    cluster.reset()
    fill(cluster, (("SET", data.old_key(n).decode(), str(n)) for n in range(keys)))
    clients = [server.client() for server in cluster.masters]
    cpu = sum(map(_cpu, clients))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tinytown.toml").write_text(f'name = "{data.TOWN}"\n')
        process = run(
            contestant.command(cluster.url),
            directory=Path(folder),
            environment={"REDIS_URL": cluster.url},
        )
    cpu = sum(map(_cpu, clients)) - cpu
    _check(clients, keys)
    return Run(
        server=_named(cluster.masters[0].kind.name, len(clients)),
        contestant=contestant.name,
        keys=keys,
        seconds=process.seconds,
        server_seconds=cpu,
        client_mb=process.peak_mb,
    )


def _check(clients: list[Redis], keys: int) -> None:
    """Exit with a message unless there are the new keys, with their values, and no others."""
    found: dict[bytes, Any] = {}
    for client in clients:
        names = [*client.scan_iter(count=1000)]
        batch = client.pipeline(transaction=False)
        for name in names:
            batch.get(name)
        found |= zip(names, batch.execute(), strict=True)
    if found != {data.new_key(n): b"%d" % n for n in range(keys)}:
        raise SystemExit(f"bench: {len(found)} keys are there, not the {keys} new ones")


def _cpu(client: Redis) -> float:
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def _named(kind: str, masters: int) -> str:
    return f"{kind}, {masters} {'master' if masters == 1 else 'masters'}"

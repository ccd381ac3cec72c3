"""One contestant, one server, one set of keys: what the migration took."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from bench.machinery import data
from bench.machinery.contestants import Calls, Contestant
from bench.machinery.process import run
from tests.servers import Kind, Server

SLOW_MS = 10
"""Redis' own threshold for its SLOWLOG."""

_NOTED_MS = 1


@dataclass(frozen=True)
class Run:
    """What one run of one contestant cost.

    `keys` old keys and `foreign` others were there, `rtt_ms` milliseconds away. `seconds`: from the
    process' start to its end. `round_trips`: None where unknown. `server_seconds`: of the server's
    CPU. `client_mb`: the process' peak memory, MiB. `longest_ms`: the longest command in the
    server's SLOWLOG, 0 below 1 ms; `slow`: how many there took 10 ms or more. `experiment`: of
    which it is a part.
    """

    server: str
    contestant: str
    keys: int
    foreign: int = 0
    rtt_ms: float = 0
    seconds: float = 0
    round_trips: int | None = None
    server_seconds: float = 0
    client_mb: float = 0
    longest_ms: float = 0
    slow: int = 0
    experiment: str = ""


@contextmanager
def running(kind: Kind, *, in_cluster: bool = False) -> Iterator[Server]:
    """A server of this kind, or a cluster of one, until the end of the block."""
    server = Server.start(kind, *(("--cluster-enabled", "yes") if in_cluster else ()))
    try:
        if in_cluster:
            server.own_all_slots()
        yield server
    finally:
        server.stop()


def measure(
    server: Server,
    contestant: Contestant,
    keys: int,
    *,
    foreign: int = 0,
    port: int | None = None,
    beside: AbstractContextManager[None] | None = None,
) -> Run:
    """Fill the server, run the contestant over a port, check that it moved every key.

    `beside`: what goes on while it runs.
    """
    redis = server.client()
    if contestant.converts:
        data.fill_records(redis, keys)
    else:
        data.fill(redis, keys, foreign)
    redis.config_set("slowlog-log-slower-than", _NOTED_MS * 1000)
    redis.config_set("slowlog-max-len", 100_000)
    redis.slowlog_reset()
    url = f"redis://127.0.0.1:{port or server.port}/0"
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "tinytown.toml").write_text(f'name = "{data.TOWN}"\n')
        feed = directory / "commands"
        if contestant.is_fed:
            data.write_renames(feed, keys)
        calls, cpu = _calls(redis), server_cpu(redis)
        with beside or nullcontext():
            process = run(
                contestant.command(url),
                directory=directory,
                environment={"REDIS_URL": url, "PYTHONPATH": contestant.libraries},
                stdin=feed if contestant.is_fed else None,
            )
        cpu = server_cpu(redis) - cpu
        calls = _difference(calls, _calls(redis))
    slowlog: list[Any] = redis.slowlog_get(100_000)
    taken = [entry["duration"] / 1000 for entry in slowlog]
    if contestant.converts:
        data.check_records(redis, keys, moved=contestant.moves)
    else:
        data.check(redis, data.new_key if contestant.moves else data.old_key, keys, foreign)
    return Run(
        server=server.kind.name,
        contestant=contestant.name,
        keys=keys,
        foreign=foreign,
        seconds=process.seconds,
        round_trips=contestant.round_trips(calls),
        server_seconds=cpu,
        client_mb=process.peak_mb,
        longest_ms=max(taken, default=0),
        slow=sum(ms >= SLOW_MS for ms in taken),
    )


def server_cpu(redis: Redis) -> float:
    """Seconds of CPU that the server's process has used until now."""
    info: Any = redis.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def _calls(redis: Redis) -> dict[str, int]:
    stats: Any = redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): value["calls"] for name, value in stats.items()}


def _difference(before: Calls, after: Calls) -> dict[str, int]:
    # Its own: an INFO is counted once it has been answered, so the first of them is in the second.
    own = {"info": 3}
    return {
        name: calls - before.get(name, 0) - own.get(name, 0)
        for name, calls in after.items()
        if name != "get"  # another client's, who asks meanwhile
    }

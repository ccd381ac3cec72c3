"""Run the benchmark: `make bench`, or `make bench KEYS=100000`."""

from __future__ import annotations

import argparse
import time

from redis import Redis

from tests.servers import Server, kinds
from tt_migrate import Migrator
from tt_migrate.results import Effort

SLOW_MS = 10
FAMILIES = ("agent", "inbox", "urgent", "task", "activity", "stop")


def main() -> None:
    """Migrate one large town on each kind of server and print what it cost."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--keys", type=int, default=1_000_000)
    keys = parser.parse_args().keys
    print(f"{keys} old keys, default --max-pause, one run each.")
    print(f"This machine made a busy loop wait for {SLOW_MS} ms {stalls()} times in 20 s;")
    print("what a server waits like that is in its SLOWLOG and longest pause, too.\n")
    print("| server | run | seconds | batches | longest pause | SLOWLOG entries at 10 ms |")
    print("|---|---|---|---|---|---|")
    for kind in kinds():
        if kind.program is None:
            print(f"| {kind.name} | not at hand: {kind.why_missing} | | | | |")
            continue
        server = Server.start(kind)
        try:
            measure(kind.name, server.client(), keys)
        finally:
            server.stop()


def stalls(seconds: float = 20) -> int:
    """How often the machine lets a process that never sleeps stand still for SLOW_MS."""
    found, last = 0, time.perf_counter()
    end = last + seconds
    while last < end:
        now = time.perf_counter()
        found += now - last >= SLOW_MS / 1000
        last = now
    return found


def measure(name: str, redis: Redis, keys: int) -> None:
    """Fill one server, count, preview and migrate, with SLOWLOG at its default threshold."""
    fill(redis, keys)
    redis.config_set("slowlog-log-slower-than", SLOW_MS * 1000)
    redis.config_set("slowlog-max-len", 10_000)
    migrator = Migrator(redis, "my-project")
    for run in ("count", "preview", "migrate"):
        redis.slowlog_reset()
        result = getattr(migrator, run)()
        assert result.total == keys, f"{run} found {result.total} of {keys} keys"
        effort: Effort = result.effort
        print(
            f"| {name} | {run} | {effort.seconds:.1f} | {effort.batches} |"
            f" {effort.max_pause_ms:.1f} ms | {redis.slowlog_len()} |",
            flush=True,
        )


def fill(redis: Redis, keys: int) -> None:
    """Write old keys of all families with ids like Tinytown's."""
    for start in range(0, keys, 10_000):
        redis.mset(
            {
                f"tt:{FAMILIES[n % 6]}:{n:08x}-0000-4000-8000-{n:012x}": n
                for n in range(start, min(start + 10_000, keys))
            }
        )


main()

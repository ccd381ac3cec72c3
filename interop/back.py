"""The way back: 0.10.0 works in an upgraded town, which is then downgraded, and 0.6.0 reads it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from redis import Redis

from interop import keys, town06
from interop.tinytown import OLD, Town

_OURS = (sys.executable, "-m", "tt_migrate")
AGENT, TASK, MESSAGE, BACKLOG = "tester", "A task of today", "A message of today", "For later"


def table(town: Town, redis: Redis, old: Path, new: Path, made: list[keys.Key]) -> str:
    """Make the journey, and return its rows: what 0.6.0 shows of each thing."""
    redis.flushall()
    keys.put(redis, made)
    town.must(*_OURS, "--upgrade", "--force")
    town.must(*_OURS, "--downgrade", "--force")
    is_same = [*map(_timeless, keys.read(redis))] == [*map(_timeless, made)]
    same = "exactly the original keyspace" if is_same else "**another keyspace**"
    town.must(*_OURS, "--upgrade", "--force")
    work(town, new)
    said = town.must(*_OURS, "--downgrade", "--force")
    print(said)
    rows = _rows(town, old, same)
    return "\n".join(("| after the way back | what 0.6.0 has |", "|---|---|", *rows))


def _timeless(key: keys.Key) -> keys.Key:
    """A key without the seconds that it still lives."""
    return {**key, "ttl": key["ttl"] >= 0}


def work(town: Town, new: Path) -> None:
    """Make an agent, tasks and messages with 0.10.0."""
    town.must(new, "spawn", AGENT, "--max-rounds", "1", "--cli", "true")
    town.must(new, "assign", AGENT, "The first task of 0.10.0")
    deadline = time.monotonic() + 30
    while "stopped" not in town.must(new, "list").lower().partition(AGENT)[2][:200]:
        if time.monotonic() > deadline:
            raise TimeoutError("the agent of tinytown 0.10.0 did not end")
        time.sleep(0.5)
    town.must(new, "assign", AGENT, TASK)
    town.must(new, "send", town06.AGENTS[0], MESSAGE)
    town.must(new, "backlog", "add", BACKLOG)


def _rows(town: Town, old: Path, same: str) -> Iterator[str]:
    yield f"| upgraded and downgraded, nothing else | {same} |"
    looks = {
        "agents, with one of 0.10.0": (("list",), (*town06.AGENTS, AGENT)),
        "tasks, with one of 0.10.0": (("tasks",), (*town06.TASKS, TASK)),
        "the backlog": (("backlog", "list"), (*town06.BACKLOG, BACKLOG)),
        "messages, with one of 0.10.0": (("inbox", town06.AGENTS[0]), ("4 messages",)),
        "the status": (("status", "--deep"), (*town06.AGENTS, AGENT)),
    }
    for what, (command, texts) in looks.items():
        ran = town.run(old, *command)
        missing = [text for text in texts if text not in ran.text]
        print(f"$ tt {' '.join(command)}   # tinytown {OLD}, exit status {ran.status}\n{ran.text}")
        shown = f"**misses** {', '.join(missing)}" if missing or ran.status else "everything"
        yield f"| {what} | `tt {' '.join(command)}` shows {shown} |"

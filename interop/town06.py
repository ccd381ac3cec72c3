"""Creates a town with the commands of Tinytown 0.6.0, and adds keys of other origins."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from redis import Redis

from interop.tinytown import Town

AGENTS = ("backend", "reviewer")
TASKS = ('Fix the "login" page / ä ö ü', "Review the schema")
MESSAGES = ("Please look at the build", "Which port is it?", "The build is red", "Still red")
BACKLOG = ("Write the release notes", "Measure the import")

EARLY = json.dumps({"type": "informational", "summary": "arrived under the new name"})
OLD_AGENT = "0a0a0a0a-0000-4000-8000-000000000002"
OLDEST_AGENT = "0a0a0a0a-0000-4000-8000-000000000001"
BAD_TASK = "0b0b0b0b-0000-4000-8000-000000000001"
WIDE_TASK = "0b0b0b0b-0000-4000-8000-000000000002"


def build(town: Town, tt: Path) -> None:
    """Create agents, tasks, messages, a stop flag and a backlog with 0.6.0."""
    town.must(tt, "init", "-n", town.name)
    for agent in AGENTS:
        # Run one round of a command that does nothing, so that the agent logs its activity.
        town.must(tt, "spawn", agent, "--max-rounds", "1", "--cli", "true")
        town.must(tt, "assign", agent, "The first task")
    deadline = time.monotonic() + 30
    while town.must(tt, "list").count("Stopped") < len(AGENTS):
        if time.monotonic() > deadline:
            raise TimeoutError("the agents of tinytown 0.6.0 did not end")
        time.sleep(0.2)
    first, second = AGENTS
    town.must(tt, "kill", first)
    town.must(tt, "assign", first, TASKS[0])
    town.must(tt, "assign", second, TASKS[1])
    town.must(tt, "send", first, MESSAGES[0])
    town.must(tt, "send", "--query", first, MESSAGES[1])
    town.must(tt, "send", "--urgent", first, MESSAGES[2])
    town.must(tt, "send", "--urgent", first, MESSAGES[3])
    for task in BACKLOG:
        town.must(tt, "backlog", "add", task)


def add_what_others_leave(redis: Redis, town: str) -> None:
    """Add keys that a town can also have: of older versions or other towns, damaged, early."""
    agent = {"name": "old", "agent_type": "worker", "state": "idle", "tasks_completed": 3}
    redis.set(f"tt:agent:{OLD_AGENT}", json.dumps({"id": OLD_AGENT, **agent, "model": "claude"}))
    redis.set(f"mt:agent:{OLDEST_AGENT}", json.dumps({"id": OLDEST_AGENT, **agent, "cli": "x"}))
    redis.set(f"tt:task:{BAD_TASK}", '{"id": "cut off')
    task = {
        "id": WIDE_TASK,
        "description": "wide",
        "state": "pending",
        "estimate": 9007199254740993,
    }
    redis.set(f"tt:task:{WIDE_TASK}", json.dumps(task), ex=86400)
    redis.rpush("tt:task:backlog", WIDE_TASK)
    inboxes: list[Any] = redis.keys("tt:inbox:*")
    redis.rpush(min(inboxes).decode().replace("tt:", f"tt:{town}:"), EARLY)

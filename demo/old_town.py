"""A small town in the format of Tinytown 0.6 and older. It is the same at every run."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

from redis import Redis

_CREATED = "2026-03-02T09:15:00.123456Z"
SUPERVISOR = UUID(int=1)
_AGENTS = ("conductor", "backend", "frontend", "reviewer", "tester", "docs")
_TASKS = (
    "Add pagination to the orders endpoint",
    "Fix the flaky login test",
    "Write the release notes",
    "Review the database schema",
    "Show an empty state in the list view",
    "Measure the import job",
    "Update the deployment guide",
    "Rename the staging bucket",
)


def settle(town: Path, socket: str) -> None:
    """Create a town's directory whose Redis listens on `socket`."""
    (town / ".tt").mkdir(parents=True)
    (town / "tinytown.toml").write_text('name = "my-project"\n')
    (town / ".tt" / "redis.sock").symlink_to(socket)


def build(redis: Redis) -> int:
    """Write the town's keys. Returns how many."""
    agents = {SUPERVISOR: "supervisor"}
    agents.update({_uuid("a", n): name for n, name in enumerate(_AGENTS)})
    tasks = {_uuid("7", n): text for n, text in enumerate(_TASKS)}
    workers = list(agents)[2:]
    before: int = redis.dbsize()
    for agent, name in agents.items():
        redis.set(f"tt:agent:{agent}", _agent(agent, name))
        redis.rpush(f"tt:inbox:{agent}", *(_message(agent, text) for text in _TASKS[:2]))
        redis.lpush(f"tt:activity:{agent}", f"{name}: started", f"{name}: waiting for tasks")
        redis.expire(f"tt:activity:{agent}", 3600)
    for number, (task, text) in enumerate(tasks.items()):
        redis.set(f"tt:task:{task}", _task(task, text, workers[number % len(workers)]))
    redis.lpush(f"tt:urgent:{workers[0]}", _message(workers[0], "The build is red"))
    redis.set(f"tt:stop:{workers[-1]}", "1", ex=3600)
    redis.rpush("tt:backlog", *map(str, tasks))
    return int(redis.dbsize()) - before


def _uuid(digit: str, number: int) -> UUID:
    return UUID(hex=digit * 8 + "4c1d4e8f9a2b" + f"{number:012x}")


def _agent(agent: UUID, name: str) -> str:
    return json.dumps(
        {
            "id": str(agent),
            "name": name,
            "agent_type": "supervisor" if agent == SUPERVISOR else "worker",
            "state": "idle",
            "cli": "claude",
            "current_task": None,
            "created_at": _CREATED,
            "last_heartbeat": _CREATED,
            "tasks_completed": 3,
        }
    )


def _task(task: UUID, text: str, agent: UUID) -> str:
    return json.dumps(
        {
            "id": str(task),
            "description": text,
            "state": "assigned",
            "assigned_to": str(agent),
            "created_at": _CREATED,
            "updated_at": _CREATED,
            "result": None,
            "tags": [],
        }
    )


def _message(to: UUID, text: str) -> str:
    return json.dumps({"from": str(SUPERVISOR), "to": str(to), "type": "query", "question": text})

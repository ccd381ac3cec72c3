"""A town of 0.10.0 gets another name in its file, and then its keys by `--from-town`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from redis import Redis

from interop import back, keys, town06
from interop.tinytown import NEW, Town

_OURS = (sys.executable, "-m", "tt_migrate")
_NAME = "my-town-feature-x"
_TIMES = re.compile(r"^[-\d]+T[:.\d]+Z|uptime \d+s|\d+m ago", re.MULTILINE)
_LOOKS = {
    "agents": ("list",),
    "tasks": ("task", "list"),
    "the backlog": ("backlog", "list"),
    "messages": ("inbox", town06.AGENTS[0]),
    "missions": ("mission", "list"),
    "history": ("history",),
    "events": ("events",),
    "the status": ("status", "--deep"),
}


def table(town: Town, redis: Redis, new: Path, made: list[keys.Key]) -> str:
    """Rename the town, and return its rows: what 0.10.0 shows of each thing."""
    redis.flushall()
    keys.put(redis, made)
    town.must(*_OURS, "--upgrade", "--force")
    back.work(town, new)
    document = town.directory / "plan.md"
    document.write_text("# A plan\n\n- do it\n")
    town.must(new, "mission", "start", "--doc", document.name)
    before = _seen(town, new)
    file = town.directory / "tinytown.toml"
    file.write_text(file.read_text().replace(f'name = "{town.name}"', f'name = "{_NAME}"'))
    empty = "No agents" in town.must(new, "list")
    told = f"--from-town {town.name}" in town.must(*_OURS, "--check")
    print(town.must(*_OURS, "--from-town", town.name, "--force"))
    rows = [*_rows(before, _seen(town, new))]
    town.must(new, "assign", back.AGENT, "A task under the new name")
    left: list[bytes] = redis.keys(f"tt:{town.name}:*")  # type: ignore[assignment]
    head = (
        "| a town that got another name | what 0.10.0 has |",
        "|---|---|",
        f"| before `--from-town` | {'no agents' if empty else '**agents**'}; `tt migrate --check`"
        f" {'names' if told else '**does not name**'} the option |",
    )
    own = f"| keys with the old name, after more work | {len(left) or 'none'} |"
    return "\n".join((*head, *rows, own))


def _seen(town: Town, new: Path) -> dict[str, list[str]]:
    """The lines that 0.10.0 shows of each thing, without the town's name, times and an order."""
    seen = {}
    for what, command in _LOOKS.items():
        text = town.must(new, *command)
        print(f"$ tt {' '.join(command)}   # tinytown {NEW}\n{text}")
        text = _TIMES.sub("", text.replace(_NAME, "NAME").replace(town.name, "NAME"))
        seen[what] = sorted(text.splitlines())
    return seen


def _rows(before: dict[str, list[str]], after: dict[str, list[str]]) -> Iterator[str]:
    for what, command in _LOOKS.items():
        shows = "the same as before" if before[what] == after[what] else "**something else**"
        yield f"| {what} | `tt {' '.join(command)}` shows {shows} |"

"""Compares this project with Tinytown's own migration on the same keys, in a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from interop import keys, town06
from interop.tinytown import Ran, Town

Keyspace = dict[str, keys.Key]


@dataclass(frozen=True)
class Outcome:
    """The keys after a migration, and the result of its last command."""

    after: Keyspace
    ran: Ran


def table(town: Town, redis: Redis, tt: Path, made: list[keys.Key]) -> str:
    """Return the Markdown table of both outcomes. Flushes the server before each migration."""

    def ours() -> Ran:
        return town.run(
            *(sys.executable, "-m", "tt_migrate", "--upgrade", "--force"),
            *("--on-conflict", "merge"),
        )

    def original() -> Ran:
        town.must(tt, "migrate", "--force")
        return town.run(tt, "migrate", "--hash", "--force")

    def both(prepare: Callable[[], None]) -> tuple[Outcome, Outcome]:
        return _outcome(redis, made, prepare, ours), _outcome(redis, made, prepare, original)

    def nothing() -> None:
        """Leave the keys as 0.6.0 wrote them."""

    def others() -> None:
        town06.add_what_others_leave(redis, town.name)

    def full() -> None:
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", 1)

    lines = ["| the town | tt-migrate --upgrade --on-conflict merge | Tinytown's own migration |"]
    lines += ["|---|---|---|"]
    questions: list[tuple[str, Callable[[], None], Callable[[Outcome], str]]] = [
        ("as 0.6.0 left it", nothing, lambda o: _records(o, town.name)),
        ("a message that came under the new name", others, lambda o: _early(o, town.name)),
        ("an agent of 0.2, with `model`", others, lambda o: _old_agent(o, town.name)),
        ("an agent of 0.1, `mt:agent:<id>`", others, lambda o: _oldest_agent(o, town.name)),
        ("a field that Tinytown does not know", others, lambda o: _field(o, town.name)),
        ("the TTL of a record", others, lambda o: _ttl(o, town.name)),
        ("`tt:task:backlog` of a town named `task`", others, _town_task),
        ("a record that is no JSON", others, lambda o: _bad(o, town.name)),
        ("a full server", full, lambda o: _full(o, made)),
    ]
    for title, prepare, answer in questions:
        one, other = both(prepare)
        lines.append(f"| {title} | {answer(one)} | {answer(other)} |")
    return "\n".join(lines)


def _outcome(
    redis: Redis, made: list[keys.Key], prepare: Callable[[], None], migrate: Callable[[], Ran]
) -> Outcome:
    redis.flushall()
    keys.put(redis, made)
    prepare()
    try:
        ran = migrate()
    finally:
        redis.config_set("maxmemory", 0)
    return Outcome({key["name"]: key for key in keys.read(redis)}, ran)


def _records(outcome: Outcome, town: str) -> str:
    parts = [name.split(":") for name in outcome.after]
    hashes = [key for key in outcome.after.values() if key["type"] == "hash"]
    fields = sum(len(key["value"]) for key in hashes)
    moved = sum(part[1] == town for part in parts)
    return (
        f"{moved} of {len(parts)} keys moved, {len(hashes)} hashes with {fields} fields, status"
        f" {outcome.ran.status}"
    )


def _early(outcome: Outcome, town: str) -> str:
    inboxes = [
        key["value"] for name, key in outcome.after.items() if name.startswith(f"tt:{town}:inbox:")
    ]
    kept = any(town06.EARLY in inbox for inbox in inboxes)
    return "both lists, joined" if kept else "**lost**: the list was overwritten"


def _old_agent(outcome: Outcome, town: str) -> str:
    agent = outcome.after[f"tt:{town}:agent:{town06.OLD_AGENT}"]["value"]
    return f"`cli` is {agent['cli']}" if agent.get("cli") else "no `cli`, `model` is **lost**"


def _oldest_agent(outcome: Outcome, town: str) -> str:
    key = outcome.after.get(f"tt:{town}:agent:{town06.OLDEST_AGENT}")
    return f"a {key['type']} of the town" if key else "left where nothing reads it"


def _field(outcome: Outcome, town: str) -> str:
    task = outcome.after[f"tt:{town}:task:{town06.WIDE_TASK}"]["value"]
    return f"kept: {task['estimate']}" if "estimate" in task else "**lost**"


def _ttl(outcome: Outcome, town: str) -> str:
    ttl = outcome.after[f"tt:{town}:task:{town06.WIDE_TASK}"]["ttl"]
    return "kept" if ttl > 0 else "**lost**: it never expires"


def _town_task(outcome: Outcome) -> str:
    return "left to that town" if "tt:task:backlog" in outcome.after else "**taken away** from it"


def _bad(outcome: Outcome, town: str) -> str:
    key = outcome.after[f"tt:{town}:task:{town06.BAD_TASK}"]
    named = town06.BAD_TASK in outcome.ran.text
    report = "listed with the reason" if named else "not named"
    whole = "untouched" if key["type"] == "string" else "changed"
    return f"{whole}, {report}, status {outcome.ran.status}"


def _full(outcome: Outcome, made: list[keys.Key]) -> str:
    ids = {
        json.loads(key["value"])["id"]
        for key in made
        if key["name"].startswith(("tt:agent:", "tt:task:"))
    }
    left = sum(any(name.endswith(key_id) for name in _records_of(outcome)) for key_id in ids)
    gone = len(ids) - left
    hashes = sum(outcome.after[name]["type"] == "hash" for name in _records_of(outcome))
    kept = "every record converted" if hashes == len(ids) else "every record untouched"
    fate = f"**{gone} of {len(ids)} records destroyed**" if gone else kept
    return f"{fate}, status {outcome.ran.status}"


def _records_of(outcome: Outcome) -> list[str]:
    return [name for name in outcome.after if ":agent:" in name or ":task:" in name]

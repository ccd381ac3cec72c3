"""Whoever does what a report says about a kind of problem gets further."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from redis import Redis

from tests.command import tt_on_screen
from tests.servers import Server
from tt_migrate.terminal.reasons import KINDS

UUID = "00000000-0000-0000-0000-000000000001"
AGENT, OLD, UPGRADED = "tt:my-project:agent:1", "tt:agent:1", f"tt:my-project:agent:{UUID}"
GOOD = '{"id":"1","name":"n"}'
TIME = "2024-01-01T00:00:00Z"
HASH = {"id": UUID, "state": "idle", "created_at": TIME, "last_heartbeat": TIME}
Do = Callable[[Redis], object]


def put(key: str, text: str) -> Do:
    return lambda redis: redis.set(key, text, keepttl=True)


def drop(key: str) -> Do:
    return lambda redis: redis.delete(key)


def fields(key: str, **values: str) -> Do:
    return lambda redis: [redis.hset(key, name, text) for name, text in values.items()]


def moved(key: str, name: str) -> Do:
    return lambda redis: redis.renamenx(key, name)


def pushed(*keys: str) -> Do:
    return lambda redis: [redis.rpush(key, key) for key in keys]


def every(*steps: Do) -> Do:
    return lambda redis: [step(redis) for step in steps]


class Case(NamedTuple):
    """A problem, what the report says about it, and ways to do that."""

    options: str
    problem: Do
    title: str
    told: str
    ways: tuple[Do, ...]
    then: str = ""


RECORD = "correct the record (SET KEY JSON KEEPTTL), or delete it"
FIELD = "correct the record (HSET KEY FIELD VALUE), or delete it"
ONE = "compare the two, and delete or rename the one that is not needed"
BOTH_WAYS = (drop(OLD), drop(AGENT), moved(OLD, "tt:agent:2"), moved(AGENT, "tt:x:agent:1"))
MERGE = "--on-conflict merge"


def unreadable(text: str, title: str) -> Case:
    return Case("--upgrade", put(AGENT, text), title, RECORD, (put(AGENT, GOOD), drop(AGENT)))


def odd_hash(name: str, right: str) -> Case:
    title = "Has a value that cannot be converted"
    problem = fields(UPGRADED, **{**HASH, name: "odd"})
    ways = (fields(UPGRADED, **{name: right}), drop(UPGRADED))
    return Case("--downgrade", problem, title, FIELD, ways)


CASES = [
    Case("", every(put(OLD, "a"), put(AGENT, "b")), "Destination exists", ONE, BOTH_WAYS),
    Case(
        "",
        pushed("tt:inbox:1", "tt:my-project:inbox:1"),
        "Destination exists",
        "Lists and stop flags can be merged with their destinations: run 'tt migrate --on-conflict",
        (lambda _: None,),
        then=MERGE,
    ),
    Case(
        MERGE,
        every(put(OLD, GOOD), put(AGENT, '{"id":"1","name":"m"}')),
        "Destination exists and differs",
        ONE,
        BOTH_WAYS,
    ),
    Case(
        MERGE,
        every(put(OLD, GOOD), fields(AGENT, id="1", name="n")),
        "Destination exists with the same fields",
        ONE,
        BOTH_WAYS,
    ),
    Case(
        MERGE,
        every(put("tt:inbox:1", "a"), pushed("tt:my-project:inbox:1")),
        "Destination exists and is of another type",
        ONE,
        (drop("tt:inbox:1"), drop("tt:my-project:inbox:1")),
    ),
    Case(
        MERGE,
        every(put("tt:inbox:1", "a"), put("tt:my-project:inbox:1", "b")),
        "Destination exists, cannot be merged",
        ONE,
        (drop("tt:inbox:1"), drop("tt:my-project:inbox:1")),
    ),
    Case(
        f"--legacy-prefix mt {MERGE}",
        pushed("mt:inbox:backlog", "tt:my-project:inbox:backlog"),
        "Destination exists, and may be another town's own",
        "rename the key, not its destination",
        (moved("mt:inbox:backlog", "mt:inbox:backlog-1"),),
    ),
    Case(
        "--upgrade",
        put(AGENT, '{"id":"2","name":"n"}'),
        "Has another id than its key",
        "give the record the id of its key (SET KEY JSON KEEPTTL), or the key the id of its record",
        (put(AGENT, GOOD), moved(AGENT, "tt:my-project:agent:2")),
    ),
    unreadable("x", "Is no JSON"),
    unreadable("[]", "Has a wrong form"),
    unreadable('{"id":"1","id":"1"}', "Has a wrong form"),
    unreadable("[" * 2000, "Has a wrong form"),
    unreadable("{}", "Lacks a field"),
    unreadable('{"id":"1","tasks_completed":"x"}', "Has a value that cannot be converted"),
    unreadable('{"id":"1","name":"\\ud800"}', "Has a value that cannot be converted"),
    Case(
        "--upgrade",
        pushed(AGENT),
        "Is neither string nor hash",
        "rename or delete the key",
        (drop(AGENT), moved(AGENT, "kept")),
    ),
    Case(
        "--downgrade",
        fields(AGENT, **{**HASH, "id": "1"}),
        "Id is no UUID",
        "give record and key a UUID (HSET KEY FIELD VALUE, RENAMENX)",
        (every(fields(AGENT, id=UUID), moved(AGENT, UPGRADED)),),
    ),
    odd_hash("state", "idle"),
    odd_hash("current_task", UUID),
    odd_hash("agent_type", "worker"),
    odd_hash("last_heartbeat", TIME),
    odd_hash("tasks_completed", "1"),
    Case(
        "--downgrade",
        fields(UPGRADED, id=UUID, state="idle", created_at=TIME),
        "Lacks a field",
        FIELD,
        (fields(UPGRADED, last_heartbeat=TIME), drop(UPGRADED)),
    ),
    Case(
        "--downgrade",
        fields(UPGRADED, id="another", **{k: v for k, v in HASH.items() if k != "id"}),
        "Has another id than its key",
        "give the record the id of its key (HSET KEY FIELD VALUE), or",
        (fields(UPGRADED, id=UUID),),
    ),
    Case(
        "--downgrade",
        every(fields(UPGRADED, **HASH), lambda redis: redis.hexpire(UPGRADED, 100, "state")),
        "Has fields with times to live",
        "remove them (HPERSIST)",
        (lambda redis: redis.hpersist(UPGRADED, "state"),),
    ),
    Case(
        f"--from-town o {MERGE}",
        lambda redis: [
            redis.execute_command("XADD", f"tt:{town}:events", "*", *range(2 * 4000))
            for town in ("o", "my-project")
        ],
        "The streams cannot be merged",
        ONE,
        (drop("tt:o:events"), drop("tt:my-project:events")),
    ),
]


def on_screen(*options: str, url: str) -> tuple[int, str]:
    done = tt_on_screen(*options, url=url)
    return done.returncode, done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.options}: {case.title}".strip())
def test_what_a_report_says_about_a_problem_gets_further(newest: Server, case: Case) -> None:
    redis, options = newest.client(), case.options.split()
    for way in case.ways:
        redis.flushall()
        case.problem(redis)
        for mode in ("--dry-run", "--force"):
            _, report = on_screen(*options, mode, url=newest.url)
            assert re.search(rf"   {case.title} \(1 (key|record)\):", report), report
            assert case.told in report
        way(redis)
        assert on_screen(*options, *case.then.split(), "--force", url=newest.url)[0] == 0


def test_a_preview_sends_one_to_a_record_when_it_has_the_name_that_is_listed(
    newest: Server,
) -> None:
    redis = newest.client()
    redis.set(OLD, "x")
    _, report = on_screen("--upgrade", "--dry-run", url=newest.url)
    advice = f"   What to do: run 'tt migrate --upgrade'. Then {RECORD}, and run it again."
    assert f"   {AGENT} (is no JSON: Expecting value at character 0)\n{advice}\n" in report
    assert on_screen("--upgrade", "--force", url=newest.url)[0] == 1
    redis.set(AGENT, GOOD, keepttl=True)
    assert on_screen("--upgrade", "--force", url=newest.url)[0] == 0


def test_an_ambiguous_key_is_renamed_by_the_command_in_the_report(newest: Server) -> None:
    redis = newest.client()
    for options, key, new in (
        ((), "tt:task:backlog", "tt:my-project:task:backlog"),
        (("--reverse",), "tt:my-project:task:events", "tt:task:events"),
        (("--from-town", "o"), "tt:o:docket:events", "tt:my-project:docket:events"),
    ):
        redis.flushall()
        redis.set(key, "x")
        _, report = on_screen(*options, "--force", url=newest.url)
        assert "   Ambiguous keys, left alone (1 key):" in report
        found = re.search(r"What to do: nothing, .*: (RENAMENX \S+ \S+)\n", report)
        assert found
        assert redis.execute_command(*found[1].split()) == 1
        assert redis.keys() == [new.encode()]
        assert "Ambiguous" not in on_screen(*options, "--force", url=newest.url)[1]


def test_records_that_a_full_server_cannot_take_are_converted_when_it_has_room(
    newest: Server,
) -> None:
    redis = newest.client()
    redis.set(AGENT, GOOD)
    redis.config_set("maxmemory", "1")
    try:
        status, report = on_screen("--hash", "--force", url=newest.url)
    finally:
        redis.config_set("maxmemory", "0")
    assert status == 1
    assert "   The server is full (1 record):" in report
    assert "   What to do: free memory or raise maxmemory. Then run" in report
    assert on_screen("--hash", "--force", url=newest.url)[0] == 0


def test_keys_that_the_user_may_not_touch_move_once_they_are_permitted(newest: Server) -> None:
    redis = newest.client()
    redis.mset({"tt:agent:no": 1, "tt:agent:yes": 1})
    allowed = ("~tt:agent:yes", "~tt:my-project:*")
    redis.execute_command("ACL", "SETUSER", "some", "on", ">s3cr3ts3cr3t", "+@all", *allowed)
    url = newest.url.replace("//", "//some:s3cr3ts3cr3t@")
    status, report = on_screen("--force", url=url)
    assert status == 1
    assert "   Not permitted (1 key):" in report
    assert "   What to do: permit the user these keys (ACL SETUSER). Then run" in report
    redis.execute_command("ACL", "SETUSER", "some", "~tt:*")
    assert on_screen("--force", url=url)[0] == 0


def test_agents_of_one_name_are_no_longer_listed_when_all_but_one_are_ended(
    newest: Server,
) -> None:
    redis = newest.client()
    for key, agent in (("tt:o:agent:1", "1"), (AGENT, "2")):
        redis.set(key, json.dumps({"id": agent, "name": "web"}))
    redis.rename(AGENT, "tt:my-project:agent:2")
    options = ("--from-town", "o")
    _, report = on_screen(*options, "--dry-run", url=newest.url)
    assert "What to do: end all agents of a name but one." in report
    redis.delete("tt:my-project:agent:2")
    assert "are called" not in on_screen(*options, "--force", url=newest.url)[1]


def test_the_documents_have_every_kind_of_reason() -> None:
    table = Path("docs/faq.md").read_text("utf-8").partition("## Keys that stay")[2]
    for pattern, name, _ in KINDS:
        assert f"`{name or pattern}`" in table

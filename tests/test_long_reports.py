"""A report fits a screen, however many problems there are. A pipe gets all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from typing import Any

import pytest

from tests.command import on_a_terminal, read_all, shown_on_a_terminal, tt
from tests.servers import Server
from tests.tables import each
from tt_migrate.plan import UPGRADE, from_town
from tt_migrate.results import Effort, Left, Migration, Preview, Progress, Result
from tt_migrate.terminal.output import Output
from tt_migrate.terminal.text_report import TextReport

MANY = 20_000
NUMBERS = range(MANY)
LISTS: dict[str, Any] = {
    "conflicts": {b"tt:agent:%06d" % n: "destination exists" for n in NUMBERS},
    "failed": {},
    "unconverted": {
        **{b"tt:t:agent:x%06d" % n: "has another id than its key" for n in NUMBERS},
        **{b"tt:t:task:%06d" % n: f"is no JSON: Expecting value at character {n}" for n in NUMBERS},
    },
    "ambiguous": [b"tt:task:backlog"],
    "towns": [],
    "plan": UPGRADE,
    "town": "t",
    "effort": Effort(1, 1.0, None, 0),
}
PREVIEW = Preview(moves=[], merges={}, conversions=[], dbsize=1, count=None, **LISTS)
MIGRATION = Migration(keys={"inbox": 3}, merged={}, converted={"agent": 2}, left=None, **LISTS)
TOTALS = {
    Preview: "   Total: 0 key(s) would be migrated, 0 records would be converted",
    Migration: "   Total: 3 keys migrated, 2 records converted in 1.00 s",
}
HEADLINE = "⚠️ Migration incomplete: 20000 old keys are left, 40000 records are not hashes yet"
STOPPED = "⚠️ Migration stopped before it finished"


def told(result: Result, limit: int | None = None) -> Callable[[Output], None]:
    def tell(out: Output) -> None:
        TextReport(out, Output(None, optional=True), result.plan, limit=limit, town="t").tell(
            result
        )

    return tell


def piped(result: Result, limit: int | None = None) -> list[str]:
    stream = TextIOWrapper(BytesIO(), "utf-8")
    told(result, limit)(Output(stream))
    stream.seek(0)
    return stream.read().splitlines()


def group(lines: list[str], title: str) -> list[str]:
    """The lines of a group, without its title."""
    rest = lines[lines.index(title) + 1 :]
    return rest[: rest.index("")]


@pytest.mark.parametrize("result", [PREVIEW, MIGRATION], ids=["preview", "migration"])
def test_a_terminal_gets_the_first_names_of_each_reason(result: Result) -> None:
    lines = shown_on_a_terminal(told(result))
    assert len(lines) < 100
    conflicts = group(lines, "   Destination exists (20000 keys):")
    assert conflicts[:2] == [f"   tt:agent:00000{n} → tt:t:agent:00000{n}" for n in range(2)]
    more = "   … and 19,980 more (--limit 0 or --json shows all, and so does --record in a run)"
    assert conflicts[20] == more
    others = group(lines, "   Has another id than its key (20000 records):")
    assert (others[19], others[20]) == ("   tt:t:agent:x000019", more)
    broken = group(lines, "   Is no JSON (20000 records):")
    assert broken[7] == "   tt:t:task:000007 (is no JSON: Expecting value at character 7)"
    for names in (conflicts, others, broken):
        assert len(names) == 22
        assert names[21].startswith("   What to do: ")
    verdict = [TOTALS[type(result)]]
    if isinstance(result, Preview):
        verdict += ["   Left alone: 20000 keys, 40000 records, 1 ambiguous key"]
    else:
        verdict = [HEADLINE, *verdict]
    assert lines[-len(verdict) :] == verdict


def test_limit_says_how_many_names_a_reason_has_on_a_terminal() -> None:
    lines = shown_on_a_terminal(told(MIGRATION, limit=3))
    assert len(group(lines, "   Is no JSON (20000 records):")) == 5
    lines = shown_on_a_terminal(told(MIGRATION, limit=0))
    assert len(group(lines, "   Is no JSON (20000 records):")) == MANY + 1
    assert lines[-2:] == [HEADLINE, TOTALS[Migration]]


@pytest.mark.parametrize("limit", [None, 5])
def test_a_pipe_gets_the_whole_list_and_the_verdict_again(limit: int | None) -> None:
    lines = piped(MIGRATION, limit)
    assert "   tt:agent:019999 → tt:t:agent:019999 (destination exists)" in lines
    assert "   tt:t:agent:x019999 (has another id than its key)" in lines
    assert lines[0] == HEADLINE
    assert lines[-3:] == ["", HEADLINE, TOTALS[Migration]]
    assert len(lines) == 3 * MANY + 16
    assert not any("What to do" in line for line in lines)


@each("rows", [0, 24, 50])
def test_a_short_report_has_its_verdict_once(rows: int) -> None:
    few = dict(list(LISTS["conflicts"].items())[:5])
    result = replace(MIGRATION, conflicts=few, unconverted={})
    lines = shown_on_a_terminal(told(result), rows)
    assert [line for line in lines if "Total:" in line] == [TOTALS[Migration]]


def test_a_report_that_is_higher_than_the_terminal_has_its_verdict_in_sight() -> None:
    few = dict(list(LISTS["conflicts"].items())[:15])
    result = replace(MIGRATION, conflicts=few, unconverted={})
    for rows, times in ((24, 2), (60, 1)):
        lines = shown_on_a_terminal(told(result), rows)
        assert lines.count(TOTALS[Migration]) == times


def test_a_run_that_was_stopped_has_its_verdict_at_the_end() -> None:
    def stop(out: Output) -> None:
        report = TextReport(out, Output(None, optional=True), UPGRADE, town="t")
        report.stopped(Progress("migrating", 1, 2, MIGRATION), "stopped", 1.0)

    lines = shown_on_a_terminal(stop)
    assert len(lines) < 100
    assert lines[-2:] == [STOPPED, TOTALS[Migration]]


def test_every_other_list_is_cut_on_a_terminal_too() -> None:
    plan = from_town("o")
    lists = {**LISTS, "plan": plan, "conflicts": {}, "unconverted": {}}
    lists["ambiguous"] = [b"tt:o:x:%d" % n for n in NUMBERS]
    namesakes = {b"web": [b"%d" % n for n in NUMBERS], **{b"%d" % n: [b"1", b"2"] for n in NUMBERS}}
    result = Migration(
        keys={"agent": 1},
        merged={},
        converted={},
        left=Left({"agent": 0}, {"agent": 0, "task": 0}, None, namesakes),
        hidden={b"tt:o:agent:%d" % n: b"tt:x:%d" % n for n in NUMBERS},
        **lists,
    )
    lines = shown_on_a_terminal(told(result))
    assert len(lines) < 100
    assert max(map(len, lines)) < 200
    assert "   Ambiguous keys, left alone (20000 keys):" in lines
    hidden = "   Keys in transit between shards, safe under hidden names (20000 keys):"
    assert len(group(lines, hidden)) == 22
    cut = "20000 agents are called web, and Tinytown sends to one of them only: 0, 1, 2,"
    assert any(cut in line and line.endswith(" 19 and 19,980 more.") for line in lines)
    assert "   … and 19,981 more (--limit 0 or --json shows all)" in lines
    assert "   Total: 1 key renamed in 1.00 s" in lines[-3:]
    assert len(piped(result)) > 3 * MANY


def test_a_control_character_in_a_name_or_a_reason_stays_escaped() -> None:
    said = {b"tt:stop:\x1b[2J": "ERR \x1b[2J no", b"tt:stop:2": "ERR \x07"}
    lines = shown_on_a_terminal(told(replace(MIGRATION, failed=said)))
    assert all(line.isprintable() for line in lines)
    assert "   tt:stop:\\x1b[2J → tt:t:stop:\\x1b[2J (ERR \\x1b[2J no)" in lines


def test_the_command_groups_on_a_terminal_and_not_in_a_pipe_or_json(newest: Server) -> None:
    redis = newest.client()
    redis.mset({f"tt:agent:{n}": n for n in range(200)})
    redis.mset({f"tt:my-project:agent:{n}": "x" for n in range(200)})
    redis.mset({f"tt:my-project:task:{n}": '{"id":"other"}' for n in range(200)})
    redis.mset({f"tt:my-project:task:lacks{n}": "{}" for n in range(200)})
    where = ("--redis-url", newest.url, "--town-name", "my-project")
    for mode in ("--dry-run", "--force"):
        with on_a_terminal("--upgrade", mode, *where) as (process, terminal):
            lines = read_all(terminal).splitlines()
            assert process.wait(60) == (mode == "--force")
        assert "   Destination exists (200 keys):" in lines
        assert "   Has another id than its key (200 records):" in lines
        assert "   Lacks a field (200 records):" in lines
        assert sum("… and 180 more (--limit 0 or --json shows all" in line for line in lines) == 4
        assert "   Total:" in "".join(lines[-2:])
        assert len([line for line in piped_run(mode, newest) if line.endswith(")")]) >= 800
    found = json.loads(tt("--upgrade", "--force", "--json", url=newest.url).stdout)
    assert (len(found["conflicts"]), len(found["failed"])) == (200, 600)


def piped_run(mode: str, server: Server) -> list[str]:
    return tt("--upgrade", mode, url=server.url).stdout.splitlines()

"""The headers of the Lua files match the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from redis import Redis

from tests.tables import each
from tt_migrate import DOWNGRADE, HASH, RENAME, REVERSE, UPGRADE, from_town
from tt_migrate.engine.calls import replies
from tt_migrate.engine.calls.scripts import needs, source
from tt_migrate.keyspace import FAMILIES, RECORDS, SINCE_0_7

LUA = Path(__file__).parent.parent / "lua"
FILES = sorted(str(path.relative_to(LUA).with_suffix("")) for path in LUA.rglob("*.lua"))
SCAN = ("town", "0", "100", "1000000", "", "")
READING, KEEPING = (*SCAN, "0", "0"), (*SCAN, "", "0")
CALLS: dict[str, tuple[object, ...]] = {
    "inspect": ("town", "0", "", "GET"),
    "count": READING,
    "left": KEEPING,
    "preview": READING,
    "agents": READING,
    "migrate": (*KEEPING, "0", "0"),
    "locate": (),
}
"""The operations, each with valid arguments."""
ITEMS = [
    f"cluster/{name}"
    for name in ("freeze", "apply", "finish", "forget", "give_back", "facts", "weigh")
]
"""The operations of clusters with several shards. test_lua_items.py calls them."""
MERGE = replace(UPGRADE, merge=True)
CHOSEN = ("moves", "conversions", "conflicts", "renames", "destinations", "counts", "scopes")
"""The folders of which the plan or the layout chooses a file."""


def text(name: str) -> str:
    return (LUA / f"{name}.lua").read_text("utf-8")


def header(name: str) -> str:
    return text(name).partition("\n\n")[0]


def field_names(name: str) -> Iterator[str]:
    """Return the names of a reply's fields, in the order of a header's numbers."""
    reply = header(name).partition("-- Reply")[2].partition("-- Errors")[0]
    for n, (number, field) in enumerate(re.findall(r"(?m)^(?:--)? +(\d+) (\w+)", reply), 1):
        assert int(number) == n
        yield field


@each("name", FILES)
def test_a_header_begins_with_the_files_name_and_says_what_it_needs(name: str) -> None:
    lines = header(name).splitlines()
    assert lines[0].startswith(f"-- {name}.lua: ")
    assert all(line.startswith("--") for line in lines)
    assert sum(line.startswith("-- Needs  ") for line in lines) == 1
    assert {*needs(text(name))} <= {*FILES, *(f"<{name}>" for name in CHOSEN)}
    is_operation = name in (*CALLS, *ITEMS)
    parts = ("KEYS", "ARGV", "Reply", "Errors") if is_operation else ("Gives",)
    assert [part for part in parts if f"-- {part} " not in header(name)] == []


@each("name", sorted({*FILES} - {*CALLS, *ITEMS}))
def test_a_part_gives_what_it_says(name: str) -> None:
    said = header(name).partition("-- Gives")[2].replace("\n--", "").partition(" in place of")[0]
    code = text(name)[len(header(name)) :]
    given = re.findall(r"\w+(?=[,(]|$)", re.sub(r" ?\(.*?\)", "", said))
    defined = [word for word in given if re.search(rf"(?m)^local .*\b{word}\b", code)]
    assert given
    assert given == defined


@each(
    "plan",
    [RENAME, HASH, UPGRADE, REVERSE, DOWNGRADE, MERGE, from_town("old", merge=True)],
)
@each("operation", [*CALLS, *ITEMS])
def test_a_script_stands_after_all_that_it_needs(operation: str, plan: Any) -> None:
    order = re.findall(r"(?m)^-- ([\w/]+)\.lua: ", source(operation.rpartition("/")[2], plan))
    assert order[-1] == operation
    assert len(order) == len({*order})
    for n, name in enumerate(order):
        before = {*order[:n]}
        for needed in needs(text(name)):
            folder = needed.strip("<>")
            is_there = needed in before or f"{folder}/{getattr(plan, folder, '')}" in before
            assert is_there or len([one for one in before if one.startswith(f"{folder}/")]) == 1


def test_what_is_called_is_no_part_and_no_two_files_need_each_other_on_any_way() -> None:
    """A choice needs what all files of its folder need."""
    called = {*CALLS, *ITEMS}
    graph = {}
    for name in FILES:
        needed = {place.strip("<>") for place in needs(text(name))}
        assert not needed & called, name
        graph[name] = needed
    for folder in CHOSEN:
        graph[folder] = {name for name in FILES if name.startswith(f"{folder}/")}
    assert [*TopologicalSorter(graph).static_order()]


def test_a_script_carries_no_part_that_it_does_not_need() -> None:
    assert "town_of" not in source("left", UPGRADE)
    assert "fields_of" not in source("migrate", RENAME)
    assert "equal_hashes" not in source("count", MERGE)


@each("operation", [name for name in CALLS if name != "locate"])
def test_a_reply_has_the_fields_of_its_header(redis: Redis, operation: str) -> None:
    redis.mset({"tt:agent:1": 1, "tt:inbox:1": 1, "tt:town:inbox:1": 2, "tt:town:task:1": "{}"})
    reply = getattr(replies, f"{operation.capitalize()}Reply")
    assert [*field_names(operation)] == [*reply._fields]
    said = redis.eval(source(operation, MERGE), 0, *CALLS[operation])  # type: ignore[arg-type]
    named = reply(*said)
    for field, kind in get_type_hints(reply).items():
        assert type(getattr(named, field)) is (get_origin(kind) or kind), field


def test_the_families_are_the_same_in_lua_and_in_python() -> None:
    for names, families, file in (
        ("FAMILIES", FAMILIES, "parts/keyspace"),
        ("RECORDS", RECORDS, "parts/keyspace"),
        ("FAMILIES", (*FAMILIES, *SINCE_0_7), "moves/from_town"),
    ):
        found = re.search(rf"(?m)^local {names} = {{(.*)}}$", text(file))
        assert found
        assert tuple(re.findall("'(.*?)'", found[1])) == families

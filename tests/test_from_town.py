"""--from-town: a town that had another name gets the keys of that name."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ResponseError

from tests.command import assert_harmless, tt
from tests.keyspaces import EXPIRY_STEP_MS, contents
from tests.servers import Server
from tests.tables import each
from tests.users import user_with
from tt_migrate import (
    DOWNGRADE,
    HASH,
    RENAME,
    REVERSE,
    UPGRADE,
    Migration,
    Migrator,
    Plan,
    Progress,
    from_town,
)
from tt_migrate.keyspace import town_start

ID, OTHER, MISSION = (str(UUID(int=n, version=4)) for n in (1, 2, 3))

RECORD = ("hash", "string")
KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("agent:ID", "task:ID"), RECORD),
    **dict.fromkeys(("inbox:ID", "urgent:ID", "activity:ID", "backlog"), ("list",)),
    "stop:ID": ("string",),
    "mission:active": ("set",),
    "mission:ID": RECORD,
    **dict.fromkeys(("mission:ID:work", "mission:ID:watch", "mission:ID:control"), ("hash",)),
    "mission:ID:events": ("list",),
    "mission:ID:dispatch_lock": ("string",),
    **dict.fromkeys(("events", "events:agent:ID", "events:mission:ID"), ("stream",)),
    **dict.fromkeys(("docket:tasks", "docket:events"), ("stream",)),
}
"""What follows the town in the keys of a town, and the types that Tinytown gives them."""

WORDS = {part for form in KINDS for part in form.split(":")} | {"broadcast"}


def readings(key: str) -> Iterator[tuple[str, str]]:
    """The towns that can have a key by its name, and what follows the town, with ID for an id."""
    for number in (1, 2, 3):
        town, *parts = key.removeprefix("tt:").rsplit(":", number)
        if len(parts) == number:
            name = ":".join("ID" if part and part not in WORDS else part for part in parts)
            if name in KINDS:
                yield town, name


def owner(key: str, kind: str) -> str | None:
    """The town that has a key of this type, None if that cannot be told."""
    found = [*readings(key)]
    fitting = [one for one in found if kind in KINDS[one[1]]] if len(found) > 1 else found
    return fitting[0][0] if len(fitting) == 1 else None


def expected(
    keyspace: dict[str, str], old: str, new: str
) -> tuple[dict[str, str], set[str], set[str]]:
    """The keys that move and their destinations, those in conflict, and those that are ambiguous.

    `keyspace`: the type of each key.
    """
    moves, conflicts, ambiguous = {}, set(), set()
    own = [key for key in keyspace if any(town == old for town, _ in readings(key))]
    there = {key: f"tt:{new}:" + key.removeprefix(f"tt:{old}:") for key in own}
    for key, destination in there.items():
        kind = keyspace[key]
        told = owner(key, kind)
        if told is None or (told == old and owner(destination, kind) != new):
            ambiguous.add(key)
        elif told == old and destination in keyspace:
            conflicts.add(key)
        elif told == old:
            moves[key] = destination
    # A destination that moves away is free.
    while free := {key for key in conflicts if there[key] in moves}:
        moves |= {key: there[key] for key in free}
        conflicts -= free
    return moves, conflicts, ambiguous


def put(redis: Redis, key: str, kind: str, text: str = "x") -> None:
    """Make a key of a type, unless it exists."""
    if redis.exists(key):
        return
    if kind == "hash":
        redis.hset(key, mapping={"id": text, "name": text})
    elif kind == "list":
        redis.rpush(key, text, "m2")
    elif kind == "set":
        redis.sadd(key, text)
    elif kind == "stream":
        redis.xadd(key, {"text": text}, id="5-1")
    else:
        redis.set(key, text)


def names(redis: Redis) -> dict[str, str]:
    """Return the type of each key."""
    return {key.decode(): redis.type(key).decode() for key in list(redis.keys())}  # type: ignore[union-attr]


def found_town(redis: Redis, town: str) -> None:
    """Make a town with a key of each form, and two agents."""
    for form, (kind, *_) in KINDS.items():
        put(redis, f"tt:{town}:{form.replace('ID', ID)}", kind, f"{town} {form}")
    put(redis, f"tt:{town}:agent:{OTHER}", "string", json.dumps({"id": OTHER, "name": "other"}))


def check_move(redis: Redis, old: str, new: str) -> Migration:
    """Preview and rename a town, and compare both with what is expected. Return what was done."""
    before, types = contents(redis), names(redis)
    moves, conflicts, ambiguous = expected(types, old, new)
    plan = from_town(old)
    preview = Migrator(redis, new, plan).preview()
    assert contents(redis) == before
    assert {key.decode() for key in preview.moves} == moves.keys()
    assert {key.decode() for key in preview.conflicts} == conflicts
    assert {key.decode() for key in preview.ambiguous} == ambiguous
    count = Migrator(redis, new, plan).count()
    assert count.total == len(moves) + len(conflicts)
    assert count.conflicts == len(
        types.keys()
        & {f"tt:{new}:{key.removeprefix(f'tt:{old}:')}" for key in (*moves, *conflicts)}
    )
    assert count.ambiguous == len(ambiguous)
    result = Migrator(redis, new, plan).migrate()
    assert contents(redis) == {
        moves.get(key.decode(), key.decode()).encode(): value for key, value in before.items()
    }
    assert (result.total, result.remaining) == (len(moves), len(conflicts))
    assert result.keys == preview.keys
    assert {key.decode() for key in result.conflicts} == conflicts
    assert {key.decode() for key in result.ambiguous} == ambiguous
    assert not result.failed
    assert Migrator(redis, new, plan).migrate().total == 0
    return result


def test_every_key_of_the_town_gets_its_new_name_and_stays_as_it_is(server: Server) -> None:
    redis = server.client()
    for town in ("old", "other", "ol", "old2"):
        found_town(redis, town)
    redis.pexpireat(f"tt:old:stop:{ID}", EXPIRY_STEP_MS * 40_000_000)
    redis.xgroup_create("tt:old:docket:tasks", "workers", id="0")
    redis.xreadgroup("workers", "me", {"tt:old:docket:tasks": ">"})
    redis.set(f"tt:agent:{ID}", "old format")
    before = contents(redis)
    result = check_move(redis, "old", "new")
    numbers = {"agent": 2, "mission": 7, "events": 3}
    assert result.keys == {**dict.fromkeys(result.keys, 1), **numbers}
    assert result.ambiguous == {b"tt:old:docket:events"}
    assert result.complete
    pending: Any = redis.xpending("tt:new:docket:tasks", "workers")
    assert pending["pending"] == 1
    assert check_move(redis, "new", "old").complete
    assert contents(redis) == before


ALIKE = [
    ("x", "x:agent"),
    ("x", "x:task"),
    ("task", "task:1"),
    ("a", "a:events"),
    ("a", "a:docket"),
    ("a", "a:mission"),
    ("a", f"a:mission:{ID}"),
    ("a", "a:events:agent"),
    ("a", f"a:agent:{ID}"),
    ("", ":events"),
    ("x[1]*?\\", "x1"),
    ("日本", "日本:backlog"),
    ("{a}", "{a}b"),
    ("a\nb", "a"),
]


@each(("town", "other"), [pair for one in ALIKE for pair in permutations(one)])
def test_of_two_towns_whose_names_begin_alike_only_one_moves(
    newest: Server, town: str, other: str
) -> None:
    redis = newest.client()
    for name in (other, town):
        found_town(redis, name)
    result = check_move(redis, town, "new")
    assert result.total >= len(KINDS) - 2


@each("new", ["x:events", "x:docket", f"x:mission:{MISSION}", "x:agent", "old:a"])
def test_a_key_gets_no_name_that_may_be_another_towns(newest: Server, new: str) -> None:
    redis = newest.client()
    found_town(redis, "old")
    put(redis, "tt:old:agent:odd", "stream")
    before = contents(redis)
    check_move(redis, "old", new)
    check_move(redis, new, "old")
    assert contents(redis) == before


town_names = st.lists(
    st.sampled_from(["a", "b", "events", "docket", "mission", "agent", ID]), min_size=1, max_size=4
).map(":".join)
kinds = st.sampled_from(["string", "hash", "list", "stream", "set"])


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_exactly_the_keys_of_the_town_move_and_come_back(
    either: Server, data: st.DataObject
) -> None:
    redis = either.client()
    redis.flushall()
    towns = data.draw(st.lists(town_names, min_size=2, max_size=4, unique=True))
    old, new, *_ = towns
    forms = st.builds(
        lambda form, own_id: form.replace("ID", own_id),
        st.sampled_from([*KINDS]),
        st.sampled_from([ID, OTHER, "7"]),
    )
    keys = st.builds(lambda town, form: f"tt:{town}:{form}", st.sampled_from(towns), forms)
    for key, kind in data.draw(st.dictionaries(keys, kinds, max_size=30)).items():
        put(redis, key, kind)
    before = contents(redis)
    there = check_move(redis, old, new)
    if not expected(names(redis), old, new)[1] and not any(
        key.startswith(town_start(new)) for key in before
    ):
        assert check_move(redis, new, old).total == there.total
        assert contents(redis) == before


def test_keys_of_an_unknown_kind_are_listed_and_stay(newest: Server) -> None:
    redis = newest.client()
    odd = [
        "odd",
        "snapshot:1",
        f"mission:{ID}:plan",
        "agent:",
        "broadcast",
        "task:1:2",
        "a:mission:1:plan",
    ]
    # Keys of other towns, of the old format, and of a migration that is running.
    others = ["tt:old:sub:odd:agent:1", "tt:task:1", "tt:old"]
    flight = "tt:old:flight:0123456789abcdef:0x7f00"
    redis.mset(dict.fromkeys([*(f"tt:old:{name}" for name in odd), *others, flight], "x"))
    result = Migrator(redis, "new", from_town("old")).migrate()
    assert {key.decode() for key in result.ambiguous} == {f"tt:old:{name}" for name in odd}
    assert (result.total, result.complete) == (0, True)
    result = Migrator(redis, "new", from_town("task")).migrate()
    assert (result.total, result.ambiguous) == (0, set())


def test_a_key_that_is_surely_no_key_of_the_town_is_not_listed(newest: Server) -> None:
    redis = newest.client()
    # The start of the town's keys stands in the middle; the key of another town has an odd name.
    redis.mset({"tt:sub:tt:old:odd": 1, "tt:old:sub:broadcast": 1})
    result = Migrator(redis, "new", from_town("old")).migrate()
    assert (result.total, result.ambiguous) == (0, set())


def test_a_conflict_of_a_name_with_special_characters_is_counted_as_left(newest: Server) -> None:
    redis = newest.client()
    redis.mset({"tt:x[1]*?\\:stop:1": 1, "tt:new:stop:1": 2})
    assert Migrator(redis, "new", from_town("x[1]*?\\")).migrate().remaining == 1


def test_a_mission_can_have_the_name_of_a_family(newest: Server) -> None:
    """Then its town's events are not told by their type, as those of `a:mission:<id>` are."""
    put(newest.client(), "tt:a:mission:task:events", "list")
    assert Migrator(newest.client(), "new", from_town("a:mission:task")).migrate().total == 1


def test_a_key_that_is_gone_when_its_type_is_asked_for_is_nobodys(newest: Server) -> None:
    lua = Path(__file__).parent.parent / "lua/parts"
    text = "\n".join((lua / f"{name}.lua").read_text() for name in ("batch", "keyspace", "owner"))
    call = "return tostring(family_of('tt:a:', 'tt:a:events:agent:1'))"
    assert newest.client().eval(f"{text}\n{call}", 0) == b"nil"


def test_every_town_is_named_whatever_the_order_of_its_keys(newest: Server) -> None:
    redis = newest.client()
    redis.mset({f"tt:a:stop:{UUID(int=n)}": 1 for n in range(100)})
    redis.mset({"tt:a:task:backlog": 1, f"tt:a:sub:stop:{ID}": 1})
    put(redis, "tt:b:docket:events", "stream")
    towns = {b"a", b"a:task", b"a:sub", b"b"}
    assert set(Migrator(redis, "new").migrate().towns) == towns
    assert set(Migrator(redis, "a").count().towns) == towns - {b"a"}


def test_ids_need_not_be_uuids(redis: Redis) -> None:
    keys = ["agent:1", "inbox:a b", "mission:7", "mission:7:work", "events:agent:1"]
    for key in keys:
        put(redis, f"tt:old:{key}", "stream" if key.startswith("events") else "hash")
    assert check_move(redis, "old", "new").total == len(keys)


@each("old", ["old name", "-x", "a'b", "é", "\udcff", "a\nb", "{a}"])
def test_a_former_name_can_be_any_text(newest: Server, old: str) -> None:
    redis = newest.client()
    start = b"tt:%b:" % old.encode("utf-8", "surrogateescape")
    redis.mset({start + b"stop:1": 1, start + b"backlog": 1})
    url = newest.url
    check = tt("--from-town", old, "--check", url=url, town="new")
    assert (check.returncode, len(check.stdout.splitlines())) == (1, 1)
    assert tt("--from-town", old, "--dry-run", "--json", url=url, town="new").returncode == 0
    assert tt("--from-town", old, "--force", url=url, town="new").returncode == 0
    assert sorted(redis.keys()) == [b"tt:new:backlog", b"tt:new:stop:1"]


def both_names(redis: Redis) -> None:
    """Make a town that was used under both names."""
    for town in ("old", "new"):
        start = f"tt:{town}:"
        redis.sadd(f"{start}mission:active", town, "both")
        redis.rpush(f"{start}inbox:{ID}", town)
        redis.xadd(f"{start}events", {"from": town}, id=f"{len(town)}-{ord(town[0])}")
        redis.xadd(f"{start}events", {"from": "both"}, id="9-1")
        redis.hset(f"{start}task:{ID}", mapping={"id": ID, "state": town})
        redis.set(f"{start}mission:{MISSION}", town)
    redis.hset(f"tt:old:agent:{ID}", mapping={"id": ID, "name": "backend"})
    redis.set(f"tt:new:agent:{OTHER}", json.dumps({"id": OTHER, "name": "backend"}))
    redis.hset(f"tt:new:agent:{MISSION}", "name", "reviewer")


def test_a_merge_joins_active_missions_and_events_too(server: Server) -> None:
    redis = server.client()
    both_names(redis)
    before = contents(redis)
    plan = from_town("old", merge=True)
    preview = Migrator(redis, "new", plan).preview()
    assert contents(redis) == before
    assert preview.merges == {
        b"tt:old:mission:active": "merge: 2 and 2 members, the members of both",
        b"tt:old:events": "merge: 2 and 2 entries, in the order of their ids",
        f"tt:old:inbox:{ID}".encode(): "merge: 1 older, then 1 newer",
    }
    result = Migrator(redis, "new", plan).migrate()
    assert (
        result.conflicts
        == preview.conflicts
        == {
            f"tt:old:task:{ID}".encode(): "destination exists and differs in state",
            f"tt:old:mission:{MISSION}".encode(): (
                "destination exists, and a string cannot be merged"
            ),
        }
    )
    assert result.merged == {
        **dict.fromkeys(result.merged, 0),
        **dict.fromkeys(("inbox", "mission", "events"), 1),
    }
    assert redis.smembers("tt:new:mission:active") == {b"old", b"new", b"both"}
    assert redis.xrange("tt:new:events") == [
        (b"3-110", {b"from": b"new"}),
        (b"3-111", {b"from": b"old"}),
        (b"9-1", {b"from": b"both"}),
    ]
    assert redis.lrange(f"tt:new:inbox:{ID}", 0, -1) == [b"old", b"new"]
    assert result.left
    assert preview.namesakes == result.left.namesakes == {b"backend": [ID.encode(), OTHER.encode()]}
    assert (result.remaining, result.complete) == (2, False)


def test_without_a_merge_both_stay(newest: Server) -> None:
    redis = newest.client()
    both_names(redis)
    result = check_move(redis, "old", "new")
    assert len(result.conflicts) == 5
    done = tt("--from-town", "old", "--force", url=newest.url, town="new")
    assert done.returncode == 1
    assert "run 'tt migrate --from-town old --on-conflict merge'" in done.stdout


entries = st.dictionaries(
    st.tuples(st.sampled_from([0, 1, 5, 2**53, 2**53 + 1, 2**64 - 2]), st.integers(8, 11)).filter(
        any
    ),
    st.binary(max_size=3),
    max_size=8,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(old=entries, new=entries)
def test_every_event_of_two_streams_is_in_the_joined_one(
    either: Server, old: dict[tuple[int, int], bytes], new: dict[tuple[int, int], bytes]
) -> None:
    redis = either.client()
    redis.flushall()
    for town, events in (("old", old), ("new", new)):
        for (time, number), text in sorted(events.items()):
            redis.xadd(f"tt:{town}:events", {"text": text}, id=f"{time}-{number}")
    assume(old and new)
    assert Migrator(redis, "new", from_town("old", merge=True)).migrate().complete
    found: Any = redis.xrange("tt:new:events")
    ids = [tuple(map(int, name.split(b"-"))) for name, _ in found]
    assert ids == sorted({*ids})
    # Two different entries cannot have one id: the newer town's gets the next that is free.
    assert Counter(fields[b"text"] for _, fields in found) == Counter(
        text for _, text in {*old.items(), *new.items()}
    )
    assert old.keys() | new.keys() <= {*ids}
    redis.xadd("tt:new:events", {"later": 1}, id=f"{2**64 - 1}-0")


@pytest.mark.parametrize("grouped", ["old", "new"])
def test_a_stream_with_consumer_groups_is_not_joined(redis: Redis, grouped: str) -> None:
    for town in ("old", "new"):
        redis.xadd(f"tt:{town}:events", {"from": town})
    redis.xgroup_create(f"tt:{grouped}:events", "group", id="0")
    before = contents(redis)
    plan = from_town("old", merge=True)
    assert Migrator(redis, "new", plan).preview().merges == {}
    [reason] = Migrator(redis, "new", plan).migrate().conflicts.values()
    assert "stream with consumer groups" in reason
    assert contents(redis) == before


def test_empty_streams_are_joined(redis: Redis) -> None:
    for town in ("old", "new"):
        redis.xadd(f"tt:{town}:events", {"a": town}, id=f"{len(town)}-{ord(town[0])}")
        redis.xtrim(f"tt:{town}:events", maxlen=0)
    assert Migrator(redis, "new", from_town("old", merge=True)).migrate().complete
    assert redis.keys() == [b"tt:new:events"]
    assert redis.xlen("tt:new:events") == 0


def test_prompt_check_preview_and_json_serve_a_renaming(newest: Server) -> None:
    redis, url = newest.client(), newest.url
    both_names(redis)
    check = tt("--from-town", "old", "--check", url=url, town="new")
    assert check.stdout == (
        "⚠️ 6 keys have the town's former name: run 'tt migrate --from-town old' (town: new)\n"
    )
    options = ("--from-town", "old", "--on-conflict", "merge")
    asked = tt(*options, url=url, town="new", answer="no\n")
    assert asked.returncode == 4
    assert "The town's keys get its new name\n   Town: new\n   Former name: old" in asked.stdout
    preview = tt(*options, "--dry-run", url=url, town="new").stdout
    assert f"tt:old:agent:{ID} → tt:new:agent:{ID}" in preview
    said = f"2 agents are called backend, and Tinytown sends to one of them only: {ID}, {OTHER}."
    files = "tinytown.toml and ~/.tt/towns.toml"
    assert said in preview
    assert files in preview
    done = tt(*options, "--force", "--json", url=url, town="new")
    document = json.loads(done.stdout)
    assert (document["operation"], document["from_town"]) == ("from-town", "old")
    assert (document["migrated"], document["merged"], document["remaining"]) == (1, 3, 2)
    assert document["namesakes"] == [{"name": "backend", "ids": [ID, OTHER]}]
    redis.delete(f"tt:new:task:{ID}", f"tt:new:mission:{MISSION}")
    last = tt(*options, "--force", url=url, town="new")
    assert (last.returncode, said in last.stdout, files in last.stdout) == (0, True, True)
    again = tt(*options, url=url, town="new")
    assert again.stdout.startswith(
        "✅ Nothing to rename - no key that is surely the town's has its former name"
    )


def test_the_record_has_every_key_of_a_renaming(newest: Server, tmp_path: Path) -> None:
    redis = newest.client()
    both_names(redis)
    options = ("--from-town", "old", "--on-conflict", "merge", "--force")
    tt(*options, "--record", str(tmp_path / "record"), url=newest.url, town="new")
    lines = [*map(json.loads, (tmp_path / "record").read_text().splitlines())]
    told = {(line["action"], line["from"], line["to"]) for line in lines}
    assert ("merged", "tt:old:events", "tt:new:events") in told
    assert ("renamed", f"tt:old:agent:{ID}", f"tt:new:agent:{ID}") in told
    assert len(told) == 6


def test_agents_that_still_run_under_the_old_name_are_told(newest: Server) -> None:
    redis = newest.client()
    redis.mset({f"tt:old:stop:{n}": 1 for n in range(10)})

    def write(progress: Progress) -> None:
        if progress.stage == "migrating":
            redis.set("tt:old:stop:late", 1)

    result = Migrator(redis, "new", from_town("old"), progress=write).migrate()
    assert (result.total, result.appeared) == (10, 1)


@each(
    ("towns", "former"),
    [
        (["old"], "old"),
        (["my-town-main", "web", "my-shop"], "my-town-main"),
        (["my-town-main", "my-town-test"], None),
        (["web", "shop"], None),
        (["my-shop", "your-town-feature"], "my-shop"),
        ([], None),
    ],
)
@each("options", [(), ("--dry-run",), ("--check",), ("--upgrade", "--force")])
def test_a_town_without_keys_is_told_of_its_former_name(
    newest: Server, options: tuple[str, ...], towns: list[str], former: str | None
) -> None:
    redis = newest.client()
    for town in towns:
        redis.hset(f"tt:{town}:agent:{ID}", "name", "x")
    done = tt(*options, url=newest.url, town="my-town-feature")
    assert done.returncode == 0
    assert ("--from-town" in done.stdout) == (former is not None)
    assert f"'tt migrate --from-town {former}'" in done.stdout or former is None
    document = json.loads(tt(*options, "--json", url=newest.url, town="my-town-feature").stdout)
    assert document["former_guess"] == former
    assert tt(*options, "--quiet", url=newest.url, town="my-town-feature").stdout == ""
    redis.rpush(f"tt:my-town-feature:inbox:{ID}", "x")
    assert "--from-town" not in tt(*options, url=newest.url, town="my-town-feature").stdout


def test_a_town_that_gets_old_keys_is_not_told_of_another(newest: Server) -> None:
    newest.client().mset({"tt:old:stop:1": 1, "tt:stop:1": 1})
    for options in (("--dry-run",), ("--check",), ("--force",)):
        assert "--from-town" not in tt(*options, url=newest.url, town="new").stdout


def test_the_same_name_and_options_that_make_no_sense_are_status_2(newest: Server) -> None:
    same = tt("--from-town", "new", url=newest.url, town="new")
    assert same.returncode == 2
    assert same.stderr.startswith("Error: the town is still called new (--town-name)")
    for option in ("--upgrade", "--hash", "--reverse", "--downgrade", "--legacy-prefix=mt"):
        assert tt("--from-town", "old", option, url=newest.url).returncode == 2
    with pytest.raises(ValueError, match="former name"):
        Migrator(newest.client(), "new", from_town("new"))


@each("town", ["a", "a:events"])
@each("plan", [RENAME, UPGRADE, HASH, REVERSE, DOWNGRADE])
def test_events_are_no_agents_of_a_town_with_a_longer_name(
    newest: Server, town: str, plan: Plan
) -> None:
    redis = newest.client()
    for number in (ID, OTHER):
        put(redis, f"tt:a:events:agent:{number}", "stream")
    put(redis, f"tt:{town}:inbox:{ID}", "list")
    result = Migrator(redis, town, plan).migrate()
    assert (result.complete, result.unconverted, result.ambiguous) == (True, {}, set())
    assert redis.exists(*(f"tt:a:events:agent:{number}" for number in (ID, OTHER))) == 2
    assert set(result.towns) == {b"a"} - {town.encode()}
    redis.hset(f"tt:{town}:agent:7", "id", "7")
    count = Migrator(redis, town, plan).count()
    assert (sum(count.hashes.values()), count.others) == (1, 0)


def test_a_renaming_that_leaves_json_strings_says_so(newest: Server) -> None:
    newest.client().set(f"tt:old:agent:{ID}", "{}")
    done = tt("--from-town", "old", "--force", url=newest.url, town="new")
    said = "⚠️ Renaming complete, but Tinytown 0.7 or later cannot read 1 agent yet"
    assert done.stdout.startswith(said)


def test_a_name_that_another_key_of_the_town_leaves_is_free(either: Server) -> None:
    redis = either.client()
    for number in range(50):
        put(redis, f"tt:a:agent:{number}", "hash")
        put(redis, f"tt:a:events:agent:{number}", "stream")
    result = check_move(redis, "a", "a:events")
    assert (result.total, result.complete) == (100, True)
    result = check_move(redis, "a:events", "a")
    assert (result.total, result.complete) == (100, True)


LARGEST = 2**64 - 1


@each(
    ("old", "new", "joined"),
    [
        (["5-1 a", "5-2 c", "5-3 d"], ["5-1 b"], ["5-1 a", "5-2 c", "5-3 d", "5-4 b"]),
        (["5-1 a"], ["5-1 b", "5-2 c"], ["5-1 a", "5-2 c", "5-3 b"]),
        (["5-1 a", "7-0 x"], ["5-1 b", "6-9 y"], ["5-1 a", "5-2 b", "6-9 y", "7-0 x"]),
        (["5-9 a", "5-11 x"], ["5-9 b", "5-10 y"], ["5-9 a", "5-10 y", "5-11 x", "5-12 b"]),
        (
            [f"5-{LARGEST - 1} a"],
            [f"5-{LARGEST - 1} b"],
            [f"5-{LARGEST - 1} a", f"5-{LARGEST} b"],
        ),
        ([f"9-{LARGEST} a"], [f"9-{LARGEST} b"], [f"9-{LARGEST} a", "10-0 b"]),
        (["0-1 a"], ["0-1 a", "0-2 a"], ["0-1 a", "0-2 a"]),
    ],
)
def test_of_two_entries_with_one_id_one_gets_the_next_that_is_free(
    newest: Server, old: list[str], new: list[str], joined: list[str]
) -> None:
    redis = newest.client(decode_responses=True)
    for town, texts in (("old", old), ("new", new)):
        for text in texts:
            name, value = text.split()
            redis.xadd(f"tt:{town}:events", {"text": value}, id=name)
    assert Migrator(redis, "new", from_town("old", merge=True)).migrate().complete
    entries: Any = redis.xrange("tt:new:events")
    assert [f"{name} {fields['text']}" for name, fields in entries] == joined


def test_streams_that_cannot_be_joined_stay_as_they_are(newest: Server) -> None:
    redis = newest.client()
    for town in ("old", "new"):
        redis.xadd(f"tt:{town}:events", {"from": town}, id=f"{LARGEST}-{LARGEST}")
    before = contents(redis)
    result = Migrator(redis, "new", from_town("old", merge=True)).migrate()
    assert [*result.failed.values()] == [f"ERR no id is free after {LARGEST}-{LARGEST}"]
    assert contents(redis) == before


def test_an_event_with_very_many_fields_is_listed(newest: Server) -> None:
    redis = newest.client()
    redis.xadd("tt:old:events", {"a": "b"}, id="5-1")
    redis.xadd("tt:new:events", {f"f{n}": n for n in range(5000)}, id="6-1")
    before = contents(redis)
    result = Migrator(redis, "new", from_town("old", merge=True)).migrate()
    assert [*result.failed.values()] == ["ERR an event has too many fields to be merged: 6-1"]
    assert contents(redis) == before


@pytest.mark.parametrize("town", ["old", "new"])
def test_a_joined_stream_goes_on_after_the_last_id_of_both(redis: Redis, town: str) -> None:
    for name in ("old", "new"):
        redis.xadd(f"tt:{name}:events", {"from": name}, id=f"5-{len(name)}{ord(name[0])}")
    redis.xadd(f"tt:{town}:events", {"a": "b"}, id="9-1")
    redis.xdel(f"tt:{town}:events", "9-1")
    assert Migrator(redis, "new", from_town("old", merge=True)).migrate().complete
    with pytest.raises(ResponseError, match="equal or smaller"):
        redis.xadd("tt:new:events", {"a": "b"}, id="9-1")


@each("ttl", ["old", "new"])
@each("last", ["old", "new"])
def test_two_empty_streams_keep_the_longer_ttl_and_the_last_id(
    redis: Redis, ttl: str, last: str
) -> None:
    for town in ("old", "new"):
        redis.xadd(f"tt:{town}:events", {"a": town}, id="9-0" if town == last else "5-0")
        redis.xtrim(f"tt:{town}:events", maxlen=0)
    redis.expire(f"tt:{ttl}:events", 1000)
    assert Migrator(redis, "new", from_town("old", merge=True)).migrate().complete
    assert redis.keys() == [b"tt:new:events"]
    assert (redis.ttl("tt:new:events"), redis.xlen("tt:new:events")) == (-1, 0)
    with pytest.raises(ResponseError, match="equal or smaller"):
        redis.xadd("tt:new:events", {"a": "b"}, id="9-0")


@pytest.mark.parametrize("merge", [False, True])
def test_the_commands_of_the_plan_are_enough(server: Server, *, merge: bool) -> None:
    both_names(server.client())
    plan = from_town("old", merge=merge)
    also = ("script", "evalsha", "hello", "ping", "client", "info", "time", "exists", "dbsize")
    migrator = Migrator(user_with(server, *plan.commands, *also), "new", plan)
    migrator.count()
    assert migrator.preview().refused == ()
    assert migrator.migrate().total == 1


def test_only_what_can_be_merged_is_said_to_be(newest: Server) -> None:
    redis = newest.client()
    for town in ("old", "new"):
        redis.mset({f"tt:{town}:{name}": town for name in (f"mission:{ID}", "docket:tasks")})
        redis.hset(f"tt:{town}:mission:{ID}:work", "from", town)
    done = tt("--from-town", "old", "--force", url=newest.url, town="new")
    assert done.stdout.count("(destination exists)") == 3
    assert "on-conflict" not in done.stdout


def test_lists_of_mission_events_are_merged(redis: Redis) -> None:
    for town in ("old", "new"):
        redis.lpush(f"tt:{town}:mission:{ID}:events", f"{town} 1", f"{town} 2")
    done = Migrator(redis, "new", from_town("old", merge=True)).migrate()
    assert done.merged["mission"] == 1
    merged = redis.lrange(f"tt:new:mission:{ID}:events", 0, -1)
    assert merged == [b"new 2", b"new 1", b"old 2", b"old 1"]


@each("old", ["a b", "a\nb", "a'b", 'a"b', "a\\", "a$b", "\udcff\udcfe", "\u202e'x", "é"])
def test_a_hint_can_be_pasted_into_a_shell(newest: Server, old: str) -> None:
    newest.client().set(town_start(old) + b"stop:1", 1)
    done = tt("--check", url=newest.url, town="new")
    [hint] = re.findall(r"run '(tt migrate .*)' \(with", done.stdout)
    said = subprocess.run(
        ["bash", "-c", f'tt() {{ printf %s "${{!#}}"; }}; {hint}'],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
    ).stdout
    assert said == os.fsencode(old)


def test_a_wrong_former_name_shows_the_towns_that_there_are(newest: Server) -> None:
    redis = newest.client()
    for town in ("web-main", "shop", "new"):
        redis.hset(f"tt:{town}:agent:{ID}", "name", "x")
    for options in (("--dry-run",), ("--force",)):
        done = tt("--from-town", "web-mian", *options, url=newest.url, town="new")
        assert "   Other towns in this database: shop, web-main" in done.stdout


def test_agents_of_one_name_are_told_in_a_job_too(newest: Server) -> None:
    for town, number in (("old", ID), ("new", OTHER)):
        newest.client().hset(f"tt:{town}:agent:{number}", "name", "backend")
    done = tt("--from-town", "old", "--force", "--quiet", url=newest.url, town="new")
    assert done.returncode == 0
    assert done.stdout.startswith("2 agents are called backend")


def test_the_prompt_says_that_the_new_name_has_keys_too(newest: Server) -> None:
    redis = newest.client()
    redis.set("tt:old:stop:1", 1)
    said = "   The new name has keys too: the town will have both."
    assert said not in tt("--from-town", "old", url=newest.url, town="new").stdout
    redis.set("tt:new:stop:2", 1)
    assert said in tt("--from-town", "old", url=newest.url, town="new").stdout


@pytest.mark.parametrize("size", [1500, 9000])
def test_large_sets_are_united(newest: Server, size: int) -> None:
    redis = newest.client()
    redis.sadd("tt:old:mission:active", *range(size))
    redis.sadd("tt:new:mission:active", "x")
    assert Migrator(redis, "new", from_town("old", merge=True)).migrate().complete
    assert redis.scard("tt:new:mission:active") == size + 1


def test_only_active_missions_and_events_are_united(newest: Server) -> None:
    redis = newest.client()
    for town in ("old", "new"):
        redis.sadd(f"tt:{town}:inbox:1", town)
        redis.xadd(f"tt:{town}:docket:tasks", {"from": town})
    done = Migrator(redis, "new", from_town("old", merge=True)).migrate()
    assert {*done.conflicts} == {b"tt:old:inbox:1", b"tt:old:docket:tasks"}


@pytest.mark.parametrize("longer", ["old", "new"])
def test_an_entry_with_more_fields_is_another_one(newest: Server, longer: str) -> None:
    redis = newest.client()
    for town in ("old", "new"):
        fields = {"f": "a", "g": "b"} if town == longer else {"f": "a"}
        redis.xadd(f"tt:{town}:events", fields, id="5-1")  # type: ignore[arg-type]
    assert Migrator(redis, "new", from_town("old", merge=True)).migrate().complete
    assert redis.xlen("tt:new:events") == 2


def test_names_of_towns_and_agents_are_escaped(newest: Server) -> None:
    redis = newest.client()
    for number in (ID, OTHER):
        redis.hset(b"tt:\x1b[31m\xff:agent:%b" % number.encode(), "name", "a\x1b[31m")
    name = os.fsdecode(b"\x1b[31m\xff")
    for options in (("--check",), ("--from-town", name, "--dry-run"), ("--from-town", name, "-y")):
        assert_harmless(tt(*options, url=newest.url, town="new"))


def test_a_former_name_with_ambiguous_keys_is_not_proposed_again(newest: Server) -> None:
    put(newest.client(), "tt:old:docket:events", "stream")
    done = tt("--from-town", "old", "--force", url=newest.url, town="new")
    assert "--from-town" not in done.stdout

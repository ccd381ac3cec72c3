"""--from-town: a town that had another name gets the keys of that name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.keyspaces import EXPIRY_STEP_MS, contents
from tests.servers import Server
from tt_migrate import Migration, Migrator, from_town
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
    for key, kind in keyspace.items():
        if not any(town == old for town, _ in readings(key)):
            continue
        destination = f"tt:{new}:" + key.removeprefix(f"tt:{old}:")
        told = owner(key, kind)
        if told is None or (told == old and owner(destination, kind) != new):
            ambiguous.add(key)
        elif told == old and destination in keyspace:
            conflicts.add(key)
        elif told == old:
            moves[key] = destination
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
    assert (count.total, count.conflicts) == (len(moves) + len(conflicts), len(conflicts))
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
    ("a", f"a:mission:{MISSION}"),
    ("a", "a:events:agent"),
    ("a", f"a:agent:{ID}"),
    ("", ":events"),
    ("x[1]*?\\", "x1"),
    ("日本", "日本:backlog"),
    ("{a}", "{a}b"),
    ("a\nb", "a"),
]


@pytest.mark.parametrize(("town", "other"), [pair for one in ALIKE for pair in permutations(one)])
def test_of_two_towns_whose_names_begin_alike_only_one_moves(
    newest: Server, town: str, other: str
) -> None:
    redis = newest.client()
    for name in (other, town):
        found_town(redis, name)
    result = check_move(redis, town, "new")
    assert result.total >= len(KINDS) - 2


@pytest.mark.parametrize(
    "new", ["x:events", "x:docket", f"x:mission:{MISSION}", "x:agent", "old:a"]
)
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
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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

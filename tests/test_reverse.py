"""--reverse: the town's keys get their old names back."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.command import tt
from tests.keyspaces import EXPIRY_STEP_MS, contents
from tests.servers import Server
from tests.tables import each
from tests.test_properties import foreign_keys, old_keys, towns, values, write
from tt_migrate import RENAME, REVERSE, Migrator
from tt_migrate.keyspace import town_bytes

TOWNS = ["task", "agent", "backlog", "a:b", "x[1]*?\\^-", "日本", " ", "%", "tt", "events"]


@each("town", TOWNS)
def test_the_seven_families_go_back_whatever_the_town_is_called(redis: Redis, town: str) -> None:
    start = f"tt:{town}:"
    names = ["agent:1", "inbox:1", "urgent:1", "task:1", "activity:1", "stop:1", "backlog"]
    for name in names:
        redis.set(start + name, name)
    redis.pexpireat(f"{start}stop:1", EXPIRY_STEP_MS * 40_000_000)
    before = contents(redis)
    result = Migrator(redis, town, REVERSE).migrate()
    assert (result.total, result.remaining, result.complete) == (7, 0, True)
    prefix = start.encode()
    expected = {b"tt:" + key.removeprefix(prefix): content for key, content in before.items()}
    assert contents(redis) == expected
    assert Migrator(redis, town, REVERSE).migrate().total == 0
    assert contents(redis) == expected


def test_keys_without_an_old_form_and_other_towns_stay_and_are_counted(redis: Redis) -> None:
    stay = ["events", "events:agent:1", "docket:tasks", "mission:1", "mission:1:work"]
    stay = [f"tt:town:{name}" for name in stay]
    others = ["tt:other:agent:1", "tt:town2:agent:1", "tt:town:x:agent:1", "tt:agent:1", "town"]
    for key in [*stay, *others, "tt:town:task:1"]:
        redis.set(key, key)
    result = Migrator(redis, "town", REVERSE).migrate()
    assert result.total == 1
    assert result.left is not None
    assert result.left.count is not None
    assert result.left.count.new_only == 5
    assert sorted(redis.keys()) == sorted(map(str.encode, [*stay, *others, "tt:task:1"]))


@each("town", TOWNS)
def test_what_is_left_is_counted_whatever_the_town_is_called(redis: Redis, town: str) -> None:
    start = f"tt:{town}:"
    redis.mset({f"{start}agent:1": 1, f"{start}agent:2": 1, "tt:agent:2": 1})
    redis.hset(f"{start}task:1", mapping={"id": "1"})
    redis.set(f"{start}mission:1", 1)
    result = Migrator(redis, town, REVERSE).migrate()
    assert (result.total, result.remaining, result.hashes_before) == (2, 1, 1)
    assert result.left is not None
    assert result.left.count is not None
    assert (result.left.strings["agent"], result.left.count.new_only) == (1, 1)


def test_an_old_key_is_never_overwritten(redis: Redis) -> None:
    redis.set("tt:agent:1", "old")
    redis.set("tt:town:agent:1", "new")
    before = contents(redis)
    preview = Migrator(redis, "town", REVERSE).preview()
    result = Migrator(redis, "town", REVERSE).migrate()
    assert preview.conflicts == result.conflicts == {b"tt:town:agent:1": "destination exists"}
    assert (result.total, result.remaining, result.complete) == (0, 1, False)
    assert contents(redis) == before


def test_a_name_that_would_be_a_towns_own_is_never_made(newest: Server) -> None:
    redis = newest.client()
    redis.set("tt:town:task:backlog", "of a task called backlog")
    done = tt("--reverse", "--force", url=newest.url, town="town")
    assert done.returncode == 0
    reason = "(may be the backlog of a town named 'task': never created)"
    assert f"tt:town:task:backlog {reason}" in done.stdout
    assert redis.keys() == [b"tt:town:task:backlog"]


@each("name", ["backlog", "events", "broadcast"])
@each("family", ["agent", "inbox", "urgent", "task", "activity", "stop"])
def test_of_two_towns_whose_names_begin_alike_only_one_goes_back(
    newest: Server, family: str, name: str
) -> None:
    redis = newest.client()
    longer = f"x:{family}"
    # Keys of town x, and of the longer-named town whose own keys look like records of x.
    redis.mset({f"tt:x:{family}:1": 1, f"tt:{longer}:{family}:2": 2, f"tt:{longer}:{name}": 3})
    key = f"tt:{longer}:{name}".encode()
    result = Migrator(redis, "x", REVERSE).migrate()
    assert (result.total, list(result.ambiguous), result.complete) == (1, [key], True)
    assert redis.exists(f"tt:{family}:1", f"tt:{longer}:{family}:2", key) == 3
    result = Migrator(redis, longer, REVERSE).migrate()
    assert (result.keys[family], result.ambiguous, result.complete) == (1, set(), True)
    own = {"backlog": b"tt:backlog"}.get(name, key)
    assert sorted(redis.keys()) == sorted([f"tt:{family}:{n}".encode() for n in (1, 2)] + [own])


@each("town", ["agent", "inbox", "urgent", "task", "activity", "stop"])
def test_a_town_named_like_a_family_comes_there_and_back(newest: Server, town: str) -> None:
    redis = newest.client()
    names = [f"{family}:1" for family in ("agent", "inbox", "urgent", "task", "activity", "stop")]
    redis.mset({f"tt:{name}": name for name in [*names, "backlog"]})
    redis.set(f"tt:{town}:events", "of the town's own")
    before = contents(redis)
    there = Migrator(redis, town).migrate()
    assert (there.total, there.ambiguous, there.complete) == (7, set(), True)
    again = Migrator(redis, town).migrate()
    assert (again.total, again.ambiguous, again.complete) == (0, set(), True)
    back = Migrator(redis, town, REVERSE).migrate()
    assert (back.total, back.ambiguous, back.complete) == (7, set(), True)
    assert contents(redis) == before


def test_hashes_stay_hashes_and_the_report_says_so(newest: Server) -> None:
    redis = newest.client()
    redis.hset("tt:town:agent:1", mapping={"id": "1"})
    redis.set("tt:town:task:1", "{}")
    redis.set("tt:town:events", "x")
    for options in (("--dry-run",), ("--force",)):
        text = tt("--reverse", *options, url=newest.url, town="town").stdout
        assert text.startswith("⚠️ Tinytown 0.6 must not be used on this town: 1 record is a hash")
        assert "   1 key of events, dockets or missions has no old form: it stays." in text
    assert redis.hgetall("tt:agent:1") == {b"id": b"1"}


def test_prompt_check_preview_and_json_serve_the_way_back(newest: Server) -> None:
    redis = newest.client()
    redis.rpush("tt:town:inbox:1", "x")
    url = newest.url
    check = tt("--reverse", "--check", url=url, town="town")
    assert (check.returncode, len(check.stdout.splitlines())) == (1, 1)
    assert "run 'tt migrate --reverse'" in check.stdout
    preview = tt("--reverse", "--dry-run", url=url, town="town").stdout
    assert "tt:town:inbox:1 → tt:inbox:1" in preview
    assert "Run 'tt migrate --reverse' (without --dry-run) to perform reversal." in preview
    assert tt("--reverse", url=url, town="town", answer="no\n").returncode == 4
    assert redis.keys() == [b"tt:town:inbox:1"]
    done = json.loads(tt("--reverse", "--force", "--json", url=url, town="town").stdout)
    assert (done["operation"], done["migrated"], done["remaining"]) == ("reverse", 1, 0)
    assert redis.keys() == [b"tt:inbox:1"]
    again = tt("--reverse", url=url, town="town")
    assert (again.returncode, again.stdout[:24]) == (0, "✅ Nothing to rename back")
    assert tt("--reverse", "--check", url=url, town="town").returncode == 0


@each(
    "options",
    [
        ("--hash", "--upgrade"),
        ("--hash", "--reverse"),
        ("--upgrade", "--reverse"),
        ("--hash", "--legacy-prefix", "mt"),
        ("--reverse", "--legacy-prefix", "mt"),
        ("--hash", "--on-conflict", "merge"),
        ("--reverse", "--on-conflict", "merge"),
        ("--on-conflict", "overwrite"),
        ("--legacy-prefix", "xx"),
    ],
)
def test_options_that_make_no_sense_together_are_status_2(options: tuple[str, ...]) -> None:
    assert tt(*options).returncode == 2


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keyspace=st.dictionaries(st.one_of(old_keys, foreign_keys), values, max_size=25), town=towns)
def test_migrating_and_going_back_gives_the_keyspace_it_began_with(
    either: Server, keyspace: dict[bytes, tuple[str, list[bytes], int | None]], town: str
) -> None:
    # Before the upgrade, no key has the town's name.
    prefix = b"tt:" + town_bytes(town) + b":"
    redis = either.client()
    redis.flushall()
    before_upgrade = {key: value for key, value in keyspace.items() if not is_of_town(key, prefix)}
    for key, value in before_upgrade.items():
        write(redis, key, *value)
    before = contents(redis)
    there = Migrator(redis, town).migrate()
    back = Migrator(redis, town, REVERSE).migrate()
    assert contents(redis) == before
    assert there.total == back.total
    assert back.complete


def is_of_town(key: bytes, prefix: bytes) -> bool:
    """Whether a key has the town's name, as after an upgrade."""
    if not key.startswith(prefix):
        return False
    name = key.removeprefix(prefix)
    family, _, key_id = name.partition(b":")
    known = (b"agent", b"inbox", b"urgent", b"task", b"activity", b"stop")
    return name == b"backlog" or (family in known and key_id != b"" and b":" not in key_id)


def test_reverse_undoes_what_rename_does_to_a_name() -> None:
    for town in TOWNS:
        assert REVERSE.destination(town, RENAME.destination(town, b"tt:agent:1")) == b"tt:agent:1"

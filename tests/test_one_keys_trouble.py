"""One key's trouble never ends a run: the key is listed, the rest is done."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.clusters import Cluster
from tests.command import tt
from tests.hash_to_json import json_of
from tests.json_to_hash import RecordError
from tests.keyspaces import contents
from tests.servers import Server
from tests.tables import each
from tests.test_downgrade import ID, NOW, OTHER, hash_of
from tests.users import user_without
from tt_migrate import DOWNGRADE, HASH, RENAME, UPGRADE, Migrator
from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.scripts import Call, source
from tt_migrate.engine.calls.session import Session, held_connection
from tt_migrate.plan import Plan, from_town
from tt_migrate.settings.config import Endpoint
from tt_migrate.settings.connection import open_client
from tt_migrate.terminal.errors import explain

MIGRATE = ("my-project", "0", "1000", "1000000", "", "", "", "0", "1", "0")
"""Arguments of migrate.lua for a whole pass that says what it did."""
NO_TEXTS = "tags are no list of texts"


def put_two(redis: Redis, family: str = "task", **changed: Any) -> None:
    """Put a record with some odd fields, and another one that is as usual."""
    redis.hset(f"tt:my-project:{family}:{ID}", mapping=hash_of(family, **changed))  # type: ignore[arg-type]
    other = hash_of("task") | {b"id": OTHER.encode()}
    redis.hset(f"tt:my-project:task:{OTHER}", mapping=other)  # type: ignore[arg-type]


@each(
    ("tags", "reason"),
    [
        (r'["\ud800"]', "has text that is no valid Unicode"),
        (r'["a\udfffb"]', "has text that is no valid Unicode"),
        ("[" * 1_000 + "]" * 1_000, NO_TEXTS),
        ("[" * 100_000 + "]" * 100_000, NO_TEXTS),
        ("[" * 100_000, NO_TEXTS),
        ("9" * 5_000, NO_TEXTS),
        ('{"a": 1}', NO_TEXTS),
    ],
)
def test_tags_that_cannot_be_converted_are_listed_and_the_rest_is_done(
    server: Server, tags: str, reason: str
) -> None:
    redis = server.client()
    put_two(redis, tags=tags)
    odd = f"tt:my-project:task:{ID}".encode()
    migrator = Migrator(redis, "my-project", DOWNGRADE)
    assert dict(migrator.preview().unconverted) == {odd: reason}
    done = migrator.migrate()
    assert (dict(done.unconverted), done.converted["task"]) == ({odd: reason}, 1)
    assert {*redis.keys()} == {odd, f"tt:task:{OTHER}".encode()}


@each("text", ["[" * 100_000, r'["\ud800"]', "[" * 1_000 + "]" * 1_000])
@each("name", ["name", "description", "result", "nickname"])
def test_such_texts_stay_texts_in_other_fields(text: str, name: str) -> None:
    stored, _ = json_of("task", ID.encode(), hash_of("task", **{name: text}))
    try:
        assert json.loads(stored)[name] in (text, json.loads(text))
    except (RecursionError, ValueError):
        assert text.encode() in stored


@each("mistake", ["nil .. ''", "error('x')", "error({})", "OVERFLOW.x"])
@each("plan", [DOWNGRADE, HASH, UPGRADE])
def test_an_error_of_our_own_in_one_record_is_listed_with_it(
    redis: Redis, mistake: str, plan: Plan
) -> None:
    put_two(redis)
    if plan is not DOWNGRADE:
        Migrator(redis, "my-project", DOWNGRADE).migrate()
    if plan is HASH:
        Migrator(redis, "my-project").migrate()
    odd = f"tt:my-project:task:{ID}".encode()
    before = {value for value, _ in contents(redis).values()}
    wrong = f"""
        local real, OVERFLOW = converted, {{}}
        setmetatable(OVERFLOW, {{__index = function(t) return t.x end}})
        function converted(family, key, id)
          return real(family, key, id == '{ID}' and {mistake} or id)
        end
        -- migrate.lua"""
    script = source("migrate", plan).replace("-- migrate.lua", wrong)
    *_, changed, unconverted, _, _, _, error = redis.eval(script, 0, *MIGRATE)
    assert (unconverted[0], error) == (odd, b"")
    assert unconverted[1].startswith(b"ERR ")
    assert [key.rpartition(b":")[2] for key in changed] == [OTHER.encode()]
    assert len(before & {value for value, _ in contents(redis).values()}) == 1


@pytest.mark.parametrize("error", [KeyError, IndexError, RecursionError, ValueError, TypeError])
def test_any_other_error_of_our_own_is_no_malformed_reply(
    newest: Server, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    newest.client().set("tt:agent:1", 1)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("tt_migrate.engine.passes.changes.Changes.left", fails)
    done = tt("--force", url=newest.url)
    assert done.returncode == 3
    assert f"internal: {error.__name__}" in done.stderr


@each(
    "time",
    [
        *("2024-99-99T99:99:99Z", "2024-02-30T00:00:00Z", "2023-02-29T00:00:00Z"),
        *("2024-00-01T00:00:00Z", "2024-01-00T00:00:00Z", "2024-13-01T00:00:00Z"),
        *("1900-02-29T00:00:00Z", "2024-04-31T00:00:00Z", "2024-01-01T24:00:00Z"),
        *("2024-01-01T00:60:00Z", "2024-01-01T00:00:61Z", "2024-01-01T00:00:00+99:99"),
        *("2024-01-01T00:00:00+24:00", "2024-01-01T00:00:00-00:60", "2024-01-01T00:00:00.Z"),
        *("2024-01-01T00:00:00", "2024-01-01T00:00Z", "2024-01-01T00:00:00Z "),
        "\u0662\u0660\u0662\u0664-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time_is_refused(time: str) -> None:
    for family, name in (("agent", "created_at"), ("task", "updated_at"), ("task", "completed_at")):
        with pytest.raises(RecordError, match=f"{name} is no time with a zone"):
            json_of(family, ID.encode(), hash_of(family, **{name: time}))


@each(
    "time",
    [
        *(NOW, "2024-02-29T23:59:60Z", "2024-05-05T12:30:60.5Z", "2000-02-29t00:00:00z"),
        *("2024-01-01 00:00:00+23:59", "2024-01-01T00:00:00-23:59", "2024-01-01T00:00:00-00:00"),
        *("0000-02-29T00:00:00Z", "9999-12-31T23:59:59.999999999Z"),
        "2024-01-01T00:00:00.1234567890123456789Z",
    ],
)
def test_what_chrono_takes_for_a_time_is_kept(time: str) -> None:
    stored, changes = json_of("agent", ID.encode(), hash_of("agent", created_at=time))
    assert (json.loads(stored)["created_at"], changes) == (time, [])


@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_every_time_that_there_is_can_be_written(time: datetime) -> None:
    text = time.isoformat()
    stored, _ = json_of("agent", ID.encode(), hash_of("agent", created_at=text))
    assert json.loads(stored)["created_at"] == text


LAST = f"{2**64 - 1}-{2**64 - 1}"
MERGE = from_town("old", merge=True)


def streams(redis: Any, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Fill the streams of events of two towns: the fields of each entry, by its id."""
    for town, entries in (("old", old), ("new", new)):
        for entry_id, fields in entries.items():
            redis.xadd(f"tt:{town}:events", fields, id=entry_id)


UNMERGEABLE = pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({LAST: {"a": 1}}, {LAST: {"a": 2}}, f"ERR no id is free after {LAST}"),
        (
            {LAST[:-1] + "4": {"a": 1}, LAST: {"a": 1}},
            {LAST[:-1] + "4": {"a": 2}},
            f"ERR no id is free after {LAST}",
        ),
        (
            {"5-1": {"a": 1}},
            {"6-1": {f"f{n}": n for n in range(3951)}},
            "ERR an event has too many fields to be merged: 6-1",
        ),
        (
            {f"{n}-1": {"a": 1} for n in range(1, 2500)}
            | {"2500-0": {f"f{n}": n for n in range(3951)}},
            {"5-1": {"a": 1}},
            "ERR an event has too many fields to be merged: 2500-0",
        ),
    ],
)


@UNMERGEABLE
def test_a_preview_lists_the_streams_that_cannot_be_joined(
    server: Server, old: dict[str, Any], new: dict[str, Any], reason: str
) -> None:
    streams(server.client(), old, new)
    before = contents(server.client())
    preview = Migrator(server.client(), "new", MERGE).preview()
    assert (dict(preview.merges), dict(preview.failed)) == ({}, {b"tt:old:events": reason})
    done = Migrator(server.client(), "new", MERGE).migrate()
    assert dict(done.failed) == dict(preview.failed)
    assert contents(server.client()) == before


@UNMERGEABLE
def test_a_preview_lists_them_on_shards_too(
    newest_cluster: Cluster, old: dict[str, Any], new: dict[str, Any], reason: str
) -> None:
    client = newest_cluster.client()
    streams(client, old, new)
    before = newest_cluster.snapshot()
    preview = Migrator(client, "new", MERGE).preview()
    [(key, said)] = preview.failed.items()
    # One shard does not know which ids are free on another.
    assert (key, said.replace("perhaps ", "")) == (b"tt:old:events", reason)
    assert (dict(preview.merges), {*preview.moves}) == ({}, set())
    done = Migrator(client, "new", MERGE).migrate()
    assert dict(done.failed) == {b"tt:old:events": reason}
    assert newest_cluster.snapshot() == before


def test_equal_streams_are_merged_on_shards_whatever_they_hold(newest_cluster: Cluster) -> None:
    client = newest_cluster.client()
    entries = {"5-1": {f"f{n}": n for n in range(3951)}, LAST: {"a": 1}}
    streams(client, entries, entries)
    preview = Migrator(client, "new", MERGE).preview()
    assert (dict(preview.merges), dict(preview.failed)) == ({b"tt:old:events": "merge: equal"}, {})
    assert Migrator(client, "new", MERGE).migrate().complete


def test_a_preview_promises_what_can_be_joined_however_many_entries_there_are(
    newest: Server,
) -> None:
    redis = newest.client()
    many = {f"{n}-1": {"a": 1} for n in range(1, 2001)}
    streams(redis, {**many, LAST: {"a": 1}}, {"1-1": {"a": 2}, LAST: {"a": 1}})
    preview = Migrator(redis, "new", MERGE).preview()
    assert preview.merges == {
        b"tt:old:events": "merge: 2001 and 2 entries, in the order of their ids"
    }
    assert Migrator(redis, "new", MERGE).migrate().complete
    assert redis.xlen("tt:new:events") == 2002


def test_a_preview_reads_no_stream_where_the_user_may_not(newest: Server) -> None:
    streams(newest.client(), {"1-1": {"a": 1}}, {"1-1": {"a": 2}})
    with user_without(newest, "xrange") as client:
        preview = Migrator(client, "new", MERGE).preview()
    assert [*preview.merges] == [b"tt:old:events"]
    assert preview.refused == ("XRANGE",)


def test_long_streams_with_the_same_ids_are_joined_before_the_client_gives_up(
    newest: Server,
) -> None:
    pipe = newest.client().pipeline(transaction=False)
    for n in range(20_000):
        pipe.xadd("tt:old:events", {"a": n}, id=f"1700000000000-{n}")
        pipe.xadd("tt:new:events", {"b": n}, id=f"1700000000000-{n}")
    pipe.execute()
    done = tt(
        "--from-town=old",
        "--on-conflict=merge",
        "--force",
        "--json",
        "--town-name=new",
        url=newest.url,
    )
    assert (done.returncode, json.loads(done.stdout)["reconnects"]) == (0, 0)
    assert newest.client().xlen("tt:new:events") == 40_000


def test_a_server_that_answered_before_is_not_blamed_for_tls(newest: Server) -> None:
    """A long command of somebody else, here a pause, is in the way of the first batch."""
    url = f"{newest.url}?socket_timeout=0.3"
    with (
        open_client(Endpoint("--redis-url", url=url)) as client,
        held_connection(client) as held,
    ):
        session = Session(held, RENAME, "my-project", Refusals())
        call = Call(session.script("count"), ("my-project", "0", 10, 1000, "", "", 0, 0))
        newest.client().execute_command("CLIENT", "PAUSE", 2_000, "ALL")
        with pytest.raises(RedisTimeoutError) as raised:
            session.call(call)
    said = explain(raised.value, url)
    assert "it answered before, but now not in time" in said
    assert "TLS" not in said

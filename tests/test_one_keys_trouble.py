"""One key's trouble never ends a run: the key is listed, the rest is done."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from tests.command import tt
from tests.servers import Server
from tests.test_downgrade import ID, NOW, OTHER, hash_of
from tt_migrate import DOWNGRADE, HASH, UPGRADE, Migrator
from tt_migrate.engine import conversion
from tt_migrate.engine.hash_to_json import json_of
from tt_migrate.engine.json_to_hash import RecordError

NO_TEXTS = "tags are no list of texts"


def put_two(redis: Redis, family: str = "task", **changed: Any) -> None:
    """Put a record with some odd fields, and another one that is as usual."""
    redis.hset(f"tt:my-project:{family}:{ID}", mapping=hash_of(family, **changed))  # type: ignore[arg-type]
    other = hash_of("task") | {b"id": OTHER.encode()}
    redis.hset(f"tt:my-project:task:{OTHER}", mapping=other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("text", ["[" * 100_000, r'["\ud800"]', "[" * 1_000 + "]" * 1_000])
@pytest.mark.parametrize("name", ["name", "description", "result", "nickname"])
def test_such_texts_stay_texts_in_other_fields(text: str, name: str) -> None:
    stored, _ = json_of("task", ID.encode(), hash_of("task", **{name: text}))
    try:
        assert json.loads(stored)[name] in (text, json.loads(text))
    except (RecursionError, ValueError):
        assert text.encode() in stored


@pytest.mark.parametrize("error", [KeyError, IndexError, RecursionError, ValueError, TypeError])
@pytest.mark.parametrize("plan", [DOWNGRADE, HASH, UPGRADE])
def test_an_error_of_our_own_in_one_record_is_listed_with_it(
    newest: Server, monkeypatch: pytest.MonkeyPatch, error: type[Exception], plan: Any
) -> None:
    redis = newest.client()
    put_two(redis)
    name = "json_of"
    if plan is not DOWNGRADE:
        Migrator(redis, "my-project", DOWNGRADE).migrate()
        Migrator(redis, "my-project").migrate()
        name = "fields_of"
    real = getattr(conversion, name)

    def fails_once(family: str, record_id: bytes, value: Any) -> Any:
        if record_id == ID.encode():
            raise error
        return real(family, record_id, value)

    monkeypatch.setattr(conversion, name, fails_once)
    done = Migrator(redis, "my-project", plan).migrate()
    assert [*done.unconverted.values()] == [f"internal error: {error.__name__}"]
    assert done.converted["task"] == 1


@pytest.mark.parametrize("error", [KeyError, IndexError, RecursionError, ValueError, TypeError])
def test_any_other_error_of_our_own_is_no_malformed_reply(
    newest: Server, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    newest.client().set("tt:agent:1", 1)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("tt_migrate.engine.record.Record.left", fails)
    done = tt("--force", url=newest.url)
    assert done.returncode == 3
    assert f"internal: {error.__name__}" in done.stderr


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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

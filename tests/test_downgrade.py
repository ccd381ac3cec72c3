"""--downgrade: hashes become the JSON that Tinytown 0.6 reads, keys get their old names back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from interop import keys
from tests.command import tt_in_process
from tests.hash_to_json import json_of
from tests.json_to_hash import RecordError, fields_of
from tests.keyspaces import contents
from tests.servers import Server
from tests.tables import each
from tt_migrate import DOWNGRADE, UPGRADE, Migrator

FIXTURE = Path(__file__).parent / "fixtures" / "tinytown-0.6.0.json"
ID = "428d8787-bf65-493a-bb58-47693e907f82"
OTHER = "64acd962-f87d-4672-925f-f7cb7de61d79"
NOW = "2026-11-23T14:26:28.555795150Z"
AGENT: dict[str, Any] = {
    "id": ID,
    "name": "reviewer",
    "agent_type": "worker",
    "state": "stopped",
    "cli": "true",
    "current_task": None,
    "created_at": NOW,
    "last_heartbeat": NOW,
    "tasks_completed": 0,
    "rounds_completed": 1,
}
TASK: dict[str, Any] = {
    "id": ID,
    "description": "text",
    "state": "pending",
    "assigned_to": None,
    "created_at": NOW,
    "updated_at": NOW,
    "completed_at": None,
    "result": None,
    "parent_id": None,
    "tags": [],
}
RECORDS = {"agent": AGENT, "task": TASK}
MISSING = "a missing {} became {}"


def written(record: dict[str, Any]) -> bytes:
    """Return a record as 0.6 writes it."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def hash_of(family: str, **changed: Any) -> dict[bytes, bytes]:
    """Return the hash of a record with some other fields; None leaves one out."""
    record = {**RECORDS[family], **{name: value for name, value in changed.items() if value}}
    fields = fields_of(family, ID.encode(), written(record))
    for name, value in changed.items():
        if value is None:
            del fields[name.encode()]
        else:
            fields[name.encode()] = str(value).encode()
    return fields


def downgraded(family: str, **changed: Any) -> tuple[dict[str, Any], list[str]]:
    text, changes = json_of(family, ID.encode(), hash_of(family, **changed))
    return json.loads(text), changes


texts = st.text(st.characters(exclude_categories=["Cs"]))
uuids = st.uuids().map(str)
agents = st.fixed_dictionaries(
    {
        "id": st.just(ID),
        "name": texts,
        "agent_type": st.sampled_from(["supervisor", "worker"]),
        "state": st.sampled_from(["starting", "idle", "working", "paused", "stopped", "error"]),
        "cli": texts,
        "current_task": st.none() | uuids,
        "created_at": st.just(NOW),
        "last_heartbeat": st.just("2026-11-23T14:26:28+00:00"),
        "tasks_completed": st.integers(0, 2**64 - 1),
        "rounds_completed": st.integers(0, 2**64 - 1),
    }
)
tasks = st.fixed_dictionaries(
    {
        "id": st.just(ID),
        "description": texts,
        "state": st.sampled_from(
            ["pending", "assigned", "running", "completed", "failed", "cancelled"]
        ),
        "assigned_to": st.none() | uuids,
        "created_at": st.just(NOW),
        "updated_at": st.just(NOW),
        "completed_at": st.none() | st.just(NOW),
        "result": st.none() | texts,
        "parent_id": st.none() | uuids,
        "tags": st.lists(texts),
    }
)
numbers = st.integers(-(10**30), 10**30)
unknown = st.recursive(
    numbers
    | st.booleans()
    | texts.filter(lambda text: not text.strip().startswith(tuple('[{"-0123456789tf'))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.sampled_from(["agent", "task"]), st.data())
def test_what_0_6_wrote_comes_back_byte_for_byte(family: str, data: st.DataObject) -> None:
    drawn: dict[str, Any] = data.draw(agents if family == "agent" else tasks)
    record = {name: drawn[name] for name in RECORDS[family]}
    extra = data.draw(st.dictionaries(texts.map(lambda name: f"x{name}"), unknown, max_size=3))
    stored = written({**record, **extra})
    fields = fields_of(family, ID.encode(), stored)
    text, changes = json_of(family, ID.encode(), fields)
    assert (text, changes) == (stored, [])


@settings(max_examples=40)
@given(st.sampled_from(["agent", "task"]), st.data())
def test_an_upgrade_after_a_downgrade_gives_the_same_hash(family: str, data: st.DataObject) -> None:
    record: dict[str, Any] = data.draw(agents if family == "agent" else tasks)
    fields = fields_of(family, ID.encode(), written(record))
    extra = data.draw(st.dictionaries(texts.map(lambda name: f"x{name}"), texts, max_size=4))
    fields |= {name.encode(): value.encode() for name, value in extra.items()}
    text, _ = json_of(family, ID.encode(), fields)
    assert fields_of(family, ID.encode(), text) == fields


@each(
    ("family", "changed", "name", "value", "said"),
    [
        ("agent", {"state": "draining"}, "state", "stopped", "state draining became stopped"),
        ("agent", {"state": "cold"}, "state", "stopped", "state cold became stopped"),
        ("task", {"state": "in_flight"}, "state", "running", "state in_flight became running"),
        ("agent", {"name": None}, "name", "", "a missing name became empty"),
        ("agent", {"cli": None}, "cli", "", "a missing cli became empty"),
        (
            "agent",
            {"agent_type": None},
            "agent_type",
            "worker",
            "a missing agent_type became worker",
        ),
        (
            "agent",
            {"tasks_completed": None},
            "tasks_completed",
            0,
            "a missing tasks_completed became 0",
        ),
        ("agent", {"current_task": ""}, "current_task", None, "an empty current_task became null"),
    ],
)
def test_what_a_rule_changes_is_said(
    family: str, changed: dict[str, Any], name: str, value: Any, said: str
) -> None:
    record, changes = downgraded(family, **changed)
    assert (record[name], changes) == (value, [said])


@each(
    ("family", "changed"),
    [
        ("agent", {"created_at": None}),
        ("agent", {"created_at": "yesterday"}),
        ("agent", {"last_heartbeat": "2026-11-23T14:26:28"}),
        ("task", {"completed_at": "soon"}),
        ("agent", {"tasks_completed": "-1"}),
        ("agent", {"tasks_completed": str(2**64)}),
        ("agent", {"tasks_completed": "1.0"}),
        ("agent", {"tasks_completed": "many"}),
        ("agent", {"current_task": "none"}),
        ("task", {"parent_id": "1"}),
        ("task", {"assigned_to": ID[:-1]}),
        ("agent", {"state": "sleeping"}),
        ("task", {"state": "cold"}),
        ("agent", {"state": None}),
        ("agent", {"agent_type": "boss"}),
        ("task", {"tags": "null"}),
        ("task", {"tags": "[1]"}),
        ("task", {"tags": "text"}),
        ("task", {"id": OTHER}),
        ("task", {"id": None}),
    ],
)
def test_what_0_6_would_not_read_is_refused(family: str, changed: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        downgraded(family, **changed)


def test_bytes_that_are_no_text_are_refused() -> None:
    for field in ({b"name": b"\xff"}, {b"\xff": b"x"}):
        with pytest.raises(RecordError, match="not UTF-8"):
            json_of("agent", ID.encode(), hash_of("agent") | field)


def test_the_town_of_0_6_comes_back_as_it_was(either: Server) -> None:
    redis = either.client()
    keys.put(redis, keys.load(FIXTURE))
    before = contents(redis)
    assert Migrator(redis, "my-town", UPGRADE).migrate().complete
    preview = Migrator(redis, "my-town", DOWNGRADE).preview()
    done = Migrator(redis, "my-town", DOWNGRADE).migrate()
    assert done.complete
    assert (done.converted, done.keys) == (preview.to_convert, preview.keys)
    assert contents(redis) == before
    again = Migrator(redis, "my-town", DOWNGRADE).migrate()
    assert (again.changed, again.complete) == (0, True)
    assert contents(redis) == before


def put(redis: Redis, key: str, **changed: Any) -> None:
    family = key.split(":")[-2]
    redis.hset(key, mapping=hash_of(family, **changed))  # type: ignore[arg-type]


def test_what_cannot_be_converted_keeps_its_name_and_its_form(server: Server) -> None:
    redis = server.client()
    put(redis, f"tt:town:agent:{ID}", created_at=None)
    put(redis, f"tt:town:task:{ID}", state="in_flight")
    redis.rpush(f"tt:town:inbox:{ID}", "a")
    redis.xadd("tt:town:events", {"a": "b"})
    migrator = Migrator(redis, "town", DOWNGRADE)
    preview = migrator.preview()
    assert dict(preview.unconverted) == {f"tt:town:agent:{ID}".encode(): "has no created_at"}
    assert set(preview.moves) == {f"tt:town:{f}:{ID}".encode() for f in ("task", "inbox")}
    assert dict(preview.adjusted) == {"state in_flight became running": 1}
    done = migrator.migrate()
    assert (done.complete, done.records_left, done.appeared) == (False, 1, 0)
    assert dict(done.adjusted) == {"state in_flight became running": 1}
    assert {*redis.keys()} == {
        f"tt:town:agent:{ID}".encode(),
        b"tt:town:events",
        *(f"tt:{family}:{ID}".encode() for family in ("task", "inbox")),
    }


def test_times_to_live_are_kept_but_those_of_fields_cannot_be(kind: Any, server: Server) -> None:
    redis = server.client()
    put(redis, f"tt:town:agent:{ID}")
    redis.pexpire(f"tt:town:agent:{ID}", 100_000)
    put(redis, f"tt:town:task:{ID}")
    has_field_ttls = kind.name in ("redis-8.2", "valkey-9.1")
    if has_field_ttls:
        redis.execute_command("HPEXPIRE", f"tt:town:task:{ID}", 10**7, "FIELDS", 1, "result")
        redis.hset(f"tt:town:task:{ID}", "x", "y")
        redis.execute_command("HPEXPIRE", f"tt:town:task:{ID}", 10**7, "FIELDS", 1, "x")
    done = Migrator(redis, "town", DOWNGRADE).migrate()
    assert 90_000 < redis.pttl(f"tt:agent:{ID}") <= 100_000
    if has_field_ttls:
        (reason,) = done.unconverted.values()
        assert "times to live" in reason
        assert redis.type(f"tt:town:task:{ID}") == b"hash"
    else:
        assert done.complete


def test_a_full_server_leaves_every_record(server: Server) -> None:
    redis = server.client()
    put(redis, f"tt:town:agent:{ID}")
    before = contents(redis)
    redis.config_set("maxmemory", 1)
    done = Migrator(redis, "town", DOWNGRADE).migrate()
    redis.config_set("maxmemory", 0)
    assert (done.changed, len(done.unconverted)) == (0, 1)
    assert contents(redis) == before


def test_reverse_says_first_that_0_6_must_not_be_used_on_hashes(newest: Server) -> None:
    redis = newest.client()
    put(redis, f"tt:town:agent:{ID}")
    town = ("--redis-url", newest.url, "--town-name", "town")
    ways: list[tuple[tuple[str, ...], bytes]] = [(("--dry-run",), b""), ((), b"n\n")]
    for options, answer in (*ways, (("--force",), b"")):
        said = tt_in_process("--reverse", *options, *town, answer=answer).stdout
        first, _, _ = said.partition("\n")
        assert "0.6 must not be used on this town: 1 record is a hash" in first
        assert "--downgrade" in first
    assert tt_in_process("--force", *town).returncode == 0
    assert tt_in_process("--downgrade", "--force", *town).returncode == 0
    assert redis.get(f"tt:agent:{ID}") == written(AGENT)
    assert tt_in_process("--reverse", "--force", *town).stdout.startswith("✅")


def test_the_command_asks_checks_and_reports(newest: Server) -> None:
    redis = newest.client()
    put(redis, f"tt:town:agent:{ID}", state="cold")
    redis.rpush("tt:town:backlog", ID)
    town = ("--downgrade", "--redis-url", newest.url, "--town-name", "town")
    check = tt_in_process("--check", *town)
    assert (check.returncode, "1 record needs conversion to a JSON string" in check.stdout) == (
        1,
        True,
    )
    asked = tt_in_process(*town, answer=b"y\n")
    assert asked.returncode == 0
    assert "Downgrade complete!" in asked.stdout
    assert "state cold became stopped (once)" in asked.stdout
    document = json.loads(tt_in_process("--check", "--json", *town).stdout)
    assert (document["operation"], document["total"]) == ("downgrade", 0)
    assert json.loads(redis.get(f"tt:agent:{ID}"))["state"] == "stopped"  # type: ignore[arg-type]


def test_a_preview_and_a_report_say_what_is_changed_for_0_6(newest: Server) -> None:
    put(newest.client(), f"tt:town:task:{ID}", state="in_flight")
    options = ("--downgrade", "--redis-url", newest.url, "--town-name", "town")
    change = "so that 0.6 can read it: state in_flight became running (once)"
    assert f"   To be changed {change}\n" in tt_in_process(*options, "--dry-run").stdout
    assert f"   Changed {change}\n" in tt_in_process(*options, "--force").stdout

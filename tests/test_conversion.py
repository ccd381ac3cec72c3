"""--hash and --upgrade on real servers: how a town's records are converted."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from itertools import permutations, product, repeat
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from tests.command import tt
from tests.keyspaces import EXPIRY_STEP_MS, contents
from tests.midway import cut_connections, quick_retry
from tests.servers import Server
from tests.tables import each
from tests.users import user_without
from tt_migrate import (
    DOWNGRADE,
    HASH,
    RENAME,
    UPGRADE,
    Migration,
    Migrator,
    Plan,
    Progress,
)
from tt_migrate.engine.calls.scripts import source
from tt_migrate.terminal.words import command_for

MERGE = replace(UPGRADE, merge=True)
MORE = ("", "", "", "0", "1", "0")
"""Arguments of migrate.lua after `budget`."""
TIMES = ("created_at", "updated_at")
AGENT = {
    "id": "1",
    "name": "conductor",
    "state": "idle",
    "cli": "claude",
    "current_task": None,
    "tasks_completed": 3,
    "mood": {"is": [1, 2]},
}
TASK: dict[str, Any] = {
    "id": "2",
    "description": 'Täsk / "x"',
    "tags": [],
    "result": None,
    "assigned_to": "1",
}
WHOLE_TASK = {
    "description": "d",
    "state": "pending",
    **dict.fromkeys(TIMES, "2026-03-09T16:29:58Z"),
}


def convert(redis: Redis, town: str = "town") -> Migration:
    return Migrator(redis, town, HASH).migrate()


def put(redis: Redis, key: str, record: Any, **options: Any) -> None:
    redis.set(key, json.dumps(record), **options)


def test_records_become_hashes_and_keep_every_field_and_their_ttl(redis: Redis) -> None:
    put(redis, "tt:town:agent:1", AGENT)
    put(redis, "tt:town:task:2", TASK, pxat=EXPIRY_STEP_MS * 40_000_000)
    expires = contents(redis)[b"tt:town:task:2"][1]
    result = convert(redis)
    assert result.converted == {"agent": 1, "task": 1}
    assert result.complete
    assert redis.hgetall("tt:town:agent:1") == {
        b"id": b"1",
        b"name": b"conductor",
        b"state": b"idle",
        b"cli": b"claude",
        b"tasks_completed": b"3",
        b"mood": b'{"is":[1,2]}',
    }
    assert redis.hgetall("tt:town:task:2") == {
        b"id": b"2",
        b"description": 'Täsk / "x"'.encode(),
        b"tags": b"[]",
        b"assigned_to": b"1",
    }
    after = contents(redis)
    assert after[b"tt:town:agent:1"][1] == -1
    assert after[b"tt:town:task:2"][1] == expires
    assert redis.hincrby("tt:town:agent:1", "tasks_completed", 1) == 4
    assert redis.dbsize() == 2


def test_hashes_are_counted_and_another_type_is_listed_as_failed(redis: Redis) -> None:
    redis.hset("tt:town:agent:1", mapping={"id": "1"})
    redis.rpush("tt:town:task:2", "x")
    put(redis, "tt:town:task:3", {"id": "3"})
    before = contents(redis)
    result = convert(redis)
    assert (result.converted, result.already_hashes) == ({"agent": 0, "task": 1}, 1)
    assert result.unconverted == {b"tt:town:task:2": "is a list, neither string nor hash"}
    assert not result.complete
    after = contents(redis)
    assert after[b"tt:town:agent:1"] == before[b"tt:town:agent:1"]
    assert after[b"tt:town:task:2"] == before[b"tt:town:task:2"]


def test_only_the_towns_agents_and_tasks_are_converted(redis: Redis) -> None:
    others = ["tt:other:agent:1", "tt:agent:1", "tt:town:stop:1", "tt:town:mission:1", "x"]
    others += ["tt:town:agent:1:x", "tt:town:agent:", "tt:town:agents:1", "tt:town:mission:agent:1"]
    for key in others:
        put(redis, key, {"id": "1"})
    before = contents(redis)
    result = convert(redis)
    assert sum(result.converted.values()) == 0
    assert contents(redis) == before


def test_what_cannot_be_converted_stays_untouched_and_is_listed(redis: Redis) -> None:
    bad = {"1": "no json", "2": "[]", "3": '{"name":"x"}', "4": '{"id":"5"}'}
    for key_id, text in bad.items():
        redis.set(f"tt:town:task:{key_id}", text, pxat=EXPIRY_STEP_MS * 40_000_000)
    put(redis, "tt:town:task:good", {"id": "good"})
    before = contents(redis)
    preview = Migrator(redis, "town", HASH).preview()
    assert contents(redis) == before
    result = convert(redis)
    assert preview.unconverted == result.unconverted
    assert sorted(result.unconverted) == [b"tt:town:task:%s" % k.encode() for k in bad]
    assert result.converted["task"] == len(preview.conversions) == 1
    assert result.records_left == 4
    after = contents(redis)
    assert all(after[key] == before[key] for key in result.unconverted)


def test_a_second_run_converts_nothing(redis: Redis) -> None:
    for n in range(500):
        put(redis, f"tt:town:task:{n}", {"id": str(n), "n": n})
    assert convert(redis).converted["task"] == 500
    after = contents(redis)
    again = convert(redis)
    assert (again.changed, again.already_hashes, again.complete) == (0, 500, True)
    assert contents(redis) == after


def test_a_batch_of_records_costs_one_call_and_not_one_a_record(newest: Server) -> None:
    redis = newest.client()
    redis.mset({f"tt:town:task:{n}": json.dumps({**TASK, "id": str(n)}) for n in range(2000)})
    result = Migrator(redis, "town", HASH, max_pause_ms=200).migrate()
    assert result.converted["task"] == 2000
    assert result.effort.batches < 20


def test_no_record_leaves_the_server_and_none_comes_back(newest: Server) -> None:
    redis = newest.client()
    created = "2026-03-09T16:29:58.123456789Z"
    task = {"description": "d", "state": "pending", **dict.fromkeys(TIMES, created), "result": ""}
    for first in range(0, 10_000, 2000):
        names = map(str, map(uuid5, repeat(NAMESPACE_URL), map(str, range(first, first + 2000))))
        tasks = ({"id": name, **task} for name in names)
        redis.mset({f"tt:task:{one['id']}": json.dumps(one).ljust(350) for one in tasks})
    for plan in (UPGRADE, DOWNGRADE, RENAME, HASH):
        before = redis.info("stats")
        result = Migrator(newest.client(), "town", plan).migrate()
        after = redis.info("stats")
        assert (result.converted["task"], result.complete) == (10_000 * bool(plan.convert), True)
        for way in ("total_net_input_bytes", "total_net_output_bytes"):
            # The names alone would be more.
            assert after[way] - before[way] < 300_000


@pytest.mark.parametrize("denied", [(), ("time",)], ids=["clock", "no clock"])
@pytest.mark.parametrize("plan", [UPGRADE, HASH, DOWNGRADE], ids=command_for)
def test_records_that_take_time_are_postponed_and_converted_later(
    server: Server, plan: Plan, denied: tuple[str, ...]
) -> None:
    redis = server.client()
    for n in range(15):
        task = {**WHOLE_TASK, "id": str(UUID(int=n)), "result": "x" * 300_000}
        put(redis, f"tt:{'' if plan is UPGRADE else 'town:'}task:{task['id']}", task)
    if plan is DOWNGRADE:
        convert(redis)
    run = Migrator(user_without(server, *denied), "town", plan, max_pause_ms=0.5)
    preview, result = run.preview(), run.migrate()
    assert len(preview.conversions) == result.converted["task"] == 15
    assert (result.complete, result.unconverted) == (True, {})
    for effort in (preview.effort, result.effort):
        assert effort.batches > 5
    name = f"tt:{'' if plan is DOWNGRADE else 'town:'}task:{UUID(int=7)}"
    value: Any = redis.get(name) if plan is DOWNGRADE else redis.hget(name, "result")
    assert value.count(b"x") >= 300_000


def test_what_a_call_postpones_it_leaves_as_it_is(redis: Redis) -> None:
    for n in range(30):
        put(redis, f"tt:town:task:{n}", {"id": str(n), "text": "x" * 300_000})
    before = contents(redis)
    reply: Any = redis.eval(source("migrate", HASH), 0, *("town", 0, 1000, 1), *MORE)
    postponed, converted = {*reply[9]}, {*b"".join(reply[14]).split(b"\n")} - {b""}
    assert len(postponed) + len(converted) == 30
    assert len(postponed) > 20
    assert all(contents(redis)[key] == before[key] for key in postponed)
    args = ("town", reply[0], 1000, 60_000_000, *MORE, *postponed)
    reply = redis.eval(source("migrate", HASH), 0, *args)
    assert converted | ({*b"".join(reply[14]).split(b"\n")} - {b""}) == {*before}


RECORDS = {
    "equal": {"id": "1", "text": "same"},
    "other": {"id": "1", "text": "other"},
    "broken": {"id": "2"},
}


@each("records", [*product(RECORDS, repeat=2), *product(RECORDS, repeat=3)])
def test_the_order_of_scan_does_not_matter_to_records_with_one_new_name(
    newest: Server, records: tuple[str, ...]
) -> None:
    """A record of the town that is a hash already could not be merged with an old one."""
    redis = newest.client()
    keys = ("tt:town:agent:1", "tt:agent:1", "mt:agent:1")[: len(records)]
    script, ends = source("migrate", MERGE), []
    for order in permutations(keys):
        redis.flushdb()
        for key, record in zip(keys, records, strict=True):
            put(redis, key, RECORDS[record])
        # Keys that a call gets are visited in their order.
        _, _, _, _, *said = redis.eval(script, 0, "town", 0, 1000, 60_000_000, *MORE, *order)
        pairs = [dict(zip(part[::2], part[1::2], strict=True)) for part in said[2:4]]
        ends.append((contents(redis), said[:2], pairs, *map(sorted, said[6:8]), said[9:]))
    assert all(end == ends[0] for end in ends)


def test_all_old_records_that_equal_new_ones_are_merged_and_converted(redis: Redis) -> None:
    for n in range(100):
        for start in ("tt:town:", "tt:", "mt:"):
            put(redis, f"{start}agent:{n}", {"id": str(n)})
    result = Migrator(redis, "town", MERGE).migrate()
    assert (result.merged["agent"], result.converted["agent"], result.complete) == (200, 100, True)
    assert redis.dbsize() == 100


def test_a_full_server_leaves_the_records_as_they_were_and_lists_them(redis: Redis) -> None:
    for n in range(50):
        put(redis, f"tt:town:agent:{n}", {**AGENT, "id": str(n)}, ex=100_000)
    before = contents(redis)
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            redis.set("other", 1)
        result = convert(redis)
        assert result.converted["agent"] == 0
        assert len(result.unconverted) == 50
        assert all(reason.startswith("OOM") for reason in result.unconverted.values())
    finally:
        redis.config_set("maxmemory", 0)
    assert contents(redis) == before
    assert convert(redis).converted["agent"] == 50


def test_a_full_server_is_status_1_with_the_records_listed(newest: Server) -> None:
    redis = newest.client()
    put(redis, "tt:town:agent:1", AGENT)
    redis.config_set("maxmemory", 1)
    done = tt("--hash", "--force", url=newest.url, town="town")
    assert done.returncode == 1
    assert "tt:town:agent:1 (OOM" in done.stdout
    assert redis.get("tt:town:agent:1") == json.dumps(AGENT).encode()


def test_no_update_is_lost_while_somebody_writes_the_records(either: Server) -> None:
    redis = either.client()
    ids = [str(n) for n in range(100)]
    for key_id in ids:
        put(redis, f"tt:town:task:{key_id}", {"id": key_id, "n": 0})
    stop = threading.Event()
    last: dict[str, int] = {}

    def old_tinytown() -> None:
        """Overwrites records as long as they are strings."""
        client = either.client()
        compare_and_set = client.register_script(
            "if redis.call('TYPE', KEYS[1]).ok ~= 'string' then return 0 end"
            " redis.call('SET', KEYS[1], ARGV[1]) return 1"
        )
        n = 0
        while not stop.is_set():
            n += 1
            key_id = ids[n % len(ids)]
            record = json.dumps({"id": key_id, "n": n})
            if compare_and_set(keys=[f"tt:town:task:{key_id}"], args=[record]):
                last[key_id] = n

    writer = threading.Thread(target=old_tinytown)
    writer.start()
    try:
        result = Migrator(redis, "town", HASH, max_pause_ms=1).migrate()
    finally:
        stop.set()
        writer.join()
    assert result.converted["task"] == 100
    for key_id in ids:
        assert redis.hget(f"tt:town:task:{key_id}", "n") == str(last.get(key_id, 0)).encode()


def test_a_lost_connection_in_mid_conversion_is_no_loss(either: Server) -> None:
    redis, other = either.client(), either.client()
    for n in range(200):
        put(redis, f"tt:town:task:{n}", {"id": str(n)})
    seen: list[Progress] = []

    def progress(now: Progress) -> None:
        seen.append(now)
        if [p.stage for p in seen].count("migrating") == 2:
            cut_connections(other)

    result = Migrator(
        *(redis, "town", HASH), max_pause_ms=0.2, progress=progress, retry=quick_retry()
    ).migrate()
    assert result.effort.reconnects >= 1
    assert result.complete
    assert all(other.type(f"tt:town:task:{n}") == b"hash" for n in range(200))


def test_a_user_who_may_not_write_learns_so_and_nothing_changes(server: Server) -> None:
    redis = server.client()
    put(redis, "tt:town:task:1", {"id": "1"})
    redis.execute_command("ACL", "SETUSER", "less", "on", ">secret", "~*", "+@all", "-hset")
    less = server.client(username="less", password="secret")
    before = contents(redis)
    with pytest.raises(ResponseError, match=r"permission|can't run this command"):
        convert(less)
    assert contents(redis) == before
    redis.execute_command("ACL", "SETUSER", "less", "-type")
    with pytest.raises(ResponseError):
        Migrator(less, "town", HASH).count()


def test_a_large_record_is_converted(redis: Redis) -> None:
    record = {"id": "1", **{f"field {n}": n for n in range(12_000)}, "text": "x" * 1_000_000}
    put(redis, "tt:town:task:1", record)
    assert convert(redis).converted["task"] == 1
    assert redis.hlen("tt:town:task:1") == 12_002


def test_upgrade_takes_oldest_keys_old_keys_and_hashes_in_one_run(redis: Redis) -> None:
    put(redis, "mt:agent:0", {"id": "0", "model": "claude"})
    redis.rpush("mt:inbox:0", "message")
    put(redis, "tt:agent:1", AGENT)
    put(redis, "tt:town:task:2", TASK)
    redis.rpush("tt:backlog", "2")
    preview = Migrator(redis, "town", UPGRADE).preview()
    assert len(preview.moves) == 4
    names = [b"tt:town:agent:0", b"tt:town:agent:1", b"tt:town:task:2"]
    assert sorted(preview.conversions) == names
    result = Migrator(redis, "town", UPGRADE).migrate()
    assert (result.total, result.converted) == (4, {"agent": 2, "task": 1})
    assert result.complete
    assert sorted(redis.keys()) == [
        b"tt:town:agent:0",
        b"tt:town:agent:1",
        b"tt:town:backlog",
        b"tt:town:inbox:0",
        b"tt:town:task:2",
    ]
    assert redis.hgetall("tt:town:agent:0") == {
        b"id": b"0",
        b"model": b"claude",
        b"cli": b"claude",
    }


def test_a_plain_migration_ends_by_saying_what_hash_would_do(newest: Server) -> None:
    redis = newest.client()
    put(redis, "tt:agent:1", AGENT)
    put(redis, "tt:town:task:2", TASK)
    hint = "cannot read 1 agent and 1 task yet: run 'tt migrate --hash'"
    assert tt("--force", url=newest.url, town="town").stdout.splitlines()[0].endswith(hint)
    again = tt("--force", url=newest.url, town="town").stdout
    assert again.splitlines()[-1].endswith(hint)
    assert "2 records" in tt("--check", url=newest.url, town="town").stdout
    convert(redis)
    assert "cannot read" not in tt("--force", url=newest.url, town="town").stdout


def test_hash_says_which_command_comes_first_where_old_keys_exist(newest: Server) -> None:
    redis = newest.client()
    put(redis, "tt:agent:1", AGENT)
    redis.rpush("tt:inbox:1", "x")
    for options in (("--force",), ("--dry-run",), ("--check",), ()):
        done = tt("--hash", *options, url=newest.url, town="town")
        assert "2 old keys" in done.stdout
        assert "run 'tt migrate' first, or 'tt migrate --upgrade' for both" in done.stdout
        assert done.returncode == (0 if options == ("--dry-run",) else 1)
    assert sorted(redis.keys()) == [b"tt:agent:1", b"tt:inbox:1"]


@pytest.mark.parametrize("operation", ["--hash", "--upgrade"])
def test_check_prompt_preview_and_json_serve_every_operation(
    newest: Server, operation: str
) -> None:
    redis = newest.client()
    put(redis, "tt:town:agent:1", AGENT)
    before = contents(redis)
    url, town = newest.url, "town"
    check = tt(operation, "--check", url=url, town=town)
    assert (check.returncode, len(check.stdout.splitlines())) == (1, 1)
    assert f"1 record needs conversion to a hash: run 'tt migrate {operation}'" in check.stdout
    preview = tt(operation, "--dry-run", url=url, town=town)
    assert preview.returncode == 0
    assert "   tt:town:agent:1\n" in preview.stdout
    assert f"Run 'tt migrate {operation}' (without --dry-run)" in preview.stdout
    refused = tt(operation, url=url, town=town, answer="n\n")
    assert refused.returncode == 4
    assert "JSON strings:\n   agent    1" in refused.stdout
    assert contents(redis) == before
    found = json.loads(tt(operation, "--dry-run", "--json", url=url, town=town).stdout)
    assert (found["operation"], found["mode"]) == (operation[2:], "preview")
    assert found["conversions"] == ["tt:town:agent:1"]
    assert found["records"] == {"agent": 1, "task": 0}
    done = json.loads(tt(operation, "--force", "--json", url=url, town=town).stdout)
    assert (done["converted"], done["strings"], done["hashes"]) == (1, 0, 1)
    assert tt(operation, "--check", url=url, town=town).returncode == 0
    nothing = tt(operation, url=url, town=town)
    assert (nothing.returncode, nothing.stdout[:22]) == (0, "✅ No migration needed ")
    assert tt(operation, "--force", "--quiet", url=url, town=town).stdout == ""


def test_a_failed_record_is_in_the_document_under_its_own_name(newest: Server) -> None:
    newest.client().set("tt:town:agent:1", "[]")
    done = json.loads(tt("--hash", "--force", "--json", url=newest.url, town="town").stdout)
    key = "tt:town:agent:1"
    assert done["failed"] == [{"from": key, "to": key, "reason": "is JSON, but no object"}]
    assert done["strings"] == 1

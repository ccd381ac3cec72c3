"""Migrates a town that Tinytown 0.6.0 wrote, recorded by `make interop ARGS=--record`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interop import keys
from tests.command import tt
from tests.keyspaces import contents
from tests.servers import Server

MADE = keys.load(Path(__file__).parent / "fixtures" / "tinytown-0.6.0.json")
TOWN = "my-town"

AGENT_FIELDS = {"id", "name", "agent_type", "state", "cli", "created_at", "last_heartbeat"}
AGENT_FIELDS |= {"tasks_completed", "rounds_completed"}
"""The fields of an agent that 0.6.0 writes and 0.10.0 reads; `current_task` can be absent."""

TASK_FIELDS = {"id", "description", "state", "created_at", "updated_at", "tags"}


def test_the_recorded_town_has_every_family() -> None:
    families = {key["name"].split(":")[1] for key in MADE}
    assert families == {"agent", "inbox", "urgent", "task", "activity", "stop", "backlog"}


def test_one_command_makes_it_a_town_that_a_current_tinytown_reads(server: Server) -> None:
    redis = server.client()
    keys.put(redis, MADE)
    before = contents(redis)
    done = tt("--upgrade", "--force", url=server.url, town=TOWN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No old keys and no JSON strings are left." in done.stdout
    assert sorted(redis.keys()) == sorted(k.replace(b"tt:", b"tt:my-town:", 1) for k in before)
    after = {key["name"]: key for key in keys.read(redis)}
    for key in MADE:
        name = key["name"].replace("tt:", f"tt:{TOWN}:", 1)
        family = key["name"].split(":")[1]
        if family not in ("agent", "task"):
            new_name = name.encode()
            assert contents(redis)[new_name] == before[key["name"].encode()]
            continue
        record = json.loads(key["value"])
        expected = AGENT_FIELDS if family == "agent" else TASK_FIELDS
        fields = after[name]["value"]
        assert after[name]["type"] == "hash"
        assert fields.keys() >= expected
        for field, value in record.items():
            if value is None:
                assert field not in fields
            else:
                assert fields[field] == (value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize("commands", [(("--force",), ("--hash", "--force"))])
def test_two_commands_come_to_the_same_as_one(
    newest: Server, commands: tuple[tuple[str, ...], ...]
) -> None:
    redis = newest.client()
    outcomes = []
    for journey in (commands, (("--upgrade", "--force"),)):
        redis.flushall()
        keys.put(redis, MADE)
        for command in journey:
            assert tt(*command, url=newest.url, town=TOWN).returncode == 0
        outcomes.append([{**key, "ttl": key["ttl"] >= 0} for key in keys.read(redis)])
    assert outcomes[0] == outcomes[1]

"""--json prints one document on stdout, in every mode and after failures."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.command import tt
from tests.hostile import bulk, error, hello, hostile_server, inspection
from tests.servers import Server, StartServer

FIELDS = {
    "town",
    "redis",
    "database",
    "mode",
    "keys",
    "total",
    "migrated",
    "merged",
    "records",
    "converted",
    "operation",
    "from_town",
    "former_guess",
    "absent",
    "databases",
    "namesakes",
    "finished",
    "strings",
    "unreadable",
    "hashes",
    "new_only",
    "conflicts",
    "ambiguous",
    "failed",
    "remaining",
    "batches",
    "seconds",
    "max_pause_ms",
    "reconnects",
    "lost_replies",
    "evicted",
    "replica_wait",
    "replica_lag",
    "hidden",
    "adjusted",
    "found",
    "towns",
    "dbsize",
    "scanned",
    "server",
    "options",
    "version",
    "started_at",
    "finished_at",
}
FAMILIES = ["agent", "inbox", "urgent", "task", "activity", "stop", "backlog"]


@pytest.fixture
def town(newest: Server) -> Server:
    newest.client().mset(
        {
            "tt:agent:1": 1,
            "tt:agent:2": 2,
            "tt:my-project:agent:2": "taken",
            "tt:backlog": 3,
            "tt:task:backlog": "ambiguous",
        }
    )
    newest.client().set(b"tt:inbox:\xff", 4)
    return newest


def document(*args: str, status: int = 0, **kwargs: Any) -> dict[str, Any]:
    done = tt("--json", *args, **kwargs)
    assert done.returncode == status, done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    assert set(parsed) - {"error", "moves", "merges", "conversions", "refused"} == FIELDS
    return parsed


def test_a_preview_lists_moves_and_what_would_be_left(town: Server) -> None:
    found = document("--dry-run", url=town.url)
    assert (found["town"], found["redis"], found["mode"]) == ("my-project", town.url, "preview")
    assert list(found["keys"]) == FAMILIES
    assert found["keys"] == {**dict.fromkeys(FAMILIES, 0), "agent": 1, "inbox": 1, "backlog": 1}
    assert (found["total"], found["migrated"], found["remaining"]) == (3, 0, 4)
    assert found["moves"] == [
        {"from": "tt:agent:1", "to": "tt:my-project:agent:1"},
        {"from": "tt:inbox:\\xff", "to": "tt:my-project:inbox:\\xff"},
        {"from": "tt:backlog", "to": "tt:my-project:backlog"},
    ]
    assert found["conflicts"] == [
        {
            "from": "tt:agent:2",
            "to": "tt:my-project:agent:2",
            "reason": "destination exists",
        }
    ]
    assert [key["from"] for key in found["ambiguous"]] == ["tt:task:backlog"]
    assert found["ambiguous"][0]["to"] is None
    assert found["failed"] == []
    assert found["batches"] >= 1
    assert found["seconds"] >= 0
    assert found["max_pause_ms"] > 0
    assert "error" not in found


def test_a_check_counts_and_lists_nothing(town: Server) -> None:
    found = document("--check", url=town.url, status=1)
    assert (found["mode"], found["total"], found["remaining"]) == ("check", 4, 4)
    assert found["conflicts"] == found["ambiguous"] == []


def test_a_migration_tells_what_it_did_and_left(town: Server) -> None:
    found = document("--force", url=town.url, status=1)
    assert (found["mode"], found["total"], found["migrated"]) == ("migrate", 3, 3)
    assert found["remaining"] == 1
    assert [key["from"] for key in found["conflicts"]] == ["tt:agent:2"]
    town.client().delete("tt:agent:2")
    again = document("--force", url=town.url)
    assert (again["total"], again["migrated"], again["remaining"]) == (0, 0, 0)
    assert document(url=town.url)["mode"] == "migrate"


def test_the_prompt_goes_to_stderr_and_a_refusal_is_a_document(town: Server) -> None:
    found = document(url=town.url, answer="n\n", status=4)
    assert "--force" in found["error"]
    assert found["migrated"] == 0
    assert tt("--json", url=town.url, answer="y\n").stderr.rstrip().endswith("[y/N]")


def test_quiet_json_is_still_a_document(town: Server) -> None:
    assert document("--quiet", "--dry-run", url=town.url)["total"] == 3


@pytest.mark.every_kind
def test_a_key_the_user_may_not_rename_is_in_failed(server: Server) -> None:
    redis = server.client()
    redis.mset({"tt:agent:yes": 1, "tt:agent:no": 2})
    allowed = ("~tt:agent:yes", "~tt:my-project:*")
    redis.execute_command("ACL", "SETUSER", "some", "on", ">secret", "+@all", *allowed)
    url = server.url.replace("//", "//some:secret@")
    found = document("--force", url=url, status=1)
    assert found["redis"] == server.url.replace("//", "//some:***@")
    [failed] = found["failed"]
    assert (failed["from"], failed["to"]) == ("tt:agent:no", "tt:my-project:agent:no")
    assert failed["reason"]


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (("--redis-url", "redis://127.0.0.1:1", "--town-name", "t"), 3),
        (("--redis-url", "redis://:pass/word@h", "--town-name", "t"), 2),
        (("--nonsense",), 2),
        (("--max-pause", "0"), 2),
        ((), 2),
    ],
)
def test_a_failure_is_a_document_with_an_error(
    tmp_path: Path, args: tuple[str, ...], status: int
) -> None:
    found = document(*args, town=None, cwd=tmp_path, status=status)
    assert found["error"]
    assert "\n" not in found["error"]
    assert (found["total"], found["remaining"]) == (0, None)
    assert "pass" not in found["error"].replace("password", "").replace("PASSWORD", "")


def test_the_document_is_ascii_whatever_the_town_is_called(town: Server) -> None:
    done = tt("--json", "--dry-run", url=town.url, town="日本", PYTHONIOENCODING="ascii")
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["town"] == "日本"


def test_seconds_are_the_runs_when_no_batch_came_to_its_end() -> None:
    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"SCRIPT":
            time.sleep(0.05)  # the time that the document must tell
            return error(b"ERR no")
        return hello()

    with hostile_server(answer) as address:
        found = document("--force", url=f"redis://{address}", status=3)
        assert 0.05 <= found["seconds"] < 60
        said = tt("--force", "-v", url=f"redis://{address}").stderr
        [seconds] = re.findall(r"0 batches in (\d+\.\d\d) s", said)
        assert 0.05 <= float(seconds) < 60


def test_seconds_go_on_until_a_run_gives_up() -> None:
    def answer(command: list[bytes]) -> bytes:
        calls.append(command[0])
        if calls.count(b"EVALSHA") == 1 and command[0] == b"EVALSHA":
            return inspection()
        if calls.count(b"EVALSHA") == 2 and command[0] == b"EVALSHA":
            numbers = b"*7\r\n" + b":0\r\n" * 7
            return (
                b"*20\r\n$1\r\n7\r\n:1\r\n:1000\r\n:3\r\n"
                + numbers * 2
                + b"*0\r\n" * 7
                + b"*2\r\n:0\r\n:0\r\n"
                + b"*0\r\n" * 3
                + b"*9\r\n"
                + b":0\r\n" * 10
                + b"$0\r\n\r\n"
            )
        if command[0] == b"EVALSHA":
            time.sleep(0.05)  # the time that the document must tell
            return error(b"ERR no")
        return bulk(b"0" * 40) if command[0] == b"SCRIPT" else hello()

    calls: list[bytes] = []
    with hostile_server(answer) as address:
        found = document("--force", url=f"redis://{address}", status=3)
    assert found["batches"] == 1
    assert found["seconds"] >= 0.05


def test_found_is_the_same_before_during_and_after(town: Server) -> None:
    assert document("--check", url=town.url, status=1)["found"] == 4
    assert document("--dry-run", url=town.url)["found"] == 4
    assert document("--force", url=town.url, status=1)["found"] == 4
    assert document("--force", url=town.url, status=1)["found"] == 1


@pytest.mark.every_kind
def test_the_document_says_where_and_when_it_was_made_and_with_which_options(
    server: Server,
) -> None:
    server.client().set("tt:other:agent:1", 1)
    began = datetime.now(timezone.utc)
    found = document("--check", "--nice", "2", url=server.url)
    ended = datetime.now(timezone.utc)
    assert found["towns"] == ["other"]
    name, _, version = server.kind.name.partition("-")
    assert found["server"]["name"] == name
    assert found["server"]["role"] == "master"
    assert found["server"]["version"].startswith(f"{version}.")
    assert found["version"] == metadata.version("tt-migrate")
    started, finished = (datetime.fromisoformat(found[n]) for n in ("started_at", "finished_at"))
    assert began - timedelta(seconds=1) < started <= finished < ended + timedelta(seconds=1)
    options = found["options"]
    assert (options["check"], options["nice"], options["hash"], options["force"]) == (
        True,
        2.0,
        False,
        False,
    )
    assert "redis_url" not in options


def test_a_document_of_a_run_that_failed_early_has_the_fields_too(own_server: StartServer) -> None:
    server = own_server()
    server.kill()
    found = document("--force", url=server.url, status=3)
    assert (found["found"], found["towns"], found["server"]) == (None, None, None)
    assert found["options"]["force"] is True
    wrong = document("--nonsense", url=server.url, status=2)
    assert wrong["options"] is None
    assert wrong["version"]

"""--record appends one JSON line for each key that was changed or left."""

from __future__ import annotations

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.command import ran, started, tt
from tests.servers import Server
from tests.waiting import wait_until
from tt_migrate import RENAME, Change, Migrator
from tt_migrate.escape import shown

RECORD = '{"id":"%s","name":"n"}'


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def told(path: Path) -> dict[str, tuple[str, str | None, str | None]]:
    """Return what the change log says of each key, which it names once."""
    found = lines(path)
    names = [line["from"] + (" #" if line["action"] == "converted" else "") for line in found]
    assert max(Counter(names).values(), default=0) <= 1
    return {
        name: (line["action"], line["to"], line["reason"])
        for name, line in zip(names, found, strict=True)
    }


def test_each_key_has_one_line_with_what_became_of_it_and_why(
    server: Server, tmp_path: Path
) -> None:
    redis = server.client()
    redis.mset({"tt:agent:1": RECORD % 1, "tt:agent:2": "no JSON", "tt:agent:3": RECORD % 3})
    redis.mset({"tt:my-project:agent:3": RECORD % "other", "tt:task:backlog": 1})
    for key in ("tt:inbox:1", "tt:my-project:inbox:1", "tt:my-project:urgent:1", "tt:urgent:1"):
        redis.rpush(key, key)
    redis.mset({"tt:stop:1": 1, "tt:my-project:stop:1": 2, "tt:stop:2": 1, "mt:task:9": "{}"})
    redis.mset({"tt:my-project:stop:2": 1, "tt:activity:1": 1, "tt:my-project:activity:1": 2})
    log = tmp_path / "record.jsonl"
    args = ("--upgrade", "--on-conflict", "merge", "--force", "--record", str(log))
    began = datetime.now(timezone.utc) - timedelta(seconds=1)
    assert tt(*args, url=server.url).returncode == 1
    new = "tt:my-project:"
    assert told(log) == {
        "tt:agent:1": ("renamed", new + "agent:1", None),
        "tt:agent:2": ("renamed", new + "agent:2", None),
        "tt:agent:3": ("left", new + "agent:3", "destination exists and differs"),
        "tt:task:backlog": ("left", None, "may belong to another town"),
        "tt:inbox:1": ("merged", new + "inbox:1", "older values first"),
        "tt:urgent:1": ("merged", new + "urgent:1", "newer values first"),
        "tt:stop:1": ("merged", new + "stop:1", "the newer value"),
        "tt:stop:2": ("merged", new + "stop:2", "the newer value"),
        "tt:activity:1": (
            "left",
            new + "activity:1",
            "destination exists, and a string cannot be merged",
        ),
        "mt:task:9": ("renamed", new + "task:9", None),
        new + "agent:1 #": ("converted", new + "agent:1", None),
        new + "agent:2": (
            "left",
            new + "agent:2",
            "is no JSON: Expecting value at character 0",
        ),
        new + "agent:3": ("left", new + "agent:3", "has another id than its key"),
        new + "task:9": ("left", new + "task:9", "has no id"),
    }
    for line in lines(log):
        assert list(line) == ["time", "action", "from", "to", "reason"]
        assert began <= datetime.fromisoformat(line["time"]) <= datetime.now(timezone.utc)


def test_a_failure_is_left_with_the_servers_words_escaped(newest: Server, tmp_path: Path) -> None:
    redis = newest.client()
    redis.mset({b"tt:agent:\xff\n": 1, b"tt:agent:no": 2, b"tt:agent:yes": 3})
    allowed = ("~tt:agent:yes", "~tt:my-project:*")
    redis.execute_command("ACL", "SETUSER", "some", "on", ">s3cr3ts3cr3t", "+@all", *allowed)
    url = newest.url.replace("//", "//some:s3cr3ts3cr3t@")
    log = tmp_path / "record"
    assert tt("--force", "--record", str(log), url=url).returncode == 1
    found = told(log)
    assert found.pop("tt:agent:yes")[0] == "renamed"
    assert set(found) == {"tt:agent:\\xff\\n", "tt:agent:no"}
    for action, _, reason in found.values():
        assert action == "left"
        assert "ermission" in (reason or "")


def test_a_change_log_is_appended_to_and_a_second_run_adds_nothing(
    newest: Server, tmp_path: Path
) -> None:
    log = tmp_path / "record"
    log.write_text('{"mine": 1}\n')
    newest.client().set("tt:inbox:1", 1)
    for _ in range(2):
        assert tt("--force", "--record", str(log), url=newest.url).returncode == 0
    mine, renamed = lines(log)
    assert mine == {"mine": 1}
    assert renamed["from"] == "tt:inbox:1"


def test_reverse_and_hash_are_logged_too(newest: Server, tmp_path: Path) -> None:
    newest.client().set("tt:my-project:agent:1", RECORD % 1)
    log = tmp_path / "record"
    for operation in ("--hash", "--reverse"):
        tt(operation, "--force", url=newest.url, TT_MIGRATE_RECORD=str(log))
    assert [(line["action"], line["to"]) for line in lines(log)] == [
        ("converted", "tt:my-project:agent:1"),
        ("renamed", "tt:agent:1"),
    ]


@pytest.mark.parametrize("mode", ["--dry-run", "--check"])
def test_a_change_log_of_what_does_not_happen_is_a_usage_error(mode: str, tmp_path: Path) -> None:
    done = tt(mode, "--record", str(tmp_path / "record"))
    assert done.returncode == 2
    assert "--record cannot be used together" in done.stderr
    assert not (tmp_path / "record").exists()


def test_a_change_log_that_cannot_be_opened_is_an_error_before_anything_is_changed(
    newest: Server, tmp_path: Path
) -> None:
    newest.client().set("tt:inbox:1", 1)
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none" / "record", "No such file or directory"),
        (tmp_path / "pipe", "No such device or address"),
    ):
        done = tt("--force", "--record", str(path), url=newest.url)
        assert done.stderr == f"Error: cannot write the change log {path}: {reason}\n"
        assert done.returncode == 2
    assert newest.client().keys() == [b"tt:inbox:1"]


def test_a_full_disk_ends_the_run_with_whole_lines_and_the_totals(
    newest: Server, tmp_path: Path
) -> None:
    redis = newest.client()
    redis.mset({f"tt:inbox:{n:05}": 1 for n in range(20_000)})
    log = tmp_path / "record"

    options = ("--force", "--max-pause", "1", "--record", str(log))
    where = ("--redis-url", newest.url, "--town-name", "t")
    done = ran(*options, *where, limits=[("RLIMIT_FSIZE", 200_000)])
    assert done.returncode == 2
    assert f"cannot write the change log {log}: File too large" in done.stderr
    moved = len(redis.keys("tt:t:inbox:*"))
    assert f"Total: {moved} keys migrated" in done.stdout
    assert 0 < len(lines(log)) < moved < 20_000


def test_a_run_that_is_killed_leaves_whole_lines_up_to_a_batch(
    newest: Server, tmp_path: Path
) -> None:
    redis = newest.client()
    redis.mset({f"tt:inbox:{n:06}": 1 for n in range(30_000)})
    log = tmp_path / "record"
    options = ("--force", "--max-pause", "1", "--nice", "20", "--record", str(log))
    with started(*options, "--redis-url", newest.url, "--town-name", "t"):
        wait_until(lambda: log.exists() and log.stat().st_size > 100_000)
    renamed = {line["to"] for line in lines(log)}
    moved = {key.decode() for key in redis.scan_iter("tt:t:inbox:*")}
    assert len(lines(log)) == len(renamed)
    assert renamed <= moved
    assert len(moved - renamed) < 3_000, "at most a batch that was not logged yet"
    assert len(moved) < 30_000


def test_without_a_change_log_no_name_crosses_the_network(newest: Server) -> None:
    redis = newest.client()
    redis.mset({f"tt:inbox:{n}": 1 for n in range(20_000)})
    before = redis.info("stats")["total_net_output_bytes"]
    Migrator(redis, "t").migrate()
    assert redis.info("stats")["total_net_output_bytes"] - before < 100_000


def test_the_api_tells_changes_batch_by_batch(server: Server) -> None:
    redis = server.client()
    redis.mset({f"tt:inbox:{n}": 1 for n in range(3000)})
    batches: list[list[Change]] = []
    result = Migrator(redis, "t", RENAME, 1, record=lambda some: batches.append([*some])).migrate()
    changes = [change for batch in batches for change in batch]
    assert len(changes) == result.total == 3000
    assert 1 < len(batches) < result.effort.batches
    assert changes[0].action == "renamed"
    assert changes[0].destination == b"tt:t:" + changes[0].key[3:]


class _StopError(Exception):
    pass


def test_what_was_done_is_told_before_a_change_log_can_fail(newest: Server) -> None:
    redis: Redis = newest.client()
    redis.mset({f"tt:inbox:{n}": 1 for n in range(3000)})
    totals: list[int] = []

    def fail(_: object) -> None:
        raise _StopError

    migrator = Migrator(
        redis,
        "t",
        RENAME,
        1,
        progress=lambda now: totals.append(now.so_far.total),
        record=fail,
    )
    with pytest.raises(_StopError):
        migrator.migrate()
    assert totals[-1] == len(redis.keys("tt:t:*"))


def test_a_named_pipe_with_a_reader_is_written(newest: Server, tmp_path: Path) -> None:
    newest.client().mset({f"tt:inbox:{n}": 1 for n in range(5000)})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Linux opens both ends at once. The reader sees the end when this one is closed, too.
    both = os.open(pipe, os.O_RDWR)
    with pipe.open("rb") as file, ThreadPoolExecutor(1) as threads:
        read = threads.submit(file.read)
        try:
            assert tt("--force", "--record", str(pipe), url=newest.url).returncode == 0
        finally:
            os.close(both)
        assert read.result().count(b"\n") == 5000


def test_odd_names_are_recorded_like_plain_ones(server: Server, tmp_path: Path) -> None:
    redis, log = server.client(), tmp_path / "record"
    odd = [b"\n", b"a\nb", b"\xff", "é".encode(), b'"', b"\\", b"\\n", b"plain", b"\x7f", b" "]
    record = json.dumps({"id": "line\nfeed", "name": "n"})
    redis.mset({**{b"tt:inbox:" + name: 1 for name in odd}, "tt:agent:line\nfeed": record})
    assert tt("--upgrade", "--force", "--record", str(log), url=server.url).returncode == 0
    found = told(log)
    assert found.pop("tt:my-project:agent:line\\nfeed #") == (
        "converted",
        "tt:my-project:agent:line\\nfeed",
        None,
    )
    names = [*(f"inbox:{shown(name)}" for name in odd), "agent:line\\nfeed"]
    assert found == {f"tt:{name}": ("renamed", f"tt:my-project:{name}", None) for name in names}

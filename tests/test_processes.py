"""A process that is started in a tenth of the time is like one of a new Python."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.command import ran, script, start, started
from tests.servers import Server


@pytest.mark.parametrize(
    ("name", "args"), [("tt", ("migrate", "--dry-run")), ("tt", ("typo",)), ("tt-migrate", ("-h",))]
)
def test_it_says_the_same_and_ends_alike(newest: Server, name: str, args: tuple[str, ...]) -> None:
    newest.client().set("tt:inbox:é", 1)
    variables = {"PYTHONIOENCODING": "ascii", "PATH": "", "TT_MIGRATE_REDIS_URL": newest.url}
    variables["TT_MIGRATE_TOWN_NAME"] = "town"
    cold, warm = (
        ran(*args, program=script(name), variables=variables, cold=cold) for cold in (True, False)
    )
    assert vars(cold) == vars(warm)


def test_nothing_of_a_start_is_left_for_the_next(newest: Server, tmp_path: Path) -> None:
    newest.client().set("tt:inbox:1", 1)
    ours = (os.getcwd(), dict(os.environ))  # noqa: PTH109
    given = {"TT_MIGRATE_TOWN_NAME": "town", "TT_MIGRATE_REDIS_URL": newest.url}
    limits = [("RLIMIT_FSIZE", 0)]
    first = ran("--check", variables=given, cwd=tmp_path, limits=limits, closed=[2], ignored=True)
    assert (first.returncode, "1 old key" in first.stdout) == (1, True)
    second = ran("--check")
    assert (second.returncode, "no tinytown.toml" in second.stderr) == (2, True)
    assert (os.getcwd(), dict(os.environ)) == ours  # noqa: PTH109


@pytest.mark.parametrize("cold", [True, False])
def test_a_signal_reaches_it_and_its_status_is_that_of_the_process(
    newest: Server, cold: bool
) -> None:
    where = ("--town-name", "town", "--redis-url", newest.url)
    newest.client().set("tt:inbox:1", 1)
    for signum, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        with started(*where, cold=cold) as process:
            assert process.stdout
            assert process.stdout.read(1)
            assert process.poll() is None
            os.kill(process.pid, signum)
            process.communicate(timeout=60)
            assert process.returncode == process.poll() == status


def test_several_run_at_once(newest: Server) -> None:
    newest.client().set("tt:inbox:1", 1)
    where = ("--town-name", "town", "--redis-url", newest.url)
    one, other = start(*where), start(*where)
    assert other.communicate("n\n")[0].count("[y/N]") == 1
    assert one.communicate("y\n")[0].count("1 key migrated") == 1
    assert (one.wait(), other.wait()) == (0, 4)
    assert newest.client().keys() == [b"tt:town:inbox:1"]

"""Tinytown's program is called `tt`, too: ours does not take its place."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.command import ran, script

OURS = script("tt")


def program(folder: Path, text: str, mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "tt"
    path.write_text(text)
    path.chmod(mode)
    return path


def run(*args: str, path: list[Path]) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join(map(str, path))
    return ran(*args, program=OURS, variables={"PATH": f"{places}{os.pathsep}{os.defpath}"})


@pytest.mark.parametrize("args", [("spawn", "--force", "a b"), ("-t", "x", "list"), ("task", "-h")])
def test_an_unknown_command_is_handed_to_the_next_tt_with_its_arguments_and_status(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    program(tmp_path / "theirs", '#!/bin/sh\nprintf "%s\\n" "$@"\necho said >&2\nexit 7\n')
    done = run(*args, path=[Path(OURS[-1]).parent, tmp_path / "theirs"])
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (7, [*args], "said\n")


def test_the_other_tt_has_the_signals_and_no_clock_of_ours(tmp_path: Path) -> None:
    """Our clock would end it within a fifth of a second."""
    program(tmp_path / "theirs", "#!/bin/sh\nsleep 0.5\nkill -TERM $$\nexit 7\n")
    assert run("spawn", path=[tmp_path / "theirs"]).returncode == -signal.SIGTERM


def test_our_own_commands_stay_ours(tmp_path: Path) -> None:
    program(tmp_path / "theirs", "#!/bin/sh\nexit 7\n")
    for args in (("--version",), ("migrate", "--help"), ("--help",)):
        assert run(*args, path=[tmp_path / "theirs"]).returncode == 0
    assert run("migrate", "--nonsense", path=[tmp_path / "theirs"]).returncode == 2
    assert run("--nonsense", path=[tmp_path / "theirs"]).returncode == 2


def test_other_installations_of_ours_are_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "ours", "#!/usr/bin/env python3\nfrom tt_migrate.__main__ import tt_main\n")
    program(tmp_path / "useless", "#!/bin/sh\nexit 9\n", mode=0o644)
    (tmp_path / "folder/tt").mkdir(parents=True)
    program(tmp_path / "theirs", "#!/bin/sh\nexit 7\n")
    places = [tmp_path / name for name in ("ours", "useless", "folder", "missing", "theirs")]
    assert run("spawn", path=places).returncode == 7


@pytest.mark.parametrize("how", ["exec ", ""])
def test_a_script_that_leads_back_is_no_other_tt(tmp_path: Path, how: str) -> None:
    program(tmp_path / "shim", f'#!/bin/sh\n{how}{shlex.join(OURS)} "$@"\n')
    done = run("spawn", path=[tmp_path / "shim"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: No such command 'spawn', and no other tt on the PATH." in done.stderr


def test_what_the_other_tt_calls_is_handed_over_too(tmp_path: Path) -> None:
    call = shlex.join([*OURS, "list"])
    program(tmp_path / "theirs", f'#!/bin/sh\n[ "$1" = list ] && exit 7\n{call}\n')
    assert run("spawn", path=[tmp_path / "theirs"]).returncode == 7


def test_where_there_is_no_other_tt_the_usual_error_says_so(tmp_path: Path) -> None:
    program(tmp_path / "broken", "neither a script nor a program")
    for path in ([], [tmp_path / "broken"]):
        done = run("spawn", path=path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Usage: tt [OPTIONS] COMMAND")
        assert "Error: No such command 'spawn', and no other tt on the PATH." in done.stderr

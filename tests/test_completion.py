"""Shell completion, by click, of `tt` and `tt-migrate`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import environment, ran, script

SHELLS = ["bash", "zsh", "fish"]


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return ran(program=script(program), variables=variables)


@pytest.mark.parametrize(
    ("program", "shell"), [*(("tt", shell) for shell in SHELLS), ("tt-migrate", "bash")]
)
def test_the_script_for_a_shell_is_printed(program: str, shell: str) -> None:
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    done = run(program, **{variable: f"{shell}_source"})
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{variable}={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        ("tt", "tt mig", ["plain,migrate"]),
        ("tt", "tt migrate --up", ["plain,--upgrade"]),
        ("tt-migrate", "tt-migrate --on-conflict ", ["plain,skip", "plain,merge"]),
        ("tt-migrate", "tt-migrate --record ", ["file,"]),
    ],
)
def test_words_are_completed(program: str, words: str, expected: list[str]) -> None:
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    position = str(len(words.split(" ")) - 1)
    done = run(program, COMP_WORDS=words, COMP_CWORD=position, **{variable: "bash_complete"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == expected


def test_fish_gets_the_help_after_a_tab() -> None:
    variables = {"COMP_WORDS": "tt mig", "COMP_CWORD": "mig", "_TT_COMPLETE": "fish_complete"}
    done = run("tt", **variables)
    assert done.stdout.startswith("plain,migrate")
    assert "\\t" not in done.stdout


@pytest.mark.parametrize(
    ("redirect", "status", "errors"),
    [
        ("| true", 0, ""),
        (">/dev/full", 2, "Error: cannot write the report: No space left on device\n"),
    ],
)
def test_an_output_that_takes_nothing_is_no_internal_error(
    redirect: str, status: int, errors: str
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirect}', "sh", *script("tt")],
        capture_output=True,
        text=True,
        env=environment(_TT_COMPLETE="bash_source"),
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, errors)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_takes_the_script(tmp_path: Path) -> None:
    (tmp_path / "tt").write_text(f'#!/bin/sh\nexec {" ".join(script("tt"))} "$@"\n')
    (tmp_path / "tt").chmod(0o755)
    lines = [
        'eval "$(_TT_COMPLETE=bash_source tt)"',
        "COMP_WORDS=(tt migrate --rev) COMP_CWORD=2",
        "_tt_completion tt; echo ${COMPREPLY[@]}",
    ]
    path = f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        env=environment(PATH=path),
        check=False,
    )
    assert done.stdout == "--reverse\n", done.stderr

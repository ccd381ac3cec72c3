"""What the environment hands over: variables, files of passwords, certificates, the platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import environment

ROOT = Path(__file__).parent.parent
CLICKS = ("8.1.8", "8.2.0", "8.2.1", "8.2.2", "8.3.3", "8.4.2", "installed")
"""The versions of click that the Makefile installs in .cache, and the one of this environment."""
FLAGS = {
    "TT_MIGRATE_FORCE": "force",
    "TT_MIGRATE_DRY_RUN": "dry_run",
    "TT_MIGRATE_UPGRADE": "upgrade",
    "TT_MIGRATE_HASH": "to_hash",
    "TT_MIGRATE_VERBOSE": "verbose",
}
MEANINGS = dict.fromkeys(("true", "TRUE", "1", "yes", "on", "y", " true "), True) | dict.fromkeys(
    ("false", "False", "0", "no", "off", "n", "", " "), False
)


def python(
    program: str, *args: str, flags: tuple[str, ...] = (), path: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python program that can import this project and its tests."""
    folders = os.pathsep.join(filter(None, (path, str(ROOT))))
    return subprocess.run(
        [sys.executable, *flags, "-c", program, *args],
        env=environment(PYTHONPATH=folders, **variables),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(params=CLICKS)
def click_folder(request: pytest.FixtureRequest) -> str:
    """The folder of a version of click, empty for this environment's."""
    if request.param == "installed":
        return ""
    folder = ROOT / ".cache" / "click" / request.param
    if not (folder / "installed").exists():
        missing = f"no .cache/click/{request.param}: `make test` installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return str(folder)


WITH_EACH_CLICK = """
import json, os, sys
from tests.command import tt_in_process
from tt_migrate.terminal.cli import migrate

FLAGS, MEANINGS = map(json.loads, sys.argv[1:])

def read(name, text, *args):
    os.environ[name] = text
    try:
        return migrate.make_context("tt", [*args]).params[FLAGS[name]]
    finally:
        del os.environ[name]

def run(*args, name="tt-migrate", **variables):
    done = tt_in_process(*args, name=name, **variables)
    return [done.returncode, done.stdout, done.stderr]

said = {
    "flags": {text: {read(name, text) for name in FLAGS} for text in MEANINGS},
    "typed": {text: {read("TT_MIGRATE_FORCE", text, "--force")} for text in MEANINGS},
    "nonsense": run("--check", TT_MIGRATE_FORCE="nonsense"),
}
print(json.dumps(said, default=list))
"""


@pytest.fixture
def with_click(click_folder: str) -> dict[str, Any]:
    """What WITH_EACH_CLICK says, with a version of click."""
    args = (json.dumps(FLAGS), json.dumps(MEANINGS))
    done = python(WITH_EACH_CLICK, *args, path=click_folder)
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_each_click_reads_variables_and_the_command_line_alike(with_click: dict[str, Any]) -> None:
    assert with_click["flags"] == {text: [meaning] for text, meaning in MEANINGS.items()}
    assert with_click["typed"] == {text: [True] for text in MEANINGS}
    status, out, err = with_click["nonsense"]
    assert (status, out) == (2, "")
    assert "Error: TT_MIGRATE_FORCE is 'nonsense': set it to true or false\n" in err

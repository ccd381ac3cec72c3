"""The wheel, the sdist and the editable install find the Lua files and run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.command import tt
from tests.servers import Server

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PARTS = ("pyproject.toml", "README.md", "LICENSE", "lua", "tt_migrate")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's files, so that a build leaves nothing in the original."""
    copy = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, copy / part)
    return copy


@pytest.fixture(scope="module")
def distributions(checkout: Path) -> Path:
    # The wheel is built from the sdist, as for users who install the sdist from an index.
    run(sys.executable, "-m", "build", "--no-isolation", "--quiet", str(checkout))
    return checkout / "dist"


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["wheel", "editable"])
def test_an_installed_command_migrates(
    mode: str, checkout: Path, distributions: Path, tmp_path: Path, newest: Server
) -> None:
    [wheel] = distributions.glob("*.whl")
    what = [str(wheel)] if mode == "wheel" else ["-e", str(checkout)]
    # With a space in the path, a script's first line cannot simply name the Python.
    folder = tmp_path / "an environment"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    # The dependencies come from this environment. .pth files in a folder that a .pth file adds
    # are not read, so this project's own installation does not get in.
    [packages] = (folder / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    run(*pip, "--no-deps", "--no-build-isolation", "--no-compile", *what)

    newest.client().set("tt:agent:1", 1)
    program = [str(python.with_name("tt")), "migrate"]
    done = tt("--force", url=newest.url, program=program, cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert newest.client().keys() == [b"tt:my-project:agent:1"]
    where = subprocess.run(
        [python, "-c", "import tt_migrate.lua as lua; print(lua.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (str(checkout) in where) == (mode == "editable")


def test_the_wheel_says_that_it_is_typed(distributions: Path) -> None:
    [wheel] = distributions.glob("*.whl")
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "tt_migrate/py.typed" in listing
    assert "tt_migrate/lua/migrate.lua" in listing


def test_every_python_that_is_promised_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [text.rpartition(" ")[2] for text in project["classifiers"] if ":: 3." in text]
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8")
    assert [f'"{version}"' for version in named] == re.findall(r'"3\.\d+"', workflow)
    assert named == [f"3.{minor}" for minor in range(10, 16)]
    assert project["requires-python"] == ">=3.10"
    for file in ("README.md", "Makefile"):
        assert "Python 3.10 or newer" in (ROOT / file).read_text("utf-8")
        assert not re.search(r"3\.10 to", (ROOT / file).read_text("utf-8"))

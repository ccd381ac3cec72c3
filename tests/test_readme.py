"""Runs the commands and code in the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo import old_town
from tests.command import tt
from tests.servers import Server
from tt_migrate.terminal.cli import migrate

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_python_example_migrates_a_town(newest: Server, tmp_path: Path) -> None:
    keys = old_town.build(newest.client())
    old_town.settle(tmp_path, newest.socket)
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    *_, renamed, converted = done.stdout.splitlines()
    assert renamed == f"{keys} {{}} {{}} 0"
    assert converted == "{'agent': 7, 'task': 8} {} True"


def test_the_output_shown_is_the_output(newest: Server, tmp_path: Path) -> None:
    old_town.build(newest.client())
    old_town.settle(tmp_path, newest.socket)
    shown = re.sub(r"(?m)^    ", "", README)
    preview = tt("--dry-run", town=None, cwd=tmp_path).stdout
    asked = tt(town=None, cwd=tmp_path, answer="y\n").stdout
    hashed = tt("--hash", town=None, cwd=tmp_path, answer="y\n").stdout
    newest.client().set(f"tt:agent:{old_town.SUPERVISOR}", "back again")
    left = tt("--force", town=None, cwd=tmp_path).stdout
    newest.client().delete(f"tt:agent:{old_town.SUPERVISOR}")
    reversed_ = tt("--reverse", town=None, cwd=tmp_path, answer="y\n").stdout
    for line in [*preview.splitlines()[:6], *(asked + hashed + left + reversed_).splitlines()]:
        if "Server:" not in line and "Continue?" not in line:
            assert re.sub(r"\d\.\d\d s", "0.00 s", line) in shown.splitlines()


def test_every_option_is_in_the_readme() -> None:
    for parameter in migrate.params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert f"`{option}" in README or f"|{option}" in README, option


@pytest.mark.parametrize("file", ["README.md", "docs/performance.md"])
def test_measured_figures_are_those_of_the_last_bench(file: str) -> None:
    results = (ROOT / "bench/results/README.md").read_text("utf-8").splitlines()
    shown = re.findall(r"(?m)^\| .* \| (?:yes|no) \|$", (ROOT / file).read_text("utf-8"))
    assert len(shown) > 3
    assert [row for row in shown if row not in results] == []


def test_pictures_and_documents_that_are_linked_exist() -> None:
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", file.read_text("utf-8")):
            assert (file.parent / link).exists(), f"{file.name}: {link}"


@pytest.mark.parametrize("file", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_that_are_named_exist(file: str) -> None:
    named = set(
        re.findall(r"`([\w./-]+\.(?:py|lua|toml|yml|md))`", (ROOT / file).read_text("utf-8"))
    )
    places = (ROOT, ROOT / "tt_migrate", ROOT / "lua", *(ROOT / "tt_migrate").iterdir())
    missing = {name for name in named if not any((place / name).is_file() for place in places)}
    assert len(named) > 3
    assert missing == set()


def test_the_architecture_names_every_file_of_the_rooms() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    for file in (ROOT / "tt_migrate").rglob("*.py"):
        assert file.name == "__init__.py" or f"{file.name}`" in text, file

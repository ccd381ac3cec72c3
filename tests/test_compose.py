"""The compose file is valid. Only a compose parser is needed, no Docker engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def compose() -> list[str]:
    """Return the command of the installed compose."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and _run([*command, "version"]).returncode == 0:
            return command
    pytest.skip("docker compose: not installed, and docker-compose neither")


def _run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "TOWN"}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**env, **variables}
    )


@pytest.mark.parametrize(
    ("variables", "town"), [({"TOWN": "/srv/my-project"}, "/srv/my-project"), ({}, str(ROOT))]
)
def test_the_file_is_valid_and_mounts_a_town_read_only_where_the_image_works(
    compose: list[str], variables: dict[str, str], town: str
) -> None:
    result = _run([*compose, "--profile", "migrate", "config"], **variables)
    assert (result.returncode, result.stderr) == (0, "")
    services = re.findall(r"(?ms)^services:$(.*?)(?:^\w|\Z)", result.stdout)
    assert {*re.findall(r"(?m)^  (\w+):$", *services)} == {"redis", "valkey", "migrate"}
    assert "service_healthy" in result.stdout
    assert "ports:" not in result.stdout
    short = f"- {town}:/town:ro"
    long = rf"source: {re.escape(town)}\s+target: /town\s+read_only: true"
    assert short in result.stdout or re.search(long, result.stdout), result.stdout
    assert "\nWORKDIR /town\n" in (ROOT / "Dockerfile").read_text("utf-8")

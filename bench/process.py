"""Whole processes, as a person runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_SPAWN = Path(__file__).with_name("spawn.py")


@dataclass(frozen=True)
class Process:
    """What a process has cost: seconds from its start to its end, its peak memory in MiB."""

    seconds: float
    peak_mb: float


def run(
    command: list[str],
    *,
    directory: Path | None = None,
    environment: dict[str, str] | None = None,
    stdin: Path | None = None,
) -> Process:
    """Run a command to its end. Exits with its output where it fails."""
    with tempfile.NamedTemporaryFile() as output:
        spawn = [sys.executable, "-I", "-S", str(_SPAWN), str(stdin or os.devnull), output.name]
        told = subprocess.run(
            [*spawn, *command],
            cwd=directory,
            env={**_inherited(), **(environment or {})},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, status, peak_mb = json.loads(told.stdout)
        if status:
            text = Path(output.name).read_text(errors="replace")
            raise SystemExit(f"bench: {' '.join(command)} ended with {status}:\n{text}")
    return Process(seconds, peak_mb)


def _inherited() -> dict[str, str]:
    # A person's Python keeps what it has compiled.
    return {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}

"""Running the command as a process, as a person or a job does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def script(name: str) -> list[str]:
    """How to start a script of this environment, whatever characters are in its path."""
    # A script's first line names its Python, and cannot quote every name.
    return [sys.executable, str(Path(sys.executable).with_name(name))]


TT = [*script("tt"), "migrate"]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would change the outcome."""
    ours = ("REDIS_URL", "TINYTOWN_REDIS_PASSWORD", "PYTHONIOENCODING")
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return {**clean, "PYTHONIOENCODING": "utf-8", **variables}


def tt(
    *args: str,
    url: str | None = None,
    town: str | None = "my-project",
    answer: str = "",
    cwd: Path | None = None,
    program: list[str] = TT,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run `tt migrate` with `answer` on its standard input; variables go into its environment."""
    command = [*program, *args]
    if url:
        command += ["--redis-url", url]
    if town:
        command += ["--town-name", town]
    done = subprocess.run(
        command,
        input=answer,
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env=environment(**variables),
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done

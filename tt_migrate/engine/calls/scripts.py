"""Reads the Lua files, and puts scripts together."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache, cached_property
from hashlib import sha1
from typing import Any, Literal

import importlib_resources

from tt_migrate.engine.calls.replies import Word
from tt_migrate.plan import Plan

_FILES = {
    "find": "preview",
    "hashes": "count",
    "verify": "count",
    "check": "count",
    **{
        name: f"cluster/{name}"
        for name in ("freeze", "apply", "finish", "forget", "give_back", "facts", "weigh")
    },
}
"""The Lua files of operations whose names differ from the operation's."""

_READING = (
    *("find", "check"),
    *("inspect", "locate", "count", "hashes", "verify", "preview", "left", "agents"),
    *("facts", "weigh"),
)

_NEEDS = re.compile("^-- Needs +(.+)$", re.MULTILINE)


class IncompleteError(Exception):
    """A Lua file is missing: the program was packed without it."""


@dataclass(frozen=True)
class Heads:
    """The first lines of scripts, which tell a server what the scripts may do. Empty: none.

    `reading`: of scripts that only call commands that read. `writing`: of all others.
    """

    reading: str = ""
    writing: str = ""

    @property
    def guards(self) -> bool:
        """Whether they make the server refuse writes of scripts that only read."""
        return "no-writes" in self.reading


NO_HEADS = Heads()
GUARDS = Heads("#!lua flags=no-writes\n")
"""Redis 7.0 and later and all versions of Valkey know this flag (Redis documentation, "Script
flags")."""
_ALLOW_UNDECLARED = "--!df flags=allow-undeclared-keys\n"
UNDECLARED = Heads(_ALLOW_UNDECLARED, _ALLOW_UNDECLARED)
"""Dragonfly lets scripts with this line use keys that are not in KEYS (Dragonfly documentation,
"Script flags"). For other servers it is a comment."""
CLUSTER_GUARDS = Heads("#!lua flags=no-writes,allow-cross-slot-keys\n")
"""With any flag, a script in cluster mode may use only one slot, unless it has this flag too."""


Layout = Literal["server", "shard", "shards"]
"""Where keys are: on one server, in a cluster with one shard, or with several."""

_CHOSEN = {
    "server": {"renames": "rename", "destinations": "here"},
    "shard": {"renames": "rename_across_slots", "destinations": "here"},
    "shards": {"renames": "rename", "destinations": "elsewhere"},
}


@cache
def source(operation: str, plan: Plan, layout: Layout = "server") -> str:
    """The text of an operation's script (`count`, `preview`, ...), after the files that it needs.

    Each Lua file names the files that it needs in its header: those of `parts/` by their names, and
    others with their folder. A folder in angle brackets stands for one of its files, which the plan
    chooses, or the layout.
    """
    chosen = {
        "moves": _moves(operation, plan, layout),
        "conversions": "as_they_are" if operation == "find" else plan.conversions,
        "conflicts": plan.conflicts,
        "counts": _counts(operation, plan, layout),
        "scopes": {"verify": "town", "hashes": "hashes"}.get(operation, "database"),
        **_CHOSEN[layout],
    }
    if operation == "check":
        chosen["destinations"] = "elsewhere"
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in texts:
            text = _text(name)
            for needed in needs(text):
                folder = needed.strip("<>")
                add(f"{folder}/{chosen[folder]}" if folder != needed else needed)
            texts[name] = text

    add(_FILES.get(operation, operation))
    return "\n".join(texts.values())


def _moves(operation: str, plan: Plan, layout: Layout) -> str:
    """The Lua file that defines which keys move."""
    if operation == "find":
        return "string_keys" if plan.convert == "json" else plan.moves
    return "nothing" if _only_converts(operation, plan, layout) else plan.moves


def _counts(operation: str, plan: Plan, layout: Layout) -> str:
    """The Lua file that counts records."""
    if operation == "migrate":
        return "nothing" if _only_converts(operation, plan, layout) else "everything"
    return "everything" if plan.needs_count and operation != "find" else "nothing"


def _only_converts(operation: str, plan: Plan, layout: Layout) -> bool:
    """Whether a script that migrates moves no keys: between shards, they move in another way."""
    return operation == "migrate" and (not plan.rename or layout == "shards")


def _text(name: str) -> str:
    """The text of a Lua file. Raises IncompleteError."""
    try:
        return (importlib_resources.files("tt_migrate.lua") / f"{name}.lua").read_text("utf-8")
    except (ImportError, OSError) as error:
        raise IncompleteError(
            f"the file {name}.lua is missing from this installation: install tt-migrate anew, or"
            " pack it with all its files, as PyInstaller does with --collect-all tt_migrate"
        ) from error


def needs(text: str) -> list[str]:
    """The files that a Lua file needs, by their places, and choices, from its header."""
    header = _NEEDS.search(text)
    names = header[1].split(", ") if header and header[1] != "nothing" else []
    return [name if "/" in name or "<" in name else f"parts/{name}" for name in names]


@dataclass(frozen=True)
class Script:
    """A script's text. `reads`: whether it calls only commands that read. `operation`: its name."""

    text: str
    reads: bool
    operation: str = ""

    @property
    def changes(self) -> bool:
        """Whether it can change keys of the town."""
        return self.operation not in _READING

    @cached_property
    def sha(self) -> str:
        """The SHA1 digest that EVALSHA takes."""
        return sha1(self.text.encode()).hexdigest()  # noqa: S324 - chosen by Redis, not a secret


@dataclass(frozen=True)
class Call:
    """A script and its ARGV.

    `about`: what the pass must know of the call when its reply comes, or when it does not.
    """

    script: Script
    args: tuple[Word, ...]
    about: tuple[Any, ...] = ()


def script_for(operation: str, plan: Plan, layout: Layout = "server") -> Script:
    """An operation's script."""
    text = source(operation, plan, layout)
    # left.lua changes no key of the town, but writes to keep its cursor (see kept_cursor.lua).
    reads = operation in _READING and operation != "left"
    return Script(text, reads, operation)


@cache
def headed(script: Script, heads: Heads) -> Script:
    """A script with its first line."""
    head = heads.reading if script.reads else heads.writing
    return replace(script, text=head + script.text)

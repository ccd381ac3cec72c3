"""What a run does. Every result contains its plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tt_migrate.keyspace import new_key, old_key, old_key_start, town_key_start

OPTIONAL_COMMANDS = ("DBSIZE", "EXISTS", "INFO", "TIME", "TYPE")
"""Commands that a migration can do without if the user may not run them."""

COPYING_COMMANDS = ("PTTL", "DUMP", "RESTORE", "DEL")
"""Commands that replace RENAME and RENAMENX in cluster mode, for names in different slots."""

HIDING_COMMANDS = (
    *("RENAMENX", "DUMP", "RESTORE", "PTTL", "DEL"),
    *("GET", "SET", "PEXPIRE", "TIME", "TYPE"),
)
"""Commands that move a key to another shard of a cluster."""

_CONVERTING = {
    "hash": ("TYPE", "GET", "EXISTS", "PTTL", "HSET", "PEXPIRE", "RENAME", "DEL"),
    "json": ("TYPE", "HGETALL", "DUMP", "EXISTS", "PTTL", "SET", "PEXPIRE", "RENAME", "DEL"),
}
_MERGING = (
    *("TYPE", "GET", "HLEN", "HGETALL", "LLEN", "LRANGE", "DUMP", "PTTL"),
    *("RPUSH", "LPUSH", "LTRIM", "RENAME", "SET"),
)


@dataclass(frozen=True)
class Plan:
    """One of RENAME, HASH, UPGRADE, REVERSE and DOWNGRADE, or a variant of one of them.

    `rename`: `forward` adds the town's name to old keys, `reverse` removes it from the town's keys,
    None leaves names as they are. `convert`: what agents and tasks become: with `hash` JSON strings
    become hashes, with `json` hashes become the JSON strings that Tinytown 0.6 reads; None leaves
    them as they are.
    `oldest`: the `mt:` keys of version 0.1 are old keys too. `merge`: a key whose destination
    exists is merged with it if Tinytown's use of the family shows how.
    """

    name: Literal["rename", "hash", "upgrade", "reverse", "downgrade"]
    rename: Literal["forward", "reverse"] | None
    convert: Literal["hash", "json"] | None = None
    oldest: bool = False
    merge: bool = False

    @property
    def moves(self) -> str:
        """The Lua file that defines which keys move, and to which destination."""
        if self.rename == "reverse":
            return "town_keys"
        return "oldest_keys" if self.oldest else "old_keys"

    @property
    def moves_now(self) -> str:
        """The same for keys that are about to move: records must be converted by then."""
        return "string_keys" if self.convert == "json" else self.moves

    @property
    def conflicts(self) -> str:
        """The Lua file that handles keys whose destination exists."""
        return "merge" if self.merge else "skip"

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that the plan can need."""
        renaming = ("SCAN", "RENAMENX") if self.rename else ("SCAN",)
        converting = _CONVERTING[self.convert] if self.convert else ()
        merging = _MERGING if self.merge else ()
        return tuple(dict.fromkeys((*renaming, *converting, *merging)))

    @property
    def operations(self) -> tuple[str, ...]:
        """The scripts that a migration with this plan calls."""
        renaming = ("migrate",) if self.rename else ()
        comparing = ("fetch",) if self.merge or self.convert else ()
        converting = ("records", self.conversion) if self.convert else ()
        return (*renaming, *comparing, *converting, "count" if self.needs_count else "left")

    @property
    def conversion(self) -> str:
        """The script that converts records."""
        return "revert" if self.convert == "json" else "convert"

    @property
    def needs_count(self) -> bool:
        """Whether a report needs more numbers than those of the keys to move."""
        return self.convert is not None or self.rename == "reverse"

    def destination(self, town: str, key: bytes) -> bytes:
        """The destination of a key: its new name."""
        return old_key(town, key) if self.rename == "reverse" else new_key(town, key)

    def name_start(self, town: str) -> int:
        """The position of the family's name in a key to move."""
        return town_key_start(town) if self.rename == "reverse" else old_key_start()


RENAME = Plan("rename", rename="forward")
"""Old keys get the town's name."""

HASH = Plan("hash", rename=None, convert="hash")
"""JSON strings become hashes."""

UPGRADE = Plan("upgrade", rename="forward", convert="hash", oldest=True)
"""Everything that a current Tinytown needs."""

REVERSE = Plan("reverse", rename="reverse")
"""Keys of the town get their old names back."""

DOWNGRADE = Plan("downgrade", rename="reverse", convert="json")
"""Everything that Tinytown 0.6 needs."""

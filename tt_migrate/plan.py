"""What a run does. Every result contains its plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tt_migrate.keyspace import (
    FAMILIES,
    SINCE_0_7,
    old_key_start,
    town_key_start,
    town_start,
)

OPTIONAL_COMMANDS = ("DBSIZE", "EXISTS", "INFO", "TIME", "TYPE")
"""Commands that a migration can do without if the user may not run them."""

COPYING_COMMANDS = ("PTTL", "DUMP", "RESTORE", "DEL")
"""Commands that replace RENAME and RENAMENX in cluster mode, for names in different slots."""

_CONVERTING = {
    "hash": ("TYPE", "GET", "EXISTS", "PTTL", "HSET", "PEXPIRE", "SETRANGE", "DEL"),
    "json": ("TYPE", "HGETALL", "DUMP", "SET"),
}
_MERGING = (
    *("TYPE", "GET", "HLEN", "HGETALL", "LLEN", "LRANGE", "DUMP", "PTTL"),
    *("RPUSH", "LPUSH", "LTRIM", "RENAME", "SET"),
)
_HIDING = (
    *("RENAMENX", "DUMP", "RESTORE", "PTTL", "DEL"),
    *("GET", "SET", "PEXPIRE", "TIME", "TYPE"),
)
_UNITING = (
    *("SCARD", "SMEMBERS", "SADD", "XLEN", "XINFO", "XRANGE", "XADD", "XSETID"),
    *("RESTORE", "DEL", "PEXPIRE"),
)


@dataclass(frozen=True)
class Plan:
    """One of RENAME, HASH, UPGRADE, REVERSE and DOWNGRADE, what from_town() returns, or a variant.

    `rename`: `forward` adds the town's name to old keys, `reverse` removes it from the town's keys,
    `town` replaces the town's former name, None leaves names as they are.
    `convert`: what agents and tasks become: with `hash` JSON strings become hashes, with `json`
    hashes become the JSON strings that Tinytown 0.6 reads; None leaves them as they are.
    `oldest`: the `mt:` keys of version 0.1 are old keys too. `merge`: a key whose destination
    exists is merged with it if Tinytown's use of the family shows how. `from_town`: the town's
    former name, None if it has none.
    """

    name: Literal["rename", "hash", "upgrade", "reverse", "downgrade", "from-town"]
    rename: Literal["forward", "reverse", "town"] | None
    convert: Literal["hash", "json"] | None = None
    oldest: bool = False
    merge: bool = False
    from_town: str | None = None

    @property
    def families(self) -> tuple[str, ...]:
        """The families of the keys that can move, in the order of replies and reports."""
        return FAMILIES if self.from_town is None else (*FAMILIES, *SINCE_0_7)

    @property
    def from_start(self) -> bytes:
        """How the keys of the town's former name begin; empty if it has none."""
        return b"" if self.from_town is None else town_start(self.from_town)

    @property
    def moves(self) -> str:
        """The Lua file that defines which keys move, and to which destination."""
        if self.from_town is not None:
            return "from_town"
        if self.rename == "reverse":
            return "town_keys"
        return "oldest_keys" if self.oldest else "old_keys"

    @property
    def conversions(self) -> str:
        """The Lua file that converts records."""
        if self.convert == "hash" and not self.rename:
            return "to_hash_in_place"
        return f"to_{self.convert}" if self.convert else "as_they_are"

    @property
    def conflicts(self) -> str:
        """The Lua file that handles keys whose destination exists."""
        return "merge" if self.merge else "skip"

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that the plan can need."""
        renaming = ("SCAN", "RENAMENX") if self.rename else ("SCAN",)
        reading = ("TYPE", "GET", "HGET") if self.from_town is not None else ()
        converting = _CONVERTING[self.convert] if self.convert else ()
        merging = _MERGING if self.merge else ()
        uniting = self._uniting if self.merge else ()
        return tuple(dict.fromkeys((*renaming, *reading, *converting, *merging, *uniting)))

    @property
    def hiding_commands(self) -> tuple[str, ...]:
        """The commands that move a key to another shard of a cluster, or give it its name back.

        If a client has made it anew meanwhile, that is a merge.
        """
        return (*_HIDING, *_MERGING, *self._uniting)

    @property
    def _uniting(self) -> tuple[str, ...]:
        return _UNITING if self.from_town is not None else ()

    @property
    def operations(self) -> tuple[str, ...]:
        """The scripts that a migration with this plan calls."""
        warning = ("hashes",) if self.warns_of_hashes else ()
        naming = ("agents",) if self.from_town is not None else ()
        return (*warning, "migrate", *naming, "verify" if self.needs_count else "left")

    @property
    def needs_count(self) -> bool:
        """Whether a report needs more numbers than those of the keys to move."""
        return self.convert is not None or self.rename == "reverse"

    @property
    def warns_of_hashes(self) -> bool:
        """Whether the plan leads back to Tinytown 0.6 and leaves hashes, which that cannot read."""
        return self.rename == "reverse" and not self.convert

    def towns(self, town: str) -> tuple[str, ...]:
        """A town's names: the present one, and the former one if it has one."""
        return (town,) if self.from_town is None else (town, self.from_town)

    def passes(self, town: str) -> int:
        """How many passes it takes to rename all keys.

        If one of a town's names begins with the other, a key can have the name that another key
        gets. Then the first pass frees the name, and the second one gives it.
        """
        old, new = self.from_start, town_start(town)
        is_nested = self.from_town is not None and (old.startswith(new) or new.startswith(old))
        return 2 if is_nested else 1

    def destination(self, town: str, key: bytes) -> bytes:
        """The destination of a key: its new name."""
        return self.destination_start(town) + key[self.name_start(town) :]

    def destination_start(self, town: str) -> bytes:
        """How the new names of all keys begin, up to the family's name."""
        return b"tt:" if self.rename == "reverse" else town_start(town)

    def name_start(self, town: str) -> int:
        """The position of the family's name in a key to move."""
        if self.from_town is not None:
            return len(self.from_start)
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


def from_town(name: str, *, merge: bool = False) -> Plan:
    """A town that had another name gets the keys of that name. `name`: the former one."""
    return Plan("from-town", rename="town", merge=merge, from_town=name)

"""The hidden names of keys in transit to another shard, and their marks (docs/cluster.md)."""

from __future__ import annotations

import re
from typing import NamedTuple

from tt_migrate.engine.cluster.hash_tags import tag
from tt_migrate.keyspace import (
    family_and_id,
    is_family_key,
    is_town_key,
    old_key_start,
    town_start,
)

TRANSIT_GLOB = b"tt:{*}:mov[ie]*:*"
"""Matches hidden names and marks, and few other keys."""
_HIDDEN = re.compile(
    rb"tt:\{.*?\}:moving:(\d{1,15}-[0-9a-f]{8}-\d{1,12}):(\d{1,9}):(.*)", re.DOTALL
)
_TOWN_START = re.compile(rb"tt:.*:", re.DOTALL)
_MARK = re.compile(rb"tt:\{.*?\}:moved:(\d{1,15}-[0-9a-f]{8}-\d{1,12}):(.*)", re.DOTALL)


class Transfer(NamedTuple):
    """A key that moves to a slot that can be on another server.

    `nonce`: `<milliseconds since 1970>-<run>-<number>`, different for each transfer.
    """

    key: bytes
    destination: bytes
    nonce: bytes

    @property
    def hidden(self) -> bytes:
        """The key's name in transit, in its own slot. It encodes the whole transfer."""
        key = self.key
        return b"tt:{%b}:moving:%b:%d:%b%b" % (tag(key), self.nonce, len(key), *self[:2])

    @property
    def mark(self) -> bytes:
        """The name of the mark, in the destination's slot."""
        return b"tt:{%b}:moved:%b:%b" % (tag(self.destination), self.nonce, self.destination)

    @property
    def staged(self) -> bytes:
        """The name under which a value waits to be merged, in the destination's slot."""
        return b"tt:{%b}:staged:%b:%b" % (tag(self.destination), self.nonce, self.destination)

    @property
    def frozen_at(self) -> int:
        """When the key was frozen, in milliseconds since 1970."""
        return time_of(self.nonce)

    def family(self, town: str) -> str:
        """The family of a key that moves into this town, or out of it.

        Empty for any other key, and for one that moves into a strange name.
        """
        start = town_start(town)
        for name, other in ((self.destination, self.key), (self.key, self.destination)):
            rest = name.removeprefix(start) if name.startswith(start) else b""
            if rest and other.endswith(rest) and other != name:
                before = other[: -len(rest)]
                is_old = before in (b"tt:", b"mt:")
                is_known = is_family_key if is_old else is_town_key
                if (is_old or _TOWN_START.fullmatch(before)) and is_known(name, len(start)):
                    return family_and_id(name, len(start))[0]
        return ""


def transfer_of(hidden: bytes) -> Transfer | None:
    """The transfer that gave a key this hidden name, None if none did."""
    match = _HIDDEN.fullmatch(hidden)
    if not match:
        return None
    nonce, length, keys = match[1], int(match[2]), match[3]
    transfer = Transfer(keys[:length], keys[length:], nonce)
    return transfer if transfer.hidden == hidden else None


class Mark(NamedTuple):
    """A mark. `name`: the key's name. `nonce` and `destination`: those of the transfer."""

    name: bytes
    nonce: bytes
    destination: bytes

    def is_of(self, town: str) -> bool:
        """Whether the mark's key moved into this town, or out of a town."""
        start = town_start(town)
        is_new = self.destination.startswith(start) and is_town_key(self.destination, len(start))
        return is_new or is_family_key(self.destination, old_key_start())


def mark_of(name: bytes) -> Mark | None:
    """The mark with this name, None for another key."""
    match = _MARK.fullmatch(name)
    return Mark(name, match[1], match[2]) if match else None


def time_of(nonce: bytes) -> int:
    """When a nonce was made, in milliseconds since 1970."""
    return int(nonce.partition(b"-")[0])


def run_of(nonce: bytes) -> bytes:
    """The name of the run that made a nonce."""
    return nonce.split(b"-")[1]

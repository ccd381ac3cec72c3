"""Tinytown's key names, as far as Python needs them. The Lua files decide which keys move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

FAMILIES = ("agent", "inbox", "urgent", "task", "activity", "stop", "backlog")
"""The key families of all versions, in the order that replies and reports use."""

SINCE_0_7 = ("mission", "events", "docket")
"""The families that exist only since Tinytown 0.7."""

RECORDS = ("agent", "task")
"""The families of records: JSON strings until Tinytown 0.6, hashes since 0.7."""

_TELLING = 2
_BEGINNINGS = tuple(family[:_TELLING].encode() for family in (*FAMILIES, *SINCE_0_7))
_PREFIX_LENGTH = len(b"tt:")  # or mt:, of version 0.1


@cache
def town_bytes(town: str) -> bytes:
    """The town's name as it appears in keys.

    A name from the command line may hold surrogates in place of undecodable bytes. They become the
    original bytes.
    """
    return town.encode("utf-8", "surrogateescape")


def old_key_start() -> int:
    """The position of the family's name in an old key."""
    return _PREFIX_LENGTH


def town_key_start(town: str) -> int:
    """The position of the family's name in a key of the town."""
    return _PREFIX_LENGTH + len(town_bytes(town)) + 1


def town_start(town: str) -> bytes:
    """How all keys of a town begin: `tt:<town>:`."""
    return b"tt:" + town_bytes(town) + b":"


def family_and_id(key: bytes, start: int) -> tuple[str, bytes]:
    """The family and the id of a key (empty for the backlog). `start`: where the family begins."""
    family, _, key_id = key[start:].partition(b":")
    return family.decode("utf-8", "replace"), key_id


def is_family_key(key: bytes, start: int) -> bool:
    """Whether a key is `family:id` or `backlog` from its position `start`."""
    family, key_id = family_and_id(key, start)
    if family == "backlog":
        return key[start:] == b"backlog"
    return family in FAMILIES and key_id != b"" and b":" not in key_id


def is_town_key(key: bytes, start: int) -> bool:
    """Whether a key is one of a town's from its position `start`, of any version."""
    family, rest = family_and_id(key, start)
    return is_family_key(key, start) or (
        family in SINCE_0_7 and (rest != b"" or family == "events")
    )


def check_families(keys: Iterable[bytes], start: int) -> None:
    """Raise ValueError if a key begins like no family's key. `start`: as in family_and_id()."""
    if not {key[start : start + _TELLING] for key in keys} <= {*_BEGINNINGS}:
        raise ValueError("a key of no family")


def in_order(keys: Iterable[bytes], start: int) -> Iterator[bytes]:
    """Sort keys by family, then by id. `start`: as in family_and_id()."""
    by_family: dict[bytes, list[bytes]] = {beginning: [] for beginning in _BEGINNINGS}
    for key in keys:
        by_family.setdefault(key[start : start + _TELLING], []).append(key)
    for group in by_family.values():
        # One family at a time, because sort keys take memory. For equal ids, mt: comes before tt:.
        group.sort()
        if group and group[0][:start] != group[-1][:start]:
            group.sort(key=lambda key: key[start:])
        yield from group
        group.clear()

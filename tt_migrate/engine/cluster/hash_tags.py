"""Hash tags: which text between braces puts a name into a slot."""

from __future__ import annotations

from functools import cache
from itertools import count

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot


def tag(key: bytes) -> bytes:
    """A text that puts a name into the key's slot, between braces.

    The slot depends on the text between the first `{` and the next `}`, if there is one, else on
    the whole name (Redis cluster specification, "Hash tags").
    """
    if b"}" not in key:
        return key
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if 0 <= start < end - 1 else tag_of_slot(key_slot(key))


def tag_of_slot(slot: int) -> bytes:
    """A text that, between braces, puts a name into a slot."""
    return _tags()[slot]


@cache
def _tags() -> dict[int, bytes]:
    """A text of each slot."""
    tags: dict[int, bytes] = {}
    for n in count():
        text = b"%x" % n
        tags.setdefault(key_slot(text), text)
        if len(tags) == REDIS_CLUSTER_HASH_SLOTS:
            return tags
    raise AssertionError

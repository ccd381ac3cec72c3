"""Reads and writes what scripts and clients send, and detects replies that are not of Redis."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis import Redis
from redis.client import NEVER_DECODE
from redis.exceptions import (
    ClusterDownError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

Word = bytes | int | str
"""A part of a command: its name or an argument."""


class InspectReply(NamedTuple):
    """The reply of inspect.lua. All these classes have the order of the Lua file's header."""

    run_id: bytes
    evicted: int
    evicting: int
    denied: list[bytes]
    missing: list[bytes]
    obstacle: bytes


class CountReply(NamedTuple):
    """The reply of count.lua."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    families: list[int]
    conflicts: int
    ambiguous: int
    towns: list[bytes]
    strings: list[int]
    old_strings: list[int]
    hashes: list[int]
    others: int
    untyped: int
    new_only: int
    kept: int


class LeftReply(NamedTuple):
    """The reply of left.lua."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    families: list[int]
    strings: list[int]
    kept: int


class PreviewReply(NamedTuple):
    """The reply of preview.lua. In `merges`, `conflicts` and `failed`, a text follows each key."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    moves: bytes
    odd_moves: list[bytes]
    merges: list[bytes]
    conflicts: list[bytes]
    failed: list[bytes]
    ambiguous: list[bytes]
    postponed: list[bytes]
    towns: list[bytes]


class MigrateReply(NamedTuple):
    """The reply of migrate.lua."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    families: list[int]
    merged: list[int]
    conflicts: list[bytes]
    failed: list[bytes]
    ambiguous: list[bytes]
    postponed: list[bytes]
    renamed: list[bytes]
    joined: list[bytes]
    towns: list[bytes]
    kept: int
    error: bytes


class RecordsReply(NamedTuple):
    """The reply of records.lua."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    records: list[bytes]
    unread: list[bytes]
    failed: list[bytes]
    kept: int


class AgentsReply(NamedTuple):
    """The reply of agents.lua. In `agents`, a name follows each id."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    agents: list[bytes]


class ConvertReply(NamedTuple):
    """The reply of convert.lua."""

    elapsed: int
    converted: list[int]
    changed: list[int]
    failed: list[bytes]
    error: bytes


RECORD_WEIGHT = 300
"""The cost of reading or writing a record besides its value, in bytes, as in `batch.lua`."""


def weight_of(value: bytes | list[bytes]) -> int:
    """The weight of a value from a reply: a string, or a hash as a list."""
    size = len(value) if isinstance(value, bytes) else sum(map(len, value))
    return RECORD_WEIGHT + size


def pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    """The pairs in a flat list. Raises TypeError or ValueError for anything else."""
    if not isinstance(flat, list):
        raise TypeError("no list")
    return zip(flat[::2], flat[1::2], strict=True)


def mapping(reply: Any) -> dict[Any, Any]:
    """A reply that is a map in RESP3 and a flat list in RESP2. Raises TypeError or ValueError."""
    return reply if isinstance(reply, dict) else dict(pairs(reply))


def texts(flat: list[bytes]) -> dict[bytes, str]:
    """Keys, and the text that follows each. Raises TypeError or ValueError for anything else."""
    keys = names(flat[::2])
    return {
        key: text.decode("utf-8", "surrogateescape")
        for key, text in zip(keys, names(flat[1::2]), strict=True)
    }


def names(reply: list[Any]) -> list[bytes]:
    """A list of keys or towns. Raises TypeError for anything else."""
    if not isinstance(reply, list) or not all(type(name) is bytes for name in reply):
        raise TypeError("no list of names")
    return reply


def whole(number: Any) -> int:
    """A whole number from 0. Raises TypeError for anything else."""
    if type(number) is not int or number < 0:
        raise TypeError("no whole number")
    return number


def packed(texts: Collection[bytes]) -> bytes:
    """Texts in MessagePack, as `array 32` of `str 8` and `str 32` (MessagePack specification)."""
    parts = [b"\xdd" + struct.pack(">I", len(texts))]
    for text in texts:
        size = len(text)
        parts.append(_SHORT[size] if size < len(_SHORT) else b"\xdb" + struct.pack(">I", size))
        parts.append(text)
    return b"".join(parts)


_SHORT = [b"\xd9" + bytes([size]) for size in range(256)]
"""How texts of less than 256 bytes begin, by their size."""


@contextmanager
def malformed_as_invalid() -> Iterator[None]:
    """Raise InvalidResponse if reading a reply inside this context fails.

    redis-py's Python parser raises many kinds of exceptions for a malformed reply.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise InvalidResponse("no reply of Redis") from None


def ask(client: Redis, *command: Word) -> Any:
    """Send a command. Its reply is bytes, even if the client decodes replies.

    Raises redis.exceptions.RedisError; InvalidResponse for a reply that is not valid in Redis.
    """
    with malformed_as_invalid():
        return client.execute_command(*command, **{NEVER_DECODE: True})


def error_of(text: bytes) -> ResponseError:
    """The exception for an error that is part of a script's reply, such as `NOPERM ...`."""
    code, _, _ = text.partition(b" ")
    return _ERRORS.get(code, ResponseError)(text.decode("utf-8", "surrogateescape"))


_ERRORS: dict[bytes, type[ResponseError]] = {
    b"CLUSTERDOWN": ClusterDownError,
    b"NOPERM": NoPermissionError,
    b"OOM": OutOfMemoryError,
    b"READONLY": ReadOnlyError,
    b"TRYAGAIN": TryAgainError,
}

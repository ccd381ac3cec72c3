"""Reads and writes what scripts and clients send, and detects replies that are not of Redis."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, cast, get_type_hints

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

from tt_migrate.keyspace import check_families

_R = TypeVar("_R")

Word = bytes | int | str
"""A part of a command: its name or an argument."""


@contextmanager
def malformed_as_invalid() -> Iterator[None]:
    """Raise InvalidResponse if reading a reply inside this context, or function, fails.

    redis-py's Python parser raises many kinds of exceptions for a malformed reply. What is done
    with a reply that was read does not belong here: its errors are our own.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise InvalidResponse("no reply of Redis") from None


Texts = Annotated[list[bytes], "pairs"]
"""Keys, each followed by a text."""

Times = Annotated[list[bytes], "times"]
"""Texts, each followed by how often it applies."""


OneText = Annotated[list[bytes], "one text"]
"""Keys joined by line feeds, then those that contain one. apart() parts them."""


class InspectReply(NamedTuple):
    """The reply of inspect.lua. All these classes have the order of the Lua file's header."""

    run_id: bytes
    evicted: int
    evicting: int
    denied: list[bytes]
    missing: list[bytes]
    obstacle: bytes


COUNTED = 9
"""How many numbers counting.lua counts, apart from those of families."""


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
    counted: list[int]
    begin: bytes
    passing: int


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
    """The reply of preview.lua."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    moves: bytes
    odd_moves: list[bytes]
    merges: Texts
    conflicts: Texts
    failed: Texts
    ambiguous: list[bytes]
    postponed: list[bytes]
    towns: list[bytes]
    conversions: bytes
    odd_conversions: list[bytes]
    unconverted: Texts
    adjusted: Times
    families: list[int]
    counted: list[int]
    begin: bytes
    passing: int


class MigrateReply(NamedTuple):
    """The reply of migrate.lua."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    families: list[int]
    merged: list[int]
    conflicts: Texts
    failed: Texts
    ambiguous: list[bytes]
    postponed: list[bytes]
    renamed: OneText
    joined: Texts
    towns: list[bytes]
    converted: list[int]
    changed: OneText
    unconverted: Texts
    adjusted: Times
    counted: list[int]
    kept: int
    error: bytes


class AgentsReply(NamedTuple):
    """The reply of agents.lua. In `agents`, a name follows each id."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    agents: Texts
    begin: bytes
    passing: int


def read(kind: type[_R], reply: Any) -> _R:
    """A script's reply with its fields named and checked. Raises InvalidResponse."""
    with malformed_as_invalid():
        said: Any = kind(*reply)
        for name, hint in _hints(cast("Any", kind)).items():
            _CHECKS[hint](getattr(said, name))
    return cast("_R", said)


def behind(reply: Any) -> int:
    """How many bytes a replica is behind, if a reply says that only for that nothing was done."""
    if isinstance(reply, list) and len(reply) == 2 and reply[0] == b"behind":
        return whole(reply[1])
    return 0


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@malformed_as_invalid()
def pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    """The pairs in a flat list. Raises InvalidResponse for anything else."""
    if not isinstance(flat, list):
        raise TypeError("no list")
    return [*zip(flat[::2], flat[1::2], strict=True)]


def mapping(reply: Any) -> dict[Any, Any]:
    """A reply that is a map in RESP3 and a flat list in RESP2. Raises InvalidResponse."""
    return reply if isinstance(reply, dict) else dict(pairs(reply))


def texts(flat: list[bytes]) -> dict[bytes, str]:
    """Keys, and the text that follows each, of a reply that read() has checked."""
    return {key: text.decode("utf-8", "surrogateescape") for key, text in pairs(flat)}


def apart(keys: list[bytes]) -> list[bytes]:
    """The keys of a OneText, of a reply that read() has checked."""
    return [*filter(None, keys[0].split(b"\n")), *keys[1:]] if keys else []


@malformed_as_invalid()
def times(flat: list[bytes]) -> Counter[str]:
    """Texts, and how often each applies. Raises InvalidResponse for anything else."""
    found: Counter[str] = Counter()
    for text, number in pairs(flat):
        found[text.decode()] += int(number)
    return found


@malformed_as_invalid()
def names(reply: list[Any]) -> list[bytes]:
    """A list of keys or towns. Raises InvalidResponse for anything else."""
    if not isinstance(reply, list) or not all(type(name) is bytes for name in reply):
        raise TypeError("no list of names")
    return reply


@malformed_as_invalid()
def whole(number: Any) -> int:
    """A whole number from 0. Raises InvalidResponse for anything else."""
    if type(number) is not int or number < 0:
        raise TypeError("no whole number")
    return number


@malformed_as_invalid()
def of_families(keys: Iterable[bytes], start: int) -> None:
    """Raise InvalidResponse if a key is of no family. `start`: as in family_and_id()."""
    check_families(keys, start)


_CHECKS: dict[Any, Callable[[Any], object]] = {
    int: whole,
    bytes: lambda text: names([text]),
    list[bytes]: names,
    OneText: names,
    list[int]: lambda numbers: [*map(whole, numbers)],
    Texts: lambda flat: pairs(names(flat)),
    Times: lambda flat: times(names(flat)),
}
"""What reads a field of a reply, by its annotation."""


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

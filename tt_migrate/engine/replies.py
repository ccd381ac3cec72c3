"""Reading replies: what scripts give, and what is none of Redis' at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis import Redis
from redis.client import NEVER_DECODE
from redis.exceptions import (
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

Word = bytes | int | str
"""What a command consists of."""


class InspectReply(NamedTuple):
    """What inspect.lua replies, in its header's order, as are those that follow."""

    run_id: bytes
    evicted: int
    evicting: int
    denied: list[bytes]
    missing: list[bytes]


class CountReply(NamedTuple):
    """What count.lua replies."""

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
    hashes: int
    others: int
    untyped: int
    new_only: int


class LeftReply(NamedTuple):
    """What left.lua replies."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    families: list[int]
    strings: list[int]


class PreviewReply(NamedTuple):
    """What preview.lua replies. In pairs: a key, and the text that follows it."""

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


class MigrateReply(NamedTuple):
    """What migrate.lua replies."""

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
    error: bytes


class RecordsReply(NamedTuple):
    """What records.lua replies."""

    cursor: bytes
    steps: int
    elapsed: int
    dbsize: int
    records: list[bytes]
    unread: list[bytes]
    failed: list[bytes]


class ConvertReply(NamedTuple):
    """What convert.lua replies."""

    elapsed: int
    converted: list[int]
    changed: list[int]
    failed: list[bytes]
    error: bytes


RECORD_WEIGHT = 300
"""What reading or writing a record costs besides its bytes, as in `batch.lua`."""


def weight_of(value: bytes | list[bytes]) -> int:
    """What a value weighs that `fetch.lua` has read: a string, or a hash as a list."""
    size = len(value) if isinstance(value, bytes) else sum(map(len, value))
    return RECORD_WEIGHT + size


def pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    """What stands in turn in a reply. Raises TypeError or ValueError for no such list."""
    if not isinstance(flat, list):
        raise TypeError("no list")
    return zip(flat[::2], flat[1::2], strict=True)


def mapping(reply: Any) -> dict[Any, Any]:
    """A reply that is a map in RESP3 and a flat list in RESP2. Raises TypeError or ValueError."""
    return reply if isinstance(reply, dict) else dict(pairs(reply))


def texts(flat: list[bytes]) -> dict[bytes, str]:
    """Keys and the text that follows each. Raises TypeError or ValueError for anything else."""
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


@contextmanager
def malformed_as_invalid() -> Iterator[None]:
    """Around the reading of a reply: what trips over a malformed one raises InvalidResponse.

    redis-py's parser in Python raises nearly anything then.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise InvalidResponse("no reply of Redis") from None


def ask(client: Redis, *command: Word) -> Any:
    """Send a command; its reply comes as bytes whatever the client decodes.

    Raises redis.exceptions.RedisError, InvalidResponse for what is no reply of Redis at all.
    """
    with malformed_as_invalid():
        return client.execute_command(*command, **{NEVER_DECODE: True})


def error_of(text: bytes) -> ResponseError:
    """The exception for an error that a script gives as a part of its reply: `NOPERM ...`."""
    code, _, _ = text.partition(b" ")
    return _ERRORS.get(code, ResponseError)(text.decode("utf-8", "surrogateescape"))


_ERRORS: dict[bytes, type[ResponseError]] = {
    b"NOPERM": NoPermissionError,
    b"OOM": OutOfMemoryError,
    b"READONLY": ReadOnlyError,
}

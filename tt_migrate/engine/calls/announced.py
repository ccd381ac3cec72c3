"""Which server an error is about, where it is not the one that the user named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from redis import exceptions as redis_errors

Announcer = Literal["cluster", "Sentinels"]


@dataclass(frozen=True)
class Announced:
    """A server whose address others have announced: the cluster, or the Sentinels."""

    address: str
    by: Announcer


@contextmanager
def about(server: Announced) -> Iterator[None]:
    """Note in each error of redis-py which server it is about, unless that is known."""
    try:
        yield
    except redis_errors.RedisError as error:
        if not server_of_error(error):
            setattr(error, _NOTE, server)
        raise


def server_of_error(error: BaseException | None) -> Announced | None:
    """The announced server that an error, or the error that caused it, is about."""
    while error:
        noted = getattr(error, _NOTE, None)
        if isinstance(noted, Announced):
            return noted
        error = error.__cause__
    return None


def is_unreachable(error: Exception) -> bool:
    """Whether an error says that no connection to a server could be opened."""
    kinds = (redis_errors.ConnectionError, redis_errors.TimeoutError)
    text = str(error)
    is_tls = "SSL" in text or "_ssl.c" in text
    return isinstance(error, kinds) and not is_tls and "onnecting to" in text


_NOTE = "_tt_migrate_server"

"""Which errors are temporary, and how long to retry after them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from redis import exceptions as redis_errors
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

_R = TypeVar("_R")

TEMPORARY = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,  # a failover turned the master into a replica
)
"""The errors after which a run tries again."""

RETRY = Retry(ExponentialBackoff(cap=2, base=0.1), 16, TEMPORARY)
"""How to retry a lost connection: 16 times, 27 seconds of waiting plus the time of the tries."""

LONGEST_STANDSTILL_SECONDS = 30
"""How many seconds connections may be lost repeatedly while a pass gets no further."""

_MOST_OUTAGES = 10


class PassingError(redis_errors.ConnectionError):
    """The server is in a temporary state.

    BUSY, MASTERDOWN, CLUSTERDOWN, TRYAGAIN, or UNREPLICATED: its replicas do not have a write yet.
    """


def as_passing(error: redis_errors.RedisError) -> redis_errors.RedisError:
    """A cluster's error as a PassingError, if it says to ask another server, or to ask later.

    Other errors are returned as they are. redis-py strips the code from most messages.
    """
    text = str(error)
    if isinstance(error, PassingError):
        return error
    if isinstance(error, redis_errors.ReadOnlyError) or text.startswith(_DEMOTED):
        return PassingError("READONLY a master has become a replica")
    # The class for MOVED is a subclass of AskError.
    moving = (redis_errors.AskError, redis_errors.TryAgainError)
    if isinstance(error, moving) or text.startswith(_MOVING):
        return PassingError(f"TRYAGAIN {text}")
    return _passing(error) or error


# WAIT's errors, and the code in a script's reply.
_DEMOTED = ("READONLY ", "WAIT cannot be used with replica", "UNBLOCKED ", "force unblock")
_MOVING = ("NOTLOCAL ", "MOVED ", "ASK ")


class CutOffError(redis_errors.ConnectionError):
    """The connection was closed in place of the reply to a script."""


class UncarriedError(redis_errors.ResponseError):
    """The connection was closed each time in calls about one key: no call can carry its value."""


@contextmanager
def closed_as_cut_off() -> Iterator[None]:
    """Raise CutOffError if the server closes the connection while a reply is read inside this.

    It says "Protocol error" before, if the call was too large.
    """
    try:
        yield
    except (redis_errors.ConnectionError, redis_errors.ResponseError) as error:
        is_closed = type(error) is redis_errors.ConnectionError
        if is_closed or "Protocol error" in str(error):
            raise CutOffError(str(error)) from error
        raise


class Standstill:
    """Detects that connections are lost repeatedly while a pass gets no further.

    A loss belongs to the same outage as the loss before it, unless a call worked more than
    LONGEST_STANDSTILL_SECONDS after that loss.
    """

    def __init__(self) -> None:
        self._furthest = 0
        self._worked = time.monotonic()
        self._lost = self._began = -math.inf
        self._outages = 0

    def loss(self, error: Exception) -> None:
        """Note a loss. Raises its error if the pass has stood still for too long or too often."""
        now = time.monotonic()
        if self._worked - self._lost > LONGEST_STANDSTILL_SECONDS:
            self._began = now
            self._outages += 1
        self._lost = now
        if now - self._began > LONGEST_STANDSTILL_SECONDS or self._outages > _MOST_OUTAGES:
            raise error

    def reached(self, position: int) -> None:
        """Note a call that worked, and how far the pass has got."""
        self._worked = time.monotonic()
        if position > self._furthest:
            self._furthest, self._lost, self._outages = position, -math.inf, 0


def two_words(error: Exception) -> str:
    """Why a run waits after an error that retried() retries."""
    if isinstance(error, PassingError):
        code, _, _ = str(error).partition(" ")
        return _STATES.get(code, "server unavailable")
    if isinstance(error, redis_errors.ReadOnlyError):
        return "read-only server"
    if isinstance(error, redis_errors.BusyLoadingError):
        return "server loading"
    if isinstance(error, MasterNotFoundError):
        return "no master"
    return "no answer" if isinstance(error, redis_errors.TimeoutError) else "connection lost"


_STATES = {
    "BUSY": "server busy",
    "MASTERDOWN": "master down",
    "CLUSTERDOWN": "cluster down",
    "TRYAGAIN": "slots moving",
    "UNREPLICATED": "replicas behind",
    "READONLY": "read-only server",
}


def retried(
    retry: Retry,
    attempt: Callable[[], _R],
    failed: Callable[[Exception], object],
    *,
    begun: bool,
) -> _R:
    """Call `attempt` until it works or the retries are used up.

    `failed`: called with each error of a kind that is retried. `begun`: whether the server has
    answered, so that a script may have been sent. Before that, only a PassingError is retried: a
    server that cannot be reached or refuses is an error at once.
    """

    def one_attempt() -> _R:
        try:
            return attempt()
        except redis_errors.ResponseError as error:
            if passing := _passing(error):
                raise passing from error
            raise

    def first_attempt() -> tuple[_R | None, Exception | None]:
        try:
            return one_attempt(), None
        except PassingError:
            raise
        except redis_errors.RedisError as error:
            return None, error

    if begun:
        return retry.call_with_retry(one_attempt, failed)
    result, error = retry.call_with_retry(first_attempt, failed)
    if error:
        raise error
    return result  # type: ignore[return-value]


def _passing(error: redis_errors.RedisError) -> PassingError | None:
    """An error as a PassingError with its code, None if waiting does not help."""
    text = str(error)
    for code, kinds in _PASSING.items():
        if isinstance(error, redis_errors.ResponseError) and text.startswith(f"{code} "):
            return PassingError(text)
        if isinstance(error, kinds):
            return PassingError(f"{code} {text}")
    return None


# The class for MASTERDOWN is a subclass of ClusterDownError.
_PASSING: dict[str, tuple[type[Exception], ...]] = {
    "MASTERDOWN": (redis_errors.MasterDownError,),
    "CLUSTERDOWN": (redis_errors.ClusterDownError,),
    "TRYAGAIN": (redis_errors.TryAgainError,),
    "BUSY": (),
}
"""The codes of what passes by itself, and the classes that redis-py puts in their place."""

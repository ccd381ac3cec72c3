"""Which errors pass by themselves, and how long they are waited for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from redis import exceptions as redis_errors
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

_R = TypeVar("_R")

PATIENCE = Retry(
    ExponentialBackoff(cap=2, base=0.1),
    16,
    (
        redis_errors.ConnectionError,
        redis_errors.TimeoutError,
        redis_errors.ReadOnlyError,  # a master that a failover has made a replica
    ),
)
"""How long a lost connection is waited for: 16 tries, 25 seconds besides the time they take."""

LONGEST_STANDSTILL_SECONDS = 30
"""For how long connections may be lost again and again before a pass gets any further."""

_MOST_OUTAGES = 10


class PassingError(redis_errors.ConnectionError):
    """The server is in a state that passes by itself: BUSY, MASTERDOWN, CLUSTERDOWN, TRYAGAIN."""


class Standstill:
    """Notices when connections are lost again and again and a pass gets no further.

    Losses belong together when LONGEST_STANDSTILL_SECONDS have not been enough to work in between.
    """

    def __init__(self) -> None:
        self._furthest = 0
        self._worked = time.monotonic()
        self._lost = self._began = -math.inf
        self._outages = 0

    def loss(self, error: Exception) -> None:
        """Take note of a loss; raise its error when the pass has stood still for too long."""
        now = time.monotonic()
        if self._worked - self._lost > LONGEST_STANDSTILL_SECONDS:
            self._began = now
            self._outages += 1
        self._lost = now
        if now - self._began > LONGEST_STANDSTILL_SECONDS or self._outages > _MOST_OUTAGES:
            raise error

    def reached(self, position: int) -> None:
        """Take note of a call that worked, and of how far the pass has got."""
        self._worked = time.monotonic()
        if position > self._furthest:
            self._furthest, self._lost, self._outages = position, -math.inf, 0


def patiently(
    patience: Retry,
    attempt: Callable[[], _R],
    failed: Callable[[Exception], object],
    *,
    begun: bool,
) -> _R:
    """Attempt something until it works or patience is at an end; `failed` gets each error.

    Before a run has `begun`, when its first answer is yet to come, a server that is not there or
    refuses is an error at once; only a PassingError is waited for.
    """

    def one_attempt() -> _R:
        try:
            return attempt()
        except redis_errors.ResponseError as error:
            if _passes(error):
                raise PassingError(str(error)) from error
            raise

    def first_attempt() -> tuple[_R | None, Exception | None]:
        try:
            return one_attempt(), None
        except PassingError:
            raise
        except redis_errors.RedisError as error:
            return None, error

    if begun:
        return patience.call_with_retry(one_attempt, failed)
    result, error = patience.call_with_retry(first_attempt, failed)
    if error:
        raise error
    return result  # type: ignore[return-value]


def _passes(error: redis_errors.ResponseError) -> bool:
    # redis-py's class for MASTERDOWN is a ClusterDownError.
    kinds = (redis_errors.ClusterDownError, redis_errors.TryAgainError)
    return isinstance(error, kinds) or str(error).startswith(("BUSY ", "MASTERDOWN "))

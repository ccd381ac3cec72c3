"""Which errors pass by themselves, and how long they are waited for."""

from __future__ import annotations

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


class PassingError(redis_errors.ConnectionError):
    """The server is in a state that passes by itself: BUSY, MASTERDOWN, CLUSTERDOWN, TRYAGAIN."""


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

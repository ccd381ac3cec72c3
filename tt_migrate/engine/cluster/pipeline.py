"""Sends calls of a script together and reads their replies, over one connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors
from redis.exceptions import NoScriptError, ResponseError

from tt_migrate.engine.calls.idle import heard, wake
from tt_migrate.engine.calls.replies import Word, malformed_as_invalid
from tt_migrate.engine.calls.retry import PassingError, as_passing, closed_as_cut_off
from tt_migrate.engine.calls.scripts import Script

_WAIT_MILLISECONDS = 1000


@dataclass(frozen=True)
class Failure:
    """The error of a call. `is_unsure`: whether the server may have done something."""

    error: redis_errors.RedisError
    is_unsure: bool


class Pipeline:
    """Calls over one connection. What was sent is received before more is sent.

    The calls are EVALSHA commands. `online`: how many replicas the server had online after the last
    calls, if that was asked. Raises redis.exceptions.RedisError.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._sent: Sequence[tuple[Word, ...]] = ()
        self._replicas = 0
        self._asks = False
        self.online = 0

    def connect(self) -> None:
        """Connect if the connection was dropped, or may have died in silence."""
        if self._client.connection is None:
            raise redis_errors.ConnectionError("the connection is gone")
        if not self._sent:
            wake(self._client.connection)
        self._client.connection.connect()

    def close(self) -> None:
        """Drop the connection if somebody else would read replies to what was sent."""
        if self._sent and self._client.connection:
            self._client.connection.disconnect()

    def send(
        self, calls: Sequence[tuple[Word, ...]], replicas: int = 0, *, asks: bool = False
    ) -> None:
        """Send calls. `replicas`: how many must have what they write before receive() returns.

        `asks`: whether receive() is to know how many replicas are online then.
        """
        connection: Any = self._client.connection
        self._sent, self._replicas, self._asks = calls, replicas, asks
        wait = [("WAIT", replicas, _WAIT_MILLISECONDS)] if replicas else []
        role = [("ROLE",)] if asks else []
        try:
            commands = connection.pack_commands([*calls, *wait, *role])
            with closed_as_cut_off():
                # A PING of redis-py's own would be answered among the replies.
                connection.send_packed_command(commands, check_health=False)
        except redis_errors.RedisError:
            connection.disconnect()
            raise

    def receive(self, script: Script) -> list[Any]:
        """Return the reply to each call, or a Failure. Raises an error of the connection.

        A server that does not know the script gets its text.
        """
        connection: Any = self._client.connection
        try:
            replies = [_reply(connection) for _ in self._sent]
            replicated = _reply(connection) if self._replicas else 0
            role = _reply(connection) if self._asks else None
            sent, self._sent = self._sent, ()
            heard(connection)
        except BaseException:
            connection.disconnect()
            raise
        unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            calls = [("EVAL", script.text, *sent[n][2:]) for n in unknown]
            self.send(calls, self._replicas, asks=self._asks)
            for n, reply in zip(unknown, self.receive(script), strict=True):
                replies[n] = reply
            return [*map(_said, replies)]
        unconfirmed = self._unconfirmed(replicated, role)
        said = [*map(_said, replies)]
        if not unconfirmed:
            return said
        # A call that was refused says more than WAIT, which may fail for the same reason.
        return [
            reply
            if isinstance(reply, Failure) and not reply.is_unsure
            else Failure(unconfirmed, is_unsure=True)
            for reply in said
        ]

    def _unconfirmed(self, replicated: Any, role: Any) -> redis_errors.RedisError | None:
        """Why the replicas may not have what the calls wrote, None if they have it."""
        for reply in (replicated, role):
            if isinstance(reply, ResponseError):
                return as_passing(reply)
        with malformed_as_invalid():
            is_master = not role or role[0] == b"master"
            self.online = len(role[2]) if role and is_master else 0
        if not is_master:
            # It loses what the other master does not have.
            return as_passing(redis_errors.ReadOnlyError())
        if replicated < self._replicas:
            return PassingError(
                f"UNREPLICATED {replicated} of {self._replicas} replicas have the last change"
            )
        if self.online > self._replicas and self._asks:
            return PassingError("UNREPLICATED a replica has come back")
        return None


def _reply(connection: Any) -> Any:
    try:
        with closed_as_cut_off(), malformed_as_invalid():
            return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def _said(reply: Any) -> Any:
    """A reply, or a Failure for an error."""
    if isinstance(reply, ResponseError):
        return Failure(as_passing(reply), is_unsure=not ran_nothing(reply))
    return reply


def ran_nothing(error: Exception) -> bool:
    """Whether an error says that the server refused the call before it ran."""
    kinds = (redis_errors.AskError, redis_errors.TryAgainError, redis_errors.ClusterDownError)
    return isinstance(error, (*kinds, redis_errors.ReadOnlyError, redis_errors.NoPermissionError))

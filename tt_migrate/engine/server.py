"""Finds out which server it is, and whether it can be used."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from tt_migrate.engine.permissions import Refusals
from tt_migrate.engine.replies import ask, malformed_as_invalid, mapping
from tt_migrate.results import Server

_FRESH_SECONDS = 1


class UnsupportedServerError(RedisError):
    """The server does not allow a script to rename keys: a cluster node or a Sentinel."""


class UnsyncedReplicaError(RedisConnectionError):
    """The server is a replica without data: it waits for its first synchronisation."""


def may_know_script_flags(server: Server) -> bool:
    """Whether it is worth trying a script that starts with `#!lua flags=...`.

    Redis has script flags since 7.0, Valkey in every version (Redis documentation, "Script flags").
    """
    major = server.version.partition(".")[0]
    return not (major.isascii() and major.isdigit() and int(major) < 7)


@dataclass(frozen=True)
class Handshake:
    """The reply to the HELLO with which a connection began.

    `at`: when it came, by time.monotonic(). `seconds`: how long it took.
    """

    reply: Any
    at: float
    seconds: float

    @property
    def is_fresh(self) -> bool:
        """Whether it still tells what the server is: a master can become a replica."""
        return time.monotonic() - self.at < _FRESH_SECONDS


def handshake_of(client: Redis) -> Handshake:
    """What a server says to HELLO: when its connection began, if that was just now, or else now.

    No ACL can forbid HELLO. The reply is None if the server does not know it. Raises
    redis.exceptions.RedisError if the server does not answer.
    """
    handshake = getattr(client.connection, "handshake", None)
    if isinstance(handshake, Handshake) and handshake.is_fresh:
        return handshake
    began = time.monotonic()
    try:
        reply = ask(client, "HELLO")
    except ResponseError as error:
        if "unknown command" not in str(error).lower():
            raise
        reply = None
    now = time.monotonic()
    return Handshake(reply, now, now - began)


def server_of(handshake: Handshake) -> Server:
    """What a server says it is.

    Raises UnsupportedServerError for a cluster node or a Sentinel.
    """
    if handshake.reply is None:
        return Server("", "", "")
    with malformed_as_invalid():
        fields = _fields(mapping(handshake.reply))
    mode = fields.get("mode", "")
    if mode == "cluster":
        raise UnsupportedServerError(
            "the server is a node of a cluster: a rename to another slot is impossible there"
        )
    if mode == "sentinel":
        raise UnsupportedServerError(
            "the server is a Sentinel: use the URL of the master it watches"
        )
    return Server(fields.get("server", ""), fields.get("version", ""), fields.get("role", ""))


def check_writable(server: Server) -> None:
    """Raise ReadOnlyError for a replica, even a writable one: its master would undo the writes."""
    if server.role == "replica":
        raise ReadOnlyError("READONLY the server is a replica")


def is_restricted(client: Redis, refusals: Refusals) -> bool:
    """Whether there may be commands that the user may not run."""
    try:
        user = refusals.ask(client, "ACL", "GETUSER", refusals.ask(client, "ACL", "WHOAMI"))
    except ResponseError:
        return True
    with malformed_as_invalid():
        return bool(mapping(user)[b"commands"] != b"+@all")


def check_data(server: Server, client: Redis, refusals: Refusals) -> None:
    """Raise UnsyncedReplicaError for a replica whose data may not have arrived yet."""
    if server.role != "replica" or _is_linked(client, refusals):
        return
    try:
        keys = refusals.ask(client, "DBSIZE")
    except NoPermissionError:
        keys = 0  # treated as empty: a scan that finds nothing would prove nothing
    if not keys:
        raise UnsyncedReplicaError(
            "the server is a replica without a link to its master, and has no keys: perhaps it"
            " never got any. Use the URL of the master"
        )


def _is_linked(replica: Redis, refusals: Refusals) -> bool:
    """Whether a replica's link to its master is up. True if ROLE and INFO are both refused."""
    with malformed_as_invalid():
        try:
            return bool(refusals.ask(replica, "ROLE")[3] == b"connected")
        except ResponseError:
            pass
        try:
            info = refusals.ask(replica, "INFO", "replication")
            return b"\nmaster_link_status:down" not in info
        except ResponseError:
            return True


def _fields(reply: dict[Any, Any]) -> dict[str, str]:
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in reply.items()
        if isinstance(name, bytes) and isinstance(value, bytes)
    }

"""Finds out which server it is, and whether it can be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import (
    ClusterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tt_migrate.engine.calls.idle import is_watched
from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.replies import ask, malformed_as_invalid, mapping, whole
from tt_migrate.results import Server

_FRESH_SECONDS = 1
_SLOTS = 16384
_SIGNS_OF_DECLARED_KEYS = (
    *("CROSSSLOT", "same slot"),
    *("input keys", "number of keys", "numkeys", "KEYS array", "undeclared key"),
)


class UnsupportedServerError(RedisError):
    """Keys cannot be renamed there, for example by a Sentinel."""


class SeveralShardsError(UnsupportedServerError):
    """The server is one of several shards of a cluster. Sharded can work with them."""


class ObstacleError(ResponseError):
    """The server does not let scripts do what they need. The message is the server's own."""


class UndeclaredKeysError(ObstacleError):
    """The server wants all keys of a script in KEYS, and in one slot."""


class UnansweredError(RedisTimeoutError):
    """A server that has answered before does not answer in time."""


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
    try:
        return _asked_handshake(client)
    except (RedisConnectionError, RedisTimeoutError):
        # Perhaps it has died while nobody used it. Nothing is lost: connect anew. It is not known
        # which database a connection of the caller's own has selected.
        if not client.connection or not is_watched(client.connection):
            raise
        client.connection.disconnect()
        return _asked_handshake(client)


def _asked_handshake(client: Redis) -> Handshake:
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
    """What a server says it is."""
    if handshake.reply is None:
        return Server("", "", "")
    with malformed_as_invalid():
        fields = _fields(mapping(handshake.reply))
    name, version, role, mode = (
        fields.get(field, "") for field in ("server", "version", "role", "mode")
    )
    return Server(name, version, role, mode)


def check_supported(server: Server, client: Redis, refusals: Refusals) -> None:
    """Raise UnsupportedServerError for a Sentinel, SeveralShardsError for a cluster with several.

    A replica in a cluster is told to answer instead of redirecting to its master.

    Raises redis.exceptions.ClusterDownError while slots are not served.
    """
    if server.mode == "sentinel":
        raise UnsupportedServerError(
            "the server is a Sentinel: use redis+sentinel://HOST:26379/MASTER, with the name of the"
            " master that it watches"
        )
    if not server.in_cluster:
        return
    with malformed_as_invalid():
        info = refusals.ask(client, "CLUSTER", "INFO").decode("utf-8", "replace")
        fields = dict(line.split(":", 1) for line in info.split())
        shards, slots = int(fields["cluster_size"]), int(fields["cluster_slots_assigned"])
    if shards > 1:
        raise SeveralShardsError(
            f"the server is one of {shards} shards of a cluster: use a redis.RedisCluster as client"
        )
    if not slots:
        raise UnsupportedServerError("the cluster has no slots: assign all of them first")
    if slots < _SLOTS or fields["cluster_state"] != "ok":
        raise ClusterDownError(f"CLUSTERDOWN {slots} of {_SLOTS} slots are assigned")
    if server.role == "replica":
        refusals.ask(client, "READONLY")


def wants_declared_keys(text: str) -> bool:
    """Whether an error says that a script's keys must be in KEYS, or in one slot."""
    return any(sign in text for sign in _SIGNS_OF_DECLARED_KEYS)


@contextmanager
def undeclared_keys_named(*, declares: bool) -> Iterator[None]:
    """Raise UndeclaredKeysError for an error that says so, unless keys are declared already."""
    try:
        yield
    except ResponseError as error:
        if declares or not wants_declared_keys(str(error)):
            raise
        raise UndeclaredKeysError(str(error)) from error


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


def databases_of(client: Redis, refusals: Refusals) -> dict[int, int] | None:
    """The keys in each database of a server that has some; None if the server does not tell."""
    try:
        with malformed_as_invalid():
            info = refusals.ask(client, "INFO", "keyspace")
            sizes = {name: whole(size["keys"]) for name, size in info.items() if _is_database(name)}
    except RedisError:
        return None
    return {int(name[2:]): size for name, size in sizes.items()}


def _is_database(name: str) -> bool:
    return name.startswith("db") and name[2:].isdecimal()


def _is_linked(replica: Redis, refusals: Refusals) -> bool:
    """Whether a replica's link to its master is up. True if ROLE and INFO are both refused."""
    with malformed_as_invalid():
        try:
            role = refusals.ask(replica, "ROLE")
            # It may have become a master just now.
            return bool(role[0] == b"master" or role[3] == b"connected")
        except ResponseError:
            pass
        try:
            info = refusals.ask(replica, "INFO", "replication")
            return bool(info["master_link_status"] != "down")
        except ResponseError:
            return True


def _fields(reply: dict[Any, Any]) -> dict[str, str]:
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in reply.items()
        if isinstance(name, bytes) and isinstance(value, bytes)
    }

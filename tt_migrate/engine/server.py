"""What server it is: asked once, before anything else."""

from __future__ import annotations

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

from tt_migrate.engine.refusals import Refusals
from tt_migrate.engine.replies import ask, malformed_as_invalid, mapping


class UnsupportedServerError(RedisError):
    """The server is one where a script cannot rename keys: a cluster's node, a Sentinel."""


class UnsyncedReplicaError(RedisConnectionError):
    """The server is a replica that has no data to show: it waits for its first synchronisation."""


@dataclass(frozen=True)
class Server:
    """What HELLO tells of a server.

    `name` is `redis` or `valkey`, `version` such as `7.0.15`, `role` `master` or `replica`. Fields
    of a server that does not answer HELLO (some proxies) are empty.
    """

    name: str
    version: str
    role: str

    @property
    def may_know_script_flags(self) -> bool:
        """Whether a script that begins with `#!lua flags=...` is worth a try.

        Redis knows them since 7.0, every Valkey does (Redis documentation, "Script flags").
        """
        major = self.version.partition(".")[0]
        return not (major.isascii() and major.isdigit() and int(major) < 7)


def inspect_server(client: Redis) -> Server:
    """Ask a server what it is, with HELLO, which every user may call whatever the ACL says.

    Raises UnsupportedServerError for a cluster's node or a Sentinel, and
    redis.exceptions.RedisError when the server does not answer.
    """
    try:
        reply = ask(client, "HELLO")
    except ResponseError as error:
        if "unknown command" in str(error).lower():
            return Server("", "", "")
        raise
    with malformed_as_invalid():
        fields = _fields(mapping(reply))
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
    """Raise ReadOnlyError for a replica, also one that takes writes: its master would undo them."""
    if server.role == "replica":
        raise ReadOnlyError("READONLY the server is a replica")


def is_restricted(client: Redis, refusals: Refusals) -> bool:
    """Whether some command is perhaps not permitted to the user."""
    try:
        user = refusals.ask(client, "ACL", "GETUSER", refusals.ask(client, "ACL", "WHOAMI"))
    except ResponseError:
        return True
    with malformed_as_invalid():
        return bool(mapping(user)[b"commands"] != b"+@all")


def check_data(server: Server, client: Redis, refusals: Refusals) -> None:
    """Raise UnsyncedReplicaError where "nothing found" would only mean "nothing there yet"."""
    if server.role != "replica" or _is_linked(client, refusals):
        return
    try:
        keys = refusals.ask(client, "DBSIZE")
    except NoPermissionError:
        keys = 0  # as good as none: what a scan finds would prove nothing
    if not keys:
        raise UnsyncedReplicaError(
            "the server is a replica without a link to its master, and has no keys: perhaps it"
            " never got any. Use the URL of the master"
        )


def _is_linked(replica: Redis, refusals: Refusals) -> bool:
    """Whether a replica's link to its master is up; True when neither ROLE nor INFO may tell."""
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

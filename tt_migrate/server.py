"""What server it is: asked once, before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.client import NEVER_DECODE
from redis.exceptions import InvalidResponse, ReadOnlyError, RedisError, ResponseError


class UnsupportedServerError(RedisError):
    """The server is one where a script cannot rename keys: a cluster's node, a Sentinel."""


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
    def knows_script_flags(self) -> bool:
        """Whether a script may begin with `#!lua flags=...` (Redis since 7.0, every Valkey)."""
        major = self.version.partition(".")[0]
        return major.isdigit() and int(major) >= 7


def inspect_server(client: Redis) -> Server:
    """Ask a server what it is, with HELLO, which every user may call whatever the ACL says.

    Raises UnsupportedServerError for a cluster's node or a Sentinel, and
    redis.exceptions.RedisError when the server does not answer.
    """
    try:
        reply = client.execute_command("HELLO", **{NEVER_DECODE: True})
    except ResponseError as error:
        if "unknown command" in str(error).lower():
            return Server("", "", "")
        raise
    if not isinstance(reply, dict | list):
        raise InvalidResponse("no reply of Redis")
    fields = _fields(reply)
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


def _fields(reply: Any) -> dict[str, str]:
    # A map in RESP3, a flat list in RESP2.
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {
        name.decode(): value.decode("utf-8", "replace")
        for name, value in pairs
        if isinstance(value, bytes)
    }

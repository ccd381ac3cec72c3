"""Redis users with fewer permissions."""

from __future__ import annotations

from redis import Redis

from tests.servers import Server


def user_without(server: Server, *commands: str, keys: tuple[str, ...] = ("~*",)) -> Redis:
    """Return a client of a user who may run all commands except some, on some keys."""
    denied = [f"-{command.lower()}" for command in commands]
    server.client().execute_command(
        "ACL", "SETUSER", "less", "reset", "on", ">secret", *keys, "+@all", *denied
    )
    return server.client(username="less", password="secret")


def user_with(server: Server, *commands: str, keys: tuple[str, ...] = ("~*",)) -> Redis:
    """Return a client of a user who may run only some commands, on some keys."""
    permitted = [f"+{command.lower()}" for command in commands]
    server.client().execute_command(
        "ACL", "SETUSER", "few", "reset", "on", ">secret", *keys, *permitted
    )
    return server.client(username="few", password="secret")


def refusals(server: Server) -> dict[str, int]:
    """Return the names that ACL LOG lists as refused, each with its number of refusals."""
    counted: dict[str, int] = {}
    for entry in server.client().acl_log(1000):
        name = str(entry["object"])
        if not name.startswith("client"):
            counted[name] = counted.get(name, 0) + int(str(entry["count"]))
    return counted

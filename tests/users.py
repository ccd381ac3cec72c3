"""Redis users with fewer permissions."""

from __future__ import annotations

from redis import Redis

from tests.servers import Server


def user_without(server: Server, *commands: str, keys: tuple[str, ...] = ("~*",)) -> Redis:
    """A client of a user who may run everything but some commands, on some keys."""
    denied = [f"-{command.lower()}" for command in commands]
    server.client().execute_command(
        "ACL", "SETUSER", "less", "reset", "on", ">secret", *keys, "+@all", *denied
    )
    return server.client(username="less", password="secret")


def user_with(server: Server, *commands: str, keys: tuple[str, ...] = ("~*",)) -> Redis:
    """A client of a user who may run some commands only, on some keys."""
    permitted = [f"+{command.lower()}" for command in commands]
    server.client().execute_command(
        "ACL", "SETUSER", "few", "reset", "on", ">secret", *keys, *permitted
    )
    return server.client(username="few", password="secret")


def refusals(server: Server) -> dict[str, int]:
    """What ACL LOG has of refused commands, and how often."""
    counted: dict[str, int] = {}
    for entry in server.client().acl_log(1000):
        name = str(entry["object"])
        if not name.startswith("client"):
            counted[name] = counted.get(name, 0) + int(str(entry["count"]))
    return counted

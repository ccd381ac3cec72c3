"""Imitates services that cannot be had: a real server behind their rules and errors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha1
from typing import IO

from tests.clusters import Cluster
from tests.hostile import bulk, error, hostile_server
from tests.servers import Server

Forward = Callable[..., bytes]
Rule = Callable[[list[bytes], Forward], bytes | None]
"""Takes a command. Returns the raw reply, or None for that of the real server."""


@contextmanager
def service(rule: Rule, *servers: Server) -> Iterator[str]:
    """Run a service in front of real servers. Yields its `host:port`.

    `rule` is given a function that forwards a command to the first server, or to the one of a
    number.
    """
    opened = threading.local()

    with ExitStack() as held:

        def forward(command: Sequence[bytes], to: int = 0) -> bytes:
            upstream: dict[int, tuple[socket.socket, IO[bytes]]] = vars(opened)  # type: ignore[assignment]
            if to not in upstream:
                connection = held.enter_context(
                    socket.create_connection(("127.0.0.1", servers[to].port))
                )
                upstream[to] = connection, held.enter_context(connection.makefile("rb"))
            connection, received = upstream[to]
            parts = b"".join(bulk(part) for part in command)
            connection.sendall(b"*%d\r\n%b" % (len(command), parts))
            return _raw(received)

        def answer(command: list[bytes]) -> bytes:
            command[0] = command[0].upper()
            reply = rule(command, forward)
            return forward(command) if reply is None else reply

        yield held.enter_context(hostile_server(answer))


def greeting(
    command: list[bytes], name: bytes, version: bytes, mode: bytes = b"standalone"
) -> bytes:
    """Return a reply to HELLO, in the protocol that the command asks for."""
    fields = {b"server": name, b"version": version, b"mode": mode, b"role": b"master"}
    texts = b"".join(bulk(key) + bulk(value) for key, value in fields.items()) + bulk(b"proto")
    return b"%%5\r\n%b:3\r\n" % texts if b"3" in command else b"*10\r\n%b:2\r\n" % texts


def _raw(received: IO[bytes]) -> bytes:
    """Read one reply of RESP2 or RESP3 and return its bytes."""
    line = received.readline()
    kind, size = line[:1], line[1:].strip()
    if kind in b"$=!":
        return line + (received.read(int(size) + 2) if int(size) >= 0 else b"")
    parts = {b"*": 1, b"~": 1, b">": 1, b"%": 2}.get(kind, 0) * max(
        0, int(size or 0) if kind in b"*~>%" else 0
    )
    return line + b"".join(_raw(received) for _ in range(parts))


class Scripts:
    """Keeps the scripts that a service was sent, and runs them with another `redis` table.

    `missing`: functions that the table lacks. `raising`: functions that raise an error.
    `strict`: returns whether a script with this text may use only the keys in KEYS.
    """

    def __init__(
        self,
        missing: Sequence[str] = (),
        raising: Sequence[str] = (),
        strict: Callable[[bytes], bool] = lambda text: False,
    ) -> None:
        self._missing = missing
        self._raising = raising
        self._strict = strict
        self._known: dict[bytes, bytes] = {}

    def run(self, command: list[bytes], forward: Forward) -> bytes | None:
        """Handle SCRIPT LOAD, EVAL and EVALSHA. Returns None for other commands."""
        if command[:2] == [b"SCRIPT", b"LOAD"]:
            sha = sha1(command[2]).hexdigest().encode()
            reply = forward([*command[:2], self._changed(command[2])])
            if reply.startswith(b"$"):
                self._known[sha] = reply.split(b"\r\n")[1]
                return bulk(sha)
            return reply
        if command[0] == b"EVALSHA":
            known = self._known.get(command[1])
            return forward([b"EVALSHA", known, *command[2:]]) if known else error(b"NOSCRIPT No")
        if command[0] == b"EVAL":
            return forward([b"EVAL", self._changed(command[1]), *command[2:]])
        return None

    def _changed(self, text: bytes) -> bytes:
        lua = f"""
            local real = redis
            local missing, raising = {_set(self._missing)}, {_set(self._raising)}
            local strict = {str(self._strict(text)).lower()}
            local keyless = {_set(["SCAN", "TIME", "DBSIZE", "INFO", "COMMAND"])}
            local two = {_set(["RENAME", "RENAMENX"])}
            local function checked(how)
              return function(command, key, ...)
                if key == nil then return how(command) end
                if command == 'XINFO' then return how(command, key, ...) end
                local is_there = {{}}
                for _, name in ipairs(KEYS) do is_there[name] = true end
                local other = two[command] and ...
                if strict and not keyless[command]
                  and not (is_there[key] and (not other or is_there[other])) then
                  return {{err = '-ERR script tried accessing undeclared key, key: ' .. key}}
                end
                return how(command, key, ...)
              end
            end
            local function find(_, name)
              if raising[name] then
                return function() error('redis.' .. name .. ' is not supported') end
              end
              return not missing[name] and real[name] or nil
            end
            local redis = setmetatable({{pcall = checked(real.pcall)}}, {{__index = find}})
        """
        return " ".join(lua.split()).encode() + b" " + text


def _set(names: Sequence[str]) -> str:
    return "{" + ", ".join(f"{name} = true" for name in names) + "}"


def spreading(cluster: Cluster, mode: bytes = b"standalone") -> Rule:
    """A service with one endpoint in front of the masters of a cluster.

    It refuses scripts without KEYS, with keys of several slots, and that use keys not in KEYS.
    """
    scripts = Scripts(strict=lambda text: True)
    client, ports = cluster.client(), [server.port for server in cluster.masters]

    def owner(key: bytes) -> int:
        return ports.index(client.get_node_from_key(key).port)

    def scan(command: list[bytes], forward: Forward) -> bytes:
        """SCAN one master after the other. The cursor has the master's number."""
        cursor, to = divmod(int(command[1]), len(ports))
        reply = forward([b"SCAN", b"%d" % cursor, *command[2:]], to)
        _, _, cursor_text, keys = reply.split(b"\r\n", 3)
        here, following = int(cursor_text) * len(ports) + to, (to + 1) % len(ports)
        return b"*2\r\n" + bulk(b"%d" % (here if int(cursor_text) else following)) + keys

    def evaluate(command: list[bytes], forward: Forward) -> bytes | None:
        keys = command[3 : 3 + int(command[2])]
        if not keys:
            return error(b"ERR Lua scripts without any input keys are not supported.")
        if len({client.keyslot(key) for key in keys}) > 1:
            return error(b"CROSSSLOT Keys in request don't hash to the same slot")
        to = owner(keys[0])
        return scripts.run(command, lambda changed: forward(changed, to))

    def rule(command: list[bytes], forward: Forward) -> bytes | None:
        name = command[0]
        if name == b"HELLO":
            for to in range(len(ports)):
                forward(command, to)
            return greeting(command, b"valkey", b"8.1.0", mode)
        if name == b"SCAN":
            return scan(command, forward)
        if name in (b"EVAL", b"EVALSHA"):
            return evaluate(command, forward)
        if name == b"SCRIPT":
            replies = [
                scripts.run(command, lambda changed, to=to: forward(changed, to))
                for to in range(len(ports))
            ]
            return replies[0]
        if name == b"DBSIZE":
            return b":%d\r\n" % sum(int(forward(command, to)[1:]) for to in range(len(ports)))
        if name in (b"CLUSTER", b"ROLE", b"WAIT", b"INFO"):
            return error(b"ERR unknown command '%b'" % name)
        return forward(command, owner(command[1])) if len(command) > 1 else None

    return rule

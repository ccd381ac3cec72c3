"""A server that sends arbitrary replies."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

Answer = Callable[[list[bytes]], bytes]
"""Takes a command with its arguments. Returns the raw reply."""


@contextmanager
def hostile_server(answer: Answer) -> Iterator[str]:
    """Run a server that answers commands with `answer`. Yields its `host:port`."""

    def serve(peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer, peer.makefile("rb") as received, suppress(OSError):
            while command := _command(received):
                peer.sendall(answer(command))

    def accept() -> None:
        with suppress(OSError):
            while True:
                peer, _ = listening.accept()
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def error(text: bytes) -> bytes:
    """Return an error reply in RESP."""
    return b"-" + text.replace(b"\r", b" ").replace(b"\n", b" ") + b"\r\n"


def bulk(text: bytes) -> bytes:
    """Return a bulk string in RESP."""
    return b"$%d\r\n%s\r\n" % (len(text), text)


def hello(server: bytes = b"redis", version: bytes = b"7.4.0", role: bytes = b"master") -> bytes:
    """Return a reply to HELLO."""
    fields = {b"server": server, b"version": version, b"mode": b"standalone", b"role": role}
    texts = b"".join(bulk(name) + bulk(value) for name, value in fields.items())
    return b"%%%d\r\n" % (len(fields) + 1) + bulk(b"proto") + b":3\r\n" + texts


def inspection() -> bytes:
    """Return a reply of inspect.lua, which a run calls first, for a user with all permissions."""
    return b"*6\r\n" + bulk(b"0" * 40) + b":0\r\n:0\r\n*0\r\n*0\r\n" + bulk(b"")


def _command(received: IO[bytes]) -> list[bytes]:
    line = received.readline()
    arguments = []
    for _ in range(int(line[1:] or b"0")):
        length = int(received.readline()[1:])
        arguments.append(received.read(length + 2)[:-2])
    return arguments

"""A socket with a deadline for each reply, however slowly the reply arrives."""

from __future__ import annotations

import time
from typing import Any

_GRACE_SECONDS = 60
_SLOWEST_BYTES_A_SECOND = 10_000


class DeadlineSocket:
    """A connected socket that limits the time a whole reply may take.

    A reply may take `timeout` seconds, plus one minute, plus one second for each 10 kB received.
    After that, receiving raises TimeoutError. A socket's own timeout is not enough: it restarts
    with each byte. `timeout`: seconds until a reply begins.
    """

    def __init__(self, sock: Any, timeout: float) -> None:
        self._sock = sock
        self._allowed = timeout + _GRACE_SECONDS
        self._began = time.monotonic()
        self._received = 0

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the socket."""
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        """Send a command and restart the clock for its reply."""
        self._began, self._received = time.monotonic(), 0
        self._sock.sendall(data)

    def recv(self, *args: Any) -> bytes:
        """Receive some bytes of a reply."""
        self._check()
        data: bytes = self._sock.recv(*args)
        self._received += len(data)
        return data

    def recv_into(self, *args: Any) -> int:
        """Receive some bytes of a reply into a buffer."""
        self._check()
        size: int = self._sock.recv_into(*args)
        self._received += size
        return size

    def _check(self) -> None:
        if self._sock.gettimeout() == 0:
            return  # redis-py only looks whether the server has closed the connection.
        allowed = self._allowed + self._received / _SLOWEST_BYTES_A_SECOND
        if time.monotonic() - self._began > allowed:
            raise TimeoutError("the reply arrives too slowly")

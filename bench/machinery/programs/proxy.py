"""A TCP proxy that makes each round trip take a given time: `proxy.py PORT MS [JITTER]`.

JITTER: how many milliseconds a round trip takes longer on average, by chance. As in TCP, nothing
overtakes what was sent before it. Listens on a free port of 127.0.0.1, which it prints, and ends
with its standard input.
"""

from __future__ import annotations

import queue
import random
import socket
import sys
import threading
import time
from contextlib import suppress


def main(port: int, rtt_ms: float, jitter_ms: float = 0) -> None:
    """Accept connections until the standard input ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(
            target=_accept, args=(listener, port, rtt_ms, jitter_ms), daemon=True
        ).start()
        sys.stdin.read()


def _accept(listener: socket.socket, port: int, rtt_ms: float, jitter_ms: float) -> None:
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for source, target in ((client, server), (server, client)):
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # What has been sent does not delay what follows: a long line, not a slow one.
            line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            delays = (rtt_ms / 2000, jitter_ms / 2000)
            threading.Thread(target=_receive, args=(source, line, *delays), daemon=True).start()
            threading.Thread(target=_deliver, args=(target, line), daemon=True).start()


def _receive(
    source: socket.socket,
    line: queue.SimpleQueue[tuple[float, bytes]],
    delay: float,
    jitter: float,
) -> None:
    data = b"-"
    while data:
        try:
            data = source.recv(2**16)
        except OSError:
            data = b""
        late = random.expovariate(1 / jitter) if jitter else 0.0
        line.put((time.perf_counter() + delay + late, data))


def _deliver(target: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    data = b"-"
    while data:
        due, data = line.get()
        time.sleep(max(0.0, due - time.perf_counter()))
        with suppress(OSError):
            if data:
                target.sendall(data)
            else:
                target.shutdown(socket.SHUT_WR)


main(int(sys.argv[1]), *map(float, sys.argv[2:]))

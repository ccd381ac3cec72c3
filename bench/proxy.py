"""A TCP proxy that makes each round trip take a given time: `python -m bench.proxy PORT MS`.

Listens on a free port of 127.0.0.1, which it prints, and ends with its standard input.
"""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median

from redis import Redis


@contextmanager
def delayed(port: int, rtt_ms: float) -> Iterator[int]:
    """A port that leads to another one with a delay, given by a process of its own."""
    command = [sys.executable, "-m", "bench.proxy", str(port), str(rtt_ms)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin, "it has a pipe"
        assert process.stdout, "it has a pipe"
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def round_trip_ms(port: int, times: int = 30) -> float:
    """The median time of a PING."""
    redis = Redis(port=port, single_connection_client=True)
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        redis.ping()
        taken.append(time.perf_counter() - began)
    redis.close()
    return median(taken) * 1000


def serve(port: int, rtt_ms: float) -> None:
    """Accept connections until the standard input ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=_accept, args=(listener, port, rtt_ms), daemon=True).start()
        sys.stdin.read()


def _accept(listener: socket.socket, port: int, rtt_ms: float) -> None:
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for source, target in ((client, server), (server, client)):
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # What has been sent does not delay what follows: a long line, not a slow one.
            line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            delay = rtt_ms / 2000
            threading.Thread(target=_receive, args=(source, line, delay), daemon=True).start()
            threading.Thread(target=_deliver, args=(target, line), daemon=True).start()


def _receive(
    source: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]], delay: float
) -> None:
    data = b"-"
    while data:
        try:
            data = source.recv(2**16)
        except OSError:
            data = b""
        line.put((time.perf_counter() + delay, data))


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


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))

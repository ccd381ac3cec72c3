"""Another client of the server: a GET at a steady rate, `gets.py PORT RATE`.

Prints a line once it runs; at the end of its standard input prints as JSON the latencies of all
GETs in milliseconds. Each GET is sent when it is due, whether or not those before were answered,
and its latency counts from then: a server that stands still is felt by all who ask meanwhile.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from typing import Any

from redis import Redis

_KEY = "bench:get"


def main(port: int, rate: float) -> None:
    """Ask until the standard input ends."""
    redis = Redis(port=port, single_connection_client=True)
    redis.get(_KEY)
    connection: Any = redis.connection
    command = connection.pack_command("GET", _KEY)
    asked: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    latencies: list[float] = []
    ended = threading.Event()

    def listen() -> None:
        while (due := asked.get()) is not None:
            connection.read_response()
            latencies.append((time.perf_counter() - due) * 1000)

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    listener = threading.Thread(target=listen)
    listener.start()
    threading.Thread(target=wait_for_end, daemon=True).start()
    print("asking", flush=True)
    due = time.perf_counter()
    while not ended.is_set():
        due += 1 / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        asked.put(due)
        connection.send_packed_command(command, check_health=False)
    asked.put(None)
    listener.join()
    json.dump(latencies, sys.stdout)


main(int(sys.argv[1]), float(sys.argv[2]))

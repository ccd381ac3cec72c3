"""A server that is busy with another client's script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from redis.exceptions import RedisError

from tests.servers import Server
from tests.waiting import wait_until


@contextmanager
def busy(server: Server) -> Iterator[Callable[[], None]]:
    """Keep the server busy with a script. Yields a function that ends the script."""
    looping, other = server.client(), server.client()
    other.config_set("lua-time-limit", 1)

    def loop() -> None:
        with suppress(RedisError):
            looping.eval("while true do end", 0)

    def is_busy() -> bool:
        try:
            other.ping()
        except RedisError as error:
            return "BUSY" in str(error)
        return False

    def end() -> None:
        with suppress(RedisError):
            other.script_kill()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        wait_until(is_busy)
        yield end
    finally:
        end()
        thread.join()

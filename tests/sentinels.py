"""Runs Sentinels that watch a master and its replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from tests.servers import Kind, Server, StartServer
from tests.waiting import wait_until

MASTER_PASSWORD, SENTINEL_PASSWORD = "master's", "sentinel's"
_QUICK = {
    "info-period": 100,
    "ping-period": 100,
    "ask-period": 100,
    "publish-period": 100,
    "election-timeout": 1000,
    # A Sentinel that the machine holds up would do nothing for 30 seconds.
    "tilt-trigger": 60_000,
}
"""Times in milliseconds that `SENTINEL DEBUG` sets, since Redis 7.0."""


@dataclass(frozen=True)
class Watched:
    """A master and replicas, and the Sentinels that watch them under the name `mymaster`."""

    nodes: Sequence[Server]
    sentinels: Sequence[Server]
    scheme: str = "redis+sentinel"

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        login = f":{MASTER_PASSWORD}@"
        query = f"sentinel_password={SENTINEL_PASSWORD}"
        return f"{self.scheme}://{login}{self.hosts}/mymaster?{query}"

    def master(self) -> Server:
        """The node that is the master now, by its own word."""
        return next(node for node in self.nodes if node.is_running and self._is_master(node))

    def kill_master(self) -> None:
        """Kill the master, and let the Sentinels notice it soon."""
        self.master().kill()
        for sentinel in self.sentinels:
            client = sentinel.client(password=SENTINEL_PASSWORD)
            client.execute_command(*("SENTINEL", "SET", "mymaster", "down-after-milliseconds", 300))

    def _is_master(self, node: Server) -> bool:
        return bool(node.client(password=MASTER_PASSWORD).role()[0] == b"master")


def watch(
    start: StartServer,
    kind: Kind | None = None,
    *args: str,
    replicas: int = 0,
    sentinels: int = 1,
    scheme: str = "redis+sentinel",
    front: Callable[[Server], int] = lambda master: master.port,
) -> Watched:
    """Start a master, replicas and Sentinels.

    The Sentinels think no node dead until kill_master(), however slow the machine is.
    `args`: further options of all of them. `front`: returns the port that the Sentinels name.
    """
    login = ("--requirepass", MASTER_PASSWORD, "--masterauth", MASTER_PASSWORD)
    master = start(*login, *args, kind=kind)
    nodes = [master]
    for _ in range(replicas):
        nodes.append(start(*login, "--replicaof", "127.0.0.1", str(master.port), *args, kind=kind))
    for node in nodes[1:]:
        client = node.client(password=MASTER_PASSWORD)
        wait_until(lambda client=client: client.role()[3] == b"connected")  # type: ignore[misc]
    quorum = sentinels // 2 + 1
    config = f"""
        requirepass "{SENTINEL_PASSWORD}"
        sentinel sentinel-pass "{SENTINEL_PASSWORD}"
        sentinel monitor mymaster 127.0.0.1 {front(master)} {quorum}
        sentinel auth-pass mymaster "{MASTER_PASSWORD}"
        sentinel down-after-milliseconds mymaster 60000
        sentinel failover-timeout mymaster 3000
    """
    watching = [start("--sentinel", *args, kind=kind, config=config) for _ in range(sentinels)]
    for sentinel in watching:
        client = sentinel.client(password=SENTINEL_PASSWORD, decode_responses=True)
        with suppress(ResponseError):  # Redis 6.2
            client.execute_command("SENTINEL", "DEBUG", *chain.from_iterable(_QUICK.items()))
    for sentinel in watching:
        client = sentinel.client(password=SENTINEL_PASSWORD, decode_responses=True)
        wait_until(lambda client=client: _is_ready(client, replicas, sentinels))  # type: ignore[misc]
    return Watched(nodes, watching, scheme)


def _is_ready(sentinel: Redis, replicas: int, sentinels: int) -> bool:
    with suppress(RedisError):
        state = state_of(sentinel)
        others = [state[name] for name in ("num-slaves", "num-other-sentinels")]
        return not state["is_disconnected"] and others == [replicas, sentinels - 1]
    return False


def state_of(sentinel: Redis) -> dict[str, Any]:
    """What a Sentinel says of the master. The client must decode replies."""
    state: Any = sentinel.sentinel_master("mymaster")
    return dict(state)

"""Starts clusters of several shards for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from redis import Redis
from redis.cluster import RedisCluster

from tests.servers import Kind, Server
from tests.waiting import wait_until

NODE_TIMEOUT_MS = 3_600_000
_JOINING_MS = 5000
_SLOTS = 16_384


class Cluster:
    """Masters that share all slots, each with the same number of replicas."""

    def __init__(self, masters: list[Server], replicas: list[Server]) -> None:
        self.masters = masters
        self.replicas = replicas
        self._clients: list[RedisCluster] = []

    @classmethod
    def start(cls, kind: Kind, *args: str, masters: int = 3, replicas: int = 0) -> Cluster:
        """Start `masters` servers, and `replicas` for each of them.

        Once they are joined, they think no node dead for an hour, however slow the machine is or
        long they rest. Before, that time is short: a lost handshake is repeated after it.
        """
        short = ("--cluster-node-timeout", str(_JOINING_MS), "--repl-timeout", "3600")
        options = ("--cluster-enabled", "yes", *short, *args)
        number = masters * (1 + replicas)
        with ThreadPoolExecutor(number) as threads:
            servers = [*threads.map(lambda _: Server.start(kind, *options), range(number))]
        cluster = cls(servers[:masters], servers[masters:])
        try:
            cluster._join()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @property
    def servers(self) -> list[Server]:
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        return self.masters[0].url

    def client(self, **kwargs: Any) -> RedisCluster:
        """Return a client. It is closed after the test."""
        port = next(server.port for server in self.servers if server.is_running)
        client = RedisCluster(host="127.0.0.1", port=port, **kwargs)
        self._clients.append(client)
        return client

    def snapshot(self) -> dict[bytes, tuple[bytes, bool]]:
        """Return each key's value, as DUMP has it, and whether it has a TTL."""
        found = {}
        for node in self.client().get_primaries():
            client = Redis(host=node.host, port=node.port)
            keys = [*client.scan_iter(count=1000)]
            batch = client.pipeline(transaction=False)
            for key in keys:
                batch.dump(key)
                batch.pttl(key)
            replies = batch.execute()
            for key, dump, ttl in zip(keys, replies[::2], replies[1::2], strict=True):
                if dump is not None:
                    found[key] = (dump[:-10], ttl > 0)
            client.close()
        return found

    def reset(self) -> None:
        """Undo what a test has changed: dead servers, keys, scripts, settings and users."""
        for server in self.servers:
            server.restore()
        self._wait_until_whole()
        for server in self.masters:
            server.empty()
        self.close_clients()

    def has_replicas(self) -> bool:
        """Whether each master has its replicas, and these have loaded its data.

        A master lists a replica that has still to load what was sent, for a second on Valkey 9.1.
        """
        roles = [_role(server) for server in self.servers]
        listed = [int(replicas[1:]) for role, _, replicas, *_ in roles if role == b"master"]
        number = len(self.masters)
        return listed == [len(self.replicas) // number] * number and all(
            b"connected" in said for role, *said in roles if role == b"slave"
        )

    def rest(self) -> None:
        """Use no processor time until reset()."""
        for server in self.servers:
            server.rest()

    def close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()
        for server in self.servers:
            server.close_clients()

    def stop(self) -> None:
        self.close_clients()
        for server in self.servers:
            server.stop()

    def _join(self) -> None:
        clients = [server.client() for server in self.servers]
        for n, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for n, client in enumerate(clients[: len(self.masters)]):
            first, end = (_SLOTS * at // len(self.masters) for at in (n, n + 1))
            client.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
        for n, client in enumerate(clients):
            for server in self.servers[n + 1 :]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        ids = [client.execute_command("CLUSTER", "MYID") for client in clients]
        wait_until(lambda: all(_knows(client, ids) for client in clients))
        for n, client in enumerate(clients[len(self.masters) :]):
            client.execute_command("CLUSTER", "REPLICATE", ids[n % len(self.masters)])
        self._wait_until_whole()
        for client in clients:
            client.config_set("cluster-node-timeout", NODE_TIMEOUT_MS)

    def _wait_until_whole(self) -> None:
        """Wait until all slots are served, and each master has its replicas."""
        wait_until(lambda: all(map(_is_ready, self.servers)))
        wait_until(self.has_replicas)
        servers = self.servers
        # A failover may have made a replica a master.
        self.masters = [one for one in servers if _role(one)[0] == b"master"]
        self.replicas = [one for one in servers if one not in self.masters]


def fill(cluster: Cluster, keys: Iterable[tuple[str, ...]]) -> None:
    """Send commands to the masters that have their keys: `("SET", "tt:agent:1", "{}")`."""
    client = cluster.client()
    by_node: dict[str, list[tuple[str, ...]]] = {}
    nodes = {node.name: node for node in client.get_primaries()}
    for command in keys:
        key = command[2 if command[0] == "XGROUP" else 1]
        by_node.setdefault(client.get_node_from_key(key).name, []).append(command)
    for name, commands in by_node.items():
        node = nodes[name]
        for first in range(0, len(commands), 2000):
            batch = client.get_redis_connection(node).pipeline(transaction=False)
            for command in commands[first : first + 2000]:
                batch.execute_command(*command)
            batch.execute()


def _knows(client: Redis, ids: Iterable[bytes]) -> bool:
    nodes: Any = client.execute_command("CLUSTER", "NODES", NEVER_DECODE=True)
    return all(one in nodes for one in ids)


def _is_ready(server: Server) -> bool:
    said = server.say("CLUSTER INFO").split()
    return {b"cluster_state:ok", b"cluster_slots_ok:%d" % _SLOTS} <= {*said}


def _role(server: Server) -> list[bytes]:
    """Return what ROLE replies, line by line: the role, and all that follows it."""
    return server.say("ROLE").split(b"\r\n")[2:]

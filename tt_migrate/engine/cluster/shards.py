"""The shards of a cluster: which server has a key."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import chain
from threading import Lock
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot

from tt_migrate.engine.calls.announced import Announced, about
from tt_migrate.engine.calls.idle import is_long_ago
from tt_migrate.engine.calls.inspection import probe_key
from tt_migrate.engine.calls.replies import ask
from tt_migrate.engine.calls.retry import PassingError
from tt_migrate.engine.calls.slots import Look, look_at
from tt_migrate.engine.cluster.hash_tags import tag_of_slot

_PROBES = 1000


class Shards:
    """The servers of a cluster that have slots, as redis-py has discovered them.

    `client`: also a Redis, for a service that spreads the keys itself: then it is the only server.
    `declares`: whether all keys of a script must be in KEYS, so that a call is about one item.
    """

    def __init__(self, client: RedisCluster | Redis, *, declares: bool = False) -> None:
        self._client = client
        self.declares = declares
        self.version = 0
        self._lock = Lock()
        self._asked_at = time.monotonic()
        self._replicas: dict[str, int] = {}
        self._by_slot: dict[int, str] = {}
        self._slots_of: dict[str, set[int]] = {}
        self._silent: set[str] = set()
        self._clients: dict[str, Redis] = {}
        self._read()

    @property
    def names(self) -> list[str]:
        """The names of the servers: their addresses."""
        return sorted(self._clients)

    def client(self, name: str) -> Redis:
        """A client of one server. Raises PassingError if it has no slots any more."""
        try:
            return self._clients[name]
        except KeyError:
            raise PassingError(f"TRYAGAIN {name} has no slots any more") from None

    def name_of(self, key: bytes) -> str:
        """The name of the server that has a key. Raises PassingError if none serves its slot."""
        if isinstance(self._client, Redis):
            return ""
        slot = key_slot(key)
        try:
            return self._by_slot[slot]
        except KeyError:
            raise PassingError(f"CLUSTERDOWN slot {slot} is not served") from None

    def probe(self, name: str, town: str) -> bytes:
        """A key of the town that Tinytown does not use and that this server would have."""
        keys = chain(
            (probe_key(town, number) for number in range(_PROBES)),
            # If the town's name has braces, all its keys are in one slot.
            (b"tt:{%b}:agent:tt-migrate" % tag_of_slot(slot) for slot in self._by_slot),
        )
        return next(key for key in keys if self._by_slot.get(key_slot(key), name) == name)

    def refresh(self) -> None:
        """Discover the servers again.

        Raises redis.exceptions.ConnectionError if no server answers.
        """
        if isinstance(self._client, Redis):
            return
        with self._lock:
            self._wake()
            before = self._by_slot
            try:
                self._discover(self._client.nodes_manager)
            except redis_errors.RedisClusterException as error:
                raise redis_errors.ConnectionError(str(error)) from error
            self._read()
            self.version += self._by_slot != before

    def _discover(self, manager: Any) -> None:
        """Ask servers where the slots are. One that hangs is asked only if no other answers."""
        known = manager.startup_nodes
        answering = {name: node for name, node in known.items() if name not in self._silent}
        try:
            manager.startup_nodes = answering or known
            manager.initialize()
        except redis_errors.RedisClusterException:
            if not 0 < len(answering) < len(known):
                raise
            manager.startup_nodes = known
            manager.initialize()
        finally:
            if manager.startup_nodes is answering:
                manager.startup_nodes = known

    def look(self, clients: Mapping[str, Redis]) -> Look:
        """What all servers say of their slots now. `clients`: with a connection to each."""
        if isinstance(self._client, Redis):
            return Look({}, is_still=True)
        replies = {}
        for name, client in clients.items():
            with self.errors_of(name):
                replies[name] = ask(client, "CLUSTER", "NODES")
        return look_at(replies, self._slots_of)

    @contextmanager
    def errors_of(self, name: str) -> Iterator[None]:
        """Note in errors which server they are about."""
        try:
            with about(Announced(name, "cluster")) if name else nullcontext():
                yield
        except redis_errors.TimeoutError:
            self._silent.add(name)
            raise

    def replicas(self, name: str, online: int = 0) -> int:
        """How many replicas must have a write: the most that this server had so far.

        `online`: how many it has by its own word. A replica that the cluster knows and that has not
        failed counts even if its link is down: it could become the master.
        """
        with self._lock:
            self._replicas[name] = max(online, self._replicas.get(name, 0))
            return self._replicas[name]

    def _wake(self) -> None:
        """Drop connections that nobody holds, if they may have died in silence."""
        client = self._client
        if isinstance(client, RedisCluster) and is_long_ago(self._asked_at):
            for node in (*client.get_nodes(), *client.nodes_manager.startup_nodes.values()):
                if node.redis_connection:
                    pool = node.redis_connection.connection_pool
                    pool.disconnect(inuse_connections=False)
        self._asked_at = time.monotonic()

    def _read(self) -> None:
        client = self._client
        if isinstance(client, Redis):
            self._clients = {"": client}
            return
        # Before redis-py 7.4, nodes cannot be members of a set.
        nodes_of: dict[str, list[ClusterNode]] = {}
        self._by_slot, self._slots_of = {}, {}
        for slot, nodes in client.nodes_manager.slots_cache.items():
            if nodes:
                self._by_slot[slot] = name = nodes[0].name
                nodes_of[name] = nodes
                self._slots_of.setdefault(name, set()).add(slot)
        for name, (_, *replicas) in nodes_of.items():
            self._replicas[name] = max(len(replicas), self._replicas.get(name, 0))
        self._clients = {
            name: client.get_redis_connection(primary) for name, (primary, *_) in nodes_of.items()
        }

"""The shards of a cluster: which server has a key, and calls about keys of many servers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot

from tt_migrate.engine.calls.announced import Announced, about
from tt_migrate.engine.calls.idle import is_long_ago
from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.replies import Word, ask, error_of, malformed_as_invalid, packed, whole
from tt_migrate.engine.calls.retry import CutOffError, PassingError, UncarriedError, as_passing
from tt_migrate.engine.calls.scripts import Script
from tt_migrate.engine.calls.session import held_connection, probe_key
from tt_migrate.engine.calls.slots import Look, look_at
from tt_migrate.engine.cluster.hash_tags import tag_of_slot
from tt_migrate.engine.cluster.pipeline import Failure, Pipeline, ran_nothing

_ITEMS_A_CALL, _BYTES_A_CALL = 500, 256 * 1024
_UNCARRIED = (
    "the connection to {} was lost each time (client-output-buffer-limit, proto-max-bulk-len)"
)
_MOST_CUTS = 3
_PROBES = 1000
_CALLS_AHEAD = 100
"""How many calls about one item each are sent together, where keys must be declared."""


Item = tuple[bytes, ...]
Result = bytes | tuple[bytes, Any] | redis_errors.RedisError | Failure
"""The word of an item, also with its value (see items.lua), the item's error, or the call's."""


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


@dataclass(frozen=True)
class Operation:
    """A script that does one thing to each of several keys (see items.lua).

    `keys`: how many words of an item, from the first, are keys. `waits`: whether an item has a
    result only after the replicas have what was written. `once`: whether each server is called
    once, because a call cannot be repeated: an item that was not reached has the result None, and
    one whose call was cut off a Failure.
    """

    script: Script
    keys: int
    waits: bool = False
    once: bool = False

    @property
    def name(self) -> str:
        """The name of the script."""
        return self.script.operation


class Router:
    """Calls operations on the servers that have the keys. One thread uses it.

    `denied`: as in the scripts.
    """

    def __init__(self, shards: Shards, pace: Pace, denied: bytes) -> None:
        self._shards = shards
        self._pace = pace
        self._denied = denied
        self._declares = shards.declares
        self._held = ExitStack()
        self._servers: dict[str, _Server] = {}
        self._hanging: dict[str, redis_errors.TimeoutError] = {}
        # How many items a call of an operation is about at most, where larger calls were cut off.
        self._most: dict[tuple[str, str], int] = {}
        self._cuts: Counter[tuple[str, bytes]] = Counter()
        self.calls = self.longest = self.lost_replies = self.reconnects = 0

    def close(self) -> None:
        """Return the connections."""
        for server in self._servers.values():
            server.pipeline.close()
        self._held.close()

    @property
    def version(self) -> int:
        """Changes with the servers that have the slots."""
        return self._shards.version

    def name_of(self, key: bytes) -> str:
        """The name of the server that has a key."""
        return self._shards.name_of(key)

    def now(self, name: str) -> int:
        """A server's time in milliseconds since 1970, perhaps a bit less, never more.

        Less after this machine was suspended: a monotonic clock can stand still then.
        """
        return self._server(name).now()

    def refresh(self) -> None:
        """Discover the servers again, if one answers."""
        with suppress(redis_errors.RedisError):
            self._shards.refresh()

    def deadlines(self, seconds: int) -> dict[str, int]:
        """Each server's time in so many seconds. Servers that do not answer are left out."""
        found = {}
        for name in self._shards.names:
            with suppress(redis_errors.RedisError):
                found[name] = self.now(name) + seconds * 1000
        return found

    def carry(
        self,
        operation: Operation,
        items: Sequence[Item],
        places: Iterable[str],
        until: Mapping[str, int] | None = None,
        cut: Callable[[int], object] = lambda _: None,
    ) -> list[Result | None]:
        """Call an operation for all items. Returns the result of each.

        `places`: the servers that have the items' keys. `until`: see apply.lua, for each server.

        Where a server closes the connection in place of a reply, the items are called for again, in
        smaller calls. One that was alone in several such calls has the result UncarriedError.
        `cut`: called with the number of each item of such a call, which can still be carried out.
        """
        results: list[Result | None] = [None] * len(items)
        queues: dict[str, list[int]] = {}
        for n, place in enumerate(places):
            queues.setdefault(place, []).append(n)
        while queues:
            chunks = {
                name: self._chunk(name, operation, items, queue) for name, queue in queues.items()
            }
            failures = {
                name: self._send(name, operation, chunk, (until or {}).get(name, 0))
                for name, chunk in chunks.items()
            }
            held = 0
            for name, chunk in chunks.items():
                queue = queues[name]
                said = failures[name] or self._receive(name, operation, len(chunk))
                found: Sequence[Result]
                if not isinstance(said, Failure):
                    found, took = said
                    held = max(held, took)
                    self._grow(name, operation)
                elif not isinstance(said.error, CutOffError):
                    found = [said] * len(queue)
                else:
                    for n in queue[: len(chunk)]:
                        cut(n)
                    found = [said] * len(chunk) if operation.once else []
                    if self._is_cause(name, operation, chunk):
                        found = [UncarriedError(_UNCARRIED.format(name or "the server"))]
                for n, result in zip(queue, found, strict=False):
                    results[n] = result
                queues[name] = queue[len(found) :]
            queues = {name: queue for name, queue in queues.items() if queue}
            self.calls += 1
            self.longest = max(self.longest, held)
            time.sleep(self._pace.rest(held / 1_000_000))
            if operation.once:
                break
        return results

    def _chunk(
        self, name: str, operation: Operation, items: Sequence[Item], queue: Sequence[int]
    ) -> list[Item]:
        """The items of the next call: the first, and as many as are not too large together."""
        most = min(_CALLS_AHEAD if self._declares else _ITEMS_A_CALL, self._pace.keys)
        most = min(most, self._most.get((name, operation.name), most))
        chunk = [items[n] for n in queue[:most]]
        size = sum(len(item[-1]) for item in chunk)
        while size > _BYTES_A_CALL and len(chunk) > 1:
            size -= len(chunk.pop()[-1])
        return chunk

    def _is_cause(self, name: str, operation: Operation, chunk: Sequence[Item]) -> bool:
        """Note that a call was cut off. Returns whether its only item is the cause."""
        self.reconnects += 1
        self._most[name, operation.name] = max(1, len(chunk) // 8)
        if len(chunk) > 1:
            return False
        key = (operation.name, chunk[0][0])
        self._cuts[key] += 1
        return self._cuts[key] >= _MOST_CUTS

    def _grow(self, name: str, operation: Operation) -> None:
        """Note that a call was answered: the next ones may be a bit larger."""
        most = self._most.pop((name, operation.name), _ITEMS_A_CALL)
        if most < _ITEMS_A_CALL:
            self._most[name, operation.name] = most + 1 + most // 4

    def _send(
        self, name: str, operation: Operation, items: Sequence[Item], until: int
    ) -> Failure | None:
        calls = self._calls(operation, items, until)
        is_unsure = False
        try:
            server = self._server(name)
            is_unsure = True
            replicas = self._shards.replicas(name) if server.has_role else 0
            with self._shards.errors_of(name):
                asks = operation.waits and server.has_role
                server.pipeline.send(calls, replicas if operation.waits else 0, asks=asks)
        except redis_errors.RedisError as error:
            return Failure(as_passing(error), is_unsure)
        return None

    def _receive(
        self, name: str, operation: Operation, most: int
    ) -> tuple[list[Result], int] | Failure:
        """Read the results of at most so many items, and for how long they blocked the server."""
        pipeline = self._servers[name].pipeline
        try:
            with self._shards.errors_of(name):
                replies = pipeline.receive(operation.script)
            self._shards.replicas(name, pipeline.online)
            if len(replies) == 1 and isinstance(replies[0], Failure):
                return replies[0]
            with malformed_as_invalid():
                found = [result for reply in replies for result in _results(reply)]
                held = max(_elapsed(reply) for reply in replies)
                if not 0 < len(found) <= most:
                    raise ValueError
        except redis_errors.RedisError as error:
            return Failure(error, is_unsure=not ran_nothing(error))
        return found, held

    def _calls(
        self, operation: Operation, items: Sequence[Item], until: int
    ) -> list[tuple[Word, ...]]:
        sha, start = operation.script.sha, (self._denied, self._pace.budget, until)
        if self._declares:
            keys = operation.keys
            return [("EVALSHA", sha, keys, *item[:keys], *start, packed(item)) for item in items]
        return [("EVALSHA", sha, 0, *start, packed([*chain.from_iterable(items)]))]

    def _server(self, name: str) -> _Server:
        if name in self._hanging:
            # It answered no new connection either. Each try would take as long as that one.
            raise self._hanging[name]
        try:
            with self._shards.errors_of(name):
                if name not in self._servers:
                    client = self._held.enter_context(held_connection(self._shards.client(name)))
                    self._servers[name] = _Server(client, self._shards, name)
                self._servers[name].pipeline.connect()
        except redis_errors.TimeoutError as error:
            self._hanging[name] = error
            raise
        return self._servers[name]


class _Server:
    """One server: a pipeline to it, its clock, and whether it says how many replicas it has."""

    def __init__(self, client: Redis, shards: Shards, name: str) -> None:
        self.pipeline = Pipeline(client)
        seconds, microseconds = map(int, ask(client, "TIME"))
        self._offset = seconds * 1000 + microseconds // 1000 - _now()
        online = _online_replicas(client)
        self.has_role = online is not None
        shards.replicas(name, online or 0)
        if self.has_role:
            # Whether the user may: later, it would come after a write.
            ask(client, "WAIT", 0, 0)

    def now(self) -> int:
        return _now() + self._offset


def _now() -> int:
    return int(time.monotonic() * 1000)


def _online_replicas(client: Redis) -> int | None:
    """How many replicas a master has online, None for a service that does not say."""
    try:
        role = ask(client, "ROLE")
    except redis_errors.NoPermissionError:
        raise
    except redis_errors.ResponseError:
        return None
    if role[0] != b"master":
        raise redis_errors.ReadOnlyError("READONLY the server is a replica")
    return len(role[2])


def _elapsed(reply: list[Any] | Failure) -> int:
    return 0 if isinstance(reply, Failure) else whole(reply[0])


def _results(reply: list[Any] | Failure) -> Iterator[Result]:
    """The results in a reply. Raises TypeError, ValueError or RuntimeError for another reply."""
    if isinstance(reply, Failure):
        yield reply
        return
    _, words, values = reply
    following = iter(values)
    for word in words.split(b"\n"):
        if word.startswith(b"+"):
            yield (word[1:], next(following))
        else:
            yield _error_in(word) if word.startswith(b"error ") else word


def _error_in(word: bytes) -> redis_errors.RedisError:
    return as_passing(error_of(word.removeprefix(b"error ")))

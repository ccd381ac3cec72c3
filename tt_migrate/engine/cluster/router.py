"""Calls about keys of many servers: each goes to the server that has the key."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors

from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.replies import Word, ask, error_of, malformed_as_invalid, packed, whole
from tt_migrate.engine.calls.retry import CutOffError, UncarriedError, as_passing
from tt_migrate.engine.calls.scripts import Script
from tt_migrate.engine.calls.session import held_connection
from tt_migrate.engine.cluster.pipeline import Failure, Pipeline, ran_nothing
from tt_migrate.engine.cluster.shards import Shards

_ITEMS_A_CALL, _BYTES_A_CALL = 500, 256 * 1024
_UNCARRIED = (
    "the connection to {} was lost each time (client-output-buffer-limit, proto-max-bulk-len)"
)
_MOST_CUTS = 3
_CALLS_AHEAD = 100
"""How many calls about one item each are sent together, where keys must be declared."""


Item = tuple[bytes, ...]
Result = bytes | tuple[bytes, Any] | redis_errors.RedisError | Failure
"""The word of an item, also with its value (see items.lua), the item's error, or the call's."""


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

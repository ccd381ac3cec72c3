"""Checks on the destination's shard whether a name is taken, and by what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from tt_migrate.engine.calls.retry import PassingError
from tt_migrate.engine.calls.scripts import script_for
from tt_migrate.engine.cluster.pipeline import Failure
from tt_migrate.engine.cluster.router import Item, Operation
from tt_migrate.engine.cluster.workers import WorkerPool
from tt_migrate.engine.passes.tallies import PreviewTally
from tt_migrate.keyspace import family_and_id
from tt_migrate.plan import Plan

_OF_STREAMS = "in the order of their ids"  # how merge.lua describes their merge


class Destinations:
    """Asks about keys to move and their destinations."""

    def __init__(self, pool: WorkerPool, plan: Plan, town: str) -> None:
        self._pool = pool
        self._plan = plan
        self._town = town
        self._start = plan.name_start(town)
        self._facts = Operation(script_for("facts", plan, "shards"), keys=1)
        self._weigh = Operation(script_for("weigh", plan, "shards"), keys=1)

    def facts(self, keys: Iterable[bytes], what: str) -> dict[bytes, Any]:
        """What facts.lua says of each key, or the key's error."""
        names = [*keys]
        items = [(key, what.encode(), self._family(key)) for key in names]
        answers = self._ask(self._facts, items)
        return dict(zip(names, answers, strict=True))

    def _family(self, key: bytes) -> bytes:
        return family_and_id(key, self._start)[0].encode()

    def taken(self, moves: Collection[bytes]) -> dict[bytes, bytes]:
        """The keys whose destination is taken or will be, each with the key that takes it."""
        destinations = {key: self._plan.destination(self._town, key) for key in moves}
        kinds = self.facts(destinations.values(), "type")
        taken = {}
        for key, destination in destinations.items():
            rival = b"tt" + key[2:]
            if isinstance(kinds[destination], bytes) and kinds[destination] != b"none":
                taken[key] = destination
            elif rival != key and rival in destinations:
                taken[key] = rival
        return taken

    def settle(self, found: PreviewTally) -> None:
        """Sort out the keys that cannot be renamed."""
        taken = self.taken(found.moves)
        found.moves.difference_update(taken)
        if self._plan.rename == "forward":
            found.forget_records(taken)
        if not self._plan.merge:
            found.conflicts.update(dict.fromkeys(taken, "destination exists"))
            return
        facts = self.facts(taken, "digest")
        found.failed.update(
            (k, str(fact)) for k, fact in facts.items() if isinstance(fact, Exception)
        )
        items: dict[bytes, Item] = {
            key: (taken[key], self._family(key), *fact[0].rsplit(b" ", 2), fact[1])
            for key, fact in facts.items()
            if isinstance(fact, tuple)
        }
        for key, said in zip(items, self._ask(self._weigh, [*items.values()]), strict=True):
            if isinstance(said, Exception):
                found.failed[key] = str(said)
            else:
                kept = found.merges if said.startswith(b"merge: ") else found.conflicts
                kept[key] = said.decode()
        self._check_streams(found)

    def _check_streams(self, found: PreviewTally) -> None:
        """Sort out the streams that cannot be merged because of their own entries."""
        streams = [key for key, how in found.merges.items() if how.endswith(_OF_STREAMS)]
        for key, fact in self.facts(streams, "union").items():
            if isinstance(fact, Exception):
                del found.merges[key]
                found.failed[key] = str(fact)

    def _ask(self, operation: Operation, items: Sequence[Item]) -> list[Any]:
        """Ask about keys of all servers. Returns the answer about each, or its error."""

        def attempt() -> list[Any]:
            with self._pool.router() as router:
                places = [router.name_of(item[0]) for item in items]
                found = router.carry(operation, items, places)
            for one in found:
                if isinstance(one, Failure):
                    raise one.error
                if isinstance(one, PassingError):
                    raise one
            return found

        return self._pool.tried(attempt) if items else []

"""One round of a migration between shards: what other runs have left, then every key to move."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tt_migrate.engine.calls.retry import PassingError
from tt_migrate.engine.calls.slots import check_still
from tt_migrate.engine.cluster.finding import MovingPass
from tt_migrate.engine.cluster.hidden import Transfer
from tt_migrate.engine.cluster.in_transit import InTransit
from tt_migrate.engine.cluster.relocation import TAKE_OVER_MILLISECONDS, Outcome, Relocation
from tt_migrate.engine.cluster.side_by_side import Worker
from tt_migrate.engine.cluster.workers import WorkerPool
from tt_migrate.engine.passes.tallies import MigrationTally, PreviewTally
from tt_migrate.plan import Plan
from tt_migrate.results import Migration

_ORPHAN_MILLISECONDS = 24 * 60 * 60 * 1000


class Round:
    """Looks at the keys in transit, takes over old ones, moves keys, and cleans up marks."""

    def __init__(
        self,
        pool: WorkerPool,
        plan: Plan,
        town: str,
        moved: MigrationTally,
        result: Callable[[], Migration],
    ) -> None:
        self._pool = pool
        self._plan = plan
        self._town = town
        self._moved = moved
        self._result = result
        self._in_transit = InTransit(plan.towns(town))
        self._stuck: set[bytes] = set()
        self._own: set[bytes] = set()
        # Version 0.1's keys, by the server on which they were found.
        self._oldest: dict[str, list[bytes]] = {}
        self._passing: PassingError | None = None

    def carry_out(self, stuck: set[bytes], own: set[bytes]) -> bool:
        """Carry the round out. Returns whether no other run is at work.

        `stuck`: hidden names of keys that cannot be given back; the round adds to them. `own`: the
        names of this run in nonces; the round adds its own. Raises PassingError if a slot moved
        meanwhile: keys may have been missed.
        """
        self._stuck, self._own = stuck, own
        began, slots = self._pool.now(), self._pool.look()
        self._pool.everywhere(lambda worker: self._in_transit.look(worker, self._pool.lock))
        waiting = [one for one in self._in_transit.transfers if one.hidden not in stuck]
        old = [one for one in waiting if began - one.frozen_at > TAKE_OVER_MILLISECONDS]
        if old:
            self._pool.everywhere(lambda worker: self._take_over(worker, old))
        if self._plan.rename:
            self._pool.everywhere(self._move)
            # Version 0.1's keys give way to the others, which may be on other servers.
            self._pool.everywhere(self._move_oldest)
        check_still(slots, self._pool.look())
        is_alone = self._clean_up(began)
        if self._passing:
            raise self._passing
        return len(waiting) == len(old) and is_alone

    def _take_over(self, worker: Worker, old: Sequence[Transfer]) -> None:
        """Go on with the keys that this server has, and that a run froze long ago."""
        mine = [one for one in old if self._pool.shards.name_of(one.hidden) == worker.name]
        ours = [one for one in mine if self._is_planned(one)]
        self._relocation(worker, self._count).take_over(ours)
        others = [one for one in mine if one not in ours]
        self._relocation(worker, self._count_finished).take_over(others)

    def _is_planned(self, one: Transfer) -> bool:
        return self._plan.destination(self._town, one.key) == one.destination

    def _move(self, worker: Worker) -> None:
        """Find keys and move them, batch by batch."""
        found = PreviewTally(self._plan, self._town)
        oldest = self._oldest.setdefault(worker.name, [])
        move = self._relocation(worker, self._count).move
        work = MovingPass(worker.session, found, move, oldest)
        worker.driver.drive(work, "migrating", self._result)
        with self._pool.lock:
            self._moved.towns.found.update(found.towns.found)
            self._moved.add_ambiguous(found.ambiguous)

    def _move_oldest(self, worker: Worker) -> None:
        oldest = self._oldest.get(worker.name, [])
        self._relocation(worker, self._count).move(oldest)

    def _clean_up(self, began: int) -> bool:
        """Let the marks of dead runs expire. Returns whether no other run is at work."""
        before = began - TAKE_OVER_MILLISECONDS
        orphans, is_other = self._in_transit.orphans(before, self._own)
        with self._pool.router() as router:
            work = Relocation(router, self._plan, self._town, self._note)
            work.remember(orphans, _ORPHAN_MILLISECONDS)
        return not is_other

    def _relocation(self, worker: Worker, count: Callable[[Outcome], None]) -> Relocation:
        def done(outcome: Outcome) -> None:
            with self._pool.lock:
                count(outcome)
                self._note(outcome)
            worker.tell_more("migrating", self._result())

        work = Relocation(worker.router, self._plan, self._town, done)
        self._own.add(work.run)
        return work

    def _count(self, outcome: Outcome) -> None:
        self._moved.add_moved(outcome.renamed, outcome.merged, outcome.conflicts, outcome.failed)

    def _count_finished(self, outcome: Outcome) -> None:
        self._moved.finished += len(outcome.renamed) + len(outcome.merged)

    def _note(self, outcome: Outcome) -> None:
        self._stuck.update(outcome.stuck)
        self._passing = self._passing or outcome.passing

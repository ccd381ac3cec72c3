"""A pass over the keyspace or over a list of keys: a series of script calls."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.replies import behind, read
from tt_migrate.engine.calls.scripts import Call
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.passes.places import KeptPlace, Place, ReadingPlace, Start
from tt_migrate.engine.passes.tallies import Tally
from tt_migrate.keyspace import town_bytes

_NO_LOCK = nullcontext()


@dataclass(frozen=True)
class Taken:
    """What a call's reply says about the call itself.

    `elapsed`: microseconds by the server's clock, 0 if there is no clock. `keys`: about how many
    were scanned. `steps`: SCAN steps with the COUNT hint of the pace. `dbsize`: keys in the
    database, 0 if unknown.
    """

    elapsed: int
    keys: int
    steps: int
    dbsize: int


class ScanPass:
    """Calls an operation's script from cursor 0 until it is 0 again. Sends postponed keys back.

    A pass that only reads has several calls in flight that read ahead. For one that may write, the
    server keeps the cursor: it is guarded, since the server also keeps the distance between calls.

    `lock`: held while the tally adds a reply, for a tally that several threads share. `behind`: how
    many bytes a replica is behind, if the last call did nothing for that reason, else 0.
    """

    def __init__(
        self,
        session: Session,
        operation: str,
        tally: Tally,
        lock: AbstractContextManager[object] = _NO_LOCK,
    ) -> None:
        self._session = session
        self._script = session.script(operation)
        self.is_guarded = not self._script.reads
        self._tally = tally
        self._lock = lock
        self._place = self._new_place()
        self._postponed: list[bytes] = []
        self._waits = operation == "migrate"
        self.behind = 0

    def _new_place(self) -> Place:
        return KeptPlace(self._session) if self.is_guarded else ReadingPlace()

    @property
    def why_alone(self) -> str:
        """Why no call of this pass can be sent ahead of a reply; empty if one may."""
        return self._place.why_alone

    @property
    def over(self) -> bool:
        """Whether there is nothing to send: the scan is complete and no key is postponed."""
        return self._place.cursor is None and not self._postponed

    def next_call(self, pace: Pace, *, alone: bool) -> Call | None:
        """A batch over postponed keys, else a batch of the scan, None if a reply is needed before.

        `alone`: whether no call is in flight. Then there is a call, unless the pass is over.
        """
        keys, place = self._postponed[: pace.keys], self._place
        # The server keeps the distance only between calls with a kept cursor.
        start = place.start(pace, alone=alone) if self.is_guarded or not keys else None
        if keys and (alone or not self.is_guarded):
            start = start or place.here(pace)
        if start is None:
            return None
        self._postponed = self._postponed[len(keys) :]
        call = self._call(pace, start, keys)
        if not keys:
            place.sent(call)
        return call

    def _call(self, pace: Pace, start: Start, postponed: Iterable[bytes] = ()) -> Call:
        session, about = self._session, tuple(postponed)
        where = (town_bytes(session.town), start.cursor, start.keys, pace.budget)
        more = (session.denied, session.plan.from_start, *start.more, *self._tally.args)
        # A session that declares keys puts many replies together, and each must be a batch's.
        lag = (0 if session.declares else pace.max_lag,) if self._waits else ()
        return Call(self._script, (*where, *more, *lag, *about), about)

    def take(self, call: Call, reply: list[Any]) -> Taken | None:
        """Take the reply to a call. The tally adds it up if it goes on from the one before.

        Returns None if the call did nothing: it came too early, or a replica is behind. Raises
        redis.exceptions.InvalidResponse if the reply is malformed.
        """
        is_early = self._place.is_early(call, reply)
        if not is_early:
            self.behind = behind(reply) if self._waits else 0
        if is_early or self.behind:
            self._requeue([call])
            return None
        said = read(self._tally.Reply, reply)
        keys = 0
        has_place = self.is_guarded or not call.about
        if not has_place or self._place.goes_on(call, said):
            with self._lock:
                self._tally.add(said)
            if has_place:
                self._place.reached(call, said)
            self._postponed = getattr(said, "postponed", []) + self._postponed
            keys = said.steps * int(call.args[2]) or 1
        # A call that reads ahead has a COUNT hint of its own.
        is_paced = self.is_guarded or not call.args[7]
        return Taken(said.elapsed, keys, said.steps if is_paced else 0, said.dbsize)

    def end_call(self, pace: Pace) -> Call | None:
        """A call that makes the server forget the cursor it keeps, None if it keeps none."""
        start = self._place.end(pace)
        return self._call(pace, start) if start else None

    def lost(self, calls: Iterable[Call]) -> None:
        """These calls got no reply: requeue their work, and go on from the last reply's cursor."""
        self._place.lost()
        self._requeue(calls)

    def _requeue(self, calls: Iterable[Call]) -> None:
        self._postponed = [*(key for call in calls for key in call.about), *self._postponed]

    def restart(self) -> None:
        """Start over: another server process answers. The tally keeps what was done."""
        self._place, self._postponed = self._new_place(), []
        self._tally.restart()

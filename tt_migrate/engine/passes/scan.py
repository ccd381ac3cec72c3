"""A pass over the keyspace or over a list of keys: a series of script calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.replies import read
from tt_migrate.engine.calls.scripts import KEEPS_CURSOR, Call
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.passes.tallies import Tally
from tt_migrate.keyspace import town_bytes

_MOST_LOSSES = 3
_NO_LOCK = nullcontext()


@dataclass(frozen=True)
class Taken:
    """What a call's reply says about the call itself.

    `elapsed`: microseconds by the server's clock, 0 if there is no clock. `steps`: SCAN steps.
    `dbsize`: keys in the database, 0 if unknown, None if not asked.
    """

    elapsed: int
    steps: int = 0
    dbsize: int | None = None


class Pass(Protocol):
    """What Driver.drive() drives until it is over.

    `is_guarded`: whether the server keeps a cursor for calls that were sent ahead, and the distance
    between them. `breadth`: how many scans are made side by side.
    """

    is_guarded: bool
    breadth: int

    @property
    def why_alone(self) -> str:
        """Why no call of this pass can be sent ahead of a reply; empty if one may."""

    @property
    def over(self) -> bool:
        """Whether there is nothing to send."""

    def next_call(self, pace: Pace, *, alone: bool) -> Call | None:
        """The next call, None if none can be sent before a reply has come.

        `alone`: whether no call is in flight. Then there is a call, unless the pass is over.
        """

    def take(self, call: Call, reply: list[Any]) -> Taken | None:
        """Take the reply to a call. Returns None if the call came too early to do anything.

        Raises redis.exceptions.InvalidResponse if the reply is malformed.
        """

    def end_call(self, pace: Pace) -> Call | None:
        """A call that makes the server forget the cursor it keeps, None if it keeps none."""

    def lost(self, calls: Iterable[Call]) -> None:
        """These calls got no reply: requeue their work."""

    def restart(self) -> None:
        """Start over: another server process answers, and the cursor is not valid there."""


class Place:
    """Where a scan has got to, here and on the server (see kept_cursor.lua).

    `cursor`: of the last reply, None at the end. `is_kept`: whether the server keeps it.
    `is_left`: whether a key that kept it may still be there. `why_alone`: as in Pass.
    """

    def __init__(self) -> None:
        self.cursor: bytes | None = b"0"
        self.is_kept = self.is_left = False
        self._losses = 0
        self.why_alone = ""

    def word(self, pace: Pace, *, alone: bool) -> bytes | None:
        """What the next call gives as its cursor, None if it cannot be sent before a reply."""
        if self.cursor is None:
            return None
        return b"kept" if self.is_kept and pace.ahead else self.cursor if alone else None

    def is_early(self, call: Call, reply: list[Any]) -> bool:
        """Whether a reply says that the call has done nothing.

        Only a call that goes on from the kept cursor can have such a reply.
        """
        if call.args[1] != b"kept" or reply not in ([b"early"], [b"gone"]):
            return False
        if reply == [b"gone"] and self.is_kept:
            self.is_kept = False
            self._losses += 1
            if self._losses == _MOST_LOSSES:
                self.why_alone = f"the server lost the cursor {_MOST_LOSSES} times"
        return True

    def reached(self, call: Call, cursor: bytes, kept: int) -> None:
        """Note the cursor of a reply, and whether the server keeps it."""
        self.cursor = None if cursor == b"0" else cursor
        self.is_kept = bool(kept) and not self.why_alone
        if call.keeps:
            self.is_left = bool(kept)
            if not kept and self.cursor:
                self.why_alone = "the server does not keep the cursor"

    def lost(self) -> None:
        """Go on from the cursor of the last reply."""
        self.is_kept = self.is_left = False


class ScanPass:
    """Calls an operation's script from cursor 0 until it is 0 again. Sends postponed keys back.

    `lock`: held while the tally adds a reply, for a tally that several threads share.
    """

    is_guarded = True
    breadth = 1

    def __init__(
        self,
        session: Session,
        operation: str,
        tally: Tally,
        lock: AbstractContextManager[object] = _NO_LOCK,
    ) -> None:
        self._session = session
        self._script = session.script(operation)
        self._keeps_cursor = operation in KEEPS_CURSOR
        self._tally = tally
        self._lock = lock
        self._place = Place()
        self._postponed: list[bytes] = []

    @property
    def why_alone(self) -> str:
        """Why the server does not keep the cursor; empty if it may."""
        return self._place.why_alone

    @property
    def over(self) -> bool:
        """Whether the scan is complete and no key is postponed."""
        return self._place.cursor is None and not self._postponed

    def next_call(self, pace: Pace, *, alone: bool) -> Call | None:
        """A batch over the postponed keys, else a batch from where the last one ended."""
        if self._postponed:
            return self._call(pace, self._place.cursor or b"0") if alone else None
        word = self._place.word(pace, alone=alone)
        return None if word is None else self._call(pace, word)

    def _call(self, pace: Pace, word: bytes) -> Call:
        postponed = tuple(self._postponed[: pace.keys])
        session = self._session
        keeps = self._keeps_cursor and pace.ahead
        flight = (session.kept_in() if keeps else b"", pace.nice_arg) if self._keeps_cursor else ()
        town, start = town_bytes(session.town), session.plan.from_start
        args = (town, word, pace.count, pace.budget, session.denied, start)
        return Call(self._script, (*args, *flight, *self._tally.args, *postponed), postponed, keeps)

    def take(self, call: Call, reply: list[Any]) -> Taken | None:
        """Read cursor, steps, elapsed and dbsize. The tally adds up the rest."""
        if self._place.is_early(call, reply):
            return None
        said = read(self._tally.Reply, reply)
        taken = Taken(said.elapsed, steps=said.steps, dbsize=said.dbsize)
        with self._lock:
            self._tally.add(said)
        if not call.about:
            self._place.reached(call, said.cursor, getattr(said, "kept", 0))
        self._postponed = getattr(said, "postponed", []) + self._postponed[len(call.about) :]
        return taken

    def end_call(self, pace: Pace) -> Call | None:
        """The call for a pass that ends before its last batch."""
        return self._call(pace, b"end") if self._place.is_left else None

    def lost(self, calls: Iterable[Call]) -> None:
        """Go on from the cursor of the last reply."""
        self._place.lost()

    def restart(self) -> None:
        """Start over. The tally keeps what was done."""
        self._place, self._postponed = Place(), []
        self._tally.restart()


class SideBySide:
    """Passes that only read and do not depend on each other. One call of each is in flight."""

    is_guarded = False
    why_alone = ""

    def __init__(self, passes: Sequence[Pass]) -> None:
        self._passes = passes
        self._asked: list[tuple[Call, Pass]] = []
        self._begun: set[Pass] = set()
        self.breadth = max(1, len(passes))

    @property
    def over(self) -> bool:
        """Whether all passes are over."""
        return all(work.over for work in self._passes)

    def next_call(self, pace: Pace, *, alone: bool) -> Call | None:
        """The next call of the first pass that has none in flight.

        The first call of each pass is made alone, because it sends the script.
        """
        busy = [work for _, work in self._asked]
        open_ = [work for work in self._passes if not work.over and work not in busy]
        new = [work for work in open_ if work not in self._begun]
        if not open_ or (new and not alone):
            return None
        work = (new or open_)[0]
        call = work.next_call(replace(pace, ahead=False), alone=True)
        if call:
            self._begun.add(work)
            self._asked.append((call, work))
        return call

    def take(self, call: Call, reply: list[Any]) -> Taken | None:
        """Let the pass of the call take the reply."""
        return self._asked_by(call).take(call, reply)

    def end_call(self, pace: Pace) -> Call | None:
        """None: no cursor is kept."""

    def lost(self, calls: Iterable[Call]) -> None:
        """Let the pass of each call know."""
        for call in calls:
            work = self._asked_by(call)
            self._begun.discard(work)
            work.lost([call])

    def restart(self) -> None:
        """Start all passes over."""
        for work in self._passes:
            work.restart()

    def _asked_by(self, call: Call) -> Pass:
        for n, (asked, work) in enumerate(self._asked):
            if asked is call:
                del self._asked[n]
                return work
        raise LookupError("a call of no pass")

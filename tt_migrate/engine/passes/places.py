"""Where a scan has got to, and where its next call begins: with a kept cursor, or reading ahead."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, Protocol

from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.replies import Word
from tt_migrate.engine.calls.scripts import Call
from tt_migrate.engine.calls.session import Session

_MOST_LOSSES = 3
_MOST_AHEAD = 96
# If another client adds or removes a key, steps end elsewhere than in the call before, but after a
# few steps they end at the same places again. So steps are short: so many keys, and if keys are
# costly, fewer, for a call has eight steps at least. A step scans about 1 % more than that.
_FEWEST, _MOST, _STEPS, _MORE = 10, 40, 8, 1.01
# How much of its time a call is planned to take, and how much of that it may pass over steps.
_PLANNED, _PASSING = 0.8, 0.45
_LEAST = 0.01
# A call that takes longer than planned breaks the chain. So costs are rather taken too high.
_UP, _DOWN = 0.5, 0.1


class Start(NamedTuple):
    """Where a call begins: its cursor, its COUNT hint, and its arguments after `from`."""

    cursor: bytes
    keys: int
    more: tuple[Word, Word]


class Place(Protocol):
    """Where a scan has got to.

    `cursor`: of the last reply that counts, None at the end. `why_alone`: why no call can be sent
    ahead of a reply; empty if one may.
    """

    cursor: bytes | None
    why_alone: str

    def start(self, pace: Pace, *, alone: bool) -> Start | None:
        """Where the next call begins, None if it cannot be sent before a reply.

        `alone`: whether no call is in flight.
        """

    def here(self, pace: Pace) -> Start:
        """Where a call begins that visits keys and does not scan."""

    def sent(self, call: Call) -> None:
        """Note a call that scans and is sent now."""

    def is_early(self, call: Call, reply: list[Any]) -> bool:
        """Whether a reply says that the call has done nothing."""

    def goes_on(self, call: Call, said: Any) -> bool:
        """Whether a reply goes on from where the one before ended. If not, it does not count."""

    def reached(self, call: Call, said: Any) -> None:
        """Note a reply that counts."""

    def end(self, pace: Pace) -> Start | None:
        """For a call that makes the server forget the cursor it keeps, None if it keeps none."""

    def lost(self) -> None:
        """Go on from the cursor of the last reply that counts: calls got no reply."""


class KeptPlace:
    """The place of a scan of a migration: the server keeps the cursor (see kept_cursor.lua)."""

    def __init__(self, session: Session) -> None:
        self.cursor: bytes | None = b"0"
        self.why_alone = ""
        self._session = session
        self._is_kept = False
        # Whether a key that kept the cursor may still be there.
        self._is_left = False
        self._losses = 0

    def start(self, pace: Pace, *, alone: bool) -> Start | None:
        """From the kept cursor, else from that of the last reply, when it has come."""
        if self.cursor is None:
            return None
        if self._is_kept and pace.ahead:
            return self._from(b"kept", pace)
        return self._from(self.cursor, pace) if alone else None

    def here(self, pace: Pace) -> Start:
        """From the cursor of the last reply."""
        return self._from(self.cursor or b"0", pace)

    def sent(self, call: Call) -> None:
        """Nothing: the server knows."""

    def is_early(self, call: Call, reply: list[Any]) -> bool:
        """Only a call that goes on from the kept cursor can come too early."""
        if call.args[1] != b"kept" or reply not in ([b"early"], [b"gone"]):
            return False
        if reply == [b"gone"] and self._is_kept:
            self._is_kept = False
            self._losses += 1
            if self._losses == _MOST_LOSSES:
                self.why_alone = f"the server lost the cursor {_MOST_LOSSES} times"
        return True

    def goes_on(self, call: Call, said: Any) -> bool:
        """Always: the server has the order."""
        return True

    def reached(self, call: Call, said: Any) -> None:
        """Note the cursor, and whether the server keeps it."""
        self.cursor = None if said.cursor == b"0" else said.cursor
        self._is_kept = bool(said.kept) and not self.why_alone
        if call.args[6]:
            self._is_left = bool(said.kept)
            if not said.kept and self.cursor:
                self.why_alone = "the server does not keep the cursor"

    def end(self, pace: Pace) -> Start | None:
        """For a pass that ends before its last batch."""
        return self._from(b"end", pace) if self._is_left else None

    def lost(self) -> None:
        """Another connection keeps its cursor in another key."""
        self._is_kept = self._is_left = False

    def _from(self, cursor: bytes, pace: Pace) -> Start:
        kept_in = self._session.kept_in() if pace.ahead else b""
        return Start(cursor, pace.count, (kept_in, pace.nice_arg))


class ReadingPlace:
    """The place of a scan that only reads, and reads ahead (see reading_ahead.lua).

    Calls in flight are a chain: each is to begin where the one before ends. It breaks if a reply
    does not; then the rest of it does not count, and another chain begins at the last good cursor.
    """

    why_alone = ""

    def __init__(self) -> None:
        self.cursor: bytes | None = b"0"
        self._chain: deque[tuple[Call, int]] = deque()
        self._longest = float(_MOST_AHEAD)
        # What a key costs the server, in microseconds: to read it, unknown at first, and to pass.
        self._reading = self._passing = 0.0
        self._scanned = self._dbsize = 0
        # The COUNT hint of all calls of a chain.
        self._keys = _MOST

    def start(self, pace: Pace, *, alone: bool) -> Start | None:
        """From the last good cursor, after passing over the steps of the chain.

        The first call is made alone: it sends the script, and shows what a key costs. Passing over
        takes less than half of a call, so that the server has at most twice as much to do. Where
        reading a key costs little more than passing it, nothing is won, and each call is alone.
        """
        if self.cursor is None:
            return None
        if not pace.ahead or self._passing >= _PASSING * self._reading:
            return self.here(pace) if alone else None
        planned = pace.budget * _PLANNED
        if not self._chain:
            fitting = int(planned / self._reading / _STEPS)
            self._keys = max(_FEWEST, min(_MOST, fitting))
        ahead = sum(steps for _, steps in self._chain)
        passing = ahead * self._keys * self._passing
        is_long = len(self._chain) >= self._longest or passing > planned * _PASSING
        if self._chain and (is_long or self._reaches_end(ahead)):
            return None
        steps = int((planned - passing) / (self._keys * self._reading))
        return Start(self.cursor, self._keys, (ahead, max(1, steps)))

    def here(self, pace: Pace) -> Start:
        """From the last good cursor, until the time is spent."""
        return Start(self.cursor or b"0", pace.count, (0, 0))

    def sent(self, call: Call) -> None:
        """Add the call to the chain."""
        self._chain.append((call, int(call.args[7])))

    def is_early(self, call: Call, reply: list[Any]) -> bool:
        """Never."""
        return False

    def goes_on(self, call: Call, said: Any) -> bool:
        """Whether the call is the next one of the chain and begins at the last good cursor."""
        self._learn(call, said)
        if not self._chain or self._chain[0][0] is not call:
            return False
        if said.begin == self.cursor:
            return True
        # Others write there. So the next chain is half as long.
        self._longest = max(1.0, len(self._chain) / 2)
        self._chain.clear()
        return False

    def reached(self, call: Call, said: Any) -> None:
        """Note the cursor. The chain breaks if the call made fewer steps than planned."""
        _, steps = self._chain.popleft()
        self.cursor = None if said.cursor == b"0" else said.cursor
        self._scanned += said.steps * int(call.args[2])
        self._dbsize = said.dbsize
        if said.steps != steps:
            self._chain.clear()
        self._longest = min(_MOST_AHEAD, self._longest + 1 / self._longest)

    def end(self, pace: Pace) -> Start | None:
        """None: no cursor is kept."""

    def lost(self) -> None:
        """Begin another chain."""
        self._chain.clear()

    def _reaches_end(self, ahead: int) -> bool:
        """Whether the chain seems to reach the end of the scan, so that no more is to be read."""
        reached = (self._scanned + ahead * self._keys) * _MORE
        return self._scanned < self._dbsize <= reached

    def _learn(self, call: Call, said: Any) -> None:
        count, ahead = int(call.args[2]), int(call.args[6])
        if said.steps and said.elapsed:
            cost = (said.elapsed - said.passing) / (said.steps * count)
            if not self._reading:
                # Until it is known: more than on most servers.
                self._passing = max(_LEAST, cost / 6)
            self._reading = _learnt(self._reading or cost, max(_LEAST, cost))
        if ahead and said.begin:
            self._passing = _learnt(self._passing, said.passing / (ahead * count))


def _learnt(cost: float, found: float) -> float:
    return cost + (found - cost) * (_UP if found > cost else _DOWN)

"""Calls that were sent and whose replies have not been read."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.scripts import Call

# One call works, one sees that its batch has ended, and one is there if another is late.
_GUARDED_CALLS_A_BATCH = 3
# Nobody on the server keeps other calls apart. On a line with jitter, some arrive together and run
# together. So the server has time left between them, in which it catches up.
_UNGUARDED_SPACING = 1.4
_MOST_AHEAD = 96
_WORTH_SECONDS = 0.001
_SURELY_FAR_SECONDS = 0.005
# On a busy machine, a few round trips to a near server can take long.
_TRIPS_TO_BE_SURE = 4
_SHORTEST_PERIOD, _LONGEST_PERIOD = 0.0005, 1.0
_SMOOTHING = 0.2


@dataclass(frozen=True)
class Sent:
    """A call in flight. `at`: when it was sent, by time.monotonic()."""

    call: Call
    pace: Pace
    at: float


class CallsInFlight:
    """Decides how many calls are sent ahead of replies, and when.

    `trip`: an upper limit for the time that a round trip takes, in seconds.
    """

    def __init__(self, trip: float) -> None:
        self.calls: deque[Sent] = deque()
        self._trip = trip
        self._trips = 0
        self._held = 0.0
        self._due = 0.0

    @property
    def is_worth_it(self) -> bool:
        """Whether a round trip takes so long that calls should be sent ahead."""
        is_sure = self._trips >= _TRIPS_TO_BE_SURE
        return self._trip >= (_WORTH_SECONDS if is_sure else _SURELY_FAR_SECONDS)

    def has_room(self, *, guarded: bool) -> bool:
        """Whether another call may be sent before the next reply."""
        period = self._period(guarded)
        # The calls of a guarded pass cost little if they come too early.
        ahead = (self._trip + self._held) / period + 2 if guarded else self._trip / period + 1
        return len(self.calls) < min(_MOST_AHEAD, int(ahead))

    def wait(self) -> float:
        """Seconds until the next call is due."""
        return max(0.0, self._due - time.monotonic())

    def sent(self, call: Call, pace: Pace, *, guarded: bool) -> None:
        """Note a call that is sent now."""
        now, period = time.monotonic(), self._period(guarded)
        self.calls.append(Sent(call, pace, now))
        self._due = max(self._due, now - period) + period

    def took(self, seconds: float, held: float, rest: float) -> None:
        """Note how long a call took from here, how long it blocked there, and the rest after."""
        self._trips += 1
        self._trip = min(self._trip, max(0.0, seconds - held))
        share = _SMOOTHING if self._held else 1
        self._held += (held + rest - self._held) * share

    def _period(self, guarded: bool) -> float:
        period = min(_LONGEST_PERIOD, max(_SHORTEST_PERIOD, self._held))
        return period / _GUARDED_CALLS_A_BATCH if guarded else period * _UNGUARDED_SPACING

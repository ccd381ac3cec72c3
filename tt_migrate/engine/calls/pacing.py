"""Decides how much one call does, by the server's own clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

_STEPS_A_BATCH = 20
_SMALLEST, _LARGEST = 10, 2000
# If the next batch and another client's command reach the event loop together, the server answers
# both after the batch: Redis writes replies before it waits for events again.
_SHORTEST_PAUSE_SECONDS = 0.0002

MAX_LAG = 48_000_000
"""How many bytes a replica may be behind by default.

A master cuts off a replica that is 64 MB behind for a minute (redis.conf,
`client-output-buffer-limit`). A replica confirms what it has once a second, so one that keeps up
can seem to be behind by all that a second writes.
"""


@dataclass(frozen=True)
class Pace:
    """How much the next call may do.

    A batch runs as many SCAN steps as fit into its budget. The script's own clock decides, so
    network time does not count. `count` is chosen so that a step takes a twentieth of the budget:
    small enough to use most of the budget and to stop in time.

    `budget`: microseconds that a call may take.
    `nice`: the wait before the next call, as a multiple of the time that a call blocked the server.
    `count`: COUNT hint, keys.
    `max_lag`: bytes that a replica may be behind when a call that writes begins, 0: any number.
    `keys`: how many keys a call names at most.
    `ahead`: whether calls may be sent ahead of replies.
    """

    budget: int
    nice: float = 0.0
    max_lag: int = 0
    count: int = 100
    keys: int = 1000
    ahead: bool = False

    @property
    def nice_arg(self) -> str:
        """The argument `nice` of a script that can keep its cursor."""
        return f"{self.nice:.6f}"

    def rest(self, held: float) -> float:
        """How many seconds to wait after a call that blocked the server for `held` seconds.

        At least long enough for the server to answer the clients that waited for the call, so that
        they do not wait for the next one too.
        """
        return max(_SHORTEST_PAUSE_SECONDS, self.nice * held)

    def smaller(self) -> Pace:
        """The pace for replies of an eighth of the size: larger ones do not seem to pass."""
        return replace(
            self,
            budget=max(1, self.budget // 8),
            count=max(_SMALLEST, self.count // 8),
            keys=max(1, self.keys // 8),
        )

    def as_large_as(self, other: Pace) -> Pace:
        """The pace for replies as large as those of another pace."""
        return replace(self, budget=other.budget, keys=other.keys)

    def after(self, steps: int, elapsed: int) -> Pace:
        """The pace after a batch of `steps` SCAN steps that took `elapsed` microseconds.

        `count` falls at once and at most doubles. Without a clock (`elapsed` 0) it stays the same.
        """
        if steps == 0 or elapsed <= 0:
            return self
        fitting = self.count * (self.budget / _STEPS_A_BATCH) / (elapsed / steps)
        count = int(min(fitting, self.count * 2, _LARGEST))
        return replace(self, count=max(_SMALLEST, count))


def pace_for(max_pause_ms: float, nice: float = 0.0, max_lag: int = 0) -> Pace:
    """The pace for calls that block the server for at most about `max_pause_ms` milliseconds.

    `nice`: the wait before the next call, as a multiple of the time that a call blocked the server.
    `max_lag`: as in Pace.
    """
    # The remaining 3 % are for building and sending the reply after the last step.
    return Pace(budget=max(1, int(max_pause_ms * 970)), nice=nice, max_lag=max_lag)

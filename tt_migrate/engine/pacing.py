"""How much one call does: what it takes follows from the server's own clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

_STEPS_A_BATCH = 20
_SMALLEST, _LARGEST = 10, 2000
_LIGHTEST, _HEAVIEST = 4096, 64 * 1024 * 1024
# Calls of one weight do not all take as long, and none stops by itself.
_CAUTION, _GROWTH = 0.7, 1.5
# A server that finds the next batch and another client's command at once in its event loop answers
# both after the batch: Redis writes replies before it waits for events again.
_BREATH_SECONDS = 0.0002


@dataclass(frozen=True)
class Pace:
    """How much the next call may do.

    A batch takes as many SCAN steps as fit into its time, by the script's own clock, so the
    network's time plays no part. The hint aims at steps of a twentieth of that: small enough to use
    the time up, and to stop in time. A call that carries values does not stop by the clock, for
    what was sent and not done would be sent again: its weight is bounded beforehand.

    `budget`: microseconds that a call may take.
    `nice`: how many times as long as a call has held the server the next one waits.
    `count`: COUNT hint, keys.
    `weight`: bytes of values, and some for each record.
    """

    budget: int
    nice: float = 0.0
    count: int = 100
    weight: int = 64 * 1024

    def rest(self, held: float) -> float:
        """How many seconds the server is left alone after a call that held it for `held` seconds.

        At least as long as it needs to answer whoever has waited for that call, lest they wait for
        the next one, too.
        """
        return max(_BREATH_SECONDS, self.nice * held)

    def after(self, steps: int, elapsed: int) -> Pace:
        """The pace after a batch of `steps` SCAN steps that took `elapsed` microseconds.

        Comes down at once, goes up twofold at most. Without a clock (`elapsed` 0) it stays.
        """
        if steps == 0 or elapsed <= 0:
            return self
        fitting = self.count * (self.budget / _STEPS_A_BATCH) / (elapsed / steps)
        count = int(min(fitting, self.count * 2, _LARGEST))
        return replace(self, count=max(_SMALLEST, count))

    def after_values(self, weight: int, elapsed: int) -> Pace:
        """The pace after a call that carried `weight` and took `elapsed` microseconds.

        Comes down at once, goes up by half at most. A call that carried little tells little: it
        lifts the weight to no more than half as much again.
        """
        if weight == 0 or elapsed <= 0:
            return self
        fitting = weight * self.budget * _CAUTION / elapsed
        highest = max(self.weight, _GROWTH * weight)
        return replace(self, weight=int(max(_LIGHTEST, min(fitting, highest, _HEAVIEST))))


def pace_for(max_pause_ms: float, nice: float = 0.0) -> Pace:
    """The pace for calls that hold the server for at most about `max_pause_ms` milliseconds.

    `nice`: how long the server is left alone after a call, as a multiple of the call's time.
    """
    # The rest is left for what comes after the last step: making and sending the reply.
    return Pace(budget=max(1, int(max_pause_ms * 970)), nice=nice)

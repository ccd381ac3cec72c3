"""How much one batch does: the size of a SCAN step follows the server's own clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

_STEPS_A_BATCH = 20
_SMALLEST, _LARGEST = 10, 2000
_RECORD_MICROSECONDS = 25
# A server that finds the next batch and another client's command at once in its event loop answers
# both after the batch: Redis writes replies before it waits for events again.
_BREATH_SECONDS = 0.0002


@dataclass(frozen=True)
class Pace:
    """The COUNT hint of the next SCAN step and the time that one batch may take.

    A batch takes as many steps as fit into its time, by the script's own clock, so the network's
    time plays no part. The hint aims at steps of a twentieth of that: small enough to use the time
    up, and to stop in time.

    `budget`: microseconds after which a script begins no further step.
    `nice`: how many times as long as a batch has held the server the next one waits.
    `count`: COUNT hint, keys.
    """

    budget: int
    nice: float = 0.0
    count: int = 100

    @property
    def records(self) -> int:
        """About how many records can be converted in that time."""
        return max(10, self.budget // _RECORD_MICROSECONDS)

    def rest(self, held: float) -> float:
        """How many seconds the server is left alone after a batch that held it for `held` seconds.

        At least as long as it needs to answer whoever has waited for that batch, lest they wait for
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


def pace_for(max_pause_ms: float, nice: float = 0.0) -> Pace:
    """The pace for batches that hold the server for at most about `max_pause_ms` milliseconds.

    `nice`: how long the server is left alone after a batch, as a multiple of the batch's time.
    """
    # The rest is left for what comes after the last step: making and sending the reply.
    return Pace(budget=max(1, int(max_pause_ms * 970)), nice=nice)

"""Decides how much one call does, by the server's own clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

_STEPS_A_BATCH = 20
_SMALLEST, _LARGEST = 10, 2000
_LIGHTEST, _HEAVIEST = 4096, 64 * 1024 * 1024
# Calls of equal weight can take different times, and they do not stop by the clock.
_CAUTION, _GROWTH = 0.7, 1.5
# If the next batch and another client's command reach the event loop together, the server answers
# both after the batch: Redis writes replies before it waits for events again.
_BREATH_SECONDS = 0.0002


@dataclass(frozen=True)
class Pace:
    """How much the next call may do.

    A batch runs as many SCAN steps as fit into its budget. The script's own clock decides, so
    network time does not count. `count` is chosen so that a step takes a twentieth of the budget:
    small enough to use most of the budget and to stop in time. A call that carries values does not
    stop by the clock, because values that were sent but not used would have to be sent again. Its
    weight is limited in advance.

    `budget`: microseconds that a call may take.
    `nice`: the wait before the next call, as a multiple of the time that a call held the server.
    `count`: COUNT hint, keys.
    `weight`: bytes of values, and a fixed number of bytes for each record.
    `keys`: how many keys a call names at most.
    `read`: bytes of values that a call reads at most, 0 to read none where it finds records.
    `ahead`: whether calls may be sent ahead of replies.
    """

    budget: int
    nice: float = 0.0
    count: int = 100
    weight: int = 64 * 1024
    keys: int = 1000
    read: int = 1024 * 1024
    ahead: bool = False

    def flight_args(self, kept_in: bytes) -> tuple[bytes, str]:
        """The arguments `kept_in` and `nice` of a script that can keep its cursor."""
        return kept_in if self.ahead else b"", f"{self.nice:.6f}"

    def rest(self, held: float) -> float:
        """How many seconds to wait after a call that held the server for `held` seconds.

        At least long enough for the server to answer the clients that waited for the call, so that
        they do not wait for the next one too.
        """
        return max(_BREATH_SECONDS, self.nice * held)

    def smaller(self) -> Pace:
        """The pace for replies of an eighth of the size: larger ones do not seem to pass."""
        return replace(
            self,
            budget=max(1, self.budget // 8),
            count=max(_SMALLEST, self.count // 8),
            keys=max(1, self.keys // 8),
            read=self.read // 8 if self.read > _LIGHTEST else 0,
        )

    def as_large_as(self, other: Pace) -> Pace:
        """The pace for replies as large as those of another pace."""
        return replace(self, budget=other.budget, keys=other.keys, read=other.read)

    def after(self, steps: int, elapsed: int) -> Pace:
        """The pace after a batch of `steps` SCAN steps that took `elapsed` microseconds.

        `count` falls at once and at most doubles. Without a clock (`elapsed` 0) it stays the same.
        """
        if steps == 0 or elapsed <= 0:
            return self
        fitting = self.count * (self.budget / _STEPS_A_BATCH) / (elapsed / steps)
        count = int(min(fitting, self.count * 2, _LARGEST))
        return replace(self, count=max(_SMALLEST, count))

    def after_values(self, weight: int, elapsed: int) -> Pace:
        """The pace after a call that carried `weight` and took `elapsed` microseconds.

        `weight` falls at once, and rises to at most 1.5 times what the call carried: a small call
        says little about a large one.
        """
        if weight == 0 or elapsed <= 0:
            return self
        fitting = weight * self.budget * _CAUTION / elapsed
        highest = max(self.weight, _GROWTH * weight)
        return replace(self, weight=int(max(_LIGHTEST, min(fitting, highest, _HEAVIEST))))


def pace_for(max_pause_ms: float, nice: float = 0.0) -> Pace:
    """The pace for calls that hold the server for at most about `max_pause_ms` milliseconds.

    `nice`: the wait before the next call, as a multiple of the time that a call held the server.
    """
    # The remaining 3 % are for building and sending the reply after the last step.
    return Pace(budget=max(1, int(max_pause_ms * 970)), nice=nice)

"""Whether slots move between the servers of a cluster: a scan can miss their keys."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import chain

from tt_migrate.engine.calls.replies import malformed_as_invalid
from tt_migrate.engine.calls.retry import PassingError

ALL_SLOTS = frozenset(range(16384))
_FLAGS, _EPOCH, _SLOTS_BEGIN = 2, 6, 8


@dataclass(frozen=True)
class Look:
    """What all servers say of their slots at one moment.

    `own`: each server's epoch, which changes when it gets a slot, and its slots. `is_still`:
    whether no server is about to move one, and each has what the others think that it has.
    """

    own: Mapping[str, tuple[bytes, frozenset[int]]]
    is_still: bool


def look_at(replies: Mapping[str, bytes], thought: Mapping[str, Set[int]]) -> Look:
    """What the servers' replies to CLUSTER NODES say.

    `thought`: the slots that each server is thought to have. A service that does not say which of
    the servers it is has nothing to tell.
    """
    own = {}
    is_still = True
    with malformed_as_invalid():
        for name, reply in replies.items():
            for fields in (line.split() for line in reply.splitlines()):
                if b"myself" not in fields[_FLAGS]:
                    continue
                found = fields[_SLOTS_BEGIN:]
                # A slot that is about to move: [93-<-node] or [93->-node].
                ranges = [_range(field) for field in found if b"[" not in field]
                slots = frozenset(chain(*ranges))
                own[name] = (fields[_EPOCH], slots)
                is_still &= len(ranges) == len(found) and slots == thought.get(name, set())
    return Look(own, is_still)


class MovingSlotsError(PassingError):
    """A slot has moved, or is about to."""


def check_still(*looks: Look) -> None:
    """Raise MovingSlotsError if a slot has moved between these looks, or was about to."""
    first, *others = looks
    if not all(look.is_still for look in looks) or any(look.own != first.own for look in others):
        raise MovingSlotsError("TRYAGAIN slots have moved or are about to")


def _range(field: bytes) -> range:
    first, _, last = field.partition(b"-")
    return range(int(first), int(last or first) + 1)

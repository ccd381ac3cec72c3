"""Explains why two records conflict: names the fields that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from tt_migrate.engine.json_to_hash import RecordError, comparable_fields, differing
from tt_migrate.engine.pacing import Pace
from tt_migrate.engine.passes import MOST_CUTS, Call, Taken
from tt_migrate.engine.replies import fetched, weight_of
from tt_migrate.engine.session import Session
from tt_migrate.escape import shown
from tt_migrate.keyspace import RECORDS, family_and_id, town_key_start
from tt_migrate.plan import Plan


class Comparison:
    """A pass that compares agents and tasks in conflict with their destinations. Reads only.

    `conflicts`: keys and reasons, as a plan's passes found them. `reasons`: new reasons, which name
    the fields that differ. Records that cannot be compared get none.
    """

    is_guarded = keeps_cursor = False
    breadth = 1
    why_alone = ""

    def __init__(self, session: Session, plan: Plan, conflicts: Mapping[bytes, str]) -> None:
        self._script = session.script("fetch")
        self._session = session
        self._town_start = town_key_start(session.town)
        start = plan.name_start(session.town)
        keys = [key for key in conflicts if family_and_id(key, start)[0] in RECORDS]
        # The next name is the last one. Each key is read just before its destination.
        self._todo = [name for key in keys for name in (plan.destination(session.town, key), key)]
        self._cuts: Counter[bytes] = Counter()
        self._key = b""
        self._stored: object = None
        self.reasons: dict[bytes, str] = {}

    @property
    def over(self) -> bool:
        """Whether all records are compared."""
        return not self._todo

    def restart(self) -> None:
        """Continue: a list of keys needs no cursor."""

    def lost(self, calls: Iterable[Call], *, cut: bool) -> bool:
        """Continue: keys leave the list when their reply is taken, or when they are given up."""
        for call in calls:
            if cut and len(call.about) == 1:
                self._cuts.update(call.about)
                if self._cuts[call.about[0]] == MOST_CUTS:
                    self._take_one(b"none", b"")
                    return True
        return False

    def end_call(self, pace: Pace) -> Call | None:
        """None: there is no cursor."""

    def next_call(self, pace: Pace, *, alone: bool) -> Call | None:
        """Read the next keys. A later call needs the reply to know its keys."""
        if not alone:
            return None
        keys = tuple(islice(reversed(self._todo), pace.keys))
        weight = max(1, min(pace.weight, pace.read))
        return Call(self._script, (self._session.denied, weight, *keys), keys)

    def take(self, call: Call, reply: list[Any]) -> Taken:
        """Compare each destination with the key before it."""
        elapsed, found = fetched(reply, len(call.about))
        weight = 0
        for kind, value in found:
            weight += weight_of(value)
            self._take_one(kind, value)
        return Taken(elapsed, weight=weight)

    def _take_one(self, kind: bytes, value: object) -> None:
        is_destination = len(self._todo) % 2 == 1
        name = self._todo.pop()
        if is_destination:
            self._compare(name, kind, value)
        else:
            self._key, self._stored = name, record_value(kind, value)

    def _compare(self, destination: bytes, kind: bytes, value: object) -> None:
        record = family_and_id(destination, self._town_start)
        if reason := reason_for(record, self._stored, record_value(kind, value)):
            self.reasons[self._key] = reason


def reason_for(record: tuple[str, bytes], stored: object, other: object) -> str:
    """Why a record and its destination conflict, empty if they cannot be compared.

    `record`: the family and the id. The values are those of record_value().
    """
    try:
        fields = differing(comparable_fields(*record, stored), comparable_fields(*record, other))
    except RecordError:
        return ""
    alike = "one a JSON string and one a hash"
    if isinstance(stored, list) and isinstance(other, list):
        alike = "but other times to live of fields"
    return _reason(fields, alike)


def record_value(kind: bytes, value: object) -> object:
    """The value of a record, None for a key that cannot be one. `kind`: its type."""
    return value if kind in (b"string", b"hash") else None


def _reason(fields: list[bytes], alike: str) -> str:
    if not fields:
        return f"destination exists with the same fields, {alike}"
    return f"destination exists and differs in {', '.join(map(shown, fields))}"

"""Moves keys between the servers of a cluster: freeze, apply, finish, forget (docs/cluster.md)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex

from redis.exceptions import RedisError

from tt_migrate.engine.calls.retry import CutOffError, PassingError, UncarriedError
from tt_migrate.engine.calls.scripts import script_for
from tt_migrate.engine.cluster.hidden import Transfer
from tt_migrate.engine.cluster.pipeline import Failure
from tt_migrate.engine.cluster.router import Item, Operation, Router
from tt_migrate.plan import Plan

TAKE_OVER_MILLISECONDS = 3000
"""How old a hidden key is before another run takes it over."""

YOUNG_MILLISECONDS = 2500
_DECIDING_SECONDS, _REMEMBERING_MILLISECONDS = 300, 600_000
"""A mark is kept for longer than a run that has read the key may still apply it."""

_KEYS_AT_ONCE = 500
_TRIES, _PAUSE_SECONDS = 4, 0.1
_ERROR = re.compile("[A-Z]+ ")
_OF_ONE_KEY = ("ERR ", "OOM ", "WRONGTYPE ")


@dataclass
class Outcome:
    """What became of keys.

    `renamed`, and with the way or the reason `merged`, `conflicts` and `failed`: as in Migration.
    `stuck`: hidden names of keys that could not be given back. `passing`: the first error that
    concerned one key and may pass: its slot is being moved. `error`: the first error that concerned
    more than one key.
    """

    renamed: list[bytes] = field(default_factory=list)
    merged: dict[bytes, str] = field(default_factory=dict)
    conflicts: dict[bytes, str] = field(default_factory=dict)
    failed: dict[bytes, str] = field(default_factory=dict)
    stuck: list[bytes] = field(default_factory=list)
    passing: PassingError | None = None
    error: RedisError | None = None

    def note(self, key: bytes, result: object) -> None:
        """Note the result of a call, if it is an error."""
        if isinstance(result, Failure):
            self.error = self.error or result.error
        elif isinstance(result, PassingError):
            self.passing = self.passing or result
        elif isinstance(result, RedisError):
            if isinstance(result, UncarriedError) or str(result).startswith(_OF_ONE_KEY):
                self.failed[key] = str(result)
            else:
                self.error = self.error or result

    def count(self, key: bytes, how: str) -> None:
        """Count a key that was renamed, or merged in some way."""
        if how:
            self.merged[key] = how
        else:
            self.renamed.append(key)

    def note_all(self, other: Outcome) -> None:
        """Note the errors of another outcome."""
        self.failed.update(other.failed)
        self.passing = self.passing or other.passing
        self.error = self.error or other.error


@dataclass
class _Key:
    """A key in transit.

    `source`, `target`: the servers of the key and its destination. `is_ours`: whether this run
    freezes it. `is_sent`: whether this run may have applied it, but has no reply. `value`,
    `expires`: see freeze.lua. `trouble`: why nothing can carry the value, which is empty then.
    """

    transfer: Transfer
    family: bytes
    hidden: bytes
    source: str
    target: str
    is_ours: bool
    is_sent: bool = False
    value: bytes = b""
    expires: bytes = b"0"
    trouble: str = ""

    @property
    def name(self) -> bytes:
        """The key's name before the move."""
        return self.transfer.key

    @property
    def is_unsure(self) -> bool:
        """Whether it may have been applied, by this run or another."""
        return self.is_sent or not self.is_ours

    @property
    def young(self) -> bytes:
        """The time before which no other run reads the key, in milliseconds since 1970."""
        return b"%d" % (self.transfer.frozen_at + YOUNG_MILLISECONDS if self.is_ours else 0)


@dataclass(frozen=True)
class Decision:
    """What apply.lua decided about a key, as the key's mark says.

    `is_refusal`: whether the key gets its name back; else it was moved or merged. `reason`: why, or
    how it was merged. `is_new`: whether this call decided, and not an earlier one.
    """

    is_refusal: bool
    reason: str
    is_new: bool

    @property
    def is_error(self) -> bool:
        """Whether a command was refused; else the destination exists."""
        return bool(_ERROR.match(self.reason))


def decision_of(result: object) -> Decision | None:
    """The decision in a result of apply.lua, None for an error and for a call that came late."""
    said = result if isinstance(result, bytes) else b""
    word, _, reason = said.removeprefix(b"was ").partition(b" ")
    if word not in (b"moved", b"merged", b"refused"):
        return None
    text = reason.decode("utf-8", "surrogateescape")
    return Decision(word == b"refused", text, is_new=not said.startswith(b"was "))


Done = Callable[[Outcome], object]
Settled = list[tuple[_Key, bool]]
"""Keys that are not hidden any more, each with whether nobody can still apply it."""


class Relocation:
    """Moves keys for one run. One thread uses it.

    move() and take_over() do what they can for some keys, tell `done` what became of them, and go
    on. They raise the first error that concerned more than one key: then the keys that are on their
    way may stay hidden. `run`: the name of the run in the nonces.
    """

    def __init__(self, router: Router, plan: Plan, town: str, done: Done) -> None:
        self._router = router
        self._plan = plan
        self._town = town
        self._done = done
        self.run = token_hex(4).encode()
        self._numbers = count()
        self._freeze = Operation(script_for("freeze", plan, "shards"), 2, waits=True, once=True)
        self._apply = Operation(script_for("apply", plan, "shards"), keys=3, waits=True)
        self._finish = Operation(script_for("finish", plan, "shards"), keys=1, waits=True)
        self._forget = Operation(script_for("forget", plan, "shards"), keys=1)
        self._give_back = Operation(script_for("give_back", plan, "shards"), keys=2)

    def move(self, keys: Sequence[bytes]) -> None:
        """Move keys to their destinations."""
        for first in range(0, len(keys), _KEYS_AT_ONCE):
            outcome = Outcome()
            self._deliver([*self._begun(keys[first : first + _KEYS_AT_ONCE], outcome)])
            if outcome.passing:
                self._done(outcome)

    def take_over(self, transfers: Sequence[Transfer]) -> None:
        """Go on with keys that a run has frozen."""
        for first in range(0, len(transfers), _KEYS_AT_ONCE):
            some = transfers[first : first + _KEYS_AT_ONCE]
            self._deliver([self._taken(transfer) for transfer in some])

    def remember(self, marks: Sequence[bytes], milliseconds: int) -> None:
        """Let marks expire."""
        self._expire((mark, self._router.name_of(mark), milliseconds) for mark in marks)

    def _begun(self, keys: Sequence[bytes], outcome: Outcome) -> Iterator[_Key]:
        """The transfers of keys. Those whose slots are not served stay as they are."""
        times: dict[str, int] = {}
        for key in keys:
            destination = self._plan.destination(self._town, key)
            try:
                source, target = map(self._router.name_of, (key, destination))
            except PassingError as error:
                outcome.note(key, error)
                continue
            if source not in times:
                times[source] = self._router.now(source)
            nonce = b"%d-%b-%d" % (times[source], self.run, next(self._numbers))
            yield self._key(Transfer(key, destination, nonce), source, target, is_ours=True)

    def _taken(self, transfer: Transfer) -> _Key:
        source, target = map(self._router.name_of, (transfer.hidden, transfer.destination))
        return self._key(transfer, source, target, is_ours=False)

    def _key(self, transfer: Transfer, source: str, target: str, *, is_ours: bool) -> _Key:
        family = next(filter(None, map(transfer.family, self._plan.towns(self._town))), "")
        return _Key(transfer, family.encode(), transfer.hidden, source, target, is_ours)

    def _deliver(self, keys: Sequence[_Key]) -> None:
        while keys:
            # Asked before the values are read: later, another run may have applied them.
            deadlines, version = self._router.deadlines(_DECIDING_SECONDS), self._router.version
            outcome, trouble = Outcome(), Outcome()
            undecided, again, keys = self._frozen(keys, outcome)
            for attempt in range(_TRIES):
                trouble = Outcome()
                settled, undecided = self._applied(undecided, deadlines, outcome, trouble)
                self._forget_marks(settled, version)
                if not undecided:
                    break
                time.sleep(_PAUSE_SECONDS * attempt)
                self._router.refresh()
                with suppress(PassingError):
                    for key in undecided:
                        key.target = self._router.name_of(key.transfer.destination)
            self._router.lost_replies += len({key.target for key in undecided if key.is_sent})
            outcome.note_all(trouble)
            self._returned(undecided, outcome, is_decided=False)
            # With new hidden names: a call that was cut off can still be on its way.
            mine = [*self._begun([key.name for key in again if key.is_ours], outcome)]
            keys = [*mine, *(key for key in again if not key.is_ours), *keys]
            self._done(outcome)
            if outcome.error:
                # Do not hide more keys while there is trouble.
                raise outcome.error

    def _frozen(
        self, keys: Sequence[_Key], outcome: Outcome
    ) -> tuple[list[_Key], list[_Key], list[_Key]]:
        """Freeze and read some of the keys. Returns them, those to freeze anew, and the rest.

        A key that is frozen already and that no reply can carry is to be refused by its server.
        """
        items = [(key.name if key.is_ours else key.hidden, key.hidden) for key in keys]
        places = [key.source for key in keys]
        found = self._router.carry(self._freeze, items, places)
        frozen, lost, again, rest = [], [], [], []
        for key, result in zip(keys, found, strict=True):
            if isinstance(result, tuple):
                word, key.value = result
                key.expires = word.removeprefix(b"frozen ")
                frozen.append(key)
            elif result is None:
                rest.append(key)
            elif isinstance(result, UncarriedError) and not key.is_ours:
                key.trouble = str(result)
                frozen.append(key)
            elif isinstance(result, Failure | UncarriedError):
                lost.append(key)
            if isinstance(result, Failure) and isinstance(result.error, CutOffError):
                again.append(key)
            else:
                outcome.note(key.name, result)
        # Perhaps they are frozen, but the reply was lost or the replicas do not have it.
        self._returned(lost, outcome, is_decided=False)
        return frozen, again, rest

    def _applied(
        self,
        keys: Sequence[_Key],
        deadlines: Mapping[str, int],
        outcome: Outcome,
        trouble: Outcome,
    ) -> tuple[Settled, list[_Key]]:
        """Apply keys, then finish them or give them back. Returns those, and the undecided."""
        items, places = [], []
        for key in keys:
            move = key.transfer
            names = (move.destination, move.mark, move.staged, key.hidden)
            items.append((*names, key.family, key.expires, key.value))
            places.append(key.target)

        def cut(number: int) -> None:
            keys[number].is_sent = True

        found = self._router.carry(self._apply, items, places, deadlines, cut)
        applied, refused, undecided = [], [], []
        unknown: set[str] = set()
        for key, result in zip(keys, found, strict=True):
            decision = decision_of(result)
            if decision is None:
                undecided.append(key)
                if isinstance(result, UncarriedError):
                    # Without a value, it is refused next time, unless it was applied.
                    key.value, key.trouble = b"", str(result)
                key.is_sent |= isinstance(result, Failure) and result.is_unsure
                trouble.note(key.name, result if result != b"late" else PassingError("LATE"))
            elif decision.is_refusal:
                refused.append(key)
                if decision.is_error:
                    outcome.failed[key.name] = key.trouble or decision.reason
                else:
                    outcome.conflicts[key.name] = decision.reason
            else:
                applied.append(key)
                # Another run counts what it decided itself.
                if decision.is_new or (key.is_ours and key.is_sent):
                    outcome.count(key.name, decision.reason)
                elif key.is_sent:
                    unknown.add(key.target)
        self._router.lost_replies += len(unknown)
        settled = self._finished(applied, outcome)
        return settled + self._returned(refused, outcome, is_decided=True), undecided

    def _finished(self, keys: Sequence[_Key], outcome: Outcome) -> Settled:
        """Delete hidden keys that were applied."""
        items = [(key.hidden, key.young) for key in keys]
        places = [key.source for key in keys]
        found = self._router.carry(self._finish, items, places)
        settled = []
        for key, result in zip(keys, found, strict=True):
            if isinstance(result, bytes):
                settled.append((key, result == b"alone" and not key.is_unsure))
            outcome.note(key.name, result)
        return settled

    def _returned(self, keys: Sequence[_Key], outcome: Outcome, *, is_decided: bool) -> Settled:
        """Give keys their names back. `is_decided`: whether marks say that they were refused."""
        sure = [key for key in keys if is_decided or not key.is_unsure]
        decided = b"%d" % is_decided
        items = [(key.hidden, key.name, key.family, key.young, decided) for key in sure]
        found = self._router.carry(self._give_back, items, [key.source for key in sure])
        settled = []
        for key, result in zip(sure, found, strict=True):
            if result == b"hidden" and is_decided:
                outcome.stuck.append(key.hidden)
            elif isinstance(result, bytes) and is_decided:
                settled.append((key, result == b"alone" and not key.is_unsure))
            outcome.note(key.name, result)
        return settled

    def _forget_marks(self, settled: Settled, version: int) -> None:
        # A server that has taken the place of another has another clock.
        is_same, later = version == self._router.version, _REMEMBERING_MILLISECONDS
        self._expire(
            (key.transfer.mark, key.target, 0 if is_alone and is_same else later)
            for key, is_alone in settled
        )

    def _expire(self, marks: Iterable[tuple[bytes, str, int]]) -> None:
        """Delete marks, or let them expire. What fails, the next run makes up for."""
        items: list[Item] = []
        places = []
        for mark, server, milliseconds in marks:
            items.append((mark, b"%d" % milliseconds))
            places.append(server)
        self._router.carry(self._forget, items, places)

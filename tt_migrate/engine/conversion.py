"""Converts records to hashes or back: one call reads records, a later call replaces them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from redis.exceptions import InvalidResponse

from tt_migrate.engine.hash_to_json import json_of
from tt_migrate.engine.hidden import site_of
from tt_migrate.engine.json_to_hash import RecordError, fields_of
from tt_migrate.engine.pacing import Pace
from tt_migrate.engine.passes import MOST_CUTS, Call, Place, Taken
from tt_migrate.engine.record import Record
from tt_migrate.engine.replies import (
    ConvertReply,
    RecordsReply,
    error_of,
    fetched,
    items_at,
    of_families,
    packed,
    pairs,
    read,
    texts,
    weight_of,
)
from tt_migrate.engine.session import Session
from tt_migrate.engine.tallies import ConversionPreviewTally, ConversionTally
from tt_migrate.keyspace import family_and_id, town_bytes, town_key_start
from tt_migrate.plan import Plan

_READ_AHEAD = 256 * 1024
"""The weight that one call reads at most ahead of replies."""
_MOST_READING = 12
"""How many calls that read are in flight at most: what they read waits in memory."""
_TRIES = 100
_CUT = "the connection was lost each time (client-output-buffer-limit, proto-max-bulk-len)"


class RecordReader:
    """A pass that reads the town's records that the plan converts: strings, or hashes.

    `receive`: called with a record's name in the town and its value, a hash's as a flat list.
    `fail`: called with the names of records that cannot be read, and the reasons. `with_old`: also
    include old keys that the migration would rename first. `cuts`: how often the connection was
    lost in calls about one record alone, by its name.
    """

    def __init__(
        self,
        session: Session,
        *,
        receive: Callable[[bytes, Any], None],
        fail: Callable[[dict[bytes, str]], None],
        cuts: Counter[bytes],
        with_old: bool = False,
    ) -> None:
        self._kind = b"hash" if session.plan.convert == "json" else b"string"
        self._find = session.script("records")
        self._fetch = session.script("fetch")
        self._town = town_bytes(session.town)
        self._start = town_key_start(session.town)
        self._session = session
        self._receive = receive
        self._fail = fail
        self._cuts = cuts
        self._with_old = int(with_old)
        self.restart()

    def restart(self) -> None:
        """Start over."""
        self._place = Place()
        self._unread: deque[tuple[bytes, bytes]] = deque()

    @property
    def why_alone(self) -> str:
        """Why the server does not keep the cursor; empty if it may."""
        return self._place.why_alone

    @property
    def over(self) -> bool:
        """Whether all records are found and asked for."""
        return self._place.cursor is None and not self._unread

    def read_again(self, key: bytes) -> None:
        """Read a record of the town again, because it has changed."""
        self._unread.append((key, key))

    def _ask_for(self, unread: Sequence[tuple[bytes, bytes]]) -> bool:
        """Read these keys later. Returns whether one was given up instead."""
        fine = [pair for pair in unread if not _is_given_up(pair[1], self._cuts, self._fail)]
        # Those whose call was lost come first, so that it is known soon whether one is the cause.
        self._unread.extendleft(reversed(fine))
        return len(fine) < len(unread)

    def next_call(self, pace: Pace, *, alone: bool) -> Call | None:
        """Read records that were found but not read, else find more."""
        if self._unread:
            asked = [self._unread.popleft() for _ in range(min(pace.keys, len(self._unread)))]
            keys = (key for key, _ in asked)
            weight = max(1, min(pace.weight, pace.read))
            return Call(self._fetch, (self._session.denied, weight, *keys), tuple(asked))
        word = self._place.word(pace, alone=alone)
        return None if word is None else self._find_call(pace, word)

    def end_call(self, pace: Pace) -> Call | None:
        """The call for a pass that ends before its last batch."""
        return self._find_call(pace, b"end") if self._place.is_left else None

    def _find_call(self, pace: Pace, word: bytes) -> Call:
        flight = pace.flight_args(self._session.kept_in())
        args = (self._town, word, pace.count, pace.budget, self._session.denied, b"", *flight)
        enough = min(pace.read, _READ_AHEAD) if pace.ahead else pace.read
        more = (enough, self._with_old, self._kind)
        return Call(self._find, (*args, *more), keeps=pace.ahead)

    def take(self, call: Call, reply: list[Any]) -> Taken | None:
        """Take the reply to either call."""
        if call.script is self._fetch:
            return self._take_fetched(call, reply)
        return None if self._place.is_early(call, reply) else self._take_found(call, reply)

    def lost(self, calls: Iterable[Call], *, cut: bool) -> bool:
        """Read what these calls were to read again, and find from the cursor of the last reply.

        Returns whether a record was given up instead.
        """
        gave_up = False
        for call in reversed([*calls]):
            if cut and len(call.about) == 1:
                self._cuts[call.about[0][1]] += 1
            gave_up |= self._ask_for(call.about)
        self._place.lost()
        return gave_up

    def _take_found(self, call: Call, reply: list[Any]) -> Taken:
        said = read(RecordsReply, reply)
        for keys in (said.records[::2], said.unread[1::2], said.failed[::2]):
            of_families(keys, self._start)
        weight = 0
        is_hash = self._kind == b"hash"
        for key, value in pairs(said.records):
            if isinstance(value, list) != is_hash:
                raise InvalidResponse("no value of the type that was asked for")
            weight += weight_of(value)
            self._receive(key, value)
        self._ask_for([*pairs(said.unread)])
        self._fail(texts(said.failed))
        self._place.reached(call, said.cursor, said.kept)
        return Taken(said.elapsed, steps=said.steps, weight=weight, dbsize=said.dbsize)

    def _take_fetched(self, call: Call, reply: list[Any]) -> Taken:
        elapsed, found = fetched(reply, len(call.about))
        weight = 0
        asked = deque(call.about)
        for kind, value in found:
            _, name = asked.popleft()
            weight += weight_of(value)
            if kind == self._kind:
                self._receive(name, value)
            elif kind == b"error":
                self._fail(texts([name, value]))
            elif kind not in (b"string", b"hash", b"none"):
                self._fail(texts([name, b"is a %b, neither string nor hash" % kind]))
        self._unread.extendleft(reversed(asked))
        return Taken(elapsed, weight=weight)


class ConversionPreview:
    """A pass that checks which records can be converted. Reads only."""

    is_guarded = keeps_cursor = True
    breadth = 1

    def __init__(self, session: Session, tally: ConversionPreviewTally, *, with_old: bool) -> None:
        self._start = town_key_start(session.town)
        self._tally = tally
        self._turn = _turn_of(session.plan)
        reader = RecordReader(
            session, receive=self._judge, fail=self._fail, cuts=tally.cuts, with_old=with_old
        )
        self._reader = reader
        self.next_call, self.take, self.lost = reader.next_call, reader.take, reader.lost
        self.end_call = reader.end_call

    @property
    def why_alone(self) -> str:
        """As that of the reader."""
        return self._reader.why_alone

    @property
    def over(self) -> bool:
        """Whether all records are checked."""
        return self._reader.over

    def restart(self) -> None:
        """Start over."""
        self._reader.restart()
        self._tally.restart()

    def _judge(self, key: bytes, value: Any) -> None:
        try:
            _, _, changes = _turned(self._turn, *family_and_id(key, self._start), value)
        except RecordError as error:
            self._tally.unconverted[key] = str(error)
        else:
            self._tally.conversions.add(key)
            self._tally.adjusted.update(changes)

    def _fail(self, reasons: dict[bytes, str]) -> None:
        self._tally.unconverted.update(reasons)


@dataclass(frozen=True)
class _Swap:
    """A record to convert.

    `site`: the name under which the new value is built. `expected`, `new`: as the script takes
    them. `weight`: of both values together. `changes`: what a rule has changed.
    """

    key: bytes
    site: bytes
    expected: bytes
    new: bytes
    weight: int
    changes: list[str]


class Conversion:
    """A pass that converts the town's records.

    Records are converted as soon as those that were read fill a call, so the client holds no more
    records than a few calls carry. `record`: told what became of each record.
    """

    is_guarded = False
    keeps_cursor = True
    breadth = 1

    def __init__(self, session: Session, tally: ConversionTally, record: Record) -> None:
        self._record = record
        self._script = session.script(session.plan.conversion)
        self._turn = _turn_of(session.plan)
        self._session = session
        self._start = town_key_start(session.town)
        self._tally = tally
        self._ready: deque[_Swap] = deque()
        self._weight = 0  # of the records in _ready
        self._reading = 0  # calls in flight that read
        self._tries: Counter[bytes] = Counter()
        self._reader = RecordReader(
            session, receive=self._prepare, fail=self._fail, cuts=tally.cuts
        )

    @property
    def why_alone(self) -> str:
        """As that of the reader."""
        return self._reader.why_alone

    @property
    def over(self) -> bool:
        """Whether all records that can be converted are converted or sent."""
        return self._reader.over and not self._ready

    def restart(self) -> None:
        """Start over."""
        self._ready.clear()
        self._weight = 0
        self._reader.restart()
        self._tally.restart()

    def next_call(self, pace: Pace, *, alone: bool) -> Call | None:
        """Convert the records read so far if they fill a call or are the last, else read more."""
        most = pace.weight // 2 if pace.ahead else pace.weight
        is_full = self._weight >= most
        if not is_full and not self._reader.over and self._reading < _MOST_READING:
            call = self._reader.next_call(pace, alone=alone)
            if call:
                self._reading += 1
                return call
        if not self._ready or not (is_full or self._reader.over or alone):
            return None
        swaps = self._first_swaps(most, pace.keys)
        records = ((swap.key, swap.site, swap.expected, swap.new) for swap in swaps)
        args = (self._session.denied, *chain.from_iterable(records))
        return Call(self._script, args, tuple(swaps))

    def end_call(self, pace: Pace) -> Call | None:
        """The call for a pass that ends before its last batch."""
        return self._reader.end_call(pace)

    def lost(self, calls: Iterable[Call], *, cut: bool) -> bool:
        """Read or convert again what these calls were for. Returns whether one was given up."""
        gave_up = False
        for call in calls:
            if call.script is not self._script:
                self._reading -= 1
                gave_up |= self._reader.lost([call], cut=cut)
            elif cut and len(call.about) == 1:
                self._tally.cuts[call.about[0].key] += 1
                gave_up |= self._get_ready(call.about)
            else:
                self._get_ready(call.about)
        return gave_up

    def take(self, call: Call, reply: list[Any]) -> Taken | None:
        """Take the reply to either call."""
        if call.script is not self._script:
            self._reading -= 1
            taken = self._reader.take(call, reply)
            # The time to read records says nothing about the time to convert them.
            return replace(taken, weight=0) if taken else None
        said = read(ConvertReply, reply)
        swaps: Sequence[_Swap] = call.about
        for swap in items_at(swaps, said.converted):
            family, _ = family_and_id(swap.key, self._start)
            self._tally.converted[family] += 1
            self._tally.adjusted.update(swap.changes)
            self._record.converted(swap.key)
        for swap in items_at(swaps, said.changed):
            self._changed(swap.key)
        self._fail(texts(said.failed))
        if said.error:
            raise error_of(said.error)
        return Taken(said.elapsed, weight=sum(swap.weight for swap in swaps))

    def _first_swaps(self, most: int, number: int) -> list[_Swap]:
        """Take at most a number of records for a call: one, or as many as weigh at most `most`."""
        swaps: list[_Swap] = []
        weight = 0
        while self._ready and (not swaps or weight + self._ready[0].weight <= most):
            if len(swaps) == number:
                break
            swaps.append(self._ready.popleft())
            weight += swaps[-1].weight
        self._weight -= weight
        return swaps

    def _prepare(self, key: bytes, value: Any) -> None:
        try:
            record = family_and_id(key, self._start)
            expected, new, changes = _turned(self._turn, *record, value)
        except RecordError as error:
            self._fail({key: str(error)})
        else:
            is_sharded = self._session.layout == "shards"
            site = site_of(key) if is_sharded else key + b":tt-migrate"
            weight = weight_of(expected) + len(new)
            self._get_ready([_Swap(key, site, expected, new, weight, changes)])

    def _get_ready(self, swaps: Sequence[_Swap]) -> bool:
        """Convert these records later. Returns whether one was given up instead."""
        fine = [swap for swap in swaps if not _is_given_up(swap.key, self._tally.cuts, self._fail)]
        # Those whose call was lost come first, so that it is known soon whether one is the cause.
        self._ready.extendleft(reversed(fine))
        self._weight += sum(swap.weight for swap in fine)
        return len(fine) < len(swaps)

    def _changed(self, key: bytes) -> None:
        self._tries[key] += 1
        if self._tries[key] < _TRIES:
            self._reader.read_again(key)
        else:
            self._fail({key: "changes all the time"})

    def _fail(self, reasons: dict[bytes, str]) -> None:
        self._tally.unconverted.update(reasons)
        self._record.left_record(reasons)


def _is_given_up(
    name: bytes, cuts: Mapping[bytes, int], fail: Callable[[dict[bytes, str]], None]
) -> bool:
    """Fail a record whose calls were lost too often. Returns whether it was."""
    if cuts.get(name, 0) < MOST_CUTS:
        return False
    fail({name: _CUT})
    return True


_Turned = tuple[bytes, bytes, list[str]]
_Turn = Callable[[str, bytes, Any], _Turned]


def _turned(turn: _Turn, family: str, record_id: bytes, value: Any) -> _Turned:
    """Convert a record. Raises RecordError for whatever goes wrong: the other records go on."""
    try:
        return turn(family, record_id, value)
    except RecordError:
        raise
    except Exception as error:
        # Its text could hold anything.
        raise RecordError(f"internal error: {type(error).__name__}") from error


def _turn_of(plan: Plan) -> _Turn:
    """The function that converts a record for a plan.

    It takes the family, the id and the value, and returns the expected and the new value as the
    script takes them, and what a rule has changed. It raises RecordError.
    """
    return _to_json if plan.convert == "json" else _to_hash


def _to_hash(family: str, record_id: bytes, value: bytes) -> _Turned:
    fields = fields_of(family, record_id, value)
    return value, packed([*chain.from_iterable(fields.items())]), []


def _to_json(family: str, record_id: bytes, value: list[bytes]) -> _Turned:
    text, changes = json_of(family, record_id, dict(pairs(value)))
    return packed(value), text, changes

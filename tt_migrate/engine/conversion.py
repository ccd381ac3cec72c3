"""Converts JSON strings to hashes: one call reads records, a later call replaces them."""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tt_migrate.engine.json_to_hash import RecordError, fields_of
from tt_migrate.engine.pacing import Pace
from tt_migrate.engine.passes import Call, Taken
from tt_migrate.engine.record import Record
from tt_migrate.engine.replies import (
    ConvertReply,
    RecordsReply,
    error_of,
    names,
    pairs,
    texts,
    weight_of,
    whole,
)
from tt_migrate.engine.session import Session
from tt_migrate.engine.tallies import ConversionPreviewTally, ConversionTally
from tt_migrate.keyspace import check_families, family_and_id, town_bytes, town_key_start

_TEXT_WEIGHT = 16
_KEYS_A_CALL = 1000
_TRIES = 100


class RecordReader:
    """A pass that reads the town's records that are strings.

    `receive`: called with a record's name in the town and its value. `fail`: called with the names
    of records that cannot be read, and the reasons. `with_old`: also include old keys that the
    migration would rename first.
    """

    def __init__(
        self,
        session: Session,
        *,
        receive: Callable[[bytes, bytes], None],
        fail: Callable[[dict[bytes, str]], None],
        with_old: bool = False,
    ) -> None:
        self._find = session.script("records")
        self._fetch = session.script("fetch")
        self._town = town_bytes(session.town)
        self._start = town_key_start(session.town)
        self._session = session
        self._receive = receive
        self._fail = fail
        self._with_old = int(with_old)
        self.restart()

    def restart(self) -> None:
        """Start over."""
        self._cursor: bytes | None = b"0"
        self._unread: deque[tuple[bytes, bytes]] = deque()

    @property
    def over(self) -> bool:
        """Whether all records are read."""
        return self._cursor is None and not self._unread

    def read_again(self, key: bytes) -> None:
        """Read a record of the town again, because it has changed."""
        self._unread.append((key, key))

    def next_call(self, pace: Pace) -> Call:
        """Read records that were found but not read, else find more."""
        if self._unread:
            keys = (key for key, _ in islice(self._unread, _KEYS_A_CALL))
            return Call(self._fetch, (self._session.denied, pace.weight, *keys))
        cursor = self._cursor or b"0"
        args = (self._town, cursor, pace.count, pace.budget, self._session.denied)
        return Call(self._find, (*args, pace.weight, self._with_old))

    def take(self, reply: list[Any]) -> Taken:
        """Take the reply to either call."""
        return self._take_fetched(reply) if self._unread else self._take_found(reply)

    def _take_found(self, reply: list[Any]) -> Taken:
        said = RecordsReply(*reply)
        for keys in (names(said.records)[::2], names(said.unread)[1::2], texts(said.failed)):
            check_families(keys, self._start)
        weight = 0
        for key, value in pairs(said.records):
            weight += weight_of(value)
            self._receive(key, value)
        self._unread.extend(pairs(said.unread))
        self._fail(texts(said.failed))
        self._cursor = None if said.cursor == b"0" else names([said.cursor])[0]
        return Taken(said.elapsed, steps=said.steps, weight=weight, dbsize=said.dbsize)

    def _take_fetched(self, reply: list[Any]) -> Taken:
        elapsed, *found = reply
        weight = 0
        for kind, value in pairs(found):
            _, name = self._unread.popleft()
            weight += weight_of(value)
            if kind == b"string":
                self._receive(name, value)
            elif kind == b"error":
                self._fail(texts([name, value]))
            elif kind not in (b"hash", b"none"):
                self._fail(texts([name, b"is a %b, neither string nor hash" % kind]))
        return Taken(elapsed, weight=weight)


class ConversionPreview:
    """A pass that checks which records can be converted. Reads only."""

    def __init__(self, session: Session, tally: ConversionPreviewTally, *, with_old: bool) -> None:
        self._start = town_key_start(session.town)
        self._tally = tally
        reader = RecordReader(session, receive=self._judge, fail=self._fail, with_old=with_old)
        self._reader = reader
        self.next_call, self.take = reader.next_call, reader.take

    @property
    def over(self) -> bool:
        """Whether all records are checked."""
        return self._reader.over

    def restart(self) -> None:
        """Start over."""
        self._reader.restart()
        self._tally.restart()

    def _judge(self, key: bytes, value: bytes) -> None:
        try:
            fields_of(*family_and_id(key, self._start), value)
        except RecordError as error:
            self._tally.unconverted[key] = str(error)
        else:
            self._tally.conversions.add(key)

    def _fail(self, reasons: dict[bytes, str]) -> None:
        self._tally.unconverted.update(reasons)


@dataclass(frozen=True)
class _Swap:
    """A record to convert.

    `texts`: the hash's fields and values in turn. `weight`: of the value and the hash together.
    """

    key: bytes
    value: bytes
    texts: list[bytes]
    weight: int


class Conversion:
    """A pass that converts the town's records.

    Records are converted as soon as those that were read fill a call, so the client holds no more
    records than a few calls carry. `record`: told what became of each record.
    """

    def __init__(self, session: Session, tally: ConversionTally, record: Record) -> None:
        self._record = record
        self._script = session.script("convert")
        self._session = session
        self._start = town_key_start(session.town)
        self._tally = tally
        self._ready: deque[_Swap] = deque()
        self._weight = 0  # of the records in _ready
        self._sent: list[_Swap] = []
        self._tries: Counter[bytes] = Counter()
        self._reader = RecordReader(session, receive=self._prepare, fail=self._fail)

    @property
    def over(self) -> bool:
        """Whether all records that can be converted are converted."""
        return self._reader.over and not self._ready

    def restart(self) -> None:
        """Start over."""
        self._ready.clear()
        self._weight = 0
        self._reader.restart()
        self._tally.restart()

    def next_call(self, pace: Pace) -> Call:
        """Convert the records read so far if they fill a call or are the last, else read more."""
        self._sent = []
        if self._weight < pace.weight and not self._reader.over:
            return self._reader.next_call(pace)
        self._sent = self._first_swaps(pace)
        records = (
            text for swap in self._sent for text in (swap.key, swap.value, _packed(swap.texts))
        )
        return Call(self._script, (self._session.denied, *records))

    def take(self, reply: list[Any]) -> Taken:
        """Take the reply to either call."""
        if not self._sent:
            # The time to read records says nothing about the time to convert them.
            return replace(self._reader.take(reply), weight=0)
        said = ConvertReply(*reply)
        for position in map(whole, said.converted):
            key = self._sent[position - 1].key
            family, _ = family_and_id(key, self._start)
            self._tally.converted[family] += 1
            self._record.converted(key)
        for position in map(whole, said.changed):
            self._changed(self._sent[position - 1].key)
        self._fail(texts(said.failed))
        if said.error:
            raise error_of(said.error)
        weight = sum(swap.weight for swap in self._sent)
        self._weight -= weight
        for _ in self._sent:
            self._ready.popleft()
        return Taken(said.elapsed, weight=weight)

    def _first_swaps(self, pace: Pace) -> list[_Swap]:
        swaps: list[_Swap] = []
        weight = 0
        for swap in self._ready:
            weight += swap.weight
            if swaps and weight > pace.weight:
                break
            swaps.append(swap)
        return swaps

    def _prepare(self, key: bytes, value: bytes) -> None:
        try:
            fields = fields_of(*family_and_id(key, self._start), value)
        except RecordError as error:
            self._fail({key: str(error)})
        else:
            texts = [text for field in fields.items() for text in field]
            weight = weight_of(value) + _TEXT_WEIGHT * len(texts) + sum(map(len, texts))
            self._ready.append(_Swap(key, value, texts, weight))
            self._weight += weight

    def _changed(self, key: bytes) -> None:
        self._tries[key] += 1
        if self._tries[key] < _TRIES:
            self._reader.read_again(key)
        else:
            self._fail({key: "changes all the time"})

    def _fail(self, reasons: dict[bytes, str]) -> None:
        self._tally.unconverted.update(reasons)
        self._record.left_record(reasons)


def _packed(texts: list[bytes]) -> bytes:
    """Encode texts in MessagePack, as `array 32` of `str 32` (MessagePack specification)."""
    packed = [b"\xdd" + struct.pack(">I", len(texts))]
    packed += (b"\xdb" + struct.pack(">I", len(text)) + text for text in texts)
    return b"".join(packed)

"""For services that want keys in KEYS: the client finds them, and makes a call for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from redis.exceptions import ResponseError

from tt_migrate.engine.passes import Call
from tt_migrate.engine.pipeline import Failure, Pipeline
from tt_migrate.engine.replies import (
    AgentsReply,
    ConvertReply,
    CountReply,
    LeftReply,
    PreviewReply,
    RecordsReply,
    Word,
    ask,
    malformed_as_invalid,
    names,
    whole,
)
from tt_migrate.engine.session import Session
from tt_migrate.keyspace import RECORDS

_CALLS_AHEAD = _RECORDS_A_STEP = 100


@dataclass(frozen=True)
class _Shape:
    """The arguments and the reply of a script.

    `start`: how many arguments come before the keys. `width`: how many words there are for each
    key. `keys`: how many of them are keys. `reply`: its class; None if the reply is a flat list.
    """

    start: int
    width: int
    keys: int
    reply: Any


_SCANS = {
    "count": _Shape(8, 1, 1, CountReply),
    "left": _Shape(8, 1, 1, LeftReply),
    "preview": _Shape(6, 1, 1, PreviewReply),
    "records": _Shape(11, 1, 1, RecordsReply),
    "find": _Shape(6, 1, 1, PreviewReply),
    "agents": _Shape(6, 1, 1, AgentsReply),
}
_OTHERS = {"fetch": _Shape(2, 1, 1, None), "convert": _Shape(1, 4, 2, ConvertReply)}
_OTHERS["revert"] = _OTHERS["convert"]
_ZEROS = {
    "strings": len(RECORDS),
    "old_strings": len(RECORDS),
    "hashes": len(RECORDS),
}
_POSITIONS = ("converted", "changed")


class DeclaringSession(Session):
    """A session with a service that takes scripts with declared keys of one slot only."""

    declares = True
    _dbsize = 0

    def why_alone(self, *, keeps_cursor: bool) -> str:
        """Why calls must be sent one at a time: each is many calls."""
        return "the service wants the keys of each call"

    def call(self, call: Call) -> Any:
        """Make a call of its own for each key, and put their replies together."""
        operation = call.script.operation
        if operation in _SCANS:
            return self._scan(call, operation)
        shape = _OTHERS[operation]
        words = call.args[shape.start :]
        items = [words[n : n + shape.width] for n in range(0, len(words), shape.width)]
        replies = [*self._replies(call, shape, items)]
        with malformed_as_invalid():
            if shape.reply is None:
                elapsed = max(whole(reply[0]) for reply in replies)
                return [elapsed, *(part for reply in replies for part in reply[1:])]
            return _together(shape.reply, replies)

    def _scan(self, call: Call, operation: str) -> Any:
        """Make one SCAN step, and calls for the keys that it found."""
        shape = _SCANS[operation]
        _, cursor, number, *_ = call.args
        pattern = b"[mt]t:*" if self.plan.oldest else b"tt:*"
        if operation == "records":
            number = min(number, _RECORDS_A_STEP)
        if cursor == b"0":
            self._dbsize = self._size()
        found = ask(self.client, "SCAN", cursor, "MATCH", pattern, "COUNT", number)
        with malformed_as_invalid():
            following, keys = whole(found[0]), names(found[1])
        replies = [*self._replies(call, shape, [(key,) for key in keys])]
        with malformed_as_invalid():
            zeros = {**_ZEROS, "families": len(self.plan.families)}
            said = _together(shape.reply, replies, zeros, steps=1, dbsize=self._dbsize)
        said[0] = b"%d" % following
        return said

    def _size(self) -> int:
        """The keys in the database, 0 if unknown."""
        try:
            with malformed_as_invalid():
                return whole(ask(self.client, "DBSIZE"))
        except ResponseError:
            return 0

    def _replies(
        self, call: Call, shape: _Shape, items: Sequence[tuple[Word, ...]]
    ) -> Iterator[Any]:
        pipeline, start = Pipeline(self.client), call.args[: shape.start]
        for first in range(0, len(items), _CALLS_AHEAD):
            pipeline.send(
                [
                    ("EVALSHA", call.script.sha, shape.keys, *item[: shape.keys], *start, *item)
                    for item in items[first : first + _CALLS_AHEAD]
                ]
            )
            for reply in pipeline.receive(call.script):
                if isinstance(reply, Failure):
                    raise reply.error
                yield reply


def _together(
    kind: Any, replies: Sequence[list[Any]], zeros: Mapping[str, int] = _ZEROS, **numbers: int
) -> list[Any]:
    """Put replies of one kind together.

    `zeros`: the fields that are lists of counts, and their lengths. `numbers`: values of fields.
    """
    parts = [kind(*reply)._asdict() for reply in replies]
    for n, part in enumerate(parts, start=1):
        for name in part.keys() & _POSITIONS:
            part[name] = [n for _ in part[name]]
    said: list[Any] = []
    for name, hint in get_type_hints(kind).items():
        values = [part[name] for part in parts]
        if name in numbers:
            said.append(numbers[name])
        elif name == "elapsed":
            said.append(max(values, default=0))
        elif name in zeros:
            said.append([sum(column) for column in zip([0] * zeros[name], *values, strict=True)])
        elif hint is int:
            said.append(sum(values))
        elif hint is bytes:
            said.append(b"\n".join(filter(None, values)))
        else:
            said.append([item for value in values for item in value])
    return said

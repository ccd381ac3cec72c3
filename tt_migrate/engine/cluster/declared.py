"""For services that want keys in KEYS: the client finds them, and makes a call for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_type_hints

from redis.exceptions import ResponseError

from tt_migrate.engine.calls.replies import (
    COUNTED,
    AgentsReply,
    CountReply,
    LeftReply,
    MigrateReply,
    PreviewReply,
    Word,
    ask,
    malformed_as_invalid,
    names,
    whole,
)
from tt_migrate.engine.calls.scripts import Call, Script
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.cluster.pipeline import Failure, Pipeline
from tt_migrate.keyspace import RECORDS

_CALLS_AHEAD = 100


_SCRIPTS: dict[str, tuple[Any, int]] = {
    "count": (CountReply, 8),
    "hashes": (CountReply, 8),
    "verify": (CountReply, 8),
    "check": (CountReply, 8),
    "left": (LeftReply, 8),
    "preview": (PreviewReply, 8),
    "migrate": (MigrateReply, 10),
    "find": (PreviewReply, 8),
    "agents": (AgentsReply, 8),
}
"""The operations' replies, and how many arguments come before the key."""


class DeclaringSession(Session):
    """A session with a service that takes scripts with declared keys of one slot only."""

    declares = True
    _dbsize = 0

    def why_alone(self, *, keeps_cursor: bool) -> str:
        """Why calls must be sent one at a time: each is many calls."""
        return "the service wants the keys of each call"

    def call(self, call: Call) -> Any:
        """Make one SCAN step, and a call for each key that it found. Put their replies together."""
        kind, start = _SCRIPTS[call.script.operation]
        _, cursor, number, *_ = call.args
        pattern = b"[mt]t:*" if self.plan.oldest else b"tt:*"
        if cursor == b"0":
            self._dbsize = self._size()
        found = ask(self.client, "SCAN", cursor, "MATCH", pattern, "COUNT", number)
        with malformed_as_invalid():
            following, keys = whole(found[0]), names(found[1])
        replies = [*self._replies(call.script, call.args[:start], keys)]
        with malformed_as_invalid():
            families = len(self.plan.families)
            zeros = {"families": families, "merged": families}
            zeros |= {"strings": len(RECORDS), "converted": len(RECORDS), "counted": COUNTED}
            said = _together(kind, replies, zeros, steps=1, dbsize=self._dbsize, begin=cursor)
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
        self, script: Script, args: Sequence[Word], keys: Sequence[bytes]
    ) -> Iterator[Any]:
        pipeline = Pipeline(self.client)
        for first in range(0, len(keys), _CALLS_AHEAD):
            some = keys[first : first + _CALLS_AHEAD]
            pipeline.send([("EVALSHA", script.sha, 1, key, *args, key) for key in some])
            for reply in pipeline.receive(script):
                if isinstance(reply, Failure):
                    raise reply.error
                yield reply


def _together(
    kind: Any, replies: Sequence[list[Any]], zeros: Mapping[str, int], **known: Word
) -> list[Any]:
    """Put replies of one kind together.

    `zeros`: the fields that are lists of counts, and their lengths. `known`: values of fields.
    """
    parts = [kind(*reply)._asdict() for reply in replies]
    said: list[Any] = []
    for name, hint in get_type_hints(kind).items():
        values = [part[name] for part in parts]
        if name in known:
            said.append(known[name])
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

"""Finds every key in transit between shards, by hidden names and marks."""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from threading import Lock

from tt_migrate.engine.calls.replies import ask, malformed_as_invalid, names, whole
from tt_migrate.engine.cluster.hidden import (
    TRANSIT_GLOB,
    Mark,
    Transfer,
    mark_of,
    run_of,
    time_of,
    transfer_of,
)
from tt_migrate.engine.cluster.side_by_side import Worker

_SCAN_COUNT = 1000


class InTransit:
    """Every key in transit that belongs to these towns.

    `transfers`: those of the hidden keys.
    """

    def __init__(self, towns: Sequence[str]) -> None:
        self._towns = towns
        self.transfers: list[Transfer] = []
        self._nonces: set[bytes] = set()
        self._marks: list[Mark] = []

    def clear(self) -> None:
        """Forget everything."""
        self.transfers.clear()
        self._nonces.clear()
        self._marks.clear()

    def look(self, worker: Worker, lock: Lock) -> None:
        """Find what one server has."""
        worker.session.wake()
        cursor = 0
        while True:
            began = time.monotonic()
            reply = ask(worker.client, "SCAN", cursor, "MATCH", TRANSIT_GLOB, "COUNT", _SCAN_COUNT)
            worker.check()
            with malformed_as_invalid():
                cursor, found = whole(reply[0]), names(reply[1])
            transfers = [*filter(None, map(transfer_of, found))]
            with lock:
                self.transfers += (one for one in transfers if any(map(one.family, self._towns)))
                self._nonces.update(one.nonce for one in transfers)
                marks = filter(None, map(mark_of, found))
                self._marks += (mark for mark in marks if any(map(mark.is_of, self._towns)))
            if not cursor:
                return
            time.sleep(worker.pace.rest(time.monotonic() - began))

    def orphans(self, before: int, own: Container[bytes]) -> tuple[list[bytes], bool]:
        """Old marks whose keys are not hidden, and whether other runs have newer ones.

        `before`: marks of that time, in milliseconds since 1970, are not old. `own`: the names of
        this run.
        """
        orphans = [mark for mark in self._marks if mark.nonce not in self._nonces]
        young = [mark for mark in orphans if time_of(mark.nonce) >= before]
        old = [mark.name for mark in orphans if mark not in young]
        return old, any(run_of(mark.nonce) not in own for mark in young)

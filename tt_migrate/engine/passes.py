"""A pass over the keyspace or over a list of keys: one script call after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tt_migrate.engine.pacing import Pace
from tt_migrate.engine.replies import Word, names, whole
from tt_migrate.engine.scripts import Script
from tt_migrate.engine.tallies import Tally

_KEYS_A_CALL = 1000


@dataclass(frozen=True)
class Call:
    """A script with its ARGV. None takes KEYS: what is to be looked at, it mostly finds itself."""

    script: Script
    args: tuple[Word, ...]


@dataclass(frozen=True)
class Taken:
    """What a call's reply says of the call itself.

    `elapsed`: microseconds by the server's clock, 0 where none runs. `steps`: SCAN steps. `weight`:
    bytes of values that it carried, and some for each record. `dbsize`: keys in the database, 0
    when unknown; None when it was not asked. Raises TypeError for what is no whole number.
    """

    elapsed: int
    steps: int = 0
    weight: int = 0
    dbsize: int | None = None

    def __post_init__(self) -> None:
        for number in (self.elapsed, self.steps, 0 if self.dbsize is None else self.dbsize):
            whole(number)


class Pass(Protocol):
    """What Session.run drives until it is over."""

    @property
    def over(self) -> bool:
        """Whether everything is done."""

    def next_call(self, pace: Pace) -> Call:
        """The next call. Changes nothing: a call whose reply was lost is asked for again."""

    def take(self, reply: list[Any]) -> Taken:
        """Add up the reply to the last call that next_call gave.

        What it raises of TypeError, ValueError and LookupError means that the reply is malformed.
        """

    def restart(self) -> None:
        """Begin anew: another server process answers, where the cursor means nothing."""


class ScanPass:
    """Calls one script from cursor 0 until the cursor is 0 again, and with the keys it postponed.

    `denied`: names of commands that the user may not run, separated by spaces.
    """

    def __init__(self, script: Script, town: bytes, denied: bytes, tally: Tally) -> None:
        self._script = script
        self._town = town
        self._denied = denied
        self._tally = tally
        self._cursor: bytes | None = b"0"
        self._postponed: list[bytes] = []

    @property
    def over(self) -> bool:
        """Whether the scan has come round, and nothing is postponed."""
        return self._cursor is None and not self._postponed

    def next_call(self, pace: Pace) -> Call:
        """The keys that were postponed, else a batch from where the last one ended."""
        cursor = self._cursor or b"0"
        args = (self._town, cursor, pace.count, pace.budget, self._denied)
        return Call(self._script, (*args, *self._postponed[:_KEYS_A_CALL]))

    def take(self, reply: list[Any]) -> Taken:
        """Take cursor, steps, elapsed and dbsize; the tally adds up the rest."""
        said = self._tally.Reply(*reply)
        taken = Taken(said.elapsed, steps=said.steps, dbsize=said.dbsize)
        self._tally.add(said)
        if not self._postponed:
            self._cursor = None if said.cursor == b"0" else names([said.cursor])[0]
        postponed = names(getattr(said, "postponed", []))
        self._postponed = postponed + self._postponed[_KEYS_A_CALL:]
        return taken

    def restart(self) -> None:
        """Begin anew, with a tally that knows what it may keep."""
        self._cursor, self._postponed = b"0", []
        self._tally.restart()

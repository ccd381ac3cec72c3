"""A pass over the keyspace or over a list of keys: one script call after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tt_migrate.pacing import Pace
from tt_migrate.replies import Word
from tt_migrate.scripts import Script
from tt_migrate.tally import Tally


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
    when unknown; None when it was not asked.
    """

    elapsed: int
    steps: int = 0
    weight: int = 0
    dbsize: int | None = None


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
    """Calls one script from cursor 0 until the cursor is 0 again.

    `denied`: names of commands that the user may not run, separated by spaces.
    """

    def __init__(self, script: Script, town: bytes, denied: bytes, tally: Tally) -> None:
        self._script = script
        self._town = town
        self._denied = denied
        self._tally = tally
        self._cursor = b"0"
        self.over = False

    def next_call(self, pace: Pace) -> Call:
        """A batch from where the last one ended."""
        return Call(self._script, (self._town, self._cursor, pace.count, pace.budget, self._denied))

    def take(self, reply: list[Any]) -> Taken:
        """Take cursor, steps, elapsed and dbsize; the tally adds up the rest."""
        cursor, steps, elapsed, dbsize, *fields = reply
        self._tally.add(fields)
        self._cursor = cursor
        self.over = cursor == b"0"
        return Taken(elapsed, steps=steps, dbsize=dbsize)

    def restart(self) -> None:
        """Begin anew, with a tally that knows what it may keep."""
        self._cursor = b"0"
        self._tally.restart()

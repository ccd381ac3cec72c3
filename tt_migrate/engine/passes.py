"""A pass over the keyspace or over a list of keys: a series of script calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tt_migrate.engine.pacing import Pace
from tt_migrate.engine.replies import Word, names, whole
from tt_migrate.engine.scripts import Script
from tt_migrate.engine.tallies import Tally

_KEYS_A_CALL = 1000


@dataclass(frozen=True)
class Call:
    """A script and its ARGV. No script takes KEYS."""

    script: Script
    args: tuple[Word, ...]


@dataclass(frozen=True)
class Taken:
    """What a call's reply says about the call itself.

    `elapsed`: microseconds by the server's clock, 0 if there is no clock. `steps`: SCAN steps.
    `weight`: bytes of values that the call carried, and a fixed number of bytes for each record.
    `dbsize`: keys in the database, 0 if unknown, None if not asked. Raises TypeError if a number in
    the reply is not a whole number from 0.
    """

    elapsed: int
    steps: int = 0
    weight: int = 0
    dbsize: int | None = None

    def __post_init__(self) -> None:
        for number in (self.elapsed, self.steps, 0 if self.dbsize is None else self.dbsize):
            whole(number)


class Pass(Protocol):
    """What Driver.drive() drives until it is over."""

    @property
    def over(self) -> bool:
        """Whether the pass is complete."""

    def next_call(self, pace: Pace) -> Call:
        """The next call. Does not advance the pass: it is asked for again if the reply is lost."""

    def take(self, reply: list[Any]) -> Taken:
        """Take the reply to the last call that next_call() returned.

        A TypeError, ValueError or LookupError means that the reply is malformed.
        """

    def restart(self) -> None:
        """Start over: another server process answers, and the cursor is not valid there."""


class ScanPass:
    """Calls one script from cursor 0 until the cursor is 0 again. Sends postponed keys back to it.

    `denied`: returns the commands that the user may not run, separated by spaces.
    """

    def __init__(
        self, script: Script, town: bytes, denied: Callable[[], bytes], tally: Tally
    ) -> None:
        self._script = script
        self._town = town
        self._denied = denied
        self._tally = tally
        self._cursor: bytes | None = b"0"
        self._postponed: list[bytes] = []

    @property
    def over(self) -> bool:
        """Whether the scan is complete and no key is postponed."""
        return self._cursor is None and not self._postponed

    def next_call(self, pace: Pace) -> Call:
        """A batch over the postponed keys, else a batch from where the last one ended."""
        cursor = self._cursor or b"0"
        args = (self._town, cursor, pace.count, pace.budget, self._denied())
        return Call(self._script, (*args, *self._tally.args, *self._postponed[:_KEYS_A_CALL]))

    def take(self, reply: list[Any]) -> Taken:
        """Read cursor, steps, elapsed and dbsize. The tally adds up the rest."""
        said = self._tally.Reply(*reply)
        taken = Taken(said.elapsed, steps=said.steps, dbsize=said.dbsize)
        self._tally.add(said)
        if not self._postponed:
            self._cursor = None if said.cursor == b"0" else names([said.cursor])[0]
        postponed = names(getattr(said, "postponed", []))
        self._postponed = postponed + self._postponed[_KEYS_A_CALL:]
        return taken

    def restart(self) -> None:
        """Start over. The tally keeps what was done."""
        self._cursor, self._postponed = b"0", []
        self._tally.restart()

"""Remembers what a server refused: each further refusal would add an entry to ACL LOG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from tt_migrate.engine.calls.replies import Word, ask

_NODES = "CLUSTER NODES"


class Refusals:
    """The commands that the user may not run, or that the server does not know or has renamed.

    A Migrator keeps one for all its operations. `denied`: commands that the user may not run in a
    script. `missing`: commands that the server does not know. `asked`: whether inspect.lua has
    replied. `tried`: whether inspect.lua was told to try write commands too, on a server that
    cannot be asked. `run_id`: of the server process that replied. `probe`: in a cluster of several
    shards, a key of the town that Tinytown does not use and that this server would have.
    """

    def __init__(self, probe: bytes = b"") -> None:
        self.probe = probe
        self.run_id = b""
        self.denied: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.asked = self.tried = self.located = False
        self._errors: dict[str, ResponseError] = {}

    @property
    def refused(self) -> tuple[str, ...]:
        """The commands that a script cannot call."""
        return (*self.denied, *self.missing)

    def __contains__(self, command: str) -> bool:
        """Whether a command that the client itself sends was refused: EVAL, SCRIPT, ACL, ..."""
        return command in self._errors

    def ask(self, client: Redis, command: str, *args: Word) -> Any:
        """Send a command like replies.ask(), but not again after it was refused."""
        self.check(command)
        try:
            return ask(client, command, *args)
        except ResponseError as error:
            self.note(command, error)
            raise

    def ask_nodes(self, client: Redis) -> bytes | None:
        """What CLUSTER NODES says, None for a user who has CLUSTER INFO but lacks that."""
        if _NODES in self:
            return None
        try:
            nodes: bytes = ask(client, "CLUSTER", "NODES")
        except ResponseError as error:
            if not isinstance(error, NoPermissionError) and "nknown" not in str(error):
                raise
            self._errors[_NODES] = error
            return None
        return nodes

    def check(self, command: str) -> None:
        """Raise the error of a command if it was refused."""
        if command in self._errors:
            raise self._errors[command]

    def note(self, command: str, error: ResponseError) -> None:
        """Remember an error if it refuses this command."""
        # A command that a script calls can be refused in the same words.
        refused = rf"(permissions to run the|nknown command),? ['`]{command}\b"
        if re.search(refused, str(error), re.IGNORECASE):
            self._errors[command] = error

    def forget_commands(self, commands: Sequence[str]) -> None:
        """Forget that scripts may not call some commands, so that they are tested again."""
        self.denied = tuple(name for name in self.denied if name not in commands)
        self.missing = tuple(name for name in self.missing if name not in commands)

    def forget(self) -> None:
        """Forget everything: another server process answers."""
        self.denied = self.missing = ()
        self.asked = self.tried = self.located = False
        self._errors.clear()

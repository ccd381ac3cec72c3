"""What a server has refused once is not asked again: each refusal is an entry in ACL LOG."""

from __future__ import annotations

import re
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from tt_migrate.engine.replies import Word, ask


class Refusals:
    """The commands that a server's user may not run, or that the server has renamed.

    A Migrator keeps one for all its operations. `denied` and `missing`: commands that a script may
    not call, and that it cannot. `asked`: whether inspect.lua has told. `tried`: whether commands
    that write were tried, too, where a server does not tell. `run_id`: of the process that told.
    """

    def __init__(self) -> None:
        self.run_id = b""
        self.denied: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.asked = self.tried = False
        self._errors: dict[str, ResponseError] = {}

    def __contains__(self, command: str) -> bool:
        """Whether a command was refused that the client itself sends: EVAL, SCRIPT, ACL, ..."""
        return command in self._errors

    def ask(self, client: Redis, command: str, *args: Word) -> Any:
        """Send a command as replies.ask() does, but never again once it was refused."""
        self.check(command)
        try:
            return ask(client, command, *args)
        except ResponseError as error:
            self.note(command, error)
            raise

    def check(self, command: str) -> None:
        """Raise the error of a command that was refused."""
        if command in self._errors:
            raise self._errors[command]

    def note(self, command: str, error: ResponseError) -> None:
        """Remember an error that refuses a command as such."""
        # A script's own command can be refused, too, in the same words.
        refused = rf"(permissions to run the|nknown command),? ['`]{command}\b"
        if re.search(refused, str(error), re.IGNORECASE):
            self._errors[command] = error

    def forget(self) -> None:
        """Forget what scripts may call: another server process answers."""
        self.denied = self.missing = ()
        self.asked = self.tried = False

"""Sends calls of scripts to the server, and reads the replies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.replies import Word, malformed_as_invalid
from tt_migrate.engine.calls.scripts import NO_HEADS, UNDECLARED, Heads, Script, headed

_FLUSHES = 20
"""How often SCRIPT FLUSH may come between loading a script and calling it."""

_NO_FLAGS = "[Cc]ompil|shebang|near '#'"
"""What servers say of a script whose first line they do not know."""


class ScriptCaller:
    """Calls scripts over a client that holds one connection.

    `heads`: first lines for scripts. If the server turns out not to know them, scripts are called
    without. `loads`: whether SCRIPT LOAD may be used before EVAL. Redis before 7.0 passes
    SCRIPT LOAD on to its replicas and its append-only file. It does not pass on EVAL of a script
    that writes nothing (measured).
    """

    def __init__(self, client: Redis, refusals: Refusals, *, heads: Heads, loads: bool) -> None:
        self._client = client
        self._refusals = refusals
        self._heads = heads
        self._loads = loads
        self._sent: set[str] = set()
        self._ahead: list[Script] = []
        self._known: list[Script] = []
        self._mark: Script | None = None

    def send_ahead(self, scripts: Sequence[Script]) -> None:
        """Send scripts together with the next call, if SCRIPT LOAD can be used."""
        self._ahead = self._known = [*scripts]

    def begin_loading(self) -> bool:
        """Use SCRIPT LOAD from now on. Returns whether it was avoided before."""
        if self._loads:
            return False
        self._loads = True
        self._sent.clear()
        return True

    def call(self, script: Script, *args: Word, keys: Sequence[bytes] = ()) -> Any:
        """Run a script with its KEYS and ARGV. Raises redis.exceptions.RedisError."""
        words = (len(keys), *keys, *args)
        # Without it, a run that began with EVAL would end at its second call.
        self._refusals.check("EVALSHA")
        variant = self._variant(script)
        if variant.sha in self._sent and not self._ahead:
            try:
                return self._evaluate("EVALSHA", variant.sha, *words)
            except NoScriptError:  # SCRIPT FLUSH, or another server process
                self._sent.discard(variant.sha)
        try:
            reply = self._send(variant, *words)
        except ResponseError as error:
            if variant == script or not re.search(_NO_FLAGS, str(error)):
                raise
            self._heads = NO_HEADS
            return self.call(script, *args, keys=keys)
        self._ahead = []
        self._sent.add(variant.sha)
        return reply

    def allow_undeclared_keys(self) -> bool:
        """Call scripts with Dragonfly's flag from now on. Returns False if they had it already."""
        had_it, self._heads = self._heads is UNDECLARED, UNDECLARED
        return not had_it

    def locate(self, script: Script, keys: Sequence[bytes]) -> set[bytes]:
        """Call a script once for each key, with KEYS. Returns the different replies, not errors."""
        variant = self._variant(script)
        connection = self._open_connection()
        # By EVAL, and by EVALSHA for a user who may not run EVAL: not all servers may have it.
        commands: list[tuple[Word, ...]] = [("EVAL", variant.text, 1, key) for key in keys]
        commands += [("SCRIPT", "LOAD", variant.text)]
        commands += [("EVALSHA", variant.sha, 1, key) for key in keys]
        found = set()
        with self._client.single_connection_lock:
            connection.send_packed_command(connection.pack_commands(commands))
            for _ in commands:
                with suppress(ResponseError), malformed_as_invalid():
                    found.add(bytes(connection.read_response(disable_decoding=True)))
        return found - {b"", variant.sha.encode()}

    def send(self, script: Script, *args: Word) -> None:
        """Send a call without reading the reply."""
        connection = self._open_connection()
        command = connection.pack_command("EVALSHA", self._variant(script).sha, 0, *args)
        # A PING of redis-py's own would be answered among the replies.
        connection.send_packed_command(command, check_health=False)

    def receive(self) -> Any:
        """Read the reply to the oldest call of send(). Raises redis.exceptions.RedisError."""
        try:
            with malformed_as_invalid():
                return self._open_connection().read_response(disable_decoding=True)
        except NoScriptError:  # SCRIPT FLUSH
            self._sent.clear()
            self._ahead = self._known
            raise
        except ResponseError as refused:
            self._refusals.note("EVALSHA", refused)
            raise

    def is_readable(self, seconds: float) -> bool:
        """Wait for a reply for at most so many seconds. Returns whether there is one."""
        return bool(self._open_connection().can_read(timeout=seconds))

    def mark(self) -> None:
        """Mark this server process by a script in its script cache, which it does not share.

        Redis before 7.0 copies scripts to replicas and files, so it cannot be marked.
        """
        self._mark = None
        if self._heads.guards:
            mark = Script(f"return '{uuid4()}'", reads=False)
            with suppress(ResponseError):
                self._refusals.ask(self._client, "SCRIPT", "LOAD", mark.text)
                self._mark = mark

    def is_marked(self) -> bool:
        """Whether the mark is still there. SCRIPT FLUSH removes it too."""
        if self._mark is None:
            return False
        try:
            self._evaluate("EVALSHA", self._mark.sha, 0)
        except NoScriptError:
            return False
        return True

    def _open_connection(self) -> Any:
        if self._client.connection is None:
            raise RedisConnectionError("the connection is gone")
        return self._client.connection

    def _variant(self, script: Script) -> Script:
        return headed(script, self._heads)

    def _send(self, variant: Script, *words: Word) -> Any:
        """Call a script that the server may not know yet, by a command that is not refused."""
        if self._loads and "SCRIPT" not in self._refusals:
            try:
                return self._load_and_call(variant, *words)
            except NoScriptError:  # SCRIPT FLUSH in between
                pass
            except ResponseError:
                if "SCRIPT" not in self._refusals or "EVALSHA" in self._refusals:
                    raise
        if "EVAL" not in self._refusals:
            try:
                return self._evaluate("EVAL", variant.text, *words)
            except ResponseError:
                if "EVAL" not in self._refusals:
                    raise
        with suppress(NoScriptError):  # Another run may have sent it.
            return self._evaluate("EVALSHA", variant.sha, *words)
        for _ in range(_FLUSHES):
            with suppress(NoScriptError):
                return self._load_and_call(variant, *words)
        return self._load_and_call(variant, *words)

    def _load_and_call(self, variant: Script, *words: Word) -> Any:
        """Load a script and the scripts to send ahead, and call it, in one round trip."""
        connection = self._open_connection()
        scripts = dict.fromkeys([variant, *map(self._variant, self._ahead)])
        commands: list[tuple[Word, ...]] = [("SCRIPT", "LOAD", script.text) for script in scripts]
        commands.append(("EVALSHA", variant.sha, *words))
        error: ResponseError | None = None
        with self._client.single_connection_lock:
            connection.send_packed_command(connection.pack_commands(commands))
            for script in scripts:
                try:
                    with malformed_as_invalid():
                        connection.read_response()
                    self._sent.add(script.sha)
                except ResponseError as refused:
                    self._refusals.note("SCRIPT", refused)
                    error = error or refused
            try:
                with malformed_as_invalid():
                    return connection.read_response(disable_decoding=True)
            except NoScriptError:
                # A script that was not loaded, because it does not compile or SCRIPT was refused.
                if error:
                    raise error from None
                raise
            except ResponseError as refused:
                self._refusals.note("EVALSHA", refused)
                raise

    def _evaluate(self, how: str, script: str, *words: Word) -> Any:
        return self._refusals.ask(self._client, how, script, *words)

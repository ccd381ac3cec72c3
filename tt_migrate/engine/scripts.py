"""Reads, sends and calls the Lua scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha1
from typing import Any
from uuid import uuid4

import importlib_resources
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from tt_migrate.engine.permissions import Refusals
from tt_migrate.engine.replies import Word, malformed_as_invalid
from tt_migrate.plan import Plan

_LUA = importlib_resources.files("tt_migrate.lua")
_READ_ONLY = "#!lua flags=no-writes\n"
_READING = ("inspect", "count", "preview", "left", "records", "fetch")
FLYING = ("migrate", "count", "left", "records")
"""The operations whose scripts can keep their cursor (see flight.lua)."""

_FLUSHES = 20
"""How often SCRIPT FLUSH may come between loading a script and calling it."""

_NEEDS = re.compile("^-- Needs +(.+)$", re.MULTILINE)


@cache
def source(operation: str, plan: Plan) -> str:
    """The text of an operation's script (`count`, `preview`, ...), after the files that it needs.

    Each Lua file names the files that it needs in its header. `<moves>` and `<conflicts>` stand for
    the files that the plan chooses.
    """
    chosen = {"<moves>": plan.moves, "<conflicts>": plan.conflicts}
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in texts:
            text = (_LUA / f"{name}.lua").read_text("utf-8")
            for needed in needs(text):
                add(chosen.get(needed, needed))
            texts[name] = text

    add(operation)
    return "\n".join(texts.values())


def needs(text: str) -> list[str]:
    """The names of the files that a Lua file needs, from its header."""
    header = _NEEDS.search(text)
    return header[1].split(", ") if header and header[1] != "nothing" else []


@dataclass(frozen=True)
class Script:
    """A script's text. `reads`: whether it calls only commands that read."""

    text: str
    reads: bool

    @cached_property
    def guarded(self) -> Script:
        """The script with a flag that makes the server refuse writes.

        Redis 7.0 and later and all versions of Valkey support it (Redis documentation, "Script
        flags").
        """
        return Script(_READ_ONLY + self.text, reads=False) if self.reads else self

    @cached_property
    def sha(self) -> str:
        """The SHA1 digest that EVALSHA takes."""
        return sha1(self.text.encode()).hexdigest()  # noqa: S324 - chosen by Redis, not a secret


def script_for(operation: str, plan: Plan) -> Script:
    """An operation's script."""
    return Script(source(operation, plan), reads=operation in _READING)


class ScriptCaller:
    """Calls scripts over a client that holds one connection.

    `guards`: whether the server probably supports script flags. If it turns out not to, scripts are
    called without. `loads`: whether SCRIPT LOAD may be used before EVAL. Redis before 7.0 passes
    SCRIPT LOAD on to its replicas and its append-only file. It does not pass on EVAL of a script
    that writes nothing (measured).
    """

    def __init__(self, client: Redis, refusals: Refusals, *, guards: bool, loads: bool) -> None:
        self._client = client
        self._refusals = refusals
        self._guards = guards
        self._loads = loads
        self._sent: set[str] = set()
        self._ahead: list[Script] = []
        self._known: list[Script] = []
        self._mark: Script | None = None

    def send_ahead(self, scripts: Sequence[Script]) -> None:
        """Send scripts together with the next call, if SCRIPT LOAD can be used."""
        self._ahead = self._known = [*scripts]

    def call(self, script: Script, *args: Word) -> Any:
        """Run a script with its ARGV, without KEYS. Raises redis.exceptions.RedisError."""
        # Without it, a run that began with EVAL would end at its second call.
        self._refusals.check("EVALSHA")
        variant = self._variant(script)
        if variant.sha in self._sent and not self._ahead:
            try:
                return self._evaluate("EVALSHA", variant.sha, *args)
            except NoScriptError:  # SCRIPT FLUSH, or another server process
                self._sent.discard(variant.sha)
        try:
            reply = self._send(variant, *args)
        except ResponseError as error:
            if variant is script or "compil" not in str(error).lower():
                raise
            self._guards = False
            return self.call(script, *args)
        self._ahead = []
        self._sent.add(variant.sha)
        return reply

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
        if self._guards:
            mark = Script(f"return '{uuid4()}'", reads=False)
            with suppress(ResponseError):
                self._refusals.ask(self._client, "SCRIPT", "LOAD", mark.text)
                self._mark = mark

    def is_marked(self) -> bool:
        """Whether the mark is still there. SCRIPT FLUSH removes it too."""
        if self._mark is None:
            return False
        try:
            self._evaluate("EVALSHA", self._mark.sha)
        except NoScriptError:
            return False
        return True

    def _open_connection(self) -> Any:
        if self._client.connection is None:
            raise RedisConnectionError("the connection is gone")
        return self._client.connection

    def _variant(self, script: Script) -> Script:
        return script.guarded if self._guards else script

    def _send(self, variant: Script, *args: Word) -> Any:
        """Call a script that the server may not know yet, by a command that is not refused."""
        if self._loads and "SCRIPT" not in self._refusals:
            try:
                return self._load_and_call(variant, *args)
            except NoScriptError:  # SCRIPT FLUSH in between
                pass
            except ResponseError:
                if "SCRIPT" not in self._refusals or "EVALSHA" in self._refusals:
                    raise
        if "EVAL" not in self._refusals:
            try:
                return self._evaluate("EVAL", variant.text, *args)
            except ResponseError:
                if "EVAL" not in self._refusals:
                    raise
        with suppress(NoScriptError):  # Another run may have sent it.
            return self._evaluate("EVALSHA", variant.sha, *args)
        for _ in range(_FLUSHES):
            with suppress(NoScriptError):
                return self._load_and_call(variant, *args)
        return self._load_and_call(variant, *args)

    def _load_and_call(self, variant: Script, *args: Word) -> Any:
        """Load a script and the scripts to send ahead, and call it, in one round trip."""
        connection = self._open_connection()
        scripts = dict.fromkeys([variant, *map(self._variant, self._ahead)])
        commands: list[tuple[Word, ...]] = [("SCRIPT", "LOAD", script.text) for script in scripts]
        commands.append(("EVALSHA", variant.sha, 0, *args))
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

    def _evaluate(self, how: str, script: str, *args: Word) -> Any:
        return self._refusals.ask(self._client, how, script, 0, *args)

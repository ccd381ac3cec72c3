"""The Lua scripts: reading them, sending them, calling them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from typing import Any
from uuid import uuid4

import importlib_resources
from redis import Redis
from redis.client import NEVER_DECODE
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    ResponseError,
)

from tt_migrate.plan import Plan
from tt_migrate.replies import malformed_as_invalid

_LUA = importlib_resources.files("tt_migrate.lua")
_READ_ONLY = "#!lua flags=no-writes\n"
_READING = ("inspect", "count", "preview", "left", "records", "fetch")

_EVAL_IS_REFUSED = re.compile("(permissions to run the|nknown command) ['`](eval|EVAL)['`]")

Word = bytes | int | str


def source(operation: str, plan: Plan) -> str:
    """The text of an operation's script (`count`, `preview`, ...) with the parts of a plan."""
    names = ("keyspace.lua", *plan.lua_parts, f"{operation}.lua")
    return "\n".join((_LUA / name).read_text("utf-8") for name in names)


@dataclass(frozen=True)
class Script:
    """A script's text; `reads`: it has only commands that read."""

    text: str
    reads: bool

    @cached_property
    def guarded(self) -> Script:
        """The script under a flag with which the server itself refuses writes.

        Redis knows it since 7.0, Valkey always (Redis documentation, "Script flags").
        """
        return Script(_READ_ONLY + self.text, reads=False) if self.reads else self

    @cached_property
    def sha(self) -> str:
        """What EVALSHA calls it by."""
        return sha1(self.text.encode()).hexdigest()  # noqa: S324 - Redis' choice, no secret


def script_for(operation: str, plan: Plan) -> Script:
    """An operation's script."""
    return Script(source(operation, plan), reads=operation in _READING)


def ask(client: Redis, *command: Word) -> Any:
    """Send a command; its reply comes as bytes whatever the client decodes.

    Raises redis.exceptions.RedisError, InvalidResponse for what is no reply of Redis at all.
    """
    with malformed_as_invalid():
        return client.execute_command(*command, **{NEVER_DECODE: True})


class ScriptCaller:
    """Calls scripts over a client that holds one connection.

    `guards`: whether the server can be expected to know flags of scripts; one that turns out not
    to is called without. `writes`: whether anything is to be written at all. Redis before 7.0
    passes SCRIPT LOAD on to its replicas and its append-only file, and EVAL of a script that
    writes nothing to nobody (measured).
    """

    def __init__(self, client: Redis, *, guards: bool, writes: bool) -> None:
        self._client = client
        self._guards = guards
        self._may_load = guards or writes
        self._sent: set[str] = set()
        self._mark: Script | None = None

    def load_and_call(self, scripts: Sequence[Script], *args: Word) -> Any:
        """Send several scripts ahead and call the first one, in one round trip.

        One that the server does not take is no error before it is called.
        """
        connection = self._client.connection
        if connection is None or not self._may_load:
            return self.call(scripts[0], *args)
        variants = [self._variant(script) for script in scripts]
        commands: list[tuple[Word, ...]] = [
            *(("SCRIPT", "LOAD", variant.text) for variant in variants),
            ("EVALSHA", variants[0].sha, 0, *args),
        ]
        connection.send_packed_command(connection.pack_commands(commands))
        for script, variant in zip(scripts, variants, strict=True):
            try:
                with malformed_as_invalid():
                    connection.read_response()
                self._sent.add(variant.sha)
            except NoPermissionError:
                continue
            except ResponseError:
                self._guards = self._guards and variant is script
        try:
            with malformed_as_invalid():
                return connection.read_response(disable_decoding=True)
        except NoScriptError:
            return self.call(scripts[0], *args)

    def call(self, script: Script, *args: Word) -> Any:
        """Run a script with its ARGV, without KEYS. Raises redis.exceptions.RedisError."""
        variant = self._variant(script)
        if variant.sha in self._sent:
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
        self._sent.add(variant.sha)
        return reply

    def mark(self) -> None:
        """Leave a mark of this run where only this process of the server has it: among its scripts.

        Redis before 7.0 copies scripts to replicas and files: there is no such place.
        """
        self._mark = None
        if self._guards:
            mark = Script(f"return '{uuid4()}'", reads=False)
            with suppress(ResponseError):
                ask(self._client, "SCRIPT", "LOAD", mark.text)
                self._mark = mark

    def is_marked(self) -> bool:
        """Whether the mark is still there: no, too, after SCRIPT FLUSH."""
        if self._mark is None:
            return False
        try:
            self._evaluate("EVALSHA", self._mark.sha)
        except NoScriptError:
            return False
        return True

    def _variant(self, script: Script) -> Script:
        return script.guarded if self._guards else script

    def _send(self, script: Script, *args: Word) -> Any:
        # In one step, so that no SCRIPT FLUSH can come in between.
        try:
            return self._evaluate("EVAL", script.text, *args)
        except ResponseError as refused:
            if not _EVAL_IS_REFUSED.search(str(refused)):
                raise
        ask(self._client, "SCRIPT", "LOAD", script.text)
        return self._evaluate("EVALSHA", script.sha, *args)

    def _evaluate(self, how: str, script: str, *args: Word) -> Any:
        return ask(self._client, how, script, 0, *args)

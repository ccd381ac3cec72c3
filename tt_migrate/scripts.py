"""The Lua scripts: reading them, sending them, calling them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import importlib_resources
from redis import Redis
from redis.client import NEVER_DECODE
from redis.commands.core import Script
from redis.exceptions import NoScriptError, ResponseError

from tt_migrate.plan import Plan

_LUA = importlib_resources.files("tt_migrate.lua")
_READ_ONLY = "#!lua flags=no-writes\n"


def source(operation: str, plan: Plan, *, read_only: bool = False) -> str:
    """The text of an operation's script (`count`, `preview`, ...) with the parts of a plan.

    `read_only` puts the flag before it with which the server itself refuses writes; Redis knows it
    since 7.0 (Redis documentation, "Script flags").
    """
    names = ("keyspace.lua", *plan.lua_parts, f"{operation}.lua")
    text = "\n".join((_LUA / name).read_text("utf-8") for name in names)
    return _READ_ONLY + text if read_only else text


class ScriptCaller:
    """Calls scripts by EVALSHA over one client, with replies as bytes whatever the client decodes.

    redis-py's Script sends the text again when the server has lost it (SCRIPT FLUSH, a restart).
    """

    def __init__(self, client: Redis) -> None:
        self._client = client

    def script(self, text: str) -> Script:
        """A script to call; redis-py sends its text by SCRIPT LOAD when the server asks for it."""
        return Script(self._client, text)

    def load(self, *scripts: Script) -> None:
        """Send several scripts to the server in one round trip.

        One that the server does not take is no error here: call() will say so.
        """
        connection = self._client.connection
        if connection is None:
            return
        commands = [("SCRIPT", "LOAD", script.script) for script in scripts]
        connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            with suppress(ResponseError):
                connection.read_response()

    def call(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | int]) -> list[Any]:
        """Run a script with its KEYS and ARGV. Raises redis.exceptions.RedisError."""
        # Script wants a client and asks only for the two methods below.
        reply: list[Any]
        try:
            reply = script(keys=keys, args=args, client=self)  # type: ignore[arg-type]
        except NoScriptError:
            # Flushed again between SCRIPT LOAD and EVALSHA: send text and call in one.
            reply = self._execute("EVAL", script.script, len(keys), *keys, *args)
        return reply

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: bytes | int) -> Any:
        """EVALSHA, its reply not decoded: keys are bytes."""
        return self._execute("EVALSHA", sha, numkeys, *keys_and_args)

    def script_load(self, script: str) -> Any:
        """SCRIPT LOAD, when the server answered NOSCRIPT."""
        return self._client.script_load(script)

    def _execute(self, *command: Any) -> Any:
        return self._client.execute_command(*command, **{NEVER_DECODE: True})

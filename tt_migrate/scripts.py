"""The Lua scripts: reading them, sending them, calling them."""

from __future__ import annotations

from typing import Any

import importlib_resources
from redis import Redis
from redis.client import NEVER_DECODE
from redis.commands.core import Script
from redis.exceptions import NoScriptError

_LUA = importlib_resources.files("tt_migrate.lua")
_SHARED = ("keyspace.lua", "batch.lua")
_READ_ONLY = "#!lua flags=no-writes\n"


def source(operation: str, *, read_only: bool = False) -> str:
    """The text of an operation's script (`count`, `preview`, `migrate`) with the parts it shares.

    `read_only` puts the flag before it with which the server itself refuses writes; Redis knows it
    since 7.0 (Redis documentation, "Script flags").
    """
    text = "\n".join((_LUA / name).read_text("utf-8") for name in (*_SHARED, f"{operation}.lua"))
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

    def call(self, script: Script, *args: bytes | int) -> list[Any]:
        """Run a script, without KEYS. Raises redis.exceptions.RedisError."""
        # Script wants a client and asks only for the two methods below.
        reply: list[Any]
        try:
            reply = script(args=args, client=self)  # type: ignore[arg-type]
        except NoScriptError:
            # Flushed again between SCRIPT LOAD and EVALSHA: send text and call in one.
            reply = self._execute("EVAL", script.script, 0, *args)
        return reply

    def evalsha(self, sha: str, numkeys: int, *args: bytes | int) -> Any:
        """EVALSHA, its reply not decoded: keys are bytes."""
        return self._execute("EVALSHA", sha, numkeys, *args)

    def script_load(self, script: str) -> Any:
        """SCRIPT LOAD, when the server answered NOSCRIPT."""
        return self._client.script_load(script)

    def _execute(self, *command: Any) -> Any:
        return self._client.execute_command(*command, **{NEVER_DECODE: True})

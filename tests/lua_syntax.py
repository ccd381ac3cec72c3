"""Compile Lua files as Redis would: `lua_syntax.py FILE...` exits with 1 when one does not.

Redis embeds Lua 5.1. Globals need no check here: Redis refuses them when the tests run the scripts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import lupa.lua51  # type: ignore[import-untyped]


def problem(path: Path) -> str | None:
    """The first mistake in a file, as `file:line: what it is`."""
    load = lupa.lua51.LuaRuntime(encoding=None).eval("loadstring")
    # Lua's message begins with the name that follows the @, and would shorten a long one.
    result = load(path.read_bytes(), b"@")
    return f"{path}{result[1].decode('utf-8', 'replace')}" if isinstance(result, tuple) else None


def main(names: Sequence[str]) -> int:
    found = [text for text in map(problem, map(Path, names)) if text]
    print("\n".join(found) or f"{len(names)} Lua files are good")
    return 1 if found or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Compile Lua files like Redis: `lua_syntax.py PATH...` exits with 1 if one does not compile.

A path is a file, or a folder with files.

Redis embeds Lua 5.1. Globals are not checked: Redis refuses them when the tests run the scripts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import lupa.lua51  # type: ignore[import-untyped]


def problem(path: Path) -> str | None:
    """Return the first syntax error in a file, as `file:line: message`."""
    load = lupa.lua51.LuaRuntime(encoding=None).eval("loadstring")
    # Lua's message begins with the name after the @. Lua would shorten a long name.
    result = load(path.read_bytes(), b"@")
    return f"{path}{result[1].decode('utf-8', 'replace')}" if isinstance(result, tuple) else None


def main(names: Sequence[str]) -> int:
    paths = [*map(Path, names)]
    files = [file for path in paths for file in (path.rglob("*.lua") if path.is_dir() else [path])]
    found = [text for text in map(problem, files) if text]
    print("\n".join(found) or f"{len(files)} Lua files are good")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

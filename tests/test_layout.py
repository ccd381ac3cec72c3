"""The engine and the settings never import the modules that use them."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.tables import each

ROOT = Path(__file__).parent.parent
DATA = {"escape", "keyspace", "plan", "results"}
MAY_IMPORT = {
    "data": DATA,
    "engine": DATA | {"engine"},
    "migrator": DATA | {"engine"},
    "settings": {"escape", "keyspace", "engine", "settings"},
    "terminal": DATA | {"engine", "migrator", "settings", "terminal"},
}
"""What the modules of each subpackage may import from this package."""


def room_of(file: Path) -> str:
    parts = file.relative_to(ROOT / "tt_migrate").with_suffix("").parts
    return "data" if parts[0] in DATA else parts[0]


def imported(file: Path) -> set[str]:
    """Return the subpackages and top-level modules of tt_migrate that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("tt_migrate.")}


FILES = [
    file
    for file in sorted((ROOT / "tt_migrate").rglob("*.py"))
    if file.name not in ("__init__.py", "__main__.py")
]


@each("file", FILES)
def test_a_room_imports_only_what_is_below_it(file: Path) -> None:
    assert imported(file) <= MAY_IMPORT[room_of(file)]


def test_every_room_is_there_and_used() -> None:
    assert {room_of(file) for file in FILES} == MAY_IMPORT.keys()
    assert any("engine" in imported(file) for file in FILES)


def test_of_the_terminal_only_its_entry_is_imported_from_outside() -> None:
    assert imported(ROOT / "tt_migrate/__main__.py") == {"terminal"}
    assert imported(ROOT / "tt_migrate/__init__.py") <= DATA | {"engine", "migrator"}

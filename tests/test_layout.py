"""Imports follow the rooms of docs/architecture.md, and never run back."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from tests.tables import each

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tt_migrate"
DATA = {"escape", "keyspace", "plan", "results"}
ENGINE = {"engine/calls", "engine/passes", "engine/one_server"}
MAY_IMPORT = {
    "data": DATA,
    "engine/calls": DATA | {"engine/calls"},
    "engine/passes": DATA | {"engine/calls", "engine/passes"},
    "engine/one_server": DATA | {"engine/calls", "engine/passes"},
    "engine/cluster": DATA | {"engine/calls", "engine/passes", "engine/cluster"},
    "migrator": DATA | ENGINE | {"engine/cluster"},
    "settings": {"escape", "keyspace", "engine/calls", "settings"},
    "terminal": DATA | {"engine/calls", "migrator", "settings", "terminal"},
}
"""What the modules of each room may import from this package."""


def room_of(module: str) -> str:
    """The room of a module, which is named by its place: `engine/calls/session`."""
    first, *rest = module.split("/")
    if first == "engine":
        return f"engine/{rest[0]}"
    return "data" if first in DATA else first


def imported_modules(file: Path) -> set[str]:
    """Return the modules of tt_migrate that a file imports, by their places."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    places = [name.split(".")[1:] for name in names if name.startswith("tt_migrate.")]
    return {"/".join(place if is_module(place) else place[:-1]) for place in places}


def is_module(place: list[str]) -> bool:
    return PACKAGE.joinpath(*place).with_suffix(".py").is_file()


def imported(file: Path) -> set[str]:
    """Return the rooms, and of the data the modules, that a file imports from."""
    modules = imported_modules(file)
    return {module if module in DATA else room_of(module) for module in modules}


FILES = {
    str(file.relative_to(PACKAGE).with_suffix("")): file
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.name not in ("__init__.py", "__main__.py")
}


@each("module", [*FILES])
def test_a_room_imports_only_what_is_below_it(module: str) -> None:
    assert imported(FILES[module]) <= MAY_IMPORT[room_of(module)]


def test_no_two_modules_import_each_other_on_any_way() -> None:
    graph = {module: imported_modules(file) for module, file in FILES.items()}
    assert [*TopologicalSorter(graph).static_order()]


def test_every_room_is_there_and_used() -> None:
    assert {*map(room_of, FILES)} == MAY_IMPORT.keys()
    used = set().union(*map(imported, FILES.values()))
    assert used == {room for room in MAY_IMPORT if room != "data"} | DATA


def test_of_the_terminal_only_its_entry_is_imported_from_outside() -> None:
    assert imported(PACKAGE / "__main__.py") == {"terminal"}
    assert imported(PACKAGE / "__init__.py") <= DATA | {"engine/calls", "engine/passes", "migrator"}

"""The syntax check of the Lua files that `make lint` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lupa.lua51", reason="lupa is only installed by `make lint`")

from tests.lua_syntax import main, problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("local a = 1\nlocal b = = 2\n", "2: unexpected symbol near '='"),
        ("goto done\n", "1: '=' expected near 'done'"),
        ("local a = 7 // 2\n", "1: unexpected symbol near '/'"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "wrong.lua"
    file.write_text(text)
    assert problem(file) == f"{file}:{says}"
    assert main([str(file)]) == 1


def test_the_scripts_are_good() -> None:
    assert main([str(Path(__file__).parent.parent / "lua")]) == 0


def test_no_files_are_no_success(tmp_path: Path) -> None:
    assert main([]) == main([str(tmp_path)]) == 1

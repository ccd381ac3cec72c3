"""Which tests `make test` runs, and what it says of those that were skipped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import pytest_terminal_summary, run_of
from tests.servers import kinds, newest_kind, newest_kinds


def test_the_newest_available_kind_of_each_product_is_chosen() -> None:
    assert newest_kind() in newest_kinds()
    for kind in kinds():
        newest = [one for one in newest_kinds() if one.product == kind.product]
        assert not kind.program or (len(newest) == 1 and newest[0].version >= kind.version)


@pytest.mark.parametrize("is_marked", [False, True])
def test_a_test_belongs_to_make_test_unless_it_repeats_one_on_an_older_kind(
    is_marked: bool,
) -> None:
    def run(**params: Any) -> str:
        found: Any = SimpleNamespace(
            callspec=SimpleNamespace(params=params),
            get_closest_marker=lambda name: is_marked and name == "every_kind",
        )
        return run_of(found)

    assert run() == run(number=1) == "newest"
    for kind in kinds():
        is_repeated = kind not in newest_kinds() and not is_marked
        assert run(kind=kind) == ("others" if is_repeated else "newest")


def summary(*reasons: str) -> list[str]:
    """Return the lines for tests that were skipped for these reasons."""
    written: list[str] = []
    reports = [SimpleNamespace(longrepr=("file", 1, f"Skipped: {said}")) for said in reasons]
    reporter: Any = SimpleNamespace(stats={"skipped": reports}, write_line=written.append)
    pytest_terminal_summary(reporter)
    return written


def test_skipped_tests_are_told_in_a_line_for_each_reason() -> None:
    assert summary() == []
    assert summary("no bash", "redis-7.0: none", "valkey-9.1: none", "redis-7.0: none") == [
        "3 skipped: redis-7.0, valkey-9.1: none",
        "1 skipped: no bash",
    ]


def test_many_reasons_take_five_lines() -> None:
    assert len(summary(*"abcde")) == 5
    assert summary(*"abcdef")[4:] == ["2 skipped for other reasons; ARGS=-rs names them"]

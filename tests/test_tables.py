"""each() runs a test with every row of a table."""

from __future__ import annotations

import pytest

from tests.servers import Server
from tests.tables import each


def test_the_row_that_fails_is_named_and_no_row_is_left_out() -> None:
    seen: list[tuple[int, str]] = []

    @each("number", [1, 2])
    @each(("letter", "limit"), [("a", 9), ("b", 2)])
    def compare(number: int, letter: str, limit: int) -> None:
        seen.append((number, letter))
        assert number < limit

    with pytest.raises(AssertionError, match="number=2") as error:
        compare()
    assert str(error.value.__cause__) == "with letter='b', limit=2"
    assert seen == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


def test_each_row_gets_the_server_as_it_was(newest: Server) -> None:
    @each("number", [1, 2])
    def change(newest: Server, number: int) -> None:
        redis = newest.client()
        assert redis.dbsize() == 0
        assert redis.config_get("maxmemory-samples") == {"maxmemory-samples": "5"}
        redis.set("key", number)
        redis.config_set("maxmemory-samples", 7)

    change(newest=newest)

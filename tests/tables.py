"""Tests that go through the rows of a table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import pytest
from redis import Redis

from tests.servers import Server


def each(
    names: str | tuple[str, ...], rows: Iterable[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with each row, like pytest.mark.parametrize, but as one test, which is quicker.

    A server is reset before each further row. The error of a row names it. A test that skips some
    rows, or that starts processes, takes pytest.mark.parametrize.
    """
    keys = (names,) if isinstance(names, str) else names
    table = [(row,) if isinstance(names, str) else tuple(row) for row in rows]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def run(**fixtures: Any) -> None:
            for n, row in enumerate(table):
                if n > 0:
                    _empty(fixtures)
                try:
                    test(**fixtures, **dict(zip(keys, row, strict=True)))
                except (Exception, pytest.fail.Exception) as error:
                    shown = ", ".join(f"{key}={one!r}" for key, one in zip(keys, row, strict=True))
                    raise AssertionError(f"with {shown}") from error

        signature = inspect.signature(test)
        ours = [one for one in signature.parameters.values() if one.name not in keys]
        run.__signature__ = signature.replace(parameters=ours)  # type: ignore[attr-defined]
        return run

    return decorate


def _empty(fixtures: dict[str, Any]) -> None:
    for fixture in fixtures.values():
        if isinstance(fixture, Server):
            fixture.close_clients()
            fixture.reset()
        elif isinstance(fixture, Redis):
            fixture.flushall()

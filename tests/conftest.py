"""Fixtures: real servers of every kind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from redis import Redis

from tests.servers import Kind, Pool, Server, StartServer, kinds, newest_kind


@pytest.fixture(params=kinds(), ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of server in turn; one that is not at hand is skipped, and fails in CI."""
    kind: Kind = request.param
    if not kind.program:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(kind.why_missing)
    return kind


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.stop()


@pytest.fixture
def server(pool: Pool, kind: Kind) -> Iterator[Server]:
    """A server of every kind in turn, empty and with its default settings."""
    yield from pool.lend(kind)


@pytest.fixture
def redis(server: Server) -> Redis:
    """A client of `server`, which answers in bytes."""
    return server.client()


@pytest.fixture
def newest(pool: Pool) -> Iterator[Server]:
    """One server, the newest at hand, for tests where the kind does not matter."""
    yield from pool.lend(newest_kind())


@pytest.fixture
def own_server() -> Iterator[StartServer]:
    """Starts servers of the test's own, to configure, restart or kill; all end with the test."""
    started: list[Server] = []

    def start(*args: str, kind: Kind | None = None, loading_is_ready: bool = False) -> Server:
        server = Server.start(kind or newest_kind(), *args, loading_is_ready=loading_is_ready)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()

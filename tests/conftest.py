"""Fixtures: real servers of every kind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from packaging.requirements import Requirement
from redis import Redis

from tests.servers import (
    Kind,
    Pool,
    Server,
    StartError,
    StartServer,
    kinds,
    newest_kind,
    short_place,
)


def pytest_configure() -> None:
    # In a shell's background job, SIGINT is ignored, also in the processes that tests start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        newest_kind()
        # The towns below it contain sockets, whose paths must be short.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", short_place(20))
    except StartError as error:
        raise pytest.UsageError(str(error)) from None


# On a busy machine tests are slow; that is not a failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(params=kinds(), ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of server. A missing kind is skipped, or fails if is_wanted()."""
    kind: Kind = request.param
    if not kind.program:
        (pytest.fail if is_wanted(kind) else pytest.skip)(kind.why_missing)
    return kind


def is_wanted(kind: Kind) -> bool:
    """Whether a missing kind is a failure: in CI, if a wheel exists for this Python and machine."""
    if not os.environ.get("CI"):
        return False
    if not kind.package:
        return True
    ours = map(Requirement, requires("tt-migrate") or ())
    markers = [one.marker for one in ours if one.name == kind.package.replace("_", "-")]
    extras = ({"extra": "demo"}, {"extra": "test"})
    return any(marker and marker.evaluate(extra) for marker in markers for extra in extras)


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.stop()


@pytest.fixture
def server(pool: Pool, kind: Kind) -> Iterator[Server]:
    """A server of each kind, empty and with its default settings."""
    yield from pool.lend(kind)


@pytest.fixture(scope="session")
def shards() -> Iterator[Pool]:
    pool = Pool(in_cluster=True)
    yield pool
    pool.stop()


@pytest.fixture
def shard(shards: Pool, kind: Kind) -> Iterator[Server]:
    """A cluster of each kind with one shard, empty and with its default settings."""
    yield from shards.lend(kind)


@pytest.fixture(params=["plain", "one-shard"])
def either(
    request: pytest.FixtureRequest, pool: Pool, shards: Pool, kind: Kind
) -> Iterator[Server]:
    """A server of each kind, and then a cluster of each kind with one shard."""
    yield from (pool if request.param == "plain" else shards).lend(kind)


@pytest.fixture
def redis(server: Server) -> Redis:
    """A client of `server`. Replies are bytes."""
    return server.client()


@pytest.fixture
def newest(pool: Pool) -> Iterator[Server]:
    """The newest available server, for tests where the kind does not matter."""
    yield from pool.lend(newest_kind())


@pytest.fixture
def own_server() -> Iterator[StartServer]:
    """Starts servers for one test to configure, restart or kill. All are stopped after the test."""
    started: list[Server] = []

    def start(*args: str, kind: Kind | None = None, **more: Any) -> Server:
        server = Server.start(kind or newest_kind(), *args, **more)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(params=["fifo", "device", "socket", "gigabytes", "loop"])
def hanging_file(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], None]]:
    """Makes a file that cannot be opened, or whose reading takes very long or never ends."""
    listening = socket.socket(socket.AF_UNIX)

    def make(path: Path) -> None:
        if request.param == "fifo":
            os.mkfifo(path)
        elif request.param == "device":
            path.symlink_to("/dev/zero")
        elif request.param == "socket":
            listening.bind(str(path))
        elif request.param == "gigabytes":
            path.touch()
            os.truncate(path, 8 << 30)
        else:
            path.symlink_to(path)

    with listening:
        yield make

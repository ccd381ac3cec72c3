"""Fixtures: real servers of every kind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path

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
    # A shell's background job ignores SIGINT, and the processes that tests start would, too.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        newest_kind()
        # Below it are towns with sockets in them.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", short_place(20))
    except StartError as error:
        raise pytest.UsageError(str(error)) from None


# A busy machine takes its time: that is no failure of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(params=kinds(), ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of server in turn; one that is not at hand is skipped, and fails where wanted."""
    kind: Kind = request.param
    if not kind.program:
        (pytest.fail if is_wanted(kind) else pytest.skip)(kind.why_missing)
    return kind


def is_wanted(kind: Kind) -> bool:
    """Whether a run must have it: in CI, unless no wheel has it for this Python and machine."""
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


@pytest.fixture(params=["fifo", "device", "socket", "gigabytes", "loop"])
def hanging_file(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], None]]:
    """Makes a file of which reading would not end, or not soon, or that cannot be opened."""
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

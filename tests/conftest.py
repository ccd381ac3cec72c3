"""Fixtures: real servers of every kind."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from packaging.requirements import Requirement
from redis import Redis
from redis import utils as redis_utils
from redis._parsers.commands import CommandsParser

from tests.clusters import Cluster
from tests.midway import stay_near
from tests.servers import (
    Kind,
    Pool,
    S,
    Server,
    StartError,
    StartServer,
    kinds,
    newest_kind,
    newest_kinds,
    short_place,
)

_MOST_LINES = 5


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kinds",
        choices=("newest", "others", "all"),
        default="newest",
        help="newest: run each test on the newest Redis and the newest Valkey, and what depends on "
        "the version on every kind; others: run what `newest` leaves out; all: run both",
    )


def pytest_configure() -> None:
    # In a shell's background job, SIGINT is ignored, and after nohup SIGHUP, also in the processes
    # that tests start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        newest_kind()
        # The towns below it contain sockets, whose paths must be short.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", short_place(20))
    except StartError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are processors: tests also wait for servers."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose tests by --kinds, and let those that are marked `first` begin first."""
    runs = ("newest", "others") if config.option.kinds == "all" else (config.option.kinds,)
    config.hook.pytest_deselected(items=[item for item in items if run_of(item) not in runs])
    chosen = [item for item in items if run_of(item) in runs]
    items[:] = sorted(chosen, key=lambda item: item.get_closest_marker("first") is None)


def pytest_collection_finish() -> None:
    # The garbage collector need not look at thousands of tests again and again.
    gc.collect()
    gc.freeze()


def run_of(item: pytest.Item) -> str:
    """Return the value of --kinds whose run a test belongs to."""
    call = getattr(item, "callspec", None)
    kind = call.params.get("kind") if call else None
    if kind is None or kind in newest_kinds() or item.get_closest_marker("every_kind"):
        return "newest"
    return "others"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were skipped, in five lines at most."""
    kinds_of: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        kind, separator, common = reason.partition(": ")
        kinds_of.setdefault(common if separator else reason, []).append(separator and kind)
    most_first = sorted(kinds_of, key=lambda reason: -len(kinds_of[reason]))
    shown = most_first if len(most_first) <= _MOST_LINES else most_first[: _MOST_LINES - 1]
    for reason in shown:
        names = ", ".join(sorted({*kinds_of[reason]} - {""}))
        said = f"{names}: {reason}" if names else reason
        terminalreporter.write_line(f"{len(kinds_of[reason])} skipped: {said}")
    if rest := sum(len(kinds_of[reason]) for reason in most_first[len(shown) :]):
        terminalreporter.write_line(f"{rest} skipped for other reasons; ARGS=-rs names them")


# redis-py looks up its own version on disk for each client and connection.
redis_utils.get_lib_version = cache(redis_utils.get_lib_version)

_known: dict[tuple[object, object], Any] = {}
_ask: Any = CommandsParser.initialize


def ask_once(parser: Any, client: Any) -> None:
    """Let each user ask a cluster for its commands once: the reply has 20,000 parts."""
    key = (client.get_default_node().port, client.get_connection_kwargs().get("username"))
    if key not in _known:
        _ask(parser, client)
        _known[key] = parser.commands
    parser.commands = _known[key]


CommandsParser.initialize = ask_once  # type: ignore[method-assign]

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


def lending(start: Callable[..., S]) -> Iterator[Pool[S]]:
    """Yield a pool, and stop what it has started."""
    pool = Pool(start)
    yield pool
    pool.stop()


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool[Server]]:
    yield from lending(Server.start)


@pytest.fixture
def server(pool: Pool[Server], kind: Kind) -> Iterator[Server]:
    """A server of each kind, empty and with its default settings."""
    yield from pool.lend(kind)


@pytest.fixture(scope="session")
def shards() -> Iterator[Pool[Server]]:
    yield from lending(Server.start_shard)


@pytest.fixture
def shard(shards: Pool[Server], kind: Kind) -> Iterator[Server]:
    """A cluster of each kind with one shard, empty and with its default settings."""
    yield from shards.lend(kind)


@pytest.fixture(params=["plain", "one-shard"])
def either(
    request: pytest.FixtureRequest, pool: Pool[Server], shards: Pool[Server], kind: Kind
) -> Iterator[Server]:
    """A server of each kind, and then a cluster of each kind with one shard."""
    yield from (pool if request.param == "plain" else shards).lend(kind)


@pytest.fixture(scope="session")
def clusters() -> Iterator[Pool[Cluster]]:
    yield from lending(Cluster.start)


@pytest.fixture(scope="session")
def replicated_clusters() -> Iterator[Pool[Cluster]]:
    yield from lending(partial(Cluster.start, replicas=1))


@pytest.fixture
def cluster(clusters: Pool[Cluster], kind: Kind) -> Iterator[Cluster]:
    """A cluster of each kind with three masters, empty and with its default settings."""
    yield from clusters.lend(kind)


@pytest.fixture
def newest_cluster(clusters: Pool[Cluster]) -> Iterator[Cluster]:
    """The same of the newest kind, for tests where the kind does not matter."""
    yield from clusters.lend(newest_kind())


@pytest.fixture
def replicated(replicated_clusters: Pool[Cluster]) -> Iterator[Cluster]:
    """The same with a replica for each master."""
    yield from replicated_clusters.lend(newest_kind())


@pytest.fixture(autouse=True)
def near(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take each server for a near one, however long a round trip takes on a busy machine.

    Calls to a server far away are sent ahead, and a key keeps the cursor. A test of that is marked
    `far`.
    """
    if not request.node.get_closest_marker("far"):
        stay_near(monkeypatch)


@pytest.fixture
def redis(server: Server) -> Redis:
    """A client of `server`. Replies are bytes."""
    return server.client()


@pytest.fixture
def newest(pool: Pool[Server]) -> Iterator[Server]:
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

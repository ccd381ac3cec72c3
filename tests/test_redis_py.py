"""The command on a real server, with each redis-py whose handshake differs and with hiredis."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.clusters import Cluster
from tests.clusters import fill as fill_cluster
from tests.command import environment, tt
from tests.servers import Server, newest_kind
from tests.test_connection import listener

_CACHE = Path(__file__).parent.parent / ".cache"
_FOLDERS = {
    "lowest": "redis-py/lowest",
    "7.0.1": "redis-py/7.0.1",
    "7.4.0": "redis-py/7.4.0",
    "8.0.0": "redis-py/8.0.0",
    "installed": "",
    "hiredis": "hiredis",
}
"""The folders in .cache where the Makefile installs them."""
_TT = [sys.executable, "-m", "tt_migrate", "migrate"]


@pytest.fixture(params=_FOLDERS)
def libraries(request: pytest.FixtureRequest) -> dict[str, Any]:
    """An environment that uses these libraries. In CI, missing libraries are a failure."""
    folder = _FOLDERS[request.param]
    if not folder:
        return {}
    if not (_CACHE / folder / "installed").exists():
        missing = f"no .cache/{folder}: `make test` installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return {"PYTHONPATH": str(_CACHE / folder)}


def fill(redis: Redis) -> None:
    redis.flushall()
    redis.set("tt:agent:a", '{"id": "a"}')
    redis.rpush("tt:inbox:a", "1", "2")


@pytest.mark.parametrize("scheme", ["unix", "redis"])
def test_a_run_works_and_asks_nothing_that_the_server_refuses(
    newest: Server, libraries: dict[str, Any], scheme: str
) -> None:
    watcher = newest.client(single_connection_client=True)
    fill(watcher)
    watcher.config_resetstat()  # drop errors caused by a client with default settings
    url = f"unix://{newest.socket}" if scheme == "unix" else newest.url
    common: dict[str, Any] = {"url": url, "town": "t", "program": _TT, **libraries}
    preview = tt("--dry-run", **common)
    assert (preview.returncode, preview.stderr.count("\n")) == (0, 3)
    assert "tt:inbox:a → tt:t:inbox:a" in preview.stdout
    renamed = tt("--force", "--quiet", **common)
    assert (renamed.returncode, renamed.stdout, renamed.stderr) == (0, "", "")
    assert watcher.info("errorstats") == {}
    upgraded = tt("--upgrade", "--force", "--quiet", **common)
    assert (upgraded.returncode, upgraded.stdout, upgraded.stderr) == (0, "", "")
    assert watcher.info("errorstats") == {}
    assert watcher.hgetall("tt:t:agent:a") == {b"id": b"a"}
    assert sorted(watcher.keys()) == [b"tt:t:agent:a", b"tt:t:inbox:a"]


def test_these_libraries_are_what_a_run_takes(libraries: dict[str, Any]) -> None:
    script = "import redis, click; from redis.utils import *; print(redis.__file__, click.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", f"{script}; print(redis.__version__, HIREDIS_AVAILABLE)"],
        env=environment(**libraries),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    folder = libraries.get("PYTHONPATH", "")
    assert found.count(folder) >= {"lowest": 2, "hiredis": 0}.get(Path(folder).name, 1)
    assert ("True" in found) == folder.endswith("hiredis")


@pytest.mark.parametrize("libraries", ["lowest", "hiredis"], indirect=True)
def test_a_password_is_sent_as_it_is_given(newest: Server, libraries: dict[str, Any]) -> None:
    newest.client().execute_command("ACL", "SETUSER", "me", "on", ">100%25", "~*", "+@all")
    for url in (
        f"unix://{newest.socket}?user=me&pass=100%2525",
        f"redis://me:100%2525@127.0.0.1:{newest.port}?protocol=resp2",
    ):
        done = tt("--check", url=url, program=_TT, **libraries)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("libraries", ["lowest", "installed", "hiredis"], indirect=True)
def test_what_is_no_server_is_explained(libraries: dict[str, Any], tmp_path: Path) -> None:
    def serve(peer: socket.socket) -> None:
        peer.sendall(b"220 mail ESMTP\r\n")
        peer.recv(1000)

    with listener(serve) as port:
        foreign = tt("--check", url=f"redis://127.0.0.1:{port}", program=_TT, **libraries)
    assert (foreign.returncode, foreign.stderr.count("\n")) == (3, 1)
    assert "the reply does not come from Redis" in foreign.stderr
    absent = tt("--check", url=f"unix://{tmp_path}/none", program=_TT, **libraries)
    assert (absent.returncode, absent.stderr.count("\n")) == (3, 1)
    assert "the socket does not exist" in absent.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster.start(newest_kind())
    yield cluster
    cluster.stop()


def test_a_cluster_is_migrated(cluster: Cluster, libraries: dict[str, Any]) -> None:
    cluster.reset()
    key = f"{1:032x}"
    commands = [("RPUSH", f"tt:inbox:{n}", "a") for n in range(100)]
    fill_cluster(cluster, [*commands, ("SET", f"tt:agent:{key}", json.dumps({"id": key}))])
    common: dict[str, Any] = {"url": cluster.url, "town": "t", "program": _TT, **libraries}
    done = tt("--upgrade", "--force", **common)
    assert (done.returncode, "101 keys migrated, 1 record" in done.stdout) == (0, True), done

"""The command on a real server, with each redis-py whose handshake differs and with hiredis."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.clusters import Cluster
from tests.clusters import fill as fill_cluster
from tests.command import environment
from tests.servers import Server
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
_PROGRAM = """
import json, sys
import click, redis
from redis.utils import HIREDIS_AVAILABLE
from tests.command import tt_in_process
print(json.dumps([redis.__file__, click.__file__, HIREDIS_AVAILABLE]), flush=True)
for line in sys.stdin:
    runs = [tt_in_process(*args) for args in json.loads(line)]
    print(json.dumps([[run.returncode, run.stdout, run.stderr] for run in runs]), flush=True)
"""


class Run(NamedTuple):
    status: int
    out: str
    err: str


class Libraries:
    """A process with some libraries that runs the command, as often as it is asked to."""

    def __init__(self, folder: str) -> None:
        path = {"PYTHONPATH": str(_CACHE / folder)} if folder else {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=_CACHE.parent,
            env=environment(**path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        redis_file, click_file, has_hiredis = self._answer()
        assert redis_file.startswith(path.get("PYTHONPATH", "")) or folder == "hiredis"
        assert click_file.startswith(path.get("PYTHONPATH", "")) or "lowest" not in folder
        assert has_hiredis == (folder == "hiredis")

    def run(self, *commands: tuple[str, ...]) -> list[Run]:
        """Run the command with each of these arguments."""
        assert self._process.stdin
        print(json.dumps(commands), file=self._process.stdin, flush=True)
        return [Run(*one) for one in self._answer()]

    def end(self) -> None:
        _, errors = self._process.communicate()
        assert (self._process.returncode, errors) == (0, "")

    def _answer(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module", params=_FOLDERS)
def libraries(request: pytest.FixtureRequest) -> Iterator[Libraries]:
    """The command with these libraries. In CI, missing libraries are a failure."""
    folder = _FOLDERS[request.param]
    if folder and not (_CACHE / folder / "installed").exists():
        missing = f"no .cache/{folder}: `make test` installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    found = Libraries(folder)
    yield found
    found.end()


def test_a_run_works_and_asks_nothing_that_the_server_refuses(
    newest: Server, libraries: Libraries
) -> None:
    """By each scheme, in a database of its own."""
    watcher = newest.client(single_connection_client=True)
    for database in (1, 0):
        watcher.select(database)
        watcher.set("tt:agent:a", '{"id": "a"}')
        watcher.rpush("tt:inbox:a", "1", "2")
    watcher.config_resetstat()  # drop errors caused by a client with default settings
    commands: list[tuple[str, ...]] = []
    for url in (newest.url, f"unix://{newest.socket}?db=1"):
        where = ("--redis-url", url, "--town-name", "t")
        commands.append(("--dry-run", *where))
        commands.append(("--force", "--quiet", *where))
        commands.append(("--upgrade", "--force", "--quiet", *where))
    found = libraries.run(*commands)
    assert watcher.info("errorstats") == {}
    for at in (0, 1):
        preview, renamed, upgraded = found[3 * at : 3 * at + 3]
        assert (preview.status, preview.err.count("\n")) == (0, 3)
        assert "tt:inbox:a → tt:t:inbox:a" in preview.out
        assert renamed == upgraded == (0, "", "")
        watcher.select(at)
        assert watcher.hgetall("tt:t:agent:a") == {b"id": b"a"}
        assert sorted(watcher.keys()) == [b"tt:t:agent:a", b"tt:t:inbox:a"]


@pytest.mark.parametrize("libraries", ["lowest", "hiredis"], indirect=True)
def test_a_password_is_sent_as_it_is_given(newest: Server, libraries: Libraries) -> None:
    newest.client().execute_command("ACL", "SETUSER", "me", "on", ">100%25", "~*", "+@all")
    urls = (
        f"unix://{newest.socket}?user=me&pass=100%2525",
        f"redis://me:100%2525@127.0.0.1:{newest.port}?protocol=resp2",
    )
    for done in libraries.run(*(("--check", "--town-name=t", f"--redis-url={u}") for u in urls)):
        assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("libraries", ["lowest", "installed", "hiredis"], indirect=True)
def test_what_is_no_server_is_explained(libraries: Libraries, tmp_path: Path) -> None:
    def serve(peer: socket.socket) -> None:
        peer.sendall(b"220 mail ESMTP\r\n")
        peer.recv(1000)

    with listener(serve) as port:
        urls = (f"redis://127.0.0.1:{port}", f"unix://{tmp_path}/none")
        foreign, absent = libraries.run(
            *(("--check", "--town-name=t", f"--redis-url={u}") for u in urls)
        )
    assert (foreign.status, foreign.err.count("\n")) == (3, 1)
    assert "the reply does not come from Redis" in foreign.err
    assert (absent.status, absent.err.count("\n")) == (3, 1)
    assert "the socket does not exist" in absent.err


def test_a_cluster_is_migrated(newest_cluster: Cluster, libraries: Libraries) -> None:
    key = f"{1:032x}"
    commands = [("RPUSH", f"tt:inbox:{n}", "a") for n in range(100)]
    fill_cluster(newest_cluster, [*commands, ("SET", f"tt:agent:{key}", json.dumps({"id": key}))])
    where = ("--redis-url", newest_cluster.url, "--town-name", "t")
    [done] = libraries.run(("--upgrade", "--force", *where))
    assert (done.status, "101 keys migrated, 1 record" in done.out) == (0, True), done

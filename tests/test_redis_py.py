"""The command on a real server, with each redis-py whose handshake differs and with hiredis."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

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
runs = [tt_in_process(*args) for args in json.loads(sys.argv[1])]
found = [redis.__file__, click.__file__, HIREDIS_AVAILABLE]
print(json.dumps([found, [[run.returncode, run.stdout, run.stderr] for run in runs]]))
"""


@pytest.fixture(params=_FOLDERS)
def libraries(request: pytest.FixtureRequest) -> dict[str, str]:
    """An environment that uses these libraries. In CI, missing libraries are a failure."""
    folder = _FOLDERS[request.param]
    if not folder:
        return {}
    if not (_CACHE / folder / "installed").exists():
        missing = f"no .cache/{folder}: `make test` installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return {"PYTHONPATH": str(_CACHE / folder)}


class Run(NamedTuple):
    status: int
    out: str
    err: str


def runs(libraries: dict[str, str], *commands: tuple[str, ...]) -> list[Run]:
    """Run the command with each of these arguments, all in one process with these libraries."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(commands)],
        cwd=_CACHE.parent,
        env=environment(**libraries),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (redis_file, click_file, has_hiredis), said = json.loads(done.stdout)
    folder = libraries.get("PYTHONPATH", "")
    name = Path(folder).name
    assert redis_file.startswith(folder) or name == "hiredis"
    assert click_file.startswith(folder) or name != "lowest"
    assert has_hiredis == (name == "hiredis")
    return [Run(*one) for one in said]


def test_a_run_works_and_asks_nothing_that_the_server_refuses(
    newest: Server, libraries: dict[str, str]
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
    found = runs(libraries, *commands)
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
def test_a_password_is_sent_as_it_is_given(newest: Server, libraries: dict[str, str]) -> None:
    newest.client().execute_command("ACL", "SETUSER", "me", "on", ">100%25", "~*", "+@all")
    urls = (
        f"unix://{newest.socket}?user=me&pass=100%2525",
        f"redis://me:100%2525@127.0.0.1:{newest.port}?protocol=resp2",
    )
    for done in runs(libraries, *(("--check", "--town-name=t", f"--redis-url={u}") for u in urls)):
        assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("libraries", ["lowest", "installed", "hiredis"], indirect=True)
def test_what_is_no_server_is_explained(libraries: dict[str, str], tmp_path: Path) -> None:
    def serve(peer: socket.socket) -> None:
        peer.sendall(b"220 mail ESMTP\r\n")
        peer.recv(1000)

    with listener(serve) as port:
        urls = (f"redis://127.0.0.1:{port}", f"unix://{tmp_path}/none")
        foreign, absent = runs(
            libraries, *(("--check", "--town-name=t", f"--redis-url={u}") for u in urls)
        )
    assert (foreign.status, foreign.err.count("\n")) == (3, 1)
    assert "the reply does not come from Redis" in foreign.err
    assert (absent.status, absent.err.count("\n")) == (3, 1)
    assert "the socket does not exist" in absent.err


def test_a_cluster_is_migrated(newest_cluster: Cluster, libraries: dict[str, str]) -> None:
    key = f"{1:032x}"
    commands = [("RPUSH", f"tt:inbox:{n}", "a") for n in range(100)]
    fill_cluster(newest_cluster, [*commands, ("SET", f"tt:agent:{key}", json.dumps({"id": key}))])
    where = ("--redis-url", newest_cluster.url, "--town-name", "t")
    [done] = runs(libraries, ("--upgrade", "--force", *where))
    assert (done.status, "101 keys migrated, 1 record" in done.out) == (0, True), done

"""Masters that are found by their Sentinels."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.exceptions import ResponseError
from redis.sentinel import Sentinel

from tests.command import tt
from tests.hostile import bulk, hello, hostile_server
from tests.midway import quick_retry
from tests.sentinels import MASTER_PASSWORD, SENTINEL_PASSWORD, Watched, state_of, watch
from tests.servers import Kind, Server, StartError, StartServer, newest_kind
from tests.tables import each
from tests.test_connection import forward_to, listener
from tests.test_recovery import at_batch
from tests.waiting import wait_until
from tt_migrate import Migrator, Progress
from tt_migrate.settings.checks import ConfigError
from tt_migrate.settings.config import Endpoint
from tt_migrate.settings.connection import open_client, redacted, secrets

KEYS = 5000
FAILOVER_TRIES = 12_000
"""Retries of 10 ms each: on a busy machine a failover can take longer than the real retry."""


@pytest.fixture(autouse=True)
def steadfast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tt_migrate.engine.calls.retry.LONGEST_STANDSTILL_SECONDS", 300)


def endpoint(url: str) -> Endpoint:
    return Endpoint("--redis-url", url=url)


def fill(url: str, replicas: int) -> None:
    with open_client(endpoint(url)) as client:
        batch = client.pipeline(transaction=False)
        for n in range(KEYS):
            batch.set(f"tt:agent:{n}", n)
        batch.execute()
        assert client.wait(replicas, 20_000) == replicas


def migrate_while(url: str, happens: Callable[[], object]) -> Iterator[Progress]:
    """Migrate, and let something happen after the first batch. Yields each Progress."""
    seen: list[Progress] = []

    def progress(now: Progress) -> None:
        seen.append(now)
        if len(seen) == 1:
            happens()

    with open_client(endpoint(url)) as client:
        retry = quick_retry(FAILOVER_TRIES)
        done = Migrator(
            client, "my-project", max_pause_ms=1, progress=progress, retry=retry
        ).migrate()
        assert done.complete
        assert sorted(client.keys()) == sorted(
            f"tt:my-project:agent:{n}".encode() for n in range(KEYS)
        )
    return iter(seen)


def test_a_run_survives_the_death_of_the_master(kind: Kind, own_server: StartServer) -> None:
    watched = watch(own_server, kind, replicas=2, sentinels=3)
    fill(watched.url, replicas=2)
    seen = migrate_while(watched.url, watched.kill_master)
    assert any(progress.waiting for progress in seen)
    assert watched.master() is not watched.nodes[0]


def fail_over(watched: Watched) -> None:
    """Make the Sentinels name another master. The old one takes writes for a while.

    A replica that is connected may get nothing before its master hears of it again, a second later.
    """
    master = watched.master().client(password=MASTER_PASSWORD)
    written = master.role()[1]
    wait_until(lambda: all(int(read) >= written for _, _, read in master.role()[2]))
    sentinel = watched.sentinels[0].client(password=SENTINEL_PASSWORD, decode_responses=True)
    before = int(state_of(sentinel)["port"])

    def begun() -> bool:
        # Right after its start, a replica is not good enough for a Sentinel.
        with suppress(ResponseError):
            return bool(sentinel.execute_command("SENTINEL", "FAILOVER", "mymaster"))
        return False

    wait_until(begun)
    wait_until(lambda: int(state_of(sentinel)["port"]) != before)


def test_a_planned_failover_in_mid_run_is_followed(own_server: StartServer) -> None:
    watched = watch(own_server, replicas=1)
    fill(watched.url, replicas=1)
    old = watched.nodes[0].client(password=MASTER_PASSWORD)

    def over() -> None:
        fail_over(watched)
        # What is written to it before that is lost.
        wait_until(lambda: old.role()[0] == b"slave")

    migrate_while(watched.url, over)
    new = watched.nodes[1].client(password=MASTER_PASSWORD)
    assert new.role()[0] == b"master"
    assert len(new.keys("tt:my-project:*")) == KEYS


def test_a_failover_while_the_prompt_waits_is_followed(own_server: StartServer) -> None:
    watched = watch(own_server, replicas=1)
    watched.nodes[0].client(password=MASTER_PASSWORD).set("tt:agent:1", "1")
    with open_client(endpoint(watched.url)) as client:
        migrator = Migrator(client, "my-project")
        assert migrator.count().total == 1
        fail_over(watched)
        assert migrator.migrate().complete
    assert watched.nodes[1].client(password=MASTER_PASSWORD).keys() == [b"tt:my-project:agent:1"]


def test_a_client_of_redis_pys_own_sentinel_is_followed(own_server: StartServer) -> None:
    watched = watch(own_server, replicas=1)
    fill(watched.url, replicas=1)
    sentinel = Sentinel(
        [("127.0.0.1", watched.sentinels[0].port)],
        sentinel_kwargs={"password": SENTINEL_PASSWORD},
        password=MASTER_PASSWORD,
    )
    client = sentinel.master_for("mymaster")
    progress = at_batch(2, watched.kill_master)
    retry = quick_retry(FAILOVER_TRIES)
    done = Migrator(client, "my-project", max_pause_ms=1, progress=progress, retry=retry).migrate()
    client.close()
    assert done.effort.reconnects >= 1
    assert done.complete
    assert watched.master().client(password=MASTER_PASSWORD).dbsize() == KEYS


@pytest.fixture
def tls_town(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A town's folder with certificates, and the TLS settings of a server that wants them."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return tmp_path, context


def tls_files(folder: Path) -> str:
    """The parameters of a URL for the files of tls_town."""
    files = {"ssl_ca_certs": "ca", "ssl_certfile": "cert", "ssl_keyfile": "key"}
    return "&".join(f"{name}={folder}/{file}.pem" for name, file in files.items())


def check_with_tls(folder: Path, url: str) -> None:
    """Check that the town's TLS files count for the Sentinels and for the master."""
    (folder / "tinytown.toml").write_text(
        f"""
        name = "my-project"
        [redis]
        url = "{url}"
        tls_ca_cert = "ca.pem"
        tls_cert = "cert.pem"
        tls_key = "key.pem"
        """
    )
    done = tt("--check", "-t", str(folder), town=None)
    assert (done.returncode, done.stderr) == (0, "")
    assert tt("--check", url=f"{url}&{tls_files(folder)}").returncode == 0
    plain = tt("--check", url=url.replace("rediss+", "redis+"))
    assert (plain.returncode, plain.stderr.count("\n")) == (3, 1)


def test_tls_behind_proxies(own_server: StartServer, tls_town: tuple[Path, ssl.SSLContext]) -> None:
    folder, context = tls_town
    greetings: list[bool] = []

    def tls_or_not(server: Server) -> Callable[[socket.socket], None]:
        """Sentinel watches the master without TLS, through the same port."""

        def serve(peer: socket.socket) -> None:
            has_tls = peer.recv(1, socket.MSG_PEEK) == b"\x16"
            greetings.append(has_tls)
            forward_to(server)(context.wrap_socket(peer, server_side=True) if has_tls else peer)

        return serve

    with ExitStack() as held:
        watched = watch(
            own_server, front=lambda master: held.enter_context(listener(tls_or_not(master)))
        )
        port = held.enter_context(listener(forward_to(watched.sentinels[0]), context))
        url = watched.url.replace(watched.hosts, f"127.0.0.1:{port}")
        greetings.clear()
        check_with_tls(folder, url.replace("redis+", "rediss+"))
        assert True in greetings
        for server in (*watched.nodes, *watched.sentinels):
            server.kill()


def test_tls_of_the_servers_themselves(
    kind: Kind, own_server: StartServer, tls_town: tuple[Path, ssl.SSLContext]
) -> None:
    folder, _ = tls_town
    options = {
        "port": "0",
        "tls-port": "{port}",
        "tls-replication": "yes",
        "tls-cert-file": f"{folder}/cert.pem",
        "tls-key-file": f"{folder}/key.pem",
        "tls-ca-cert-file": f"{folder}/ca.pem",
    }
    args = [part for name, value in options.items() for part in (f"--{name}", value)]
    try:
        watched = watch(own_server, kind, *args, replicas=2, sentinels=3, scheme="rediss+sentinel")
    except StartError as error:
        if "tls" not in str(error).lower():
            raise
        pytest.skip(f"{kind.name}: built without TLS")
    check_with_tls(folder, watched.url)
    url = f"{watched.url}&{tls_files(folder)}"
    fill(url, replicas=2)
    seen = migrate_while(url, watched.kill_master)
    assert any(progress.waiting for progress in seen)


@pytest.fixture(scope="module")
def shared() -> Iterator[Watched]:
    started: list[Server] = []

    def start(*args: str, kind: Kind | None = None, **more: Any) -> Server:
        started.append(Server.start(kind or newest_kind(), *args, **more))
        return started[-1]

    yield watch(start)
    for server in started:
        server.stop()


@pytest.fixture
def watched(shared: Watched) -> Iterator[Watched]:
    """A master without keys and its Sentinel, for tests that leave them running."""
    shared.nodes[0].client(password=MASTER_PASSWORD).flushall()
    yield shared
    for server in (*shared.nodes, *shared.sentinels):
        server.close_clients()


def error_of(url: str) -> str:
    done = tt("--check", url=url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done
    assert "master's" not in done.stderr.replace("from the master's", "")
    return done.stderr


def test_each_reason_for_no_master_has_its_own_error(own_server: StartServer) -> None:
    watched = watch(own_server)
    url = watched.url
    assert tt("--check", url=url).returncode == 0
    assert "know no master 'other': use one of those they know ('mymaster')" in error_of(
        url.replace("mymaster", "other")
    )
    for wrong in ("?sentinel_password=wrong", ""):
        said = error_of(url.partition("?")[0] + wrong)
        assert "the Sentinels refuse the login" in said
        assert "sentinel_password" in said
    assert "wrong user name or password" in error_of(url.replace("master's@", "wrong@"))
    assert "these are no Sentinels" in error_of(
        f"redis+sentinel://127.0.0.1:{watched.nodes[0].port}/mymaster?sentinel_password=master's"
    )
    watched.kill_master()
    said = error_of(url)
    assert "the master that the Sentinels name, 127.0.0.1:" in said
    assert "replica-announce-ip" in said
    assert "sentinel announce-ip" in said
    sentinel = watched.sentinels[0].client(password=SENTINEL_PASSWORD, decode_responses=True)
    wait_until(lambda: bool(state_of(sentinel)["is_sdown"]))
    assert "know no master 'mymaster' that is up" in error_of(url)
    watched.sentinels[0].kill()
    assert "no Sentinel answers" in error_of(url)


def test_one_sentinel_that_answers_is_enough(watched: Watched, own_server: StartServer) -> None:
    dead = own_server()
    dead.kill()
    url = watched.url.replace("@", f"@127.0.0.1:{dead.port},[::1]:{dead.port},")
    assert tt("--check", url=url).returncode == 0


@pytest.mark.parametrize("host", [b"a..b", b"h" * 300, b"a b", b""])
def test_a_sentinel_that_names_no_host_does_not_hide_a_right_one(
    watched: Watched, host: bytes
) -> None:
    fields = {
        b"name": b"mymaster",
        b"ip": host,
        b"port": b"1",
        b"flags": b"master",
        b"num-other-sentinels": b"0",
    }
    parts = [part for field in fields.items() for part in field]
    named = b"*1\r\n*%d\r\n" % len(parts) + b"".join(map(bulk, parts))

    def answer(command: list[bytes]) -> bytes:
        return hello() if command[0] == b"HELLO" else named

    with hostile_server(answer) as odd:
        assert tt("--check", url=watched.url.replace("@", f"@{odd},")).returncode == 0


def test_a_sentinel_that_hangs_takes_three_seconds_unless_the_url_says_otherwise() -> None:
    for query, seconds in (("", 3), ("?socket_timeout=7&socket_connect_timeout=7", 7)):
        client: Any = open_client(endpoint(f"redis+sentinel://h/m{query}"))
        settings = client.connection_pool.sentinel_manager.sentinels[0].connection_pool
        for name in ("socket_timeout", "socket_connect_timeout"):
            assert settings.connection_kwargs[name] == seconds


@pytest.mark.parametrize(
    "reply",
    [
        b"-NOPERM no\r\n",
        b"-ERR odd\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"*1\r\n:1\r\n",
        b"HTTP/1.1 400\r\n",
        b"*1\r\n*2\r\n$4\r\nname\r\n$8\r\nmymaster\r\n",
        b"$-1\r\n\r\n",  # with RESP3, a line is read after it
        b"_\r\n",
        b"%0\r\n",
    ],
)
def test_an_odd_sentinel_does_not_hide_a_right_one(watched: Watched, reply: bytes) -> None:
    def answer(command: list[bytes]) -> bytes:
        return hello() if command[0] == b"HELLO" and reply[:4] != b"HTTP" else reply

    with hostile_server(answer) as odd:
        both = tt("--check", url=watched.url.replace("@", f"@{odd},"))
        assert (both.returncode, both.stderr) == (0, "")
        alone = tt("--check", url=f"redis+sentinel://{odd}/mymaster")
        assert (alone.returncode, alone.stderr.count("\n")) == (3, 1)
        assert "internal" not in alone.stderr


def test_the_url_of_a_towns_file_can_name_sentinels(watched: Watched, tmp_path: Path) -> None:
    config = tmp_path / "tinytown.toml"
    config.write_text(f'name = "t"\n[redis]\nurl = "{watched.url}"\n')
    assert tt("--check", "-t", str(tmp_path), town=None).returncode == 0
    config.write_text('name = "t"\n[redis]\nurl = "sentinel://h/mymaster"\n')
    done = tt("--check", "-t", str(tmp_path), town=None)
    assert "'redis.url' begins with sentinel://" in done.stderr
    assert done.stderr.endswith("use redis+sentinel://USER:PASSWORD@HOST:26379,HOST/MASTER/DB\n")


def test_the_database_of_the_url_is_used(watched: Watched) -> None:
    watched.nodes[0].client(password=MASTER_PASSWORD, db=3).set("tt:agent:1", "1")
    assert tt("--force", url=watched.url.replace("mymaster", "mymaster/3")).returncode == 0
    assert watched.nodes[0].client(password=MASTER_PASSWORD, db=3).keys() == [
        b"tt:my-project:agent:1"
    ]


@each(
    ("given", "shown"),
    [
        ("redis+sentinel://h/m", "redis+sentinel://h:26379/m/0"),
        (
            "redis+sentinel://u:p%2Cw@a,b:1,[::1]:2/m/3?sentinel_password=s&sentinel_username=v",
            "redis+sentinel://u:***@a:26379,b:1,[::1]:2/m/3?sentinel_password=***"
            "&sentinel_username=v",
        ),
        (
            "rediss+sentinel://[::1]/a%2Fb#insecure",
            "rediss+sentinel://[::1]:26379/a%2Fb/0?ssl_cert_reqs=none",
        ),
        ("valkey+sentinel://h/m", "redis+sentinel://h:26379/m/0"),
        ("VALKEYS+sentinel://h/m?db=2", "rediss+sentinel://h:26379/m/2"),
    ],
)
def test_a_url_is_shown_without_either_password(given: str, shown: str) -> None:
    assert redacted(endpoint(given)) == shown
    assert redacted(endpoint(shown)) == shown
    hidden = {"p,w", "p%2Cw", "s"} if "u:p" in given else set()
    assert {secret.decode() for secret in secrets(endpoint(given))} == hidden


@each(
    "url",
    [
        "redis+sentinel://h",
        "redis+sentinel:///m",
        "redis+sentinel://h,/m",
        "redis+sentinel://h,h:0/m",
        "redis+sentinel://h,[::1/m",
        "redis+sentinel://h/m/x",
        "redis+sentinel://h/m/0/0",
        "redis+sentinel://:secret/1@h/m",
        "redis+sentinel://:1/secret@h/m",
        "redis+sentinel://:1?secret@h/m",
        "redis+sentinel://:1#secret@h/m",
        "redis+sentinel://a@h,secret:b/m",
    ],
)
def test_an_invalid_url_is_answered_with_the_form(url: str) -> None:
    with pytest.raises(ConfigError, match=r"write redis\+sentinel://USER:PASSWORD@HOST") as raised:
        open_client(endpoint(url))
    assert "secret" not in str(raised.value)


@each(
    ("url", "right"),
    [
        ("sentinel://:secret@h1:1,h2/m/0", "redis+sentinel"),
        ("redis-sentinel://:1/secret@h#m", "redis+sentinel"),
        ("sentinels://h1/m", "rediss+sentinel"),
        ("rediss-sentinel://:secret@h#m", "rediss+sentinel"),
    ],
)
def test_another_librarys_spelling_is_answered_with_the_form(url: str, right: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_client(endpoint(url))
    assert str(raised.value).endswith(f": use {right}://USER:PASSWORD@HOST:26379,HOST/MASTER/DB")
    assert "secret" not in str(raised.value)


def test_a_rest_address_is_no_redis_url() -> None:
    with pytest.raises(ConfigError, match=r"no Redis URL: Upstash shows a rediss://"):
        open_client(endpoint("https://eu1-some-1.upstash.io"))

"""Endpoints become connections and errors become messages, never with a password."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from hypothesis import example, given
from hypothesis import strategies as st
from redis import Connection
from redis.exceptions import RedisError

from tests.busy import busy
from tests.servers import Kind, Server, StartServer
from tests.tables import each
from tests.test_config import closed
from tests.waiting import wait_until
from tt_migrate import Migrator
from tt_migrate.settings.checks import ConfigError
from tt_migrate.settings.config import Endpoint, load_settings
from tt_migrate.settings.connection import open_client, redacted
from tt_migrate.settings.url import read_url, write_url
from tt_migrate.terminal.errors import explain


def url(text: str) -> Endpoint:
    return Endpoint("--redis-url", url=text)


def ping(endpoint: Endpoint) -> bool:
    with open_client(endpoint) as client:
        return bool(client.ping())


def failure(endpoint: Endpoint, *command: str) -> str:
    with open_client(endpoint) as client, pytest.raises((RedisError, OSError)) as caught:
        client.execute_command(*(command or ("PING",)))
    text = explain(caught.value, redacted(endpoint))
    assert text.isprintable()
    return text


@each(
    ("given_url", "shown"),
    [
        ("redis://localhost", "redis://localhost:6379/0"),
        ("redis://", "redis://localhost:6379/0"),
        ("redis:///3", "redis://localhost:6379/3"),
        ("redis://h:1/2/", "redis://h:1/2"),
        ("redis://h:1?db=4", "redis://h:1/4"),
        ("rediss://h", "rediss://h:6379/0"),
        ("redis://:pw@h", "redis://:***@h:6379/0"),
        ("redis://me:pw@h", "redis://me:***@h:6379/0"),
        ("redis://me@h", "redis://me@h:6379/0"),
        ("redis://h?username=me&password=pw", "redis://me:***@h:6379/0"),
        ("redis://:p%40s%2Fs@h", "redis://:***@h:6379/0"),
        ("redis://:p@s@h", "redis://:***@h:6379/0"),
        ("redis://m%C3%A9%0A@h", "redis://mé%0A@h:6379/0"),
        ("redis://\udcff:\udcff@h", "redis://%FF:***@h:6379/0"),
        ("redis://a%3Ab@h", "redis://a%3Ab@h:6379/0"),
        ("redis://[::1]:7000", "redis://[::1]:7000/0"),
        ("unix:///run/r.sock", "unix:///run/r.sock"),
        ("unix://:pw@/run/r.sock?db=2", "unix://:***@/run/r.sock?db=2"),
        ("unix:///run/r.sock?user=me&pass=pw&db=2", "unix://me:***@/run/r.sock?db=2"),
        ("unix:///run/a%0Ab.sock", "unix:///run/a%0Ab.sock"),
        ("unix:///run/\udcff", "unix:///run/%FF"),
        ("unix:///run/a b%3Fc%23", "unix:///run/a%20b%3Fc%23"),
        ("unix://localhost/run/r.sock", "unix:///run/r.sock"),
        ("redis+unix:///run/r.sock?db=2&pass=pw", "unix://:***@/run/r.sock?db=2"),
        ("valkey+unix:///run/r.sock?user=me", "unix://me@/run/r.sock"),
        ("valkey://:pw@h/1", "redis://:***@h:6379/1"),
        ("valkeys://h", "rediss://h:6379/0"),
        ("REDIS://H", "redis://h:6379/0"),
        ("rediss://h#insecure", "rediss://h:6379/0?ssl_cert_reqs=none"),
        ("redis://h?protocol=resp3", "redis://h:6379/0?protocol=3"),
        ("unix:///s?protocol=resp2&db=1", "unix:///s?db=1&protocol=2"),
        (
            "valkeys://h?protocol=2&socket_timeout=3",
            "rediss://h:6379/0?protocol=2&socket_timeout=3.0",
        ),
        ("redis://[fe80::1%25lo]:1", "redis://[fe80::1%25lo]:1/0"),
    ],
)
def test_a_url_is_shown_without_its_password(given_url: str, shown: str) -> None:
    assert redacted(url(given_url)) == shown


def test_a_table_is_shown_as_a_url() -> None:
    assert redacted(Endpoint("f", socket_path=Path("/t/.tt/redis.sock"), password="pw")) == (
        "unix://:***@/t/.tt/redis.sock"
    )
    assert redacted(Endpoint("f", host="h", port=1, tls=True)) == "rediss://h:1/0"


@each(
    "wrong",
    [
        "http://h",
        "localhost:6379",
        "redis:h",
        "redis://:pa#ss@h",
        "redis://:pa/ss@h:6379",
        "redis://:pa?ss@h:6379",
        "redis://u:12/34@h",
        "redis://u:12?34@h",
        "redis://:pa[ss@h",
        "redis://h:0",
        "redis://h:70000",
        "redis://h:port",
        "redis://h/two",
        "redis://h/-1",
        "redis://h?db=-1",
        "redis://h?db=two",
        "redis://h?decode_responses=true",
        "redis://h?nonsense=1",
        "redis://h?user=me",
        "redis://h?ssl_ca_certs=/dev/null",
        "redis://h?password=p&ss=1",
        "redis://h?password=p&ss",
        "redis://h?pass=p&ss=1",
        "redis://h?protocol=1",
        "redis://h?protocol=RESP3",
        "redis://h?protocol",
        "redis://h?db=1&db=2",
        "redis://h/1?db=1",
        "redis://me@h?username=me",
        "redis://h?db=",
        "redis://h?db=+1",
        "redis://[::1",
        "redis://[::1]x",
        "redis://x[::1]",
        "redis://:1:2",
        "redis://h#insecure",
        "rediss://h#secure",
        "rediss://h?ssl_cert_reqs=none#insecure",
        "rediss://h?ssl_check_hostname=maybe",
        "rediss://h?ssl_ca_path=/a%00b",
        "redis-sentinel://h",
        "redis+tls://h",
        "unix://h/run/r.sock",
        "unix:///run/a%00b",
        "unix:///run/r.sock?user=me&username=me",
        "redis://h?socket_timeout=0",
        "redis://h?socket_timeout=-1",
        "redis://h?socket_connect_timeout=nan",
        "redis://h?socket_connect_timeout=1e30",
        "redis://h/4294967296",
        "redis://h/" + "9" * 5000,
        "redis://:pa\nss@h",
        "redis://h%00x",
        "redis://h h",
        "redis://" + "x" * 70 + ".example",
        "rediss://h?ssl_cert_reqs=CERT_NONE",
        "unix://",
        "unix://relative/path",
        "unix://:pa/ss@/run/r.sock",
    ],
)
def test_a_doubtful_url_is_refused(wrong: str) -> None:
    for act in (redacted, open_client):
        with pytest.raises(ConfigError, match=r"^--redis-url: ") as caught:
            act(url(wrong))
        assert str(caught.value).isprintable()
        assert " 'ss'" not in str(caught.value), "what may be the end of a password is not named"


@each(
    ("wrong", "says"),
    [
        ("redis://h?nonsense=hidden", "an unknown parameter 'nonsense'"),
        ("redis://h?nonsense", "an unknown parameter 'nonsense'"),
        ("unix:///s?db=1&a%0Ab", "an unknown parameter 'a\\nb'"),
        ("valkey://h?nonsense&password=hidden", "an unknown parameter 'nonsense'"),
        ("redis://h?password=a&hidden", "an unknown parameter"),
        ("unix:///s?pass=a&hidden=", "an unknown parameter"),
        ("redis://u:hidden@h?db=1&hidden=1#", "an unknown parameter"),
        ("redis://h?pass=hidden", "an unknown parameter 'pass'"),
        ("redis://h?db=1&db=2", "a duplicate parameter 'db'"),
        ("redis://h?password=hidden&db=x", "a parameter that must be a database number"),
        ("redis://h?protocol=hidden", "a parameter 'protocol' that must be resp2 or resp3"),
        ("https://hidden", "begins with https://, which is not supported: use redis://, "),
        (
            "redis-sentinel://hidden",
            "redis-sentinel://, which is not supported: use redis+sentinel://",
        ),
        ("hidden1://h", "is not a valid Redis URL"),
    ],
)
def test_what_is_wrong_in_a_url_is_named_but_not_its_values(wrong: str, says: str) -> None:
    endpoint = Endpoint("/town/tinytown.toml", url=wrong)
    with pytest.raises(ConfigError, match=r"^/town/tinytown.toml: 'redis.url' ") as caught:
        redacted(endpoint)
    assert says in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert str(caught.value).isprintable()


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(
    st.sampled_from(["redis", "rediss", "unix"]),
    st.fixed_dictionaries(
        {"path": texts.filter(lambda text: text.strip("/")).map("/{}".format)},
        optional={
            "username": texts,
            "password": texts,
            "db": st.integers(1, 2**31 - 1),
            "protocol": st.sampled_from([2, 3]),
            "host": st.sampled_from(["h", "127.0.0.1", "::1", "fe80::1%lo"]),
            "port": st.integers(1, 65535),
        },
    ),
)
@example("redis", {"path": "/", "username": "/?#@:%2F", "password": "/?#@:%2F"})
@example("unix", {"path": "/?#@:%2F&=+ ", "username": "&=+ ;", "db": 1})
def test_a_url_works_as_it_is_shown_with_the_password_in_its_place(
    kind: str, parts: dict[str, Any]
) -> None:
    for name in ("host", "port") if kind == "unix" else ("path",):
        parts.pop(name, None)
    shown = write_url(kind, parts)
    assert shown.isprintable()
    shown = shown.replace(":***@", f":{quote(parts.get('password', ''), safe='')}@")
    defaults = {} if kind == "unix" else {"host": "localhost", "port": 6379, "db": 0}
    assert read_url(shown, "") == (kind, {**defaults, **parts})


@each(
    "host", ["redis://:hidden@h", "h h", "[::1]", " ", "\0", "x" * 70, "a..b", "h?x", "h#x", "h:1"]
)
def test_a_table_whose_host_is_none_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^f: 'redis.host' must be") as caught:
        redacted(Endpoint("f", host=host))
    assert "hidden" not in str(caught.value)


passwords = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(
    lambda text: f"Qz§{text}§zQ"
)


@given(passwords, st.sampled_from(["redis", "rediss", "unix", "redis+unix", "valkey", "valkeys"]))
@example("Qz§/§zQ", "redis")
@example("Qz§#§zQ", "unix")
@example("Qz§?password=§zQ", "redis")
@example("Qz§&db§zQ", "valkey")
@example("Qz§#insecure", "valkeys")
def test_no_password_is_ever_shown(password: str, scheme: str) -> None:
    place = "/run/r.sock" if "unix" in scheme else "127.0.0.1:1"
    encoded = quote(password, safe="")
    for text in (
        f"{scheme}://user:{encoded}@{place}",
        f"{scheme}://user:{password}@{place}",
        f"{scheme}://{place}?password={encoded}",
        f"{scheme}://{place}?password={password}",
        f"{scheme}://{place}?pass={password}",
        f"{scheme}://{password}",
    ):
        endpoint = url(text)
        said = [repr(endpoint)]
        try:
            said.append(redacted(endpoint))
            ping(endpoint)
        except ConfigError as error:
            said.append(str(error))
        except (RedisError, OSError) as error:
            said.append(explain(error, redacted(endpoint)))
        if text.endswith(f"//{password}"):
            continue  # Here the text is a host name, which is shown.
        for piece in ("Qz", "zQ"):
            assert piece not in " ".join(said)


def test_a_password_is_sent(own_server: StartServer) -> None:
    server = own_server("--requirepass", "p@ss/w#rd?")
    login = f"//:{quote('p@ss/w#rd?', safe='')}@"
    assert ping(url(server.url.replace("//", login)))
    assert ping(Endpoint("f", socket_path=Path(server.socket), password="p@ss/w#rd?"))
    assert ping(Endpoint("f", port=server.port, password="p@ss/w#rd?"))
    assert ping(url(f"unix://{login[2:]}{server.socket}"))


def test_a_user_and_a_database_are_used(server: Server) -> None:
    server.client().execute_command("ACL", "SETUSER", "me", "on", ">pw", "~*", "+@all")
    endpoint = url(f"redis://me:pw@127.0.0.1:{server.port}/3")
    with open_client(endpoint) as client:
        assert client.acl_whoami() in ("me", b"me")
        client.set("k", b"\xff")
        assert client.get("k") == b"\xff"
    assert server.client(db=3).exists("k") == 1


def test_a_password_need_not_be_utf_8(own_server: StartServer) -> None:
    # This is how Python represents the bytes of an option or a variable.
    server = own_server("--requirepass", "p\udcffw")
    assert ping(url(server.url.replace("//", "//:p\udcffw@")))
    assert ping(Endpoint("f", port=server.port, password="p\udcffw"))


def test_the_parameters_of_tinytowns_socket_urls_are_used(newest: Server) -> None:
    newest.client().execute_command("ACL", "SETUSER", "me", "on", ">p&w", "~*", "+@all")
    with open_client(url(f"unix://{newest.socket}?user=me&pass=p%26w")) as client:
        assert client.acl_whoami() in ("me", b"me")


def test_connecting_takes_no_permission(server: Server) -> None:
    server.client().execute_command("ACL", "SETUSER", "me", "on", ">pw", "+dbsize")
    with open_client(url(f"redis://me:pw@127.0.0.1:{server.port}")) as client:
        assert client.dbsize() == 0


@each("scheme", ["redis", "unix", "valkey", "redis+unix"])
@each("query", ["", "?protocol=resp2", "?protocol=resp3"])
def test_connecting_asks_nothing_that_a_server_refuses(
    server: Server, scheme: str, query: str
) -> None:
    watcher = server.client(single_connection_client=True)
    watcher.config_resetstat()  # drop errors caused by a client with default settings
    place = server.socket if "unix" in scheme else f"127.0.0.1:{server.port}"
    with open_client(url(f"{scheme}://{place}{query}")) as client:
        assert client.ping()
        with_protocol = client.client_info()["resp"] if server.kind.version >= (7, 0) else None
    assert watcher.info("errorstats") == {}
    assert with_protocol in (None, "2" if query.endswith("2") else "3")


def test_a_tls_connection_asks_nothing_that_a_server_refuses(
    newest: Server, tls_town: Path
) -> None:
    watcher = newest.client(single_connection_client=True)
    watcher.config_resetstat()
    assert ping(load_settings(tls_town, None, None, {}).redis)
    assert watcher.info("errorstats") == {}


def test_a_password_too_many_is_no_obstacle(newest: Server) -> None:
    assert ping(url(newest.url.replace("//", "//:unneeded@")))


def test_wrong_and_missing_passwords_are_explained(own_server: StartServer) -> None:
    server = own_server("--requirepass", "right-one")
    assert "wrong user name or password" in failure(url(server.url.replace("//", "//:wrong-one@")))
    assert "it requires a password" in failure(url(server.url))


def test_what_cannot_be_reached_is_explained(newest: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert "nothing is listening there" in failure(url(f"redis://127.0.0.1:{port}"))
    assert "the socket does not exist" in failure(Endpoint("f", socket_path=tmp_path / "none"))
    with closed(tmp_path):
        assert "may not open the socket" in failure(Endpoint("f", socket_path=tmp_path / "s"))
    assert failure(url("redis://nowhere.invalid")).startswith(
        "Redis at redis://nowhere.invalid:6379/0: the host name is unknown"
    )
    assert "no database with that number" in failure(url(f"redis://127.0.0.1:{newest.port}/9999"))


def test_the_socket_of_an_old_tinytown_is_named_where_the_new_one_is_missing(
    newest: Server, tmp_path: Path
) -> None:
    town = tmp_path / "a town"
    town.mkdir()
    file = town / "tinytown.toml"
    file.write_text("name = 't'")
    endpoint = load_settings(town, None, None, {}).redis

    def said() -> str:
        with open_client(endpoint) as client, pytest.raises(RedisError) as caught:
            client.ping()
        return explain(caught.value, redacted(endpoint), old_socket=endpoint.old_socket)

    assert said().endswith("the socket does not exist. Is the town's Redis running?")
    (town / "redis.sock").write_text("no socket")
    assert said().endswith("the socket does not exist. Is the town's Redis running?")
    (town / "redis.sock").unlink()
    (town / "redis.sock").symlink_to(newest.socket)
    text = said()
    assert str(town / "redis.sock") in text
    assert text.isprintable()
    assert ping(url(text.partition("--redis-url ")[2].partition(",")[0]))
    for names_it in ("socket_path = '.tt/redis.sock'", "url = 'redis://h'", "use_socket = false"):
        file.write_text(f"name = 't'\n[redis]\n{names_it}")
        assert load_settings(town, None, None, {}).redis.old_socket is None


def test_a_server_that_repeats_the_password_is_explained_without_it(
    kind: Kind, own_server: StartServer
) -> None:
    server = own_server("--rename-command", "HELLO", "", "--requirepass", "hidden", kind=kind)
    endpoint = url(server.url.replace("//", "//:hidden@"))
    with open_client(endpoint) as client, pytest.raises(RedisError) as refused:
        client.ping()
    # Valkey 9.1 says only that it requires a password.
    repeats = kind.name != "valkey-9.1"
    assert ("hidden" in str(refused.value)) == repeats
    text = failure(endpoint)
    assert ("it does not know HELLO" in text) == repeats
    assert "hidden" not in text
    assert ping(url(f"redis://:hidden@127.0.0.1:{server.port}?protocol=2"))


@each(
    ("settings", "command", "says"),
    [
        ({"min-replicas-to-write": 1}, "SET k v", "too few of its replicas"),
        ({"maxmemory": 1}, "SET k v", "it is out of memory"),
        ({"replicaof": "127.0.0.1 1"}, "SET k v", "read-only replica"),
        (
            {"replicaof": "127.0.0.1 1", "replica-serve-stale-data": "no"},
            "GET k",
            "a replica that lost its master",
        ),
    ],
)
def test_a_server_that_refuses_is_explained(
    server: Server, settings: dict[str, str | int], command: str, says: str
) -> None:
    client = server.client()
    for name, value in settings.items():
        if name == "replicaof":
            client.replicaof(*str(value).split())
        else:
            client.config_set(name, value)
    assert says in failure(url(server.url), *command.split())


def test_a_server_that_cannot_save_is_explained(kind: Kind, own_server: StartServer) -> None:
    server = own_server(kind=kind)
    (server.directory / "dump.rdb" / "in the way").mkdir(parents=True)
    client = server.client()
    client.config_set("save", "3600 1")
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    assert "cannot save to disk" in failure(url(server.url), "SET", "k", "v")
    client.config_set("save", "")  # else the server tries to save when it stops


def test_a_script_that_holds_the_server_is_explained(server: Server) -> None:
    with busy(server):
        assert "another client's script" in failure(url(server.url))


@pytest.mark.parametrize("command", ["SCAN 0", "EVAL return(redis.call('SCAN','0')) 0", "PING"])
def test_a_missing_permission_is_explained(server: Server, command: str) -> None:
    server.client().execute_command("ACL", "SETUSER", "me", "on", ">pw", "~*", "+eval")
    text = failure(url(f"redis://me:pw@127.0.0.1:{server.port}"), *command.split())
    assert "Needed are SCRIPT LOAD, " in text


@each(
    "greeting",
    [
        "HTTP/1.1 400 Bad Request",
        "SSH-2.0-OpenSSH",
        "220 mail ESMTP",
        "+OK POP3",
        "* OK IMAP4rev1",
        "554 5.7.1 Connection refused",
        "HTTP/1.1 403 Permission denied",
        "*1\r\n" * 3000,
        ":1",
        "_",
        "$x",
        "$5\r\nhello",
        "*2\r\n:1\r\n:2",
        "*many",
        "%1\r\n*0\r\n:1",
        "%1\r\n$5\r\nproto\r\n:nine",
        ":" + "9" * 5000,
        ",1e",
        "(x",
        "~1\r\n?",
        ">0",
        ">1\r\n+x\r\n+OK",
        "=x",
        "!x",
        "\xff\xfe",
        "\x15\x03\x01\x00\x02\x02\x46",
    ],
)
def test_something_that_is_not_redis_is_explained(greeting: str) -> None:
    def serve(peer: socket.socket) -> None:
        peer.sendall(f"{greeting}\r\n".encode("latin-1"))
        peer.recv(1000)  # Closing earlier would cause another error.

    with listener(serve) as port:
        for login in ("", "user:hidden@"):
            endpoint = url(f"redis://{login}127.0.0.1:{port}?socket_timeout=2")
            assert "the reply does not come from Redis" in failure(endpoint)


@each("garbage", ["220 mail", "$x", "*many", "%1\r\n*0\r\n:1", ":x"])
def test_a_malformed_reply_after_the_handshake_is_explained(garbage: str) -> None:
    def serve(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(b"%1\r\n$5\r\nproto\r\n:3\r\n")
        peer.recv(1000)
        peer.sendall(f"{garbage}\r\n".encode())

    with listener(serve) as port:
        text = failure(url(f"redis://127.0.0.1:{port}"))
    assert "the reply does not come from Redis" in text


@pytest.mark.parametrize(
    ("fault", "query"), [(ValueError, ""), (TypeError, ""), (AttributeError, "?protocol=2")]
)
def test_a_fault_of_redis_py_is_not_blamed_on_the_server(
    newest: Server, monkeypatch: pytest.MonkeyPatch, fault: type[Exception], query: str
) -> None:
    def fail(self: Connection) -> None:
        raise fault("not about a reply")

    monkeypatch.setattr(Connection, "on_connect", fail)
    with open_client(url(newest.url + query)) as client, pytest.raises(fault, match="not about"):
        client.ping()


def test_a_server_that_says_nothing_is_explained() -> None:
    hold = threading.Event()
    with listener(lambda peer: hold.wait(60)) as port:
        text = failure(url(f"redis://127.0.0.1:{port}?socket_timeout=0.2"))
        hold.set()
    assert "no answer in time" in text


@contextmanager
def listener(
    serve: Callable[[socket.socket], object], tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Yields a port. A thread serves each connection, after a TLS handshake if `tls` is given."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threads: list[threading.Thread] = []

        def handle(peer: socket.socket) -> None:
            with suppress(OSError), peer:
                serve(tls.wrap_socket(peer, server_side=True) if tls else peer)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    threads.append(threading.Thread(target=handle, args=(peer,), daemon=True))
                    threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    for thread in (accepting, *threads):
        thread.join(timeout=5)


def forward_to(target: Server) -> Callable[[socket.socket], None]:
    """Relays data between a peer and a real server until one of them closes the connection."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def serve(peer: socket.socket) -> None:
        with peer, socket.create_connection(("127.0.0.1", target.port)) as upstream:
            back = threading.Thread(target=pump, args=(upstream, peer), daemon=True)
            back.start()
            pump(peer, upstream)
            back.join()

    return serve


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_port(newest: Server, authority: trustme.CA) -> Iterator[int]:
    """A TLS port in front of a server. It requires a client certificate of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with listener(forward_to(newest), context) as port:
        yield port


@pytest.fixture
def tls_town(tls_port: int, authority: trustme.CA, tmp_path: Path) -> Path:
    """A town whose file has that port, and paths of certificates relative to the town."""
    client = authority.issue_cert("client")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client.private_key_pem.write_to_path(tmp_path / "key.pem")
    client.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "tinytown.toml").write_text(
        f"""
        name = "t"
        [redis]
        use_socket = false
        port = {tls_port}
        tls_enabled = true
        tls_cert = "cert.pem"
        tls_key = "key.pem"
        tls_ca_cert = "ca.pem"
        """
    )
    return tmp_path


def test_tls_with_the_certificates_of_the_towns_file(tls_town: Path) -> None:
    endpoint = load_settings(tls_town, None, None, {}).redis
    assert redacted(endpoint).startswith("rediss://127.0.0.1:")
    assert ping(endpoint)


def test_tls_with_a_url_and_its_parameters(tls_town: Path, tls_port: int) -> None:
    files = f"ssl_certfile={tls_town}/cert.pem&ssl_keyfile={tls_town}/key.pem"
    assert ping(url(f"rediss://localhost:{tls_port}?{files}&ssl_ca_certs={tls_town}/ca.pem"))
    assert ping(url(f"rediss://localhost:{tls_port}?{files}&ssl_cert_reqs=none"))


def test_tls_certificates_of_the_file_go_with_its_url(tls_town: Path, tls_port: int) -> None:
    path = tls_town / "tinytown.toml"
    path.write_text(path.read_text() + f'url = "rediss://localhost:{tls_port}"\n')
    assert ping(load_settings(tls_town, None, None, {}).redis)


def test_a_certificate_nobody_vouches_for_is_explained(tls_town: Path, tls_port: int) -> None:
    trustme.CA().cert_pem.write_to_path(tls_town / "ca.pem")
    assert "certificate cannot be verified" in failure(
        load_settings(tls_town, None, None, {}).redis
    )


def test_tls_to_a_plain_port_is_explained(newest: Server) -> None:
    # A server without TLS waits for the rest of what looks like a command.
    assert "TLS" in failure(url(f"rediss://127.0.0.1:{newest.port}?socket_timeout=0.2"))


def test_a_plain_connection_to_a_tls_port_is_explained(tls_port: int) -> None:
    assert "TLS" in failure(url(f"redis://127.0.0.1:{tls_port}"))


def test_a_client_certificate_that_is_wanted_is_explained(tls_town: Path, tls_port: int) -> None:
    # In TLS 1.3, the server may close the connection before the client reads the reason.
    assert "TLS" in failure(url(f"rediss://localhost:{tls_port}?ssl_ca_certs={tls_town}/ca.pem"))


@pytest.mark.parametrize("missing", ["cert.pem", "key.pem", "ca.pem"])
def test_a_missing_certificate_file_is_named(tls_town: Path, missing: str) -> None:
    (tls_town / missing).unlink()
    field = f"'redis.tls_{'ca_cert' if missing == 'ca.pem' else missing[:-4]}'"
    with pytest.raises(ConfigError, match=f"{field}: .*{missing} cannot be read: No such file"):
        redacted(load_settings(tls_town, None, None, {}).redis)
    with pytest.raises(ConfigError, match=r"^--redis-url: 'ssl_keyfile' of the URL: /none cannot"):
        redacted(url("rediss://h?ssl_keyfile=/none"))


def test_a_certificate_file_that_never_ends_is_refused_at_once(
    tls_town: Path, hanging_file: Callable[[Path], None]
) -> None:
    path = tls_town / "ca.pem"
    path.unlink()
    hanging_file(path)
    with pytest.raises(ConfigError, match=r"'redis.tls_ca_cert': .* cannot be read: ") as caught:
        redacted(load_settings(tls_town, None, None, {}).redis)
    assert str(caught.value).isprintable()
    with pytest.raises(ConfigError, match=r"'ssl_ca_certs' of the URL: .* cannot be read: "):
        redacted(url(f"rediss://h?ssl_ca_certs={path}"))


@pytest.mark.parametrize("broken", ["cert.pem", "key.pem", "ca.pem"])
def test_a_certificate_file_that_is_none_is_refused(tls_town: Path, broken: str) -> None:
    (tls_town / broken).write_text("no PEM")
    with pytest.raises(ConfigError, match=r"tinytown.toml: cannot use 'redis.tls_cert', "):
        redacted(load_settings(tls_town, None, None, {}).redis)


def test_a_key_without_a_certificate_or_with_a_passphrase_is_refused(tls_town: Path) -> None:
    key = tls_town / "key.pem"
    with pytest.raises(ConfigError, match=r"cannot use 'redis.tls_key' for TLS: each must"):
        redacted(Endpoint("f", tls=True, tls_key=key))
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"phrase"),
        )
    )
    with pytest.raises(ConfigError, match="no passphrase"):
        redacted(load_settings(tls_town, None, None, {}).redis)


@pytest.mark.parametrize("kind_of_url", ["url", "unix"])
def test_a_connection_that_was_closed_while_nobody_used_it_is_made_again(
    newest: Server, kind_of_url: str
) -> None:
    """As when a prompt is answered after a server with `timeout` has closed the connection."""
    url = newest.url if kind_of_url == "url" else f"unix://{newest.socket}"
    newest.client().set("tt:inbox:1", 1)
    with open_client(Endpoint("--redis-url", url=url)) as client:
        migrator = Migrator(client, "town")
        migrator.check()
        newest.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert migrator.migrate().total == 1

"""Settings from options, environment variables and the town's file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command import TT, chdir, tt
from tests.servers import Server
from tests.tables import each
from tt_migrate.settings.checks import ConfigError
from tt_migrate.settings.config import Endpoint, load_settings
from tt_migrate.settings.connection import open_client, redacted


def write_toml(town: Path, text: str) -> Path:
    path = town / "tinytown.toml"
    path.write_text(text, encoding="utf-8")
    return path


def endpoint(town: Path, **environ: str) -> Endpoint:
    return load_settings(town, None, None, environ).redis


def problem(town: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(town, None, None, environ)
    text = str(caught.value)
    assert "\n" not in text
    return text


@contextmanager
def closed(directory: Path) -> Iterator[None]:
    """Make a directory inaccessible, also if root runs the tests."""
    user = os.geteuid()
    directory.chmod(0)
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)
        directory.chmod(0o700)


def test_without_a_redis_table_the_towns_own_socket_is_meant(tmp_path: Path) -> None:
    path = write_toml(tmp_path, 'name = "my-project"')
    settings = load_settings(tmp_path, None, None, {})
    assert (settings.town, settings.town_source) == ("my-project", str(path))
    assert settings.redis == Endpoint(
        str(path),
        socket_path=tmp_path / ".tt" / "redis.sock",
        old_socket=tmp_path / "redis.sock",
    )


def test_every_field_of_the_redis_table_is_read(tmp_path: Path) -> None:
    path = write_toml(
        tmp_path,
        """
        name = "t"
        [redis]
        use_socket = false
        socket_path = "unused"
        host = "redis.example"
        port = 7000
        password = "hidden"
        tls_enabled = true
        tls_cert = "cert.pem"
        tls_key = "/etc/key.pem"
        tls_ca_cert = "tls/ca.pem"
        """,
    )
    assert endpoint(tmp_path) == Endpoint(
        str(path),
        host="redis.example",
        port=7000,
        password="hidden",
        tls=True,
        tls_cert=tmp_path / "cert.pem",
        tls_key=Path("/etc/key.pem"),
        tls_ca_cert=tmp_path / "tls/ca.pem",
    )


def test_the_socket_path_is_relative_to_the_town(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "town").mkdir()
    write_toml(tmp_path / "town", 'name = "t"\n[redis]\nsocket_path = "run/r.sock"')
    monkeypatch.chdir(tmp_path)
    assert endpoint(Path("town")).socket_path == tmp_path / "town" / "run" / "r.sock"


def test_a_url_in_the_table_is_used_unless_blank(tmp_path: Path) -> None:
    write_toml(tmp_path, 'name = "t"\n[redis]\nurl = "redis://h:1"\nhost = "other"')
    assert endpoint(tmp_path).url == "redis://h:1"
    write_toml(tmp_path, 'name = "t"\n[redis]\nurl = " "\nuse_socket = false')
    assert (endpoint(tmp_path).url, endpoint(tmp_path).host) == (None, "127.0.0.1")


def test_the_password_of_the_environment_replaces_the_tables(tmp_path: Path) -> None:
    write_toml(tmp_path, 'name = "t"\n[redis]\npassword = "from the file"')
    assert endpoint(tmp_path).password == "from the file"
    assert endpoint(tmp_path, TINYTOWN_REDIS_PASSWORD="env").password == "env"
    assert endpoint(tmp_path, TINYTOWN_REDIS_PASSWORD="").password == ""


def test_redis_url_replaces_the_whole_table_unless_blank(tmp_path: Path) -> None:
    path = write_toml(tmp_path, 'name = "t"\n[redis]\npassword = "p"\nport = "broken"')
    given = endpoint(tmp_path, REDIS_URL=" redis://env:1 ", TINYTOWN_REDIS_PASSWORD="q")
    assert given == Endpoint("REDIS_URL", url="redis://env:1")
    assert str(path) in problem(tmp_path, REDIS_URL="  ")


def test_the_options_win(tmp_path: Path) -> None:
    settings = load_settings(
        tmp_path / "absent", "a:b", "redis://option:1", {"REDIS_URL": "redis://env:1"}
    )
    assert (settings.town, settings.town_source) == ("a:b", "--town-name")
    assert settings.redis == Endpoint("--redis-url", url="redis://option:1")


def test_the_file_is_only_read_for_what_is_missing(tmp_path: Path) -> None:
    write_toml(tmp_path, 'name = 5\n[redis]\nhost = "h"\nuse_socket = false')
    assert load_settings(tmp_path, "t", None, {}).redis.host == "h"
    write_toml(tmp_path, 'name = "t"\nredis = 5')
    assert load_settings(tmp_path, None, "redis://h", {}).town == "t"


@pytest.mark.parametrize("name", ["x[1]*?\\", "日本", "a:b", " spaces ", "task"])
def test_a_towns_name_is_taken_literally(tmp_path: Path, name: str) -> None:
    write_toml(tmp_path, f"name = '{name}'")
    assert load_settings(tmp_path, None, None, {}).town == name


def test_the_json_file_of_old_towns_has_the_same_fields(tmp_path: Path) -> None:
    values = {"name": "old", "redis": {"use_socket": False, "port": 7001}}
    (tmp_path / "tinytown.json").write_text(json.dumps(values))
    settings = load_settings(tmp_path, None, None, {})
    assert (settings.town, settings.redis.port) == ("old", 7001)
    write_toml(tmp_path, 'name = "new"')
    assert load_settings(tmp_path, None, None, {}).town == "new"


def test_the_socket_of_a_json_files_town_is_in_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "tinytown.json"
    path.write_text('{"name": "old"}')
    assert endpoint(tmp_path) == Endpoint(str(path), socket_path=tmp_path / "redis.sock")
    path.write_text('{"name": "old", "redis": {"socket_path": ".tt/redis.sock"}}')
    assert endpoint(tmp_path).socket_path == tmp_path / ".tt" / "redis.sock"


@each(
    ("text", "says"),
    [
        ("", "'name' is missing"),
        ("# no name", "'name' is missing"),
        ("name = ' '", "'name' is blank"),
        ("name = 5", "'name' must be a string"),
        ("name = 't'\nredis = 5", "'redis' must be a table"),
        ("name = 't'\n[redis]\nurl = 5", "'redis.url' must be a string"),
        ("name = 't'\n[redis]\nuse_socket = 'no'", "'redis.use_socket' must be true or false"),
        ("name = 't'\n[redis]\nsocket_path = 1", "'redis.socket_path' must be a string"),
        ("name = 't'\n[redis]\nhost = []", "'redis.host' must be a string"),
        ("name = 't'\n[redis]\nport = '1'", "'redis.port' must be a whole number"),
        ("name = 't'\n[redis]\nport = true", "'redis.port' must be a whole number"),
        ("name = 't'\n[redis]\nport = 0", "'redis.port' must be a port"),
        ("name = 't'\n[redis]\nport = 65536", "'redis.port' must be a port"),
        ("name = 't'\n[redis]\npassword = 1", "'redis.password' must be a string"),
        ("name = 't'\n[redis]\ntls_enabled = 1", "'redis.tls_enabled' must be true or false"),
        ("name = 't'\n[redis]\ntls_cert = 1", "'redis.tls_cert' must be a string"),
        ("name = 't'\n[redis]\nsocket_path = 'a\\u0000'".replace("'", '"'), "'redis.socket_path'"),
        ("name = 't'\nname = 'u'", "is not valid TOML: "),
        ("name = 't'\n[redis]\npassword = hidden word", "is not valid TOML: line 3"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = write_toml(tmp_path, text)
    message = problem(tmp_path)
    assert message.startswith(f"{path}: {says}")
    assert "hidden" not in message


@each(
    "text",
    ["{", "[]", "5", "[" * 100_000, '{"name": "t",}', '{"name": ' + "9" * 5000 + "}"],
)
def test_a_broken_json_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tinytown.json"
    path.write_text(text)
    assert problem(tmp_path).startswith(f"{path}: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "absent") in problem(tmp_path / "absent")
    path = tmp_path / "tinytown.toml"
    path.mkdir()
    assert problem(tmp_path) == f"{path}: cannot be read: Is a directory"
    path.rmdir()
    path.write_bytes(b"name = '\xff'")
    assert problem(tmp_path) == f"{path}: is not UTF-8 text"
    assert "tinytown.toml" in problem(path)
    with closed(tmp_path):
        assert problem(tmp_path) == f"{path}: cannot be read: Permission denied"


@pytest.mark.parametrize("name", ["tinytown.toml", "tinytown.json"])
def test_a_file_that_never_ends_is_refused_at_once(
    hanging_file: Callable[[Path], None], name: str
) -> None:
    with tempfile.TemporaryDirectory() as directory:  # A socket's path must be short.
        path = Path(directory, name)
        hanging_file(path)
        assert problem(path.parent).startswith(f"{path}: cannot be read: ")
        done = tt("--json", "-t", directory, town=None)
    assert (done.returncode, json.loads(done.stdout)["error"].count(name)) == (2, 1)


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 50_000, "x = " + "{a = " * 5000, "[a" + ".a" * 5000]
)
def test_deep_nesting_is_an_error(tmp_path: Path, text: str) -> None:
    path = write_toml(tmp_path, text)
    assert problem(tmp_path).startswith(f"{path}: is not valid TOML: ")


@pytest.mark.parametrize("arguments", [[], ["-t", "."], ["-t", "deep/er"], ["-t", ".."]])
def test_a_deleted_working_directory_is_no_traceback(tmp_path: Path, arguments: list[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with chdir(gone):
        gone.rmdir()
        done = tt(*arguments, town=None)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no tinytown.toml in " in done.stderr
    assert ", because the current directory has been deleted: " in done.stderr


def test_a_deleted_working_directory_is_no_obstacle_when_it_is_not_needed(
    tmp_path: Path, newest: Server
) -> None:
    town, gone = tmp_path / "town", tmp_path / "gone"
    town.mkdir()
    gone.mkdir()
    write_toml(town, f"name = 't'\n[redis]\nsocket_path = '{newest.socket}'")
    program = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *TT]
    done = tt("--check", "-t", str(town), town=None, cwd=gone, program=program)
    assert (done.returncode, done.stderr) == (0, "")
    gone.mkdir()
    with chdir(gone):
        gone.rmdir()
        done = tt("--check", url=newest.url, town="t")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_directory_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    town = tmp_path / "a\nb\x1b[31m"
    assert str(tmp_path / "a\\nb\\x1b[31m") in problem(town)
    town.mkdir()
    path = write_toml(town, "name = 't'\nredis = 5")
    shown = str(path).replace("\n", "\\n").replace("\x1b", "\\x1b")
    assert problem(town) == f"{shown}: 'redis' must be a table"
    assert load_settings(town, None, "redis://h", {}).town_source == shown
    write_toml(town, "name = 't'")
    assert endpoint(town).source == shown


@pytest.mark.parametrize("field", ["name", "redis.password", "redis.host", "redis.socket_path"])
def test_half_a_character_is_refused(tmp_path: Path, field: str) -> None:
    values: dict[str, object] = {"name": "t", "redis": {field.removeprefix("redis."): "\ud800"}}
    if field == "name":
        values["name"] = "\ud800"
    (tmp_path / "tinytown.json").write_text(json.dumps(values))
    assert f"'{field}' contains half of a surrogate pair" in problem(tmp_path)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    write_toml(tmp_path, "\ufeffname = 't'")
    assert load_settings(tmp_path, None, None, {}).town == "t"


def test_blank_options_are_refused(tmp_path: Path) -> None:
    for town, url in (("", "redis://h"), (" ", "redis://h"), ("t", ""), ("t", " ")):
        with pytest.raises(ConfigError, match="is blank"):
            load_settings(tmp_path, town, url, {})


def test_the_towns_file_is_found_in_a_parent_directory(tmp_path: Path) -> None:
    write_toml(tmp_path, 'name = "above"\n[redis]\nsocket_path = "its.sock"')
    below = tmp_path / "src/deep"
    below.mkdir(parents=True)
    settings = load_settings(below, None, None, {})
    assert (settings.town, settings.town_source) == ("above", str(tmp_path / "tinytown.toml"))
    assert settings.redis.socket_path == tmp_path / "its.sock"
    write_toml(below, 'name = "nearer"')
    assert load_settings(below, None, None, {}).town == "nearer"
    done = tt("--check", town=None, cwd=tmp_path / "src")
    assert f"Redis at unix://{tmp_path}/its.sock: the socket does not exist" in done.stderr


def test_of_a_directory_that_is_not_there_no_parent_is_taken(tmp_path: Path) -> None:
    write_toml(tmp_path, 'name = "above"')
    assert "no tinytown.toml in" in problem(tmp_path / "mistyped")


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("redis://host", b"from env"),
        ("redis://user@host", b"from env"),
        ("unix:///socket", b"from env"),
        ("redis://:own@host", b"own"),
        ("redis://host?password=own", b"own"),
    ],
)
def test_redis_password_is_the_password_of_a_url_that_has_none(
    tmp_path: Path, url: str, password: bytes
) -> None:
    environ = {"REDIS_PASSWORD": "from env"}
    write_toml(tmp_path, f'name = "t"\n[redis]\nurl = "{url}"\npassword = "of the table"')
    for given in (
        load_settings(tmp_path, None, url, environ),
        load_settings(tmp_path, None, None, {**environ, "REDIS_URL": url}),
        load_settings(tmp_path, None, None, environ),
    ):
        pool = open_client(given.redis).connection_pool
        assert pool.connection_kwargs["password"] == password
        assert "from env" not in redacted(given.redis)
        assert "***" in redacted(given.redis)


def test_redis_password_is_not_for_a_table_without_a_url(tmp_path: Path) -> None:
    write_toml(tmp_path, 'name = "t"')
    assert endpoint(tmp_path, REDIS_PASSWORD="x").password is None

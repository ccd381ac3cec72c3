"""What the environment hands over: variables, files of passwords, certificates, the platform."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import importlib_resources
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from redis import SSLConnection

from tests.command import environment, script, tt_in_process
from tests.command import tt as typed_tt
from tests.servers import Server
from tests.tables import each
from tests.test_connection import forward_to, listener
from tt_migrate.engine.calls.scripts import source

ROOT = Path(__file__).parent.parent
CLICKS = ("8.1.8", "8.2.0", "8.2.1", "8.2.2", "8.3.3", "8.4.2", "installed")
"""The versions of click that the Makefile installs in .cache, and the one of this environment."""
FLAGS = {
    "TT_MIGRATE_FORCE": "force",
    "TT_MIGRATE_DRY_RUN": "dry_run",
    "TT_MIGRATE_UPGRADE": "upgrade",
    "TT_MIGRATE_HASH": "hash",
    "TT_MIGRATE_VERBOSE": "verbose",
}
MEANINGS = dict.fromkeys(("true", "TRUE", "1", "yes", "on", "y", " true "), True) | dict.fromkeys(
    ("false", "False", "0", "no", "off", "n", "", " "), False
)


tt: Any = typed_tt
"""Without the types: these tests give variables in a dict."""


def python(
    program: str, *args: str, flags: tuple[str, ...] = (), path: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python program that can import this project and its tests."""
    folders = os.pathsep.join(filter(None, (path, str(ROOT))))
    return subprocess.run(
        [sys.executable, *flags, "-c", program, *args],
        env=environment(PYTHONPATH=folders, **variables),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(params=CLICKS)
def click_folder(request: pytest.FixtureRequest) -> str:
    """The folder of a version of click, empty for this environment's."""
    if request.param == "installed":
        return ""
    folder = ROOT / ".cache" / "click" / request.param
    if not (folder / "installed").exists():
        missing = f"no .cache/click/{request.param}: `make test` installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return str(folder)


WITH_EACH_CLICK = """
import json, os, sys
from tests.command import tt_in_process
from tt_migrate.terminal.cli import migrate

FLAGS, MEANINGS = map(json.loads, sys.argv[1:])

def read(name, text, *args):
    os.environ[name] = text
    try:
        return migrate.make_context("tt", [*args]).params[FLAGS[name]]
    finally:
        del os.environ[name]

def run(*args, name="tt-migrate", **variables):
    done = tt_in_process(*args, name=name, **variables)
    return [done.returncode, done.stdout, done.stderr]

said = {
    "flags": {text: {read(name, text) for name in FLAGS} for text in MEANINGS},
    "typed": {text: {read("TT_MIGRATE_FORCE", text, "--force")} for text in MEANINGS},
    "nonsense": run("--check", TT_MIGRATE_FORCE="nonsense"),
    "mistyped": run("migrat"),
    "version": run("--version"),
    "help": run("--help"),
}
print(json.dumps(said, default=list))
"""


@pytest.fixture
def with_click(click_folder: str) -> dict[str, Any]:
    """What WITH_EACH_CLICK says, with a version of click."""
    args = (json.dumps(FLAGS), json.dumps(MEANINGS))
    done = python(WITH_EACH_CLICK, *args, path=click_folder)
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_each_click_reads_variables_and_the_command_line_alike(with_click: dict[str, Any]) -> None:
    assert with_click["flags"] == {text: [meaning] for text, meaning in MEANINGS.items()}
    assert with_click["typed"] == {text: [True] for text in MEANINGS}
    status, out, err = with_click["nonsense"]
    assert (status, out) == (2, "")
    assert "Error: TT_MIGRATE_FORCE is 'nonsense': set it to true or false\n" in err
    status, out, err = with_click["mistyped"]
    assert (status, "Did you mean 'migrate'?" in err) == (2, True)
    assert with_click["version"][:2] == [0, "tt-migrate 0.1.0\n"]
    assert "Rename a town's old keys" in with_click["help"][1]


ODD_NAMES = {
    "my-project\r": r"my-project\r",
    "my-project\n": r"my-project\n",
    " my-project": " my-project",
    "my-project\u00a0": r"my-project\u00a0",
    "\ufeffmy-project": r"\ufeffmy-project",
    "'my-project'": "'my-project'",
    '"my-project"\r': r'"my-project"\r',
    "my-\x1bproject": r"my-\x1bproject",
}
"""Names with what shells and files of variables leave, and how messages show them."""


@each("name", ODD_NAMES)
def test_a_towns_name_with_a_leftover_is_refused_and_shown(newest: Server, name: str) -> None:
    newest.client().set("tt:stop:1", 1)
    for args, variables in (
        (("--town-name", name), {}),
        ((), {"TT_MIGRATE_TOWN_NAME": name}),
        (("--from-town", name), {"TT_MIGRATE_TOWN_NAME": "new"}),
        ((), {"TT_MIGRATE_TOWN_NAME": "new", "TT_MIGRATE_FROM_TOWN": name}),
    ):
        done = tt("--force", *args, url=newest.url, town=None, **variables)
        assert (done.returncode, done.stdout) == (2, "")
        assert f" is '{ODD_NAMES[name]}', which has a leftover" in done.stderr
        assert "give it as 'my-project'" in done.stderr
        assert "run it again" not in done.stderr
    assert newest.client().keys() == [b"tt:stop:1"]


@each("name", ["o'neil's", "a'", "\U0001f469\u200d\U0001f4bb", "\udcff", "x\\"])
def test_an_unusual_name_is_taken(newest: Server, name: str) -> None:
    newest.client().set("tt:stop:1", 1)
    assert tt("--force", url=newest.url, town=name).returncode == 0
    assert newest.client().keys() == [b"tt:%b:stop:1" % name.encode("utf-8", "surrogateescape")]


def test_a_towns_file_may_have_any_name_and_keys_with_it_get_a_better_one(
    newest: Server, tmp_path: Path
) -> None:
    newest.client().set("tt:stop:1", 1)
    (tmp_path / "tinytown.toml").write_text('name = "my-project\\r"')
    folder = ("-t", str(tmp_path))
    assert tt("--force", *folder, url=newest.url, town=None).returncode == 0
    assert newest.client().keys() == [b"tt:my-project\r:stop:1"]
    better = tt("--force", "--from-town", "my-project\r", url=newest.url)
    assert (better.returncode, better.stderr) == (0, "")
    assert newest.client().keys() == [b"tt:my-project:stop:1"]


@pytest.mark.parametrize("name", ["", " "])
def test_a_former_name_that_is_blank_is_refused(newest: Server, name: str) -> None:
    newest.client().set("tt::stop:1", 1)
    for mode in ("--check", "--dry-run", "--force"):
        done = tt(mode, "--from-town", name, url=newest.url)
        assert done.returncode == 2
        assert done.stderr == "Error: --from-town is blank: give the town's former name\n"


@each("name", ["", " ", "\r", '""', "' '"])
def test_a_town_name_with_nothing_in_it_is_blank(newest: Server, name: str) -> None:
    done = tt("--check", "--town-name", name, url=newest.url, town=None)
    assert done.returncode == 2
    assert done.stderr == "Error: --town-name is blank: give the town's name\n"


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_url_in_quotes_is_said_to_be_in_quotes(tmp_path: Path, quote: str) -> None:
    url = f"{quote}redis://:s3cr3t@h{quote}"
    (tmp_path / "tinytown.toml").write_text(f"name = 't'\n[redis]\nurl = {json.dumps(url)}")
    for args, variables in (
        (("--redis-url", url), {}),
        ((), {"REDIS_URL": url}),
        (("-t", str(tmp_path)), {}),
    ):
        done = tt("--check", *args, **variables)
        assert (done.returncode, "is in quotes" in done.stderr) == (2, True), done.stderr
        assert "s3cr3t" not in done.stderr


@pytest.fixture
def locked(newest: Server) -> Iterator[Server]:
    """A server that wants the password `s3cr3ts3cr3t`."""
    client = newest.client()
    client.config_set("requirepass", "s3cr3ts3cr3t")
    yield newest
    client.config_set("requirepass", "")


LINE_END = "the line end of {} was left out"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_end_after_a_password_is_left_out_and_v_says_so(
    locked: Server, tmp_path: Path, end: str
) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"s3cr3ts3cr3t" + end.encode())
    town = f"name = 't'\n[redis]\nuse_socket = false\nport = {locked.port}"
    (tmp_path / "tinytown.toml").write_text(town)
    for name, text in (
        ("REDIS_PASSWORD", f"s3cr3ts3cr3t{end}"),
        ("REDIS_PASSWORD_FILE", str(file)),
    ):
        done = tt("--check", "-v", url=locked.url, **{name: text})
        assert (done.returncode, LINE_END.format(name) in done.stderr) == (0, True), done.stderr
        name = f"TINYTOWN_{name}"
        done = tt("--check", "-v", "-t", str(tmp_path), **{name: text})
        assert (done.returncode, LINE_END.format(name) in done.stderr) == (0, True), done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ('"s3cr3ts3cr3t"', "the password of REDIS_PASSWORD has quotes"),
        ("s3cr3ts3cr3t ", "the password of REDIS_PASSWORD has a blank or a line end at an end"),
        (
            "s3cr3ts3cr3t\n\n",
            "the line end of REDIS_PASSWORD was left out; the password of REDIS_PASSWORD has",
        ),
    ],
)
def test_a_refused_password_that_is_odd_is_named(locked: Server, password: str, says: str) -> None:
    done = tt("--check", url=locked.url, REDIS_PASSWORD=password)
    assert done.returncode == 3
    assert f"wrong user name or password ({says}" in done.stderr
    assert "s3cr3t" not in done.stderr


def test_a_file_of_a_password_that_cannot_be_used_is_named(newest: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    os.mkfifo(tmp_path / "pipe")
    for name, says in (
        ("none", "cannot be read: No such file or directory"),
        ("", "cannot be read: Is a directory"),
        ("pipe", "cannot be read: it is not a regular file"),
        ("empty", "is empty: write the password to it"),
    ):
        path = tmp_path / name
        done = tt("--check", url=newest.url, REDIS_PASSWORD_FILE=str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"Error: REDIS_PASSWORD_FILE: {path} {says}\n"
    both = {"REDIS_PASSWORD": "a", "REDIS_PASSWORD_FILE": "b"}
    assert "are both set" in tt("--check", url=newest.url, **both).stderr


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[str, ec.EllipticCurvePrivateKey],
    *extensions: tuple[x509.ExtensionType, bool],
    days: int = 1,
) -> bytes:
    """A certificate with no more extensions than these, as PEM."""
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer[0])]),
        subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=2),
        not_valid_after=now + timedelta(days=days),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer[1], hashes.SHA256()).public_bytes(Encoding.PEM)


def tls_context(folder: Path, host: str = "localhost", days: int = 1) -> ssl.SSLContext:
    """A server's TLS, whose certificate has no Authority Key Identifier. Writes `ca.pem`."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = certificate(
        "authority",
        authority,
        ("authority", authority),
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), False),
    )
    names = x509.SubjectAlternativeName([x509.DNSName(host)])
    own = certificate(host, key, ("authority", authority), (names, False), days=days)
    (folder / "ca.pem").write_bytes(root)
    (folder / "own.pem").write_bytes(own)
    (folder / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem", folder / "key.pem")
    return context


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python checks certificates as 3.13 and later do."""
    default = ssl.create_default_context

    def context() -> ssl.SSLContext:
        made = default()
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", context)


NOT_STRICT = "ssl_exclude_verify_flags=VERIFY_X509_STRICT"


@pytest.mark.usefixtures("strict")
def test_a_certificate_that_only_a_strict_check_refuses_is_explained_and_can_be_taken(
    newest: Server, tmp_path: Path
) -> None:
    with listener(forward_to(newest), tls_context(tmp_path)) as port:
        url = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem"
        done = tt("--check", url=url)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert "its certificate lacks what the strict check" in done.stderr
        assert "Key Identifier" in done.stderr
        assert NOT_STRICT in done.stderr
        assert "tls_ca_cert" not in done.stderr
        taken = tt("--check", "-v", url=f"{url}&{NOT_STRICT}")
        assert (taken.returncode, NOT_STRICT in taken.stderr) == (0, True), taken.stderr
    other = tmp_path / "other"
    other.mkdir()
    with listener(forward_to(newest), tls_context(other)) as port:
        url = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem&{NOT_STRICT}"
        done = tt("--check", url=url)
        assert "its certificate cannot be verified" in done.stderr, "it is verified all the same"


@pytest.mark.parametrize(
    ("host", "days", "says"),
    [
        ("localhost", -1, "its certificate is out of date"),
        ("other.example", 1, "its certificate is for another host name"),
    ],
)
def test_the_reason_why_a_certificate_is_refused_is_named(
    newest: Server, tmp_path: Path, host: str, days: int, says: str
) -> None:
    with listener(forward_to(newest), tls_context(tmp_path, host, days)) as port:
        done = tt("--check", url=f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem")
    assert (done.returncode, says in done.stderr) == (3, True), done.stderr


def test_a_redis_py_without_the_parameter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def before(self: object, ssl_cert_reqs: str = "required") -> None: ...

    monkeypatch.setattr(SSLConnection, "__init__", before)
    done = tt("--check", url=f"rediss://h?{NOT_STRICT}")
    assert (done.returncode, "install redis-py 7.0 or later" in done.stderr) == (2, True)
    assert (
        "must be VERIFY_X509_STRICT"
        in tt("--check", url="rediss://h?ssl_exclude_verify_flags=VERIFY_CRL_CHECK_LEAF").stderr
    )


def bare_tt(*args: str) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = tt(*args, program=script("tt"), town=None, PATH="")
    return done


def test_tt_alone_shows_its_help() -> None:
    done = bare_tt()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == bare_tt("--help").stdout
    assert "migrate  Rename" in done.stdout


def test_a_command_that_is_nearly_ours_is_named() -> None:
    assert "no other tt on the PATH. Did you mean 'migrate'?" in bare_tt("migrat").stderr
    assert "Did you mean" not in bare_tt("spawn").stderr


def test_a_wrong_scheme_is_answered_with_the_three_of_nearly_everyone() -> None:
    said = tt("--check", url="postgres://h").stderr
    assert "use redis://, rediss:// or unix://\n" in said


def test_a_preview_says_whether_the_database_is_empty_or_its_size_unknown(newest: Server) -> None:
    assert "Database: 0, empty\n" in tt("--dry-run", url=newest.url).stderr
    newest.client().execute_command("ACL", "SETUSER", "me", "on", ">pw", "~*", "+@all", "-dbsize")
    url = newest.url.replace("//", "//me:pw@")
    assert "Database: 0, size unknown\n" in tt("--dry-run", url=url).stderr
    for address, size in ((newest.url, 0), (url, None)):
        assert json.loads(tt("--check", "--json", url=address).stdout)["dbsize"] == size


@pytest.mark.parametrize("option", ["--record", "--town"])
def test_an_option_for_a_path_that_is_empty_is_refused(newest: Server, option: str) -> None:
    done = tt("--force", option, "", url=newest.url)
    assert (done.returncode, "it is empty. Name a path" in done.stderr) == (2, True)


def test_a_record_called_dash_is_refused(newest: Server, tmp_path: Path) -> None:
    newest.client().set("tt:stop:1", 1)
    for args, variables in (
        (("--record", "-"), {}),
        ((), {"TT_MIGRATE_RECORD": "-"}),
    ):
        done = tt("--force", *args, url=newest.url, cwd=tmp_path, **variables)
        assert (done.returncode, "/dev/stdout" in done.stderr) == (2, True)
    assert [*tmp_path.iterdir()] == []
    assert newest.client().keys() == [b"tt:stop:1"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_record_that_fails_says_how_many_changed_keys_have_no_line(newest: Server) -> None:
    redis = newest.client()
    redis.mset({f"tt:stop:{n}": n for n in range(3000)})
    done = tt("--force", "--max-pause", "1", "--record", "/dev/full", url=newest.url)
    moved = len(redis.keys("tt:my-project:*"))
    assert (done.returncode, moved > 0) == (2, True)
    assert f"; {moved} keys were changed and have no line in it" in done.stderr


def test_help_is_whole_without_docstrings() -> None:
    for program in ("tt_main", "tt_migrate_main"):
        call = "import sys; sys.argv[1:] = ['--help']; import tt_migrate.__main__ as main;"
        call += f"main.{program}()"
        plain, stripped = (python(call, flags=flags) for flags in ((), ("-OO",)))
        assert stripped.returncode == 0
        assert stripped.stdout == plain.stdout


WITHOUT_UNIX = """
import os, signal, sys
for name in ("SIGHUP", "SIGALRM", "setitimer", "ITIMER_REAL", "SIGKILL", "pause", "alarm"):
    delattr(signal, name)
for name in ("O_NONBLOCK", "set_blocking", "fork", "geteuid", "getuid", "mkfifo", "execve"):
    delattr(os, name)
sys.argv[1:] = {args!r}
import tt_migrate.__main__ as m
m.tt_migrate_main()
"""


def test_it_runs_without_what_windows_lacks(newest: Server, tmp_path: Path) -> None:
    newest.client().set("tt:stop:1", 1)
    args = ["--force", "--redis-url", newest.url, "--town-name", "t"]
    record = tmp_path / "record"
    done = python(WITHOUT_UNIX.format(args=[*args, "--record", str(record)]))
    assert (done.returncode, done.stderr) == (0, "")
    assert newest.client().keys() == [b"tt:t:stop:1"]
    assert record.read_text().count("\n") == 1


def test_a_program_packed_without_its_lua_files_says_what_is_missing(
    newest: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newest.client().set("tt:stop:1", 1)

    def no_module(name: str) -> Path:
        raise ModuleNotFoundError(name)

    for files in (no_module, lambda name: tmp_path):
        source.cache_clear()
        monkeypatch.setattr(importlib_resources, "files", files)
        done = tt("--force", url=newest.url)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert ".lua is missing from this installation" in done.stderr
        assert "--collect-all tt_migrate" in done.stderr
    assert newest.client().keys() == [b"tt:stop:1"]


@pytest.mark.parametrize(
    "url", ["redis://:secret@127.0.0.1:1", "redis://127.0.0.1:1?password=secret"]
)
def test_a_file_is_not_read_where_the_url_has_a_password(tmp_path: Path, url: str) -> None:
    done = tt_in_process(
        *("--check", "--redis-url", url, "--town-name", "town"),
        REDIS_PASSWORD_FILE=str(tmp_path / "none"),
    )
    assert done.returncode == 3
    assert "nothing is listening there" in done.stderr
    done = tt_in_process(
        *("--check", "--redis-url", "redis://127.0.0.1:1", "--town-name", "town"),
        REDIS_PASSWORD_FILE=str(tmp_path / "none"),
    )
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)

"""The command never prints a control character or a password from a server or a key."""

from __future__ import annotations

import signal
import subprocess
from urllib.parse import quote

from tests.command import assert_harmless, on_a_terminal, read_all, read_until, tt_in_process
from tests.hostile import bulk, error, hello, hostile_server, inspection
from tests.servers import Server
from tests.tables import each

PASSWORDS = ["correct-horse", "a\nb", 'q"\\', "total", ".*", "(", "x", "é☃", "p w  d"]
MODES = [("--force",), ("--dry-run",), ("--check",), ()]


def run(
    *options: str, url: str, town: str = "my-project", encoding: str = "utf-8"
) -> subprocess.CompletedProcess[str]:
    return tt_in_process("--redis-url", url, "--town-name", town, *options, encoding=encoding)


def server_spelling(command: list[bytes]) -> bytes:
    return b" ".join(repr(argument)[1:].encode() for argument in command)


@each("password", PASSWORDS)
@each("refused", [b"HELLO", b"SCRIPT", b"EVALSHA"])
def test_a_server_that_repeats_all_it_was_told_does_not_give_the_password_away(
    password: str, refused: bytes
) -> None:
    told: list[bytes] = []

    def answer(command: list[bytes]) -> bytes:
        told.extend(command)
        if command[0] == refused:
            raw = b" ".join(told).replace(b"Error", b"")
            return error(b"ERR \x1b[31m you said: <" + raw + b"> " + server_spelling(told))
        return hello(b"\x1b[2J" + b" ".join(told), b"7.\x07", b"\x9b" + password.encode())

    with hostile_server(answer) as address:
        url = f"redis://:{quote(password, safe='')}@{address}"
        for options in (("--json",), ("-v",)):
            done = run(*options, "--force", url=url)
            assert done.returncode == 3
            assert_harmless(done)
            if len(password) > 2 and password != "total":
                assert password not in done.stdout + done.stderr
                assert " ".join(password.split()) not in done.stdout + done.stderr
            assert ":***@" in done.stdout + done.stderr
            if options == ("--json",):
                assert '"total": 0' in done.stdout  # the command's own words stay


def reply(*fields: bytes) -> bytes:
    return b"*%d\r\n" % (4 + len(fields)) + b"$1\r\n0\r\n:1\r\n:1000\r\n:3\r\n" + b"".join(fields)


def test_reasons_that_a_server_gives_are_escaped_and_without_the_password() -> None:
    said = bulk(b"ERR \x1b[2J 'hunter2hunter2' \\x1b")
    key = bulk(b"tt:agent:hunter2hunter2\x1b")
    numbers = b"*7\r\n" + b":0\r\n" * 7
    none, records = b"*0\r\n", b"*2\r\n:0\r\n:0\r\n"
    lists = (none, b"*2\r\n" + key + said, *[none] * 5, records, *[none] * 3)
    counted = b"*9\r\n" + b":0\r\n" * 9
    # It changes nothing, so no other pass follows.
    migrated = reply(numbers, numbers, *lists, counted, b":0\r\n", bulk(b""))

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"SCRIPT":
            return bulk(b"0" * 40)
        if command[0] == b"EVALSHA":
            return replies.pop(0)
        return hello()

    for options in (("--json",), ()):
        replies = [inspection(), migrated]
        with hostile_server(answer) as address:
            done = run("--force", *options, url=f"redis://:hunter2hunter2@{address}")
        assert done.returncode == 1, done.stderr
        assert_harmless(done)
        backslash = "\\\\" if options else "\\"
        # The key's name is shown, although it equals the password.
        assert f"tt:agent:hunter2hunter2{backslash}x1b" in done.stdout
        assert f"ERR {backslash}x1b[2J '***' {backslash * 2}x1b" in done.stdout


def test_the_bar_shows_no_words_of_the_server() -> None:
    numbers = b"*7\r\n" + b":0\r\n" * 7
    records = b"*2\r\n:0\r\n:0\r\n" + b"*0\r\n" * 3 + b"*9\r\n" + b":0\r\n" * 9
    batch = b"*20\r\n$1\r\n7\r\n:1\r\n:1000\r\n:3\r\n" + numbers * 2 + b"*0\r\n" * 7
    replies = [inspection(), batch + records + b":0\r\n" + bulk(b"")]

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"SCRIPT":
            return bulk(b"0" * 40)
        if command[0] == b"EVALSHA":
            return replies.pop(0) if replies else error(b"READONLY \x1b[2J hunter2hunter2 \x9b")
        return hello()

    with hostile_server(answer) as address:
        where = ("--town-name", "t", "--redis-url", f"redis://:hunter2hunter2@{address}")
        with on_a_terminal("--force", *where) as (process, terminal):
            sent = read_until(terminal, "read-only server")
            process.send_signal(signal.SIGTERM)
            shown = sent + read_all(terminal)
    assert "\x1b" not in shown
    assert "hunter2" not in shown


@each("options", MODES)
def test_names_that_differ_are_not_shown_alike(newest: Server, options: tuple[str, ...]) -> None:
    redis = newest.client()
    names = [b"\x1b", b"\\x1b", b"\xc2\x85", b"\x85", b"\\u0085", b"\xff", b"\\xff"]
    redis.mset({b"tt:agent:" + name: 1 for name in names})
    if options != ("--dry-run",):
        redis.mset({b"tt:t:agent:" + name: 1 for name in names})
    redis.mset({b"tt:" + name + b":backlog": 1 for name in names})
    done = run(*options, url=newest.url, town="t")
    assert_harmless(done)
    if options in (("--force",), ("--dry-run",)):
        listed = {line for line in done.stdout.splitlines() if " → " in line}
        assert len(listed) == len(names)


def test_a_record_that_cannot_be_converted_is_harmless(server: Server) -> None:
    redis = server.client()
    record = '{"id": "\\u001b[2J", "name": "n"}'
    redis.set("tt:my-project:agent:\x1b[2J", record)
    redis.execute_command("ACL", "SETUSER", "some", "on", ">s3cr3ts3cr3t", "~*", "+@all", "-hset")
    for options in (("--json",), ()):
        url = server.url.replace("//", "//some:s3cr3ts3cr3t@")
        done = run("--hash", "--force", *options, url=url)
        assert_harmless(done)


def test_a_usage_error_repeats_no_control_character_and_no_password() -> None:
    for typed in ("\x1b[2J", "a\nb", "redis://:s3cr3t@h", "--\x9bx", "redis://u:s3/cr3t@h"):
        for options in ((), ("--json",)):
            done = tt_in_process(typed, *options)
            assert done.returncode == 2
            assert_harmless(done)
            assert "cr3t" not in done.stdout + done.stderr


def test_ascii_shows_a_letter_and_a_byte_apart(newest: Server) -> None:
    newest.client().mset({"tt:agent:é".encode(): 1, b"tt:agent:\xe9": 1})
    out = run("--dry-run", url=newest.url, encoding="ascii").stdout
    assert "tt:agent:\\u00e9 -> " in out
    assert "tt:agent:\\xe9 -> " in out

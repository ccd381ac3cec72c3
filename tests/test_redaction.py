"""Secrets are hidden in text from servers and libraries, in every spelling."""

from __future__ import annotations

import json
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from tests.tables import each
from tt_migrate.settings.config import Endpoint
from tt_migrate.settings.connection import secrets
from tt_migrate.terminal.errors import explain
from tt_migrate.terminal.redaction import NO_SECRETS, Redactor, without_url_passwords

# A secret of these letters would also hide the text around it.
secret_texts = st.text(
    st.characters(exclude_characters="<>* ", exclude_categories=["Cs"]), min_size=1
)


def servers_spelling(secret: bytes) -> str:
    """Quote an argument like Redis (sdscatrepr), written from its documentation."""
    letters = {0x5C: "\\\\", 0x22: '\\"', 10: "\\n", 13: "\\r", 9: "\\t", 7: "\\a", 8: "\\b"}
    return "".join(
        letters.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}")
        for byte in secret
    )


@given(secret_texts)
@example(".*")
@example("[")
@example('a"b\\c')
@example("line\nbreak\r\nand é")
@example("a" * 100)
@example("total")
def test_a_secret_is_hidden_in_every_spelling(secret: str) -> None:
    raw = secret.encode()
    redactor = Redactor.hiding(raw)
    spellings = [secret, quote(raw), quote(raw, safe=""), servers_spelling(raw)]
    spellings += [
        json.dumps(secret)[1:-1],
        repr(raw)[2:-1],
        secret.replace("\r", " ").replace("\n", " "),
    ]
    for spelling in spellings:
        assert redactor.shown(f"<{spelling}>") == "<***>"


@given(st.binary(min_size=1).filter(lambda secret: not set(secret) & set(b"<>* ")))
@example(b"\xff")
@example(b"\xc3(")
def test_a_secret_need_not_be_text(secret: bytes) -> None:
    for decoded in (secret.decode("utf-8", "replace"), secret.decode("utf-8", "surrogateescape")):
        assert Redactor.hiding(secret).redacted(f"<{decoded}>") == "<***>"


@given(secret_texts.filter(lambda secret: len(secret) > 8), st.data())
def test_the_first_part_of_a_long_secret_is_hidden_where_it_is_cut_off(
    secret: str, data: st.DataObject
) -> None:
    length = data.draw(st.integers(8, len(secret)))
    assert Redactor.hiding(secret.encode()).redacted(f"<{secret[:length]}>") == "<***>"


def test_nothing_is_hidden_where_there_is_no_secret() -> None:
    assert Redactor.hiding(b"").shown("a\x1bb\\") == "a\\x1bb\\\\"
    assert NO_SECRETS.words("a\x1bb\\") == "a\\x1bb\\"


@each(
    ("endpoint", "hidden"),
    [
        (Endpoint("f", password="s3cr3t"), {"s3cr3t"}),
        (Endpoint("u", url="redis://:s%403@h"), {"s@3", "s%403"}),
        (Endpoint("u", url="redis://u:p@s@h"), {"p@s"}),
        (Endpoint("u", url="redis://u@h?password=s%2f3"), {"s/3", "s%2f3"}),
        (Endpoint("u", url="unix:///run/r.sock?user=u&pass=p"), {"p"}),
        (Endpoint("u", url="redis://me@h"), set()),
    ],
)
def test_an_endpoints_secrets_are_its_password_as_it_is_and_as_it_was_given(
    endpoint: Endpoint, hidden: set[str]
) -> None:
    assert {secret.decode() for secret in secrets(endpoint)} == hidden


def test_an_explanation_hides_what_the_server_repeats_and_keeps_our_own_words() -> None:
    error = Exception('ERR no:\nAUTH "pass\\"word two" not known')
    said = explain(error, "redis://h", Redactor.hiding(b'pass"word two', b"Redis"))
    assert said == 'Redis at redis://h: ERR no: AUTH "***" not known'
    error = Exception("ERR you said: two\r\n  lines")
    assert "lines" not in explain(error, "redis://h", Redactor.hiding(b"two\r\n  lines"))


@each(
    ("text", "command"),
    [
        ("unknown command 'HSET', with args beginning with: 'a' 'b'", "the command HSET"),
        ("unknown command `SCRIPT|LOAD`", "the command SCRIPT"),
        ("ERR Unknown Redis command called from script script: 8f3a", "a command that a script"),
        ("NOCOMMAND HSET in a script", "the command HSET"),
        ("NOCOMMAND HSET, RENAME", "the commands HSET, RENAME"),
        ("ERR unknown command: get", "the command get"),
    ],
)
def test_a_command_that_is_not_known_is_named_with_the_cause(text: str, command: str) -> None:
    said = explain(Exception(text), "redis://h")
    assert f"does not know {command}" in said
    assert "rename-command" in said


@each(
    "typed",
    [
        "redis://:s3cr3t@h",
        "'redis://me:s3@cr3t@h:1/2' is not 'migrate'",
        "unix:///run/x?user=a&pass=s3cr3t is no",
        "redis://h?password=s3cr3t",
        "redis+sentinel://h/m?sentinel_password=s3cr3t",
    ],
)
def test_a_url_in_a_usage_error_has_no_password(typed: str) -> None:
    shown = without_url_passwords(typed)
    assert "cr3t" not in shown
    assert "***" in shown

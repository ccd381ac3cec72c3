"""Escaped text is harmless and can be turned back into the original."""

from __future__ import annotations

import json
import re
from io import BytesIO, TextIOWrapper

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tt_migrate.escape import shown
from tt_migrate.plan import RENAME
from tt_migrate.terminal.json_report import JsonReport
from tt_migrate.terminal.output import Output

_ESCAPE = re.compile(
    r"\\(?:x(?P<byte>[0-9a-f]{2})|u(?P<short>[0-9a-f]{4})|U(?P<long>[0-9a-f]{8})|(?P<letter>.))"
)
_LETTERS = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}

names = st.one_of(
    st.binary(),
    st.text(st.characters(exclude_categories=["Cs"])).map(str.encode),
    st.lists(st.sampled_from([b"\\", b"x", b"1b", b"u", b"U000", b"\x1b", b"\n", b"\xff"])).map(
        b"".join
    ),
)


def name_of(text: str) -> bytes:
    """Turn an escaped text back into the name; independent of the code that escapes."""

    def bytes_of(match: re.Match[str]) -> bytes:
        if match["byte"]:
            return bytes([int(match["byte"], 16)])
        if match["letter"]:
            return _LETTERS[match["letter"]].encode()
        return chr(int(match["short"] or match["long"], 16)).encode()

    pieces, end = [], 0
    for match in _ESCAPE.finditer(text):
        pieces += [text[end : match.start()].encode(), bytes_of(match)]
        end = match.end()
    return b"".join([*pieces, text[end:].encode()])


@given(names)
@example(b"\x1b")
@example(b"\\x1b")
@example("\x85".encode())
@example(b"\x85")
@example("\U000e0001\u202e".encode())
def test_what_is_shown_prints_and_can_be_turned_back_into_the_name(name: bytes) -> None:
    text = shown(name)
    assert text.isprintable()
    assert name_of(text) == name


@given(names)
@example("é".encode())
@example(b"\xe9")
def test_so_it_can_where_the_stream_is_ascii(name: bytes) -> None:
    assert name_of(written(shown(name), "ascii").removesuffix("\n")) == name


@given(st.text(), st.sampled_from(["ascii", "utf-8", "latin-1", "cp1252"]))
@example("\ud800\udcff", "utf-8")
@example("\x9b31m\x1b[2J\r\n\t\x7f", "latin-1")
def test_whatever_is_written_is_one_line_that_prints(text: str, encoding: str) -> None:
    line = written(text, encoding)
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize("method", ["prompt", "over"])
def test_there_is_no_way_around_that(method: str) -> None:
    stream = TextIOWrapper(BytesIO(), "utf-8", newline="")
    getattr(Output(stream), method)("a\x1b[2J\nb")
    assert b"a\\x1b[2J\\nb" in stream.buffer.getvalue()


def test_nor_in_a_document() -> None:
    raw = BytesIO()
    out = Output(TextIOWrapper(raw, "utf-8"))
    JsonReport(out, out, RENAME, stdout=out, mode=None).stopped(None, "a\x1b[2J\nb", 0)
    assert json.loads(raw.getvalue())["error"] == "a\\x1b[2J\\nb"


def written(text: str, encoding: str) -> str:
    raw = BytesIO()
    stream = TextIOWrapper(raw, encoding, newline="")
    Output(stream).line(text)
    return raw.getvalue().decode(encoding)

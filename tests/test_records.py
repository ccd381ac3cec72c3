"""Lua and Python make the same of every record: fields of its JSON, and JSON of its fields."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.records import (
    ID,
    differences,
    read_by_lua,
    read_by_python,
    written_by_lua,
    written_by_python,
)
from tests.servers import Server
from tests.tables import each
from tt_migrate import UPGRADE
from tt_migrate.engine.calls.replies import packed
from tt_migrate.engine.calls.scripts import source


def made(server: Server, *stored: bytes, family: str = "task") -> dict[bytes, Any]:
    """What both make of records with the id `a`: fields and values in turn, or the reason."""
    found = read_by_lua(server.client(), family, [*stored], record_id="a")
    by_record = dict(zip(stored, found, strict=True))
    assert by_record == {one: read_by_python(family, one, "a") for one in stored}
    return by_record


def fields(server: Server, *texts: str, family: str = "task") -> list[dict[str, str]]:
    """The fields that both make of records."""
    fields_of_each = []
    for found in made(server, *(text.encode() for text in texts), family=family).values():
        assert isinstance(found, list), found
        parts = [part.decode() for part in found]
        fields_of_each.append(dict(zip(parts[::2], parts[1::2], strict=True)))
    return fields_of_each


def assert_a_field_becomes(
    server: Server, record: str, field: str, stored: Mapping[str, str | None]
) -> None:
    """Assert what a field of a record becomes. `record`: its JSON, with `%s` for the value."""
    found = fields(server, *(record % text for text in stored))
    texts = [one.get(field) for one in found]
    assert dict(zip(stored, texts, strict=True)) == stored


def assert_refused(server: Server, reasons: Mapping[bytes, str]) -> None:
    """Assert that records are refused for reasons that contain these texts."""
    found = made(server, *reasons)
    assert {one: why for one, why in found.items() if reasons[one] not in why} == {}


@pytest.mark.every_kind
@pytest.mark.parametrize("seed", [1])
def test_lua_and_python_agree_on_random_records(server: Server, seed: int) -> None:
    """`python -m tests.records` compares more of them."""
    assert [*differences(server.client(), random.Random(seed), 200)] == []


def test_a_value_becomes_this_text(newest: Server) -> None:
    stored = {
        '"text"': "text",
        '""': "",
        '"a \\"quoted\\" \\/ \\u00e4 \\n line"': 'a "quoted" / ä \n line',
        '"2026-03-02T09:15:00.123456789Z"': "2026-03-02T09:15:00.123456789Z",
        "null": None,
        "0": "0",
        "9007199254740993": "9007199254740993",
        "-12345678901234567890123": "-12345678901234567890123",
        "0.10": "0.10",
        "1e400": "1e400",
        "3.14159265358979323846": "3.14159265358979323846",
        "true": "true",
        "false": "false",
        "[]": "[]",
        "{}": "{}",
        '[ 1.0, "a/b", "\\u00e4", null, true, {"k" : [ ] } ]': '[1.0,"a/b","ä",null,true,{"k":[]}]',
        '{"deep":{"n":9007199254740993}}': '{"deep":{"n":9007199254740993}}',
    }
    assert_a_field_becomes(newest, '{"id":"a","field":%s}', "field", stored)


@each("counter", ["tasks_completed", "rounds_completed"])
def test_a_counter_ends_as_a_decimal_integer(newest: Server, counter: str) -> None:
    stored = {
        "5": "5",
        "5.0": "5",
        "1e3": "1000",
        '"7"': "7",
        "-0": "0",
        "null": None,
        "18446744073709551615": "18446744073709551615",
        "100e-2": "1",
        "1.50e1": "15",
        '"007"': "7",
        '"1.0"': "1",
        "-5": "-5",
        "0.0e999999": "0",
        "0e-999999": "0",
        "1e19": "10000000000000000000",
        "12345678901234567890": "12345678901234567890",
        '"0000000000000000000000000000000001"': "1",
        f'"{"0" * 99}1"': "1",
        f"1.{'0' * 100}": "1",
    }
    assert_a_field_becomes(newest, f'{{"id":"a","{counter}":%s}}', counter, stored)
    assert counter not in fields(newest, '{"id":"a"}')[0]


def test_a_counter_is_not_guessed_and_then_the_record_is_left_untouched(newest: Server) -> None:
    for counter in ("tasks_completed", "rounds_completed"):
        values = [
            *("2.5", '"many"', "true", "[]", "1e999999999", '""', "1e-3", "1e20", "0e9999999"),
            *("123456789012345678901", '"1."', '"+1"', '".5"', '" 1"', '"1e"', f'"{"0" * 100}1"'),
            *(f"1.{'0' * 101}", "15e-1", '"--1"', '"0x1"', '"١"', "{}", '"1 "'),
        ]
        records = [f'{{"id":"a","{counter}":{value}}}'.encode() for value in values]
        reasons = dict.fromkeys(records, f"{counter} is no whole number")
        assert made(newest, *reasons) == reasons


def test_an_agents_model_is_its_cli_where_it_has_none(newest: Server) -> None:
    clis = {
        '{"id":"a","model":"claude"}': "claude",
        '{"id":"a","model":"claude","cli":null}': "claude",
        '{"id":"a","model":"old","cli":"new"}': "new",
        '{"id":"a","model":null}': None,
    }
    found = fields(newest, *clis, family="agent")
    assert dict(zip(clis, (one.get("cli") for one in found), strict=True)) == clis
    assert found[0]["model"] == "claude"
    assert "cli" not in fields(newest, '{"id":"a","model":"claude"}')[0]


def test_what_cannot_be_converted_says_why(newest: Server) -> None:
    reasons = {
        b"": "is no JSON",
        b"{": "is no JSON",
        b"x": "is no JSON",
        b'{"id":"a"} x': "is no JSON",
        b"{'id':'a'}": "is no JSON",
        b'{"id":"a","n":NaN}': "is no JSON: NaN",
        b'{"id":"a","n":-Infinity}': "is no JSON: -Infinity",
        b'{"id":"a","n":"\xff"}': "not UTF-8",
        '{"id":"a"}'.encode("utf-16"): "not UTF-8",
        b"[]": "is JSON, but no object",
        b'"id"': "is JSON, but no object",
        b"null": "is JSON, but no object",
        b"{}": "has no id",
        b'{"id":null}': "has no id",
        b'{"name":"x"}': "has no id",
        b'{"id":"b"}': "has another id than its key",
        b'{"id":"A"}': "has another id than its key",
        b'{"id":"a","id":"a"}': "has a field twice",
        b'{"id":"a","x":{"y":1,"y":2}}': "has a field twice",
        b'{"id":"a","x":"\\ud800"}': "no valid Unicode",
        b'{"id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}": "nested too deeply",
    }
    assert_refused(newest, reasons)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def written(value: object) -> str:
    """Return JSON as other programs may write it: with spaces, escapes and all digits."""
    if isinstance(value, dict):
        return f"{{ {' , '.join(f'{written(k)} : {written(v)}' for k, v in value.items())} }}"
    if isinstance(value, list):
        return f"[ {' , '.join(map(written, value))} ]"
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else "0"
    return json.dumps(value)


def exactly(text: str) -> object:
    return json.loads(text, parse_float=lambda number: ("float", number))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=6))
def test_every_field_can_be_read_back_as_it_was(newest: Server, record: dict[str, object]) -> None:
    for counter in ("tasks_completed", "rounds_completed", "cli", "model"):
        record.pop(counter, None)
    record["id"] = "a"
    text = written(record)
    original = exactly(text)
    assert isinstance(original, dict)
    [converted] = fields(newest, text, family="agent")
    assert converted.keys() == {name for name, item in original.items() if item is not None}
    for name, stored in converted.items():
        item = original[name]
        assert (stored if isinstance(item, str) else exactly(stored)) == item


def test_broken_json_is_refused_with_its_place(newest: Server) -> None:
    reasons = {
        b"\xef\xbb\xbf{}": "is no JSON: Unexpected UTF-8 BOM (decode using utf-8-sig)",
        b'{"id":"a","x":[1': "is no JSON: Expecting ',' delimiter at character 16",
        b'{"id":"a","x":': "is no JSON: Expecting value at character 14",
        b'{"id":"a",}': "is no JSON: Expecting property name enclosed in double quotes",
        b'{"id" "a"}': "is no JSON: Expecting ':' delimiter at character 6",
        '{"id":"ä","x":"'.encode(): "Unterminated string starting at at character 14",
        b'{"id":"a\\': "Unterminated string starting at at character 6",
        b'{"id":"\t"}': "Invalid control character at at character 7",
        b'{"id":"\\x"}': "Invalid \\escape at character 7",
        b'{"id":"\\u12"}': "Invalid \\uXXXX escape at character 8",
        b'{"id":"\\u00e4': "Invalid \\uXXXX escape at character 8",
        b'{"id":"a","x":"\\ud83d\\ude00': "Invalid \\uXXXX escape at character 22",
        b'{"id":"a"},': "Extra data at character 10",
        b'{"id":"a","n":01}': "Expecting ',' delimiter at character 15",
        b'{"id":"a","n":Infinity}': "is no JSON: Infinity is no number",
        b'[NaN,"\xff"]': "not UTF-8",
        b'{"id":"a","id":"\xff"}': "not UTF-8",
        b'{"id":"a"}\xff': "not UTF-8",
        b'{"x":"\xed\xa0\x80"}': "not UTF-8",
        b'{"x":"\xc0\x80"}': "not UTF-8",
        b'{"x":"\xe0\x80\x80"}': "not UTF-8",
        b'{"x":"\xf0\x8f\xbf\xbf"}': "not UTF-8",
        b'{"x":"\xf4\x90\x80\x80"}': "not UTF-8",
        b'{"x":"\xf5\x80\x80\x80"}': "not UTF-8",
        b'{"x":"\x80"}': "not UTF-8",
        b'{"x":"\xc3"}': "not UTF-8",
        b'{"id":"a","\\udc00":1}': "no valid Unicode",
        b'{"id":"a","x":"\\ud800\\u0041"}': "no valid Unicode",
        b'{"id":"a","x":[{"\\ud800":1}]}': "no valid Unicode",
        b'{"id":"a","x":' + b"[" * 1000 + b"]" * 1000 + b"}": "nested too deeply",
        b'{"id":"a","x":' + b'{"x":' * 1000 + b"1" + b"}" * 1000 + b"}": "nested too deeply",
        b"[" * 1000: "nested too deeply",
        b"[" * 1000 + b"\xff": "not UTF-8",
    }
    assert_refused(newest, reasons)


def test_values_are_read_499_levels_deep(newest: Server) -> None:
    deep = "[" * 499 + "]" * 499
    stored = [f'{{"id":"a","x":{value}}}'.encode() for value in (deep, f"[{deep}]")]
    read, refused = read_by_lua(newest.client(), "task", stored, record_id="a")
    assert read == [b"id", b"a", b"x", deep.encode()]
    assert refused == "is nested too deeply"


def test_the_same_bytes_are_utf_8_in_lua_and_in_python(newest: Server) -> None:
    """Each first byte, with what follows it in every form at the bounds of the ranges."""
    bounds = [bytes([byte]) for byte in (0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0)]
    ends = [first + second for first in bounds for second in (b"", *bounds)]
    texts = [bytes([byte]) + end for byte in range(0x7F, 256) for end in (b"", *ends)]
    texts += [text + end for text in texts if text[0] >= 0xEF for end in bounds if len(text) == 3]
    script = source("migrate", UPGRADE).partition("-- migrate.lua")[0]
    script += """
      local fine = {}
      for n, text in ipairs(cmsgpack.unpack(ARGV[1])) do
        local read = pcall(json.odd_text_at, '"' .. text .. '"', 1)
        fine[n] = json.is_utf8(text) and read
      end
      return cmsgpack.pack(fine)
    """
    found: Any = newest.client().eval(script, 0, packed(texts))
    fine = [flag == 0xC3 for flag in found[-len(texts) :]]  # 0xC3 is true in MessagePack
    assert fine == [text.decode("utf-8", "replace").encode() == text for text in texts]
    assert 0 < sum(fine) < len(texts)


def test_a_text_is_read_like_this(newest: Server) -> None:
    stored = {
        '"\\ud83d\\ude00"': "😀",
        '"\\uD83D\\uDE00\\u0000\\u007f\\u0080\\u07ff\\u0800\\uffff"': (
            "😀\0\x7f\x80\u07ff\u0800\uffff"
        ),
        '"\\udbff\\udfff"': "\U0010ffff",
        '"\\b\\f\\n\\r\\t\\"\\\\\\/"': '\b\f\n\r\t"\\/',
        '["\\b\\f\\n\\r\\t\\"\\\\\\/\\u001f\\u007f"]': '["\\b\\f\\n\\r\\t\\"\\\\/\\u001f\x7f"]',
        '{"a\\"":{"b":[]}, "\\u00e4" : 1}': '{"a\\"":{"b":[]},"ä":1}',
        "-0": "-0",
        "1E+2": "1E+2",
        "[ ]": "[]",
        '" \\u2028\x7f"': " \u2028\x7f",
    }
    for record in ('{"id":"a","field":%s}', ' { "id" : "a" , "field" : %s } '):
        assert_a_field_becomes(newest, record, "field", stored)


_COUNTING = """
local strict, first_at = 0, json.first_at
json.first_at = function(...)
  strict = strict + 1
  return first_at(...)
end
local replies = {}
for n = 2, #ARGV do
  local before = strict
  local fields = json.unless_refused(quick_fields_of, ARGV[1], 'a', ARGV[n]) or false
  replies[#replies + 1] = {fields, strict - before}
end
return replies
"""


def read_strictly(redis: Redis, family: str, records: Sequence[str]) -> list[bool]:
    """Read records with the id `a` by shapes. Returns whether the strict reader read each."""
    script = source("migrate", UPGRADE).partition("-- migrate.lua")[0] + _COUNTING
    stored = [text.encode() for text in records]
    replies: Any = redis.eval(script, 0, family, *stored)
    for one, (found, _) in zip(stored, replies, strict=True):
        wanted = read_by_python(family, one, "a")
        assert found == (None if isinstance(wanted, str) else wanted), one
    return [bool(strict) for _, strict in replies]


SHAPE = '{"id":"a","name":"x","tasks_completed":%s,"other":%s,"tags":%s,"n":null,"yes":true}'
SHAPES = [
    (SHAPE % (1, '"x"', "[]"), SHAPE % (23, '"ab c]{"', '["a", "b"]')),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (123456789012345, '""', '[1.0,null,{"a":"ä"}]')),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1234567890123456, '"x"', "[]")),
    (SHAPE % (1, '"x"', "[]"), SHAPE % ("01", '"x"', "[]")),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (0, '"x"', "[]")),
    (SHAPE % (1, '"x"', "[]"), SHAPE % ("1.0", '"x"', "[]")),
    (SHAPE % (1, '"x"', "[]"), SHAPE % ('"1"', '"x"', "[]")),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, "null", "[]")),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x"', '["]"]')),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x"', '["]')),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x"', "[,]")),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x"', "[[]]")),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x"', '[{"a":1,"a":1}]')),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x"', '["\\ud800"]')),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x"', '["a"],"more":["b"]')),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x","more":"y"', "[]")),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x"', "[]") + " "),
    (SHAPE % (1, '"x"', "[]"), SHAPE % (1, '"x"', "[]") + "x"),
    (SHAPE % (1, '"ä"', "[]"), SHAPE % (1, '"ö 😀 \\u00e4 \\\\"', "[]")),
    (SHAPE % (1, '"ä"', "[]"), SHAPE % (1, '"plain"', "[]")),
    (SHAPE % (1, '"ä"', "[]"), SHAPE % (1, '"x\\"', "[]")),
    (SHAPE % (1, '"ä"', "[]"), SHAPE % (1, '"x\\\\"', "[]")),
    (SHAPE % (1, '"ä"', "[]"), SHAPE % (1, '"x\\",\\"tags\\":"', "[]")),
    (SHAPE % (1, '"ä"', "[]"), SHAPE % (1, '"\\ud800"', "[]")),
    (SHAPE % (1, '"ä"', "[]"), SHAPE % (1, '"\\ud83d\\ude00"', "[]")),
    (SHAPE % (1, '"ä"', "[]"), SHAPE % (1, '"\\q"', "[]")),
    (SHAPE % (1, '"ä"', "[]"), SHAPE % (1, '"\x1f"', "[]")),
    ('{"id":"a","x":[1,2]}', '{"id":"a","x":[1,2],"id":"a"}'),
    ('{"id":"a","x":"y"}', '{"id":"b","x":"y"}'),
    ('{"id":"a","x":"y"}', '{"id":"\\u0061","x":"y"}'),
    ('{"id":"a","x":"y"}', '{"x":"y","id":"a"}'),
    ('{"id":"a","x":true}', '{"id":"a","x":false}'),
    ('{"id":"a","x":null}', '{"id":"a","x":true}'),
    ('{"id":"a","a b":1}', '{"id":"a","a b":2}'),
    ('{"id":"a","x":-1}', '{"id":"a","x":-2}'),
    ('{"id":"a","x":{}}', '{"id":"a","x":{}}'),
    ('{"id": "a"}', '{"id": "a"}'),
    ('{"id":"a","tasks_completed":"1"}', '{"id":"a","tasks_completed":"x"}'),
    ('{"id":"a","rounds_completed":null}', '{"id":"a","rounds_completed":null}'),
    ('{"id":"a","model":"m"}', '{"id":"a","model":"other"}'),
    ('{"id":"a","model":"m","cli":"c"}', '{"id":"a","model":"o","cli":"d"}'),
    ('{"id":"a","model":"m","cli":null}', '{"id":"a","model":"o","cli":null}'),
    ('{"id":"a","model":null}', '{"id":"a","model":null}'),
]


@each("family", ["agent", "task"])
def test_a_shape_of_one_record_is_not_taken_for_that_of_another(
    newest: Server, family: str
) -> None:
    redis = newest.client()
    for usual, odd in SHAPES:
        for records in ([usual, odd, usual], [odd, usual, odd]):
            read_strictly(redis, family, records)


def test_usual_records_are_read_by_their_shapes_and_others_strictly(newest: Server) -> None:
    redis = newest.client()
    usual = [SHAPE % (n, text, tags) for n, text, tags in ((1, '"x"', "[]"), (23, '"ä"', '["a"]'))]
    assert not any(read_strictly(redis, "task", usual * 2))
    odd = [
        SHAPE % ("1.0", '"x"', "[]"),
        SHAPE % (1, '"x"', "[[]]"),
        '{"id": "a"}',
        '{"id":"a","x":{}}',
    ]
    assert all(read_strictly(redis, "task", [*usual, *odd])[2:])


def test_shapes_are_limited(newest: Server) -> None:
    redis = newest.client()
    many = [f'{{"id":"a","x{n}":1}}' for n in range(9)]
    # The last one is no shape any more, and the first ones still are.
    assert read_strictly(redis, "task", [*many, *many]) == ([False] * 8 + [True]) * 2
    for members, is_strict in ((16, False), (17, True)):
        more = "".join(f',"x{n}":1' for n in range(members - 1))
        assert read_strictly(redis, "task", [f'{{"id":"a"{more}}}']) == [is_strict]


AGENT = {
    "id": ID,
    "name": "x",
    "agent_type": "worker",
    "state": "idle",
    "cli": "claude",
    "created_at": "2025-01-31T01:02:03Z",
    "last_heartbeat": "2025-01-31T01:02:03Z",
    "tasks_completed": "3",
    "rounds_completed": "4",
}
TASK = {
    "id": ID,
    "description": "x",
    "state": "pending",
    "created_at": "2025-01-31T01:02:03Z",
    "updated_at": "2025-01-31T01:02:03Z",
}


Changes = dict[str, str | None]


def written_by_both(server: Server, family: str, *changes: Mapping[str, str | None]) -> list[Any]:
    """What both make of a hash with some fields changed, or without: JSON and changes, or why."""
    records = [
        {
            name.encode("utf-8", "surrogateescape"): text.encode("utf-8", "surrogateescape")
            for name, text in {**(AGENT if family == "agent" else TASK), **changed}.items()
            if text is not None
        }
        for changed in changes
    ]
    found = written_by_lua(server.client(), family, records)
    for changed, one, record in zip(changes, found, records, strict=True):
        assert one == written_by_python(family, record), changed
    return found


def test_a_hash_becomes_this_json(newest: Server) -> None:
    [(agent, changes)] = written_by_both(newest, "agent", {"more": "[1.0]", "text": "[1, 2]"})
    assert agent.decode() == (
        f'{{"id":"{ID}","name":"x","agent_type":"worker","state":"idle","cli":"claude",'
        '"current_task":null,"created_at":"2025-01-31T01:02:03Z",'
        '"last_heartbeat":"2025-01-31T01:02:03Z","tasks_completed":3,"rounds_completed":4,'
        '"more":[1.0],"text":"[1, 2]"}'
    )
    assert changes == []
    [(task, changes)] = written_by_both(newest, "task", {"result": "", "parent_id": ""})
    assert task.decode() == (
        f'{{"id":"{ID}","description":"x","state":"pending","assigned_to":null,'
        '"created_at":"2025-01-31T01:02:03Z","updated_at":"2025-01-31T01:02:03Z",'
        '"completed_at":null,"result":"","parent_id":null,"tags":[]}'
    )
    assert changes == ["an empty parent_id became null"]


def test_a_field_becomes_this_json(newest: Server) -> None:
    tables: dict[str, list[tuple[Changes, str]]] = {
        "agent": [
            ({"tasks_completed": "007"}, '"tasks_completed":7'),
            ({"tasks_completed": "00000000000000000000"}, '"tasks_completed":0'),
            ({"tasks_completed": str(2**64 - 1)}, f'"tasks_completed":{2**64 - 1}'),
            ({"tasks_completed": None}, '"tasks_completed":0'),
            ({"agent_type": "supervisor"}, '"agent_type":"supervisor"'),
            ({"agent_type": None}, '"agent_type":"worker"'),
            ({"name": None, "cli": None}, '"cli":""'),
            ({"state": "draining"}, '"state":"stopped"'),
            ({"state": "cold"}, '"state":"stopped"'),
            ({"current_task": ID.upper()}, f'"current_task":"{ID.upper()}"'),
            ({"created_at": "2024-02-29 23:59:60.5+23:59"}, '"2024-02-29 23:59:60.5+23:59"'),
            ({"created_at": "2000-02-29t00:00:00z"}, '"2000-02-29t00:00:00z"'),
        ],
        "task": [
            ({"state": "in_flight"}, '"state":"running"'),
            ({"description": None}, '"description":""'),
            ({"description": 'ä"\\\n\x1f\x7f'}, '"description":"ä\\"\\\\\\n\\u001f\x7f"'),
            ({"tags": ' [ "a" , "]\\"" ] '}, '"tags":["a","]\\""]'),
            ({"tags": "[]"}, '"tags":[]'),
            ({"tags": ' ["\\u00e4"]'}, '"tags":["ä"]'),
            ({"x": "-0.10e+5"}, '"x":-0.10e+5'),
            ({"x": "01"}, '"x":"01"'),
            ({"x": "1."}, '"x":"1."'),
            ({"x": "true"}, '"x":true'),
            ({"x": "null"}, '"x":"null"'),
            ({"x": '{"a":["b"]}'}, '"x":{"a":["b"]}'),
            ({"x": '{"a":["\\u00e4"]}'}, '"x":"{\\"a\\":[\\"\\\\u00e4\\"]}"'),
            ({"x": '"t1"'}, '"x":"\\"t1\\""'),
            ({"x": "[1]]"}, '"x":"[1]]"'),
            ({"x": "true "}, '"x":"true "'),
            ({"x": ""}, '"x":""'),
            ({"": "x"}, '"":"x"'),
            ({'a"b': "x"}, '"a\\"b":"x"'),
        ],
    }
    for family, rows in tables.items():
        found = written_by_both(newest, family, *(changed for changed, _ in rows))
        for (changed, written), one in zip(rows, found, strict=True):
            assert isinstance(one, tuple), (changed, one)
            assert written in one[0].decode(), changed


def test_a_hash_that_0_6_would_not_read_says_why(newest: Server) -> None:
    tables: dict[str, list[tuple[Changes, str]]] = {
        "agent": [
            ({"state": "in_flight"}, "has a state that 0.6 does not know"),
            ({"state": ""}, "has a state that 0.6 does not know"),
            ({"state": None}, "has no state"),
            ({"agent_type": "boss"}, "has an agent_type that 0.6 does not know"),
            ({"current_task": "x"}, "current_task is no UUID"),
            ({"current_task": ID + "0"}, "current_task is no UUID"),
            ({"tasks_completed": str(2**64)}, "tasks_completed is no whole number"),
            ({"tasks_completed": "0" * 21}, "tasks_completed is no whole number"),
            ({"tasks_completed": "-1"}, "tasks_completed is no whole number"),
            ({"tasks_completed": ""}, "tasks_completed is no whole number"),
        ],
        "task": [
            ({"id": None}, "has no id"),
            ({"id": ID.upper()}, "has another id than its key"),
            ({"state": "idle"}, "has a state that 0.6 does not know"),
            ({"state": "cold"}, "has a state that 0.6 does not know"),
            ({"parent_id": ID.replace("-", "")}, "parent_id is no UUID"),
            ({"completed_at": "x"}, "completed_at is no time with a zone"),
            ({"created_at": None}, "has no created_at"),
            ({"tags": "{}"}, "tags are no list of texts"),
            ({"tags": "[1]"}, "tags are no list of texts"),
            ({"tags": '["a",1]'}, "tags are no list of texts"),
            ({"tags": "[]x"}, "tags are no list of texts"),
            ({"tags": ""}, "tags are no list of texts"),
            ({"tags": '["\\ud800"]'}, "has text that is no valid Unicode"),
            ({"tags": '["\\ud800",1]'}, "tags are no list of texts"),
            ({"id": "x", "more": "\udcff"}, "has bytes that are not UTF-8"),
            ({"more\udcff": "x"}, "has bytes that are not UTF-8"),
            ({"tags": "\udcff"}, "has bytes that are not UTF-8"),
        ],
    }
    for family, rows in tables.items():
        found = written_by_both(newest, family, *(changed for changed, _ in rows))
        assert [(changed, one) for (changed, _), one in zip(rows, found, strict=True)] == rows


def test_this_is_no_time(newest: Server) -> None:
    times = [
        *("2025-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2025-04-31T00:00:00Z"),
        *("2025-00-01T00:00:00Z", "2025-13-01T00:00:00Z", "2025-01-00T00:00:00Z"),
        *("2025-01-32T00:00:00Z", "2025-01-01T24:00:00Z", "2025-01-01T00:60:00Z"),
        *("2025-01-01T00:00:61Z", "2025-01-01T00:00:00", "2025-01-01T00:00:00.Z"),
        *("2025-01-01T00:00:00+24:00", "2025-01-01T00:00:00-00:60", "2025-01-01T00:00:00+0000"),
        *("2025-01-01T00:00:00Zx", " 2025-01-01T00:00:00Z", "2025-01-01_00:00:00Z"),
    ]
    found = written_by_both(newest, "task", *({"created_at": time} for time in times))
    expected = dict.fromkeys(times, "created_at is no time with a zone")
    assert dict(zip(times, found, strict=True)) == expected


def test_a_value_that_is_nested_500_levels_deep_is_json_and_a_deeper_one_a_text(
    newest: Server,
) -> None:
    redis = newest.client()
    deep = "[" * 500 + "]" * 500
    for value, written in ((deep, deep), (f"[{deep}]", f'"[{deep}]"')):
        fields = {name.encode(): text.encode() for name, text in {**TASK, "x": value}.items()}
        [(text, _)] = written_by_lua(redis, "task", [fields])
        assert text.endswith(f'"tags":[],"x":{written}}}'.encode())


def test_an_id_that_is_no_uuid_is_refused(newest: Server) -> None:
    script = source("migrate", replace(UPGRADE, convert="json")).partition("-- migrate.lua")[0]
    script += "return select(2, json.unless_refused(json_of, 'task', 'x', {'id', 'x'}))"
    assert newest.client().eval(script, 0) == b"id is no UUID"


def test_fields_that_differ_are_named_in_order(newest: Server) -> None:
    script = source("preview", replace(UPGRADE, merge=True)).partition("-- preview.lua")[0]
    script += """
      local one, other = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
      return difference(one, ARGV[3], other, ARGV[4]) or 'nil'
    """

    def said(one: list[bytes], other: list[bytes], *kinds: str) -> bytes:
        text: Any = newest.client().eval(script, 0, packed(one), packed(other), *kinds)
        return bytes(text)

    one = [b"id", b"a", b"state", b"idle", b"cli", b"x"]
    other = [b"name\n\\\x1f", b"n", b"state", b"stopped", b"id", b"a"]
    assert said(one, other, "hash", "hash") == (
        b"destination exists and differs in cli, name\\n\\\\\\x1f, state"
    )
    alike = b"destination exists with the same fields, "
    same = [*one[2:], *one[:2]]
    assert said(one, same, "hash", "hash") == alike + b"but other times to live of fields"
    assert said(one, same, "string", "string") == alike + b"but the JSON is not the same"
    assert said(one, same, "string", "hash") == alike + b"one a JSON string and one a hash"
    assert said([], one, "string", "hash") == b"nil"

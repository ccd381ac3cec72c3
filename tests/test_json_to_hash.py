"""A record's JSON becomes the fields of a hash without loss."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tt_migrate.engine.json_to_hash import RecordError, differing, fields_of

AGENT = {"id": "a", "name": "x"}


def fields(text: str | bytes, family: str = "task") -> dict[str, str]:
    stored = text if isinstance(text, bytes) else text.encode()
    return {k.decode(): v.decode() for k, v in fields_of(family, b"a", stored).items()}


def value(json_value: str) -> str | None:
    return fields(f'{{"id":"a","field":{json_value}}}').get("field")


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ('"text"', "text"),
        ('""', ""),
        ('"a \\"quoted\\" \\/ \\u00e4 \\n line"', 'a "quoted" / ä \n line'),
        ('"2026-03-02T09:15:00.123456789Z"', "2026-03-02T09:15:00.123456789Z"),
        ("null", None),
        ("0", "0"),
        ("9007199254740993", "9007199254740993"),
        ("-12345678901234567890123", "-12345678901234567890123"),
        ("0.10", "0.10"),
        ("1e400", "1e400"),
        ("3.14159265358979323846", "3.14159265358979323846"),
        ("true", "true"),
        ("false", "false"),
        ("[]", "[]"),
        ("{}", "{}"),
        (
            '[ 1.0, "a/b", "\\u00e4", null, true, {"k" : [ ] } ]',
            '[1.0,"a/b","ä",null,true,{"k":[]}]',
        ),
        ('{"deep":{"n":9007199254740993}}', '{"deep":{"n":9007199254740993}}'),
    ],
)
def test_a_value_becomes_this_text(written: str, stored: str | None) -> None:
    assert value(written) == stored


@pytest.mark.parametrize("counter", ["tasks_completed", "rounds_completed"])
@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("5", "5"),
        ("5.0", "5"),
        ("1e3", "1000"),
        ('"7"', "7"),
        ("-0", "0"),
        ("18446744073709551615", "18446744073709551615"),
        ("null", None),
    ],
)
def test_a_counter_ends_as_a_decimal_integer(
    counter: str, written: str, stored: str | None
) -> None:
    assert fields(f'{{"id":"a","{counter}":{written}}}').get(counter) == stored
    assert counter not in fields('{"id":"a"}')


@pytest.mark.parametrize("written", ["2.5", '"many"', "true", "[]", "1e999999999", '""', "1e-3"])
def test_a_counter_that_is_no_whole_number_leaves_the_record_untouched(written: str) -> None:
    with pytest.raises(RecordError, match="tasks_completed is no whole number"):
        fields(f'{{"id":"a","tasks_completed":{written}}}')


def test_an_agents_model_is_its_cli_where_it_has_none() -> None:
    assert fields('{"id":"a","model":"claude"}', "agent")["cli"] == "claude"
    assert fields('{"id":"a","model":"claude"}', "agent")["model"] == "claude"
    assert fields('{"id":"a","model":"claude","cli":null}', "agent")["cli"] == "claude"
    assert fields('{"id":"a","model":"old","cli":"new"}', "agent")["cli"] == "new"
    assert "cli" not in fields('{"id":"a","model":null}', "agent")
    assert "cli" not in fields('{"id":"a","model":"claude"}', "task")


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"x", "is no JSON"),
        (b'{"id":"a"} x', "is no JSON"),
        (b"{'id':'a'}", "is no JSON"),
        (b'{"id":"a","n":NaN}', "is no JSON: NaN"),
        (b'{"id":"a","n":-Infinity}', "is no JSON: -Infinity"),
        (b'{"id":"a","n":"\xff"}', "not UTF-8"),
        ('{"id":"a"}'.encode("utf-16"), "not UTF-8"),
        (b"[]", "is JSON, but no object"),
        (b'"id"', "is JSON, but no object"),
        (b"null", "is JSON, but no object"),
        (b"{}", "has no id"),
        (b'{"id":null}', "has no id"),
        (b'{"name":"x"}', "has no id"),
        (b'{"id":"b"}', "has another id than its key"),
        (b'{"id":"A"}', "has another id than its key"),
        (b'{"id":"a","id":"a"}', "has a field twice"),
        (b'{"id":"a","x":{"y":1,"y":2}}', "has a field twice"),
        (b'{"id":"a","x":"\\ud800"}', "no valid Unicode"),
        (b'{"id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_what_cannot_be_converted_says_why(stored: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        fields(stored)


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


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=6))
def test_every_field_can_be_read_back_as_it_was(record: dict[str, object]) -> None:
    for counter in ("tasks_completed", "rounds_completed", "cli", "model"):
        record.pop(counter, None)
    record["id"] = "a"
    text = written(record)
    original = exactly(text)
    assert isinstance(original, dict)
    converted = fields(text, "agent")
    assert converted.keys() == {name for name, item in original.items() if item is not None}
    for name, stored in converted.items():
        item = original[name]
        assert (stored if isinstance(item, str) else exactly(stored)) == item


def test_differing_fields_are_named_in_order() -> None:
    one = {b"id": b"a", b"state": b"idle", b"cli": b"x"}
    other = {b"id": b"a", b"state": b"stopped", b"name": b"n"}
    assert differing(one, other) == [b"cli", b"name", b"state"]
    assert differing(one, one) == []

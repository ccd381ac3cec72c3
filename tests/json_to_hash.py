"""Converts agents and tasks from JSON (until Tinytown 0.6) to fields of a hash (since 0.7)."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

Fields = dict[bytes, bytes]

_COUNTERS = ("tasks_completed", "rounds_completed")
_COUNTER_DIGITS = 20
# Decimal accepts more than JSON does: underscores, and digits of any script.
_NUMBER = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?([eE][+-]?[0-9]{1,6})?")


class RecordError(ValueError):
    """The record cannot become a hash without loss. The text says why."""


class _Number(str):
    """A number as it was written, with all its digits."""


def fields_of(family: str, record_id: bytes, stored: bytes) -> Fields:
    """The fields of the hash for a stored JSON record.

    `family`: `agent` or `task`. `record_id`: the id in the record's key. Strings become plain text.
    Numbers and booleans stay as they are in JSON. Arrays and objects become compact JSON. Fields
    that are null are left out; unknown fields are kept. Counters become decimal integers, which
    HINCRBY requires. The `model` of an agent of version 0.2 also becomes its `cli`, if it has none.
    Raises RecordError.
    """
    record = {name: value for name, value in _object(stored).items() if value is not None}
    for name in _COUNTERS:
        if name in record:
            record[name] = _integer(name, record[name])
    if family == "agent" and "model" in record:
        record.setdefault("cli", record["model"])
    fields = {_bytes(name): _bytes(_text(value)) for name, value in record.items()}
    if b"id" not in fields:
        raise RecordError("has no id")
    if fields[b"id"] != record_id:
        raise RecordError("has another id than its key")
    return fields


def parsed(text: str) -> Any:
    """JSON with numbers as they are written. Raises ValueError or RecursionError."""
    return json.loads(
        text,
        parse_int=_Number,
        parse_float=_Number,
        parse_constant=_no_constant,
        object_pairs_hook=_no_duplicates,
    )


def _object(stored: bytes) -> dict[str, Any]:
    try:
        record = parsed(stored.decode("utf-8"))
    except UnicodeDecodeError:
        raise RecordError("is no JSON: not UTF-8") from None
    except RecursionError:
        raise RecordError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"is no JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(record, dict):
        raise RecordError("is JSON, but no object")
    return record


def _no_constant(name: str) -> None:
    raise RecordError(f"is no JSON: {name} is no number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise RecordError("has a field twice")
    return fields


def _integer(name: str, value: object) -> _Number:
    is_number = isinstance(value, str) and _NUMBER.fullmatch(value)
    number = Decimal(str(value)) if is_number else Decimal("NaN")
    # Check the size first: a number with a large exponent would take a lot of memory.
    is_whole = number.is_finite() and 0 <= number.adjusted() < _COUNTER_DIGITS and not number % 1
    if number != 0 and not is_whole:
        raise RecordError(f"{name} is no whole number")
    return _Number(int(number))


def _text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else compact(value)
    except RecursionError:
        raise RecordError("is nested too deeply") from None


def compact(value: Any) -> str:
    """Compact JSON that keeps numbers as they were written, which json.dumps cannot do."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(compact, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{compact(name)}:{compact(item)}' for name, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordError("has text that is no valid Unicode") from None

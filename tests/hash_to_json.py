"""Converts fields of a hash (Tinytown 0.7 and later) to the JSON that Tinytown 0.6 reads."""

from __future__ import annotations

import json
import re
from calendar import monthrange
from collections.abc import Mapping
from uuid import UUID

from tests.json_to_hash import RecordError, compact, parsed

_AGENT = (
    *("id", "name", "agent_type", "state", "cli", "current_task"),
    *("created_at", "last_heartbeat", "tasks_completed", "rounds_completed"),
)
_TASK = (
    *("id", "description", "state", "assigned_to", "created_at", "updated_at"),
    *("completed_at", "result", "parent_id", "tags"),
)
_FIELDS = {"agent": _AGENT, "task": _TASK}
"""The fields of each record in 0.6, in their order there (its agent.rs and task.rs)."""

_STATES = {
    "agent": ("starting", "idle", "working", "paused", "stopped", "error"),
    "task": ("pending", "assigned", "running", "completed", "failed", "cancelled"),
}
_NEWER_STATES = {"draining": "stopped", "cold": "stopped", "in_flight": "running"}
"""States since 0.7, and those of 0.6 that come closest."""

_TYPES = ("supervisor", "worker")
_DEFAULTS = {
    "name": "",
    "cli": "",
    "agent_type": "worker",
    "description": "",
    "tasks_completed": "0",
    "rounds_completed": "0",
}
_OPTIONS = ("current_task", "assigned_to", "completed_at", "result", "parent_id")
_REFERENCES = ("current_task", "assigned_to", "parent_id")
_TIMES = ("created_at", "last_heartbeat", "updated_at", "completed_at")
_COUNTERS = ("tasks_completed", "rounds_completed")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|[+-](\d\d):(\d\d))", re.ASCII
)
_COUNTER = re.compile("[0-9]{1,20}")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def json_of(
    family: str, record_id: bytes, fields: Mapping[bytes, bytes]
) -> tuple[bytes, list[str]]:
    """The JSON for the fields of a record's hash, and what a rule has changed.

    `family`: `agent` or `task`. `record_id`: the id in the record's key. The fields of 0.6 come
    first, in its order; absent options are null. Fields that 0.6 does not know follow: a text that
    is compact JSON of a number, boolean, list or object as such, every other text as text.
    Numbers keep every digit. Raises RecordError for what 0.6 would not read.
    """
    try:
        record = {name.decode(): value.decode() for name, value in fields.items()}
    except UnicodeDecodeError:
        raise RecordError("has bytes that are not UTF-8") from None
    if record.get("id", "").encode() != record_id:
        raise RecordError("has another id than its key" if "id" in record else "has no id")
    if not _is_uuid(record["id"]):
        raise RecordError("id is no UUID")
    changes: list[str] = []
    parts = [
        f"{_text(name)}:{_known(family, name, record.pop(name, None), changes)}"
        for name in _FIELDS[family]
    ]
    parts += (f"{_text(name)}:{_unknown(text)}" for name, text in record.items())
    try:
        return f"{{{','.join(parts)}}}".encode(), changes
    except UnicodeEncodeError:  # of tags, which can have half a surrogate pair as `\\ud800`
        raise RecordError("has text that is no valid Unicode") from None


def _known(family: str, name: str, text: str | None, changes: list[str]) -> str:
    """The JSON of a field of 0.6."""
    if name in _OPTIONS and not text:
        if text is not None and name != "result":
            changes.append(f"an empty {name} became null")
        return "null" if text is None or name != "result" else _text(text)
    if name == "tags":
        return "[]" if text is None else _tags(text)
    if text is None:
        if name not in _DEFAULTS:
            raise RecordError(f"has no {name}")
        text = _DEFAULTS[name]
        changes.append(f"a missing {name} became {text or 'empty'}")
    if name == "state":
        return _text(_state(family, text, changes))
    if name == "agent_type" and text not in _TYPES:
        raise RecordError("has an agent_type that 0.6 does not know")
    if name in _REFERENCES and not _is_uuid(text):
        raise RecordError(f"{name} is no UUID")
    if name in _TIMES and not _is_time(text):
        raise RecordError(f"{name} is no time with a zone")
    if name in _COUNTERS:
        return _counter(name, text)
    return _text(text)


def _state(family: str, text: str, changes: list[str]) -> str:
    if text in _STATES[family]:
        return text
    older = _NEWER_STATES.get(text)
    if older not in _STATES[family]:
        raise RecordError("has a state that 0.6 does not know")
    changes.append(f"state {text} became {older}")
    return str(older)


def _counter(name: str, text: str) -> str:
    if not _COUNTER.fullmatch(text) or int(text) >= 2**64:
        raise RecordError(f"{name} is no whole number")
    return str(int(text))


def _tags(text: str) -> str:
    try:
        tags = json.loads(text)
    except (ValueError, RecursionError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise RecordError("tags are no list of texts")
    return compact(tags)


def _is_time(text: str) -> bool:
    """Whether 0.6 reads a text as a time (its chrono, `impl FromStr for DateTime`).

    chrono takes 60 for a leap second in any minute. It also takes forms that nobody writes, with
    more blanks or fewer digits; they are refused here.
    """
    found = _TIME.fullmatch(text)
    if not found:
        return False
    year, month, day, hour, minute, second, zone_hours, zone_minutes = (
        int(part or 0) for part in found.groups()
    )
    return (
        1 <= month <= 12
        and 1 <= day <= monthrange(year, month)[1]
        and max(hour, zone_hours) < 24
        and max(minute, zone_minutes) < 60
        and second <= 60
    )


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _unknown(text: str) -> str:
    if _NUMBER.fullmatch(text) or text in ("true", "false") or _is_compact(text):
        return text
    return _text(text)


def _is_compact(text: str) -> bool:
    """Whether a text is a list or an object in the form that json_to_hash.py gives it."""
    if not text.startswith(("[", "{")):
        return False
    try:
        return compact(parsed(text)) == text
    except (ValueError, RecursionError):
        return False


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

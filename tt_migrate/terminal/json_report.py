"""The report for programs: one JSON document on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain
from typing import Any

from tt_migrate.escape import printable, shown, shown_text
from tt_migrate.keyspace import FAMILIES, RECORDS, in_order, town_key_start
from tt_migrate.results import Count, Migration, Preview, Progress, Result
from tt_migrate.terminal.output import Output
from tt_migrate.terminal.reasons import ambiguous_reason
from tt_migrate.terminal.redaction import Redactor
from tt_migrate.terminal.text_report import FORCE_HINT, TextReport
from tt_migrate.terminal.version import own_version

_NOTHING: dict[str, Any] = {
    "keys": dict.fromkeys(FAMILIES, 0),
    "total": 0,
    "migrated": 0,
    "merged": 0,
    "records": dict.fromkeys(RECORDS, 0),
    "converted": 0,
    "conflicts": [],
    "ambiguous": [],
    "failed": [],
    "remaining": None,
    "strings": None,
    "unreadable": None,
    "hashes": None,
    "new_only": None,
    "batches": 0,
    "seconds": 0,
    "max_pause_ms": None,
    "reconnects": 0,
    "lost_replies": 0,
    "evicted": 0,
    "replica_wait": 0,
    "replica_lag": 0,
    "hidden": [],
    "finished": 0,
    "adjusted": {},
    "namesakes": [],
    "found": None,
    "towns": None,
    "former_guess": None,
    "absent": None,
    "databases": None,
    "dbsize": None,
    "scanned": None,
    "server": None,
}
"""The fields about a result in their order, as they are where a run does not know them."""


@dataclass(frozen=True, kw_only=True)
class JsonReport(TextReport):
    """Writes what was found and done. docs/reference.md documents the fields; they must not change.

    The document goes to `stdout`. What a person must read goes to `out` and `err`, both stderr.
    `mode` is `preview`, `check` or `migrate`; None if the options could not be read.
    """

    stdout: Output
    mode: str | None
    options: Mapping[str, Any] | None = None
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def tell(self, result: Result) -> None:
        """Write the document of a run that ended."""
        self._write(result)

    def cancelled(self, count: Count) -> None:
        """Write the document of a run that was cancelled at the prompt."""
        self._write(count, f"cancelled: {FORCE_HINT}")

    def stopped(self, last: Progress | None, error: str, seconds: float) -> None:
        """Write the document of a run that a signal or an error ended, after so many seconds."""
        self._write(last.so_far if last else None, error, seconds, last)

    def _write(
        self,
        result: Result | None,
        error: str | None = None,
        seconds: float = 0,
        last: Progress | None = None,
    ) -> None:
        former = self.plan.from_town
        document: dict[str, Any] = {
            "town": shown_text(self.town) or None,
            "redis": self.server or None,
            "database": self.database,
            "mode": self.mode,
            "operation": self.plan.name if self.mode else None,
            "from_town": None if former is None else shown_text(former),
            **_NOTHING,
            "seconds": round(seconds, 3),
            **(_found(result, self.redactor) if result else {}),
            "options": dict(self.options) if self.options else None,
            "version": own_version(),
            "started_at": self.started.isoformat(timespec="milliseconds"),
            "finished_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        }
        if isinstance(result, Preview):
            document |= _lists(result, self.redactor)
        if error:
            document |= {"former_guess": None, "absent": None, "error": error}
        if last:
            document |= {"scanned": last.scanned, "dbsize": last.dbsize or None}
        self.stdout.lines(_lines(document))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    """Yield a document's lines. Lists are written item by item: they can have a million."""
    yield "{"
    for position, (name, value) in enumerate(document.items(), start=1):
        comma = "," if position < len(document) else ""
        if isinstance(value, Iterator):
            yield f'  "{name}": ['
            yield from _with_commas(f"    {_json(item)}" for item in value)
            yield f"  ]{comma}"
        else:
            yield f'  "{name}": {_json(value)}{comma}'
    yield "}"


def _json(value: Any) -> str:
    """Return JSON whose strings, once parsed, contain only printable characters."""
    if isinstance(value, str):
        return json.dumps(printable(value))
    if isinstance(value, dict):
        fields = (f"{json.dumps(name)}: {_json(item)}" for name, item in value.items())
        return f"{{{', '.join(fields)}}}"
    return json.dumps(value)


def _with_commas(items: Iterator[str]) -> Iterator[str]:
    last = next(items, None)
    for item in items:
        yield f"{last},"
        last = item
    if last is not None:
        yield last


def _found(result: Result, redactor: Redactor) -> dict[str, Any]:
    """The fields that a result knows."""
    effort, guess, databases = result.effort, result.former_guess, result.databases
    fields: dict[str, Any] = {
        "keys": dict(result.keys),
        "total": sum(result.keys.values()),
        "batches": effort.batches,
        "seconds": round(effort.seconds, 3),
        "max_pause_ms": effort.max_pause_ms,
        "reconnects": effort.reconnects,
        "lost_replies": effort.lost_replies,
        "evicted": effort.evicted,
        "replica_wait": None if effort.replica_wait is None else round(effort.replica_wait, 3),
        "replica_lag": effort.replica_lag,
        "hidden": [
            {"from": shown(key), "hidden": shown(name)}
            for key, name in sorted(result.hidden.items())
        ],
        "towns": sorted(map(shown, result.towns)),
        "former_guess": None if guess is None else shown(guess),
        "absent": result.is_absent,
        "databases": databases and {str(number): databases[number] for number in sorted(databases)},
    }
    if server := result.server:
        said = {"name": server.name, "version": server.version, "role": server.role}
        fields["server"] = {name: redactor.shown(text) for name, text in said.items()}
    if isinstance(result, Migration):
        count = result.left.count if result.left else None
        fields |= _migrated(result, redactor)
    else:
        count = result.count if isinstance(result, Preview) else result
        left = result.remaining if isinstance(result, Preview) else result.total
        fields |= {"remaining": left, "found": left, "dbsize": result.dbsize}
        fields["records"] = dict(result.to_convert)
    if isinstance(result, Preview | Migration):
        fields |= _left_alone(result, redactor)
        fields["adjusted"] = dict(result.adjusted)
    if isinstance(result, Preview):
        fields["namesakes"] = _namesakes(result.namesakes, redactor)
    if count:
        fields |= {"hashes": count.hashes_total, "new_only": count.new_only}
        fields.setdefault("strings", count.strings_total)
    return fields


def _migrated(migration: Migration, redactor: Redactor) -> dict[str, Any]:
    merged = sum(migration.merged.values())
    fields = {
        "migrated": migration.total,
        "merged": merged,
        "records": dict(migration.converted),
        "converted": sum(migration.converted.values()),
        "remaining": migration.remaining,
        "unreadable": sum(migration.unreadable.values()),
        "finished": migration.finished,
        "found": migration.total + merged + migration.left_behind,
    }
    if left := migration.left:
        fields["strings"] = sum(left.strings.values())
        fields["namesakes"] = _namesakes(left.namesakes, redactor)
    return fields


def _namesakes(
    namesakes: Mapping[bytes, Iterable[bytes]], redactor: Redactor
) -> list[dict[str, Any]]:
    """The names that several agents have, and the agents' ids."""
    return [
        {"name": redactor.shown(name.decode("utf-8", "surrogateescape")), "ids": [*map(shown, ids)]}
        for name, ids in namesakes.items()
    ]


def _left_alone(result: Preview | Migration, redactor: Redactor) -> dict[str, Any]:
    plan, town = result.plan, result.town
    return {
        "conflicts": _reasons(result, result.conflicts, redactor.words),
        "ambiguous": (
            {"from": shown(key), "to": None, "reason": ambiguous_reason(plan, town, key)}
            for key in in_order(result.ambiguous, plan.name_start(town))
        ),
        "failed": chain(
            _reasons(result, result.failed, redactor.shown),
            (
                {"from": shown(key), "to": shown(key), "reason": redactor.shown(reason)}
                for key in in_order(result.unconverted, town_key_start(town))
                for reason in [result.unconverted[key]]
            ),
        ),
    }


def _reasons(
    result: Preview | Migration, keys: Mapping[bytes, str], show: Callable[[str], str]
) -> Iterator[dict[str, str]]:
    return ({**move, "reason": show(keys[key])} for key, move in _moves(result, keys))


def _lists(preview: Preview, redactor: Redactor) -> dict[str, Any]:
    merges = _moves(preview, preview.merges)
    conversions = in_order(preview.conversions, town_key_start(preview.town))
    return {
        "moves": (move for _, move in _moves(preview, preview.moves)),
        "merges": ({**move, "how": redactor.words(preview.merges[key])} for key, move in merges),
        "conversions": map(shown, conversions),
        "refused": iter(preview.refused),
    }


def _moves(
    result: Preview | Migration, keys: Iterable[bytes]
) -> Iterator[tuple[bytes, dict[str, str]]]:
    plan, town = result.plan, result.town
    for key in in_order(keys, plan.name_start(town)):
        yield key, {"from": shown(key), "to": shown(plan.destination(town, key))}

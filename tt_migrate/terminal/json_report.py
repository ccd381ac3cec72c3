"""The report for programs: one JSON document on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import chain
from typing import Any

from tt_migrate.escape import printable, shown, shown_text
from tt_migrate.keyspace import FAMILIES, RECORDS, in_order, town_key_start
from tt_migrate.plan import Plan
from tt_migrate.results import Count, Left, Migration, Preview, Result
from tt_migrate.terminal.output import Output
from tt_migrate.terminal.redaction import NO_SECRETS, Redactor
from tt_migrate.terminal.text_report import FORCE_HINT, TextReport, ambiguous_reason
from tt_migrate.terminal.version import own_version


@dataclass(frozen=True)
class JsonReport:
    """Writes what was found and done. docs/reference.md documents the fields; they must not change.

    `mode` is `preview`, `check` or `migrate`. `plan` and `mode` are None if the options could not
    be read. `server` is the redacted URL, and `repeated` what hints repeat of the command line.
    `redactor` escapes the server's own text.
    """

    out: Output
    err: Output
    plan: Plan | None
    mode: str | None
    town: str | None = None
    server: str | None = None
    database: int | None = None
    repeated: str = ""
    redactor: Redactor = NO_SECRETS
    options: Mapping[str, Any] | None = None
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def question(self, count: Count) -> Output:
        """Show on stderr what a migration would find. Returns the output for the prompt."""
        return self._text(count.plan).question(count)

    def checked(self, count: Count) -> None:
        """Write the document of --check."""
        self._write(count)

    def previewed(self, preview: Preview) -> None:
        """Write the document of --dry-run."""
        self._write(preview)

    def tell_towns(self, migration: Migration) -> None:
        """Write on stderr that keys which name no town went to this one, and others exist."""
        self._text(migration.plan).tell_towns(migration)

    def migrated(self, migration: Migration) -> None:
        """Write the document of a migration."""
        self._write(migration)

    def cancelled(self, count: Count) -> None:
        """Write the document of a run that was cancelled at the prompt."""
        self._write(count, f"cancelled: {FORCE_HINT}")

    def stopped(self, so_far: Result | None, error: str, seconds: float) -> None:
        """Write the document of a run that a signal or an error ended, after so many seconds."""
        self._write(so_far, error, seconds)

    def _text(self, plan: Plan) -> TextReport:
        """A report that writes on stderr."""
        town, server = self.town or "", self.server or ""
        text = TextReport(self.err, self.err, plan, quiet=False)
        return replace(
            text, town=town, server=server, repeated=self.repeated, redactor=self.redactor
        )

    def _write(self, result: Result | None, error: str | None = None, seconds: float = 0) -> None:
        document: dict[str, Any] = {
            "town": _name(self.town),
            "redis": self.server,
            "database": self.database,
            "mode": self.mode,
            "operation": self.plan.name if self.plan else None,
            "from_town": _name(self.plan.from_town if self.plan else None),
            **_numbers(result, self.redactor, result.effort.seconds if result else seconds),
            "found": _found(result),
            "towns": _towns(result),
            "former_guess": None if error else _former_guess(result),
            "absent": None if error or not result else result.is_absent,
            "databases": _databases(result),
            "dbsize": result.dbsize if isinstance(result, Count | Preview) else None,
            "server": _server(result, self.redactor),
            "options": dict(self.options) if self.options else None,
            "version": own_version(),
            "started_at": self.started.isoformat(timespec="milliseconds"),
            "finished_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        }
        if isinstance(result, Preview):
            document |= _lists(result, self.redactor)
        if error:
            document["error"] = error
        self.out.lines(_lines(document))


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


def _numbers(result: Result | None, redactor: Redactor, seconds: float) -> dict[str, Any]:
    effort = result.effort if result else None
    count = _count(result)
    found = result.left if isinstance(result, Migration) else count
    keys: Mapping[str, int] = result.keys if result else dict.fromkeys(FAMILIES, 0)
    merged = sum(result.merged.values()) if isinstance(result, Migration) else 0
    return {
        "keys": dict(keys),
        "total": sum(keys.values()),
        "migrated": result.total if isinstance(result, Migration) else 0,
        "merged": merged,
        "records": _records(result),
        "converted": sum(result.converted.values()) if isinstance(result, Migration) else 0,
        **_left_alone(result, redactor),
        "remaining": result.total if isinstance(result, Count) else result and result.remaining,
        "strings": sum(found.strings.values()) if found else None,
        "unreadable": sum(result.unreadable.values()) if isinstance(result, Migration) else None,
        "hashes": count.hashes_total if count else None,
        "new_only": count.new_only if count else None,
        "batches": effort.batches if effort else 0,
        "seconds": round(seconds, 3),
        "max_pause_ms": effort.max_pause_ms if effort else None,
        "reconnects": effort.reconnects if effort else 0,
        "lost_replies": effort.lost_replies if effort else 0,
        "evicted": effort.evicted if effort else 0,
        "hidden": _hidden(result),
        "finished": result.finished if isinstance(result, Migration) else 0,
        "adjusted": dict(result.adjusted) if isinstance(result, Preview | Migration) else {},
        "namesakes": _namesakes(result, redactor),
    }


def _hidden(result: Result | None) -> list[dict[str, str]]:
    """The keys on their way between shards, and their hidden names."""
    hidden = result.hidden if result else {}
    return [{"from": shown(key), "hidden": shown(hidden[key])} for key in sorted(hidden)]


def _name(town: str | None) -> str | None:
    return None if town is None else shown_text(town)


def _former_guess(result: Result | None) -> str | None:
    guess = result.former_guess if result else None
    return None if guess is None else shown(guess)


def _databases(result: Result | None) -> dict[str, int] | None:
    """The keys in each database, by its number, if the town has none in this one."""
    found = result.databases if result else None
    return None if found is None else {str(number): found[number] for number in sorted(found)}


def _namesakes(result: Result | None, redactor: Redactor) -> list[dict[str, Any]]:
    """The names that several agents have, and the agents' ids."""
    found = result.left if isinstance(result, Migration) else result
    namesakes = found.namesakes if isinstance(found, Left | Preview) else {}
    return [
        {"name": redactor.shown(name.decode("utf-8", "surrogateescape")), "ids": [*map(shown, ids)]}
        for name, ids in namesakes.items()
    ]


def _found(result: Result | None) -> int | None:
    """How many keys that move the run has met, whatever became of them."""
    if isinstance(result, Migration):
        return result.total + sum(result.merged.values()) + result.left_behind
    if isinstance(result, Preview):
        return result.remaining
    return result.total if result else None


def _towns(result: Result | None) -> list[str] | None:
    """The other towns in the database, None if the run had no pass that looks at them."""
    return sorted(map(shown, result.towns)) if result else None


def _server(result: Result | None, redactor: Redactor) -> dict[str, str] | None:
    if result is None or result.server is None:
        return None
    said = vars(result.server)
    return {name: redactor.shown(said[name]) for name in ("name", "version", "role")}


def _count(result: Result | None) -> Count | None:
    if isinstance(result, Migration):
        return result.left.count if result.left else None
    return result.count if isinstance(result, Preview) else result


def _records(result: Result | None) -> dict[str, int]:
    if result is None:
        return dict.fromkeys(RECORDS, 0)
    return dict(result.converted if isinstance(result, Migration) else result.to_convert)


def _left_alone(result: Result | None, redactor: Redactor) -> dict[str, Any]:
    if result is None or isinstance(result, Count):
        return {"conflicts": [], "ambiguous": [], "failed": []}
    return {
        "conflicts": _reasons(result, result.conflicts, redactor.words),
        "ambiguous": _ambiguous(result),
        "failed": chain(
            _reasons(result, result.failed, redactor.shown), _unconverted(result, redactor)
        ),
    }


def _ambiguous(result: Preview | Migration) -> Iterator[dict[str, str | None]]:
    plan, town = result.plan, result.town
    for key in in_order(result.ambiguous, plan.name_start(town)):
        yield {"from": shown(key), "to": None, "reason": ambiguous_reason(plan, town, key)}


def _unconverted(result: Preview | Migration, redactor: Redactor) -> Iterator[dict[str, str]]:
    for key in in_order(result.unconverted, town_key_start(result.town)):
        reason = redactor.shown(result.unconverted[key])
        yield {"from": shown(key), "to": shown(key), "reason": reason}


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

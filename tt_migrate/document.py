"""What a program reads: one JSON document on stdout."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tt_migrate.keyspace import FAMILIES, in_order, new_key, shown, shown_text
from tt_migrate.output import Output
from tt_migrate.report import CONFLICT, FORCE_HINT, TextReport, ambiguous_reason
from tt_migrate.results import Count, Migration, Preview, Result


@dataclass(frozen=True)
class JsonReport:
    """Says what was found and done. The fields are documented in the README and stay as they are.

    `mode` is `preview`, `check` or `migrate`, None when the options could not be read; `server` is
    the redacted URL.
    """

    out: Output
    err: Output
    mode: str | None
    town: str | None = None
    server: str | None = None

    def question(self, count: Count) -> Output:
        """Show a person what a migration would meet, on stderr; the output for the prompt."""
        text = TextReport(self.err, self.err, False, self.town or "", self.server or "")
        return text.question(count)

    def checked(self, count: Count) -> None:
        """The document of --check."""
        self._write(count)

    def previewed(self, preview: Preview) -> None:
        """The document of --dry-run."""
        self._write(preview)

    def migrated(self, migration: Migration) -> None:
        """The document of a migration."""
        self._write(migration)

    def cancelled(self, count: Count) -> None:
        """The prompt was not answered with yes."""
        self._write(count, f"cancelled: {FORCE_HINT}")

    def stopped(self, so_far: Result | None, error: str) -> None:
        """The run ended before its end, by a signal or an error."""
        self._write(so_far, error)

    def _write(self, result: Result | None, error: str | None = None) -> None:
        document: dict[str, Any] = {
            "town": shown_text(self.town) if self.town else None,
            "redis": self.server,
            "mode": self.mode,
            **_numbers(result),
        }
        if isinstance(result, Preview):
            document["moves"] = [
                {"from": shown(key), "to": shown(new_key(result.town, key))}
                for key in in_order(result.moves)
            ]
        if error:
            document["error"] = error
        self.out.line(json.dumps(document, indent=2))


def _numbers(result: Result | None) -> dict[str, Any]:
    effort = result.effort if result else None
    keys: Mapping[str, int] = result.keys if result else dict.fromkeys(FAMILIES, 0)
    conflicts: Collection[bytes] = ()
    failed: Mapping[bytes, str] = {}
    ambiguous: Collection[bytes] = ()
    if result and not isinstance(result, Count):
        conflicts, failed, ambiguous = result.conflicts, result.failed, result.ambiguous
    town = result.town if result else ""
    return {
        "keys": dict(keys),
        "total": sum(keys.values()),
        "migrated": result.total if isinstance(result, Migration) else 0,
        "conflicts": [_left(town, key, CONFLICT) for key in in_order(conflicts)],
        "ambiguous": [
            {"from": shown(key), "to": None, "reason": ambiguous_reason(key)}
            for key in in_order(ambiguous)
        ],
        "failed": [_left(town, key, failed[key]) for key in in_order(failed)],
        "remaining": _remaining(result),
        "batches": effort.batches if effort else 0,
        "seconds": round(effort.seconds, 3) if effort else 0.0,
        "max_pause_ms": effort.max_pause_ms if effort else None,
        "reconnects": effort.reconnects if effort else 0,
    }


def _left(town: str, key: bytes, reason: str) -> dict[str, str]:
    return {"from": shown(key), "to": shown(new_key(town, key)), "reason": reason}


def _remaining(result: Result | None) -> int | None:
    if isinstance(result, Migration):
        return result.remaining
    if isinstance(result, Preview):
        return result.total + len(result.conflicts) + len(result.failed)
    return result.total if result else None

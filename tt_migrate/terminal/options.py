"""The options of a command line, and the plan that they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tt_migrate.escape import shown_text
from tt_migrate.plan import DOWNGRADE, HASH, RENAME, REVERSE, UPGRADE, Plan, from_town
from tt_migrate.terminal.words import quoted


@dataclass(frozen=True)
class Options:
    """The options of the command line, as `tt migrate --help` describes them.

    `typed`: the names of those that were given on the command line.
    """

    town_dir: Path
    town_name: str | None
    redis_url: str | None
    hash: bool
    dry_run: bool
    check: bool
    upgrade: bool
    reverse: bool
    downgrade: bool
    from_town: str | None
    on_conflict: str
    legacy_prefix: str | None
    force: bool
    max_pause_ms: int
    nice: float
    max_lag_mb: int
    json: bool
    limit: int | None
    record: Path | None
    quiet: bool
    verbose: bool
    typed: frozenset[str]

    @property
    def plan(self) -> Plan:
        """The plan that the options select. A check without one looks at all of an upgrade."""
        if self.hash:
            return HASH
        if self.reverse:
            return REVERSE
        if self.downgrade:
            return DOWNGRADE
        merge = self.on_conflict == "merge"
        if self.from_town is not None:
            return from_town(self.from_town, merge=merge)
        upgrade = self.upgrade or self.checks_everything
        return replace(
            UPGRADE if upgrade else RENAME,
            oldest=upgrade or self.legacy_prefix is not None,
            merge=merge,
        )

    @property
    def checks_everything(self) -> bool:
        """Whether this is a check that names no plan."""
        chosen = self.hash or self.reverse or self.downgrade or self.upgrade
        return self.check and not chosen and self.from_town is None

    @property
    def shown(self) -> dict[str, Any]:
        """The options by name, without those for the town and the server."""
        hidden = ("town_dir", "town_name", "redis_url", "typed")
        return {
            name: shown_text(str(value)) if isinstance(value, str | Path) else value
            for name, value in vars(self).items()
            if name not in hidden
        }

    def repeated(self, url: str) -> str:
        """The options that a hint repeats, besides those for the plan.

        `url`: the server's redacted URL.
        """
        values = {
            "town_dir": ("-t", self.town_dir),
            "town_name": ("--town-name", self.town_name),
            "redis_url": ("--redis-url", url),
            "max_pause_ms": ("--max-pause", self.max_pause_ms),
            "nice": ("--nice", f"{self.nice:g}"),
            "max_lag_mb": ("--max-lag", self.max_lag_mb),
            "record": ("--record", self.record),
        }
        return "".join(
            f" {option} {quoted(str(value))}"
            for name, (option, value) in values.items()
            if name in self.typed
        )

    @property
    def mode(self) -> str:
        """Whether to carry out the plan (`migrate`), or only to `preview` or `check` it."""
        return "check" if self.check else "preview" if self.dry_run else "migrate"

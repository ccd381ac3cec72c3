"""The options of a command line, and the plan that they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tt_migrate.plan import HASH, RENAME, REVERSE, UPGRADE, Plan


@dataclass(frozen=True)
class Options:
    """The options of the command line, as `tt migrate --help` describes them."""

    town_dir: Path
    town_name: str | None
    redis_url: str | None
    dry_run: bool
    check: bool
    to_hash: bool
    upgrade: bool
    reverse: bool
    on_conflict: str
    legacy_prefix: str | None
    force: bool
    max_pause_ms: int
    nice: float
    json: bool
    quiet: bool
    verbose: bool

    @property
    def plan(self) -> Plan:
        """The plan that the options select. A check without one looks at all of an upgrade."""
        if self.to_hash:
            return HASH
        if self.reverse:
            return REVERSE
        upgrade = self.upgrade or self.checks_everything
        return replace(
            UPGRADE if upgrade else RENAME,
            oldest=upgrade or self.legacy_prefix is not None,
            merge=self.on_conflict == "merge",
        )

    @property
    def checks_everything(self) -> bool:
        """Whether this is a check that names no plan."""
        return self.check and not (self.to_hash or self.reverse or self.upgrade)

    @property
    def shown(self) -> dict[str, Any]:
        """The options by their names, but for those that say which town and server."""
        hidden = ("town_dir", "town_name", "redis_url", "to_hash")
        values = {name: value for name, value in vars(self).items() if name not in hidden}
        return {"hash": self.to_hash, **values}

    @property
    def mode(self) -> str:
        """Whether to carry out the plan (`migrate`), or only to `preview` or `check` it."""
        return "check" if self.check else "preview" if self.dry_run else "migrate"

"""Upgrade a Tinytown's Redis to the town-isolated key format.

from redis import Redis
from tt_migrate import Migrator

Migrator(Redis(), "my-project").preview()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tt_migrate.engine.calls.server import UnsupportedServerError
    from tt_migrate.migrator import Migrator
    from tt_migrate.plan import DOWNGRADE, HASH, RENAME, REVERSE, UPGRADE, Plan, from_town
    from tt_migrate.results import Change, Count, Effort, Migration, Preview, Progress

__all__ = [
    "DOWNGRADE",
    "HASH",
    "RENAME",
    "REVERSE",
    "UPGRADE",
    "Change",
    "Count",
    "Effort",
    "Migration",
    "Migrator",
    "Plan",
    "Preview",
    "Progress",
    "UnsupportedServerError",
    "from_town",
]

_MODULES = {
    "Migrator": "migrator",
    "UnsupportedServerError": "engine.calls.server",
    **dict.fromkeys(
        ("DOWNGRADE", "HASH", "RENAME", "REVERSE", "UPGRADE", "Plan", "from_town"), "plan"
    ),
}


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `tt --help` does not wait for redis-py.
    if name not in __all__:
        raise AttributeError(f"module 'tt_migrate' has no attribute '{name}'")
    return getattr(import_module(f"tt_migrate.{_MODULES.get(name, 'results')}"), name)

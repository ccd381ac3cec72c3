"""Upgrade a Tinytown's Redis to the town-isolated key format.

from redis import Redis
from tt_migrate import Migrator

Migrator(Redis(), "my-project").preview()
"""

from tt_migrate.migrator import Migrator
from tt_migrate.results import Count, Effort, Migration, Preview, Progress
from tt_migrate.server import UnsupportedServerError

__all__ = [
    "Count",
    "Effort",
    "Migration",
    "Migrator",
    "Preview",
    "Progress",
    "UnsupportedServerError",
]

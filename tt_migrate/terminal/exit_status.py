"""The exit statuses, which --help lists and docs/reference.md documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # --help needs no results
    from tt_migrate.results import Count, Migration

DONE = 0
LEFT_BEHIND = 1
USAGE = 2
SERVER = 3
CANCELLED = 4

HELP = """\b
Exit status:
  0    done, or nothing to do, or previewed
  1    keys were left behind or evicted, or --check found something to do
  2    wrong usage or configuration, or a report could not be written
  3    the server could not be reached or refused, or an internal error occurred
  4    cancelled at the prompt
  129  stopped by SIGHUP, 130 by SIGINT, 143 by SIGTERM
"""


def of_check(count: Count) -> int:
    """The exit status of --check."""
    return LEFT_BEHIND if count.undone else DONE


def of_migration(migration: Migration) -> int:
    """The exit status of a run that migrated and ended by itself."""
    is_whole = migration.complete and not migration.effort.evicted
    return DONE if is_whole else LEFT_BEHIND

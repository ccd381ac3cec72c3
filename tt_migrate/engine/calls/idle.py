"""Knows which connections nobody has used for a while: a firewall may have forgotten them."""

from __future__ import annotations

import time
from typing import Any

SILENT_SECONDS = 1.0
"""After so many seconds a connection is made anew: that takes less time than to find out."""

_HEARD_AT = "tt_migrate_heard_at"


def watch(connection: Any) -> None:
    """Note that a connection works now, and watch it from now on."""
    setattr(connection, _HEARD_AT, time.monotonic())


def is_watched(connection: Any) -> bool:
    """Whether a connection may be made anew: it is not the caller's own."""
    return hasattr(connection, _HEARD_AT)


def heard(connection: Any) -> None:
    """Note that a connection works now, if it is watched."""
    if is_watched(connection):
        watch(connection)


def is_long_ago(heard_at: float) -> bool:
    """Whether a connection that was last heard at this time, by time.monotonic(), may be dead."""
    return time.monotonic() - heard_at > SILENT_SECONDS


def wake(connection: Any) -> bool:
    """Drop a watched connection that was silent for too long. Returns whether it was."""
    heard_at = getattr(connection, _HEARD_AT, None)
    if heard_at is None or not is_long_ago(heard_at):
        return False
    connection.disconnect()
    watch(connection)
    return True

"""The message for an error in this program, shown instead of a traceback."""

from __future__ import annotations

from pathlib import Path

from tt_migrate.terminal.redaction import Redactor


def internal_error(error: Exception, redactor: Redactor) -> str:
    """Describe an unexpected exception and its place in one line. It may quote a server's text."""
    from traceback import extract_tb  # slow, and rarely needed

    [frame] = extract_tb(error.__traceback__, limit=-1)
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    what = redactor.shown(f"{type(error).__name__} {error}".strip())
    return f"internal: {what} ({place}). Please report this."

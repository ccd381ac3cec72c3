"""The message for an error in this program, shown instead of a traceback."""

from __future__ import annotations

from pathlib import Path

from tt_migrate.terminal.redaction import Redactor


def internal_error(error: Exception, redactor: Redactor) -> str:
    """Describe an unexpected exception and its place in one line. It may quote a server's text."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    place = "?"
    if traceback:
        code = traceback.tb_frame.f_code
        place = f"{Path(code.co_filename).name}:{traceback.tb_lineno}"
    what = redactor.shown(f"{type(error).__name__} {error}".strip())
    return f"internal: {what} ({place}). Please report this."

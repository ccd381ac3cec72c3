"""What is said of a fault of this program's own, in place of a traceback."""

from __future__ import annotations

from pathlib import Path

from tt_migrate.terminal.foreign import Foreign


def internal_error(error: Exception, foreign: Foreign) -> str:
    """One line about an exception that nobody thought of, with its place. A server may be in it."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    place = "?"
    if traceback:
        code = traceback.tb_frame.f_code
        place = f"{Path(code.co_filename).name}:{traceback.tb_lineno}"
    what = foreign.shown(f"{type(error).__name__} {error}".strip())
    return f"internal: {what} ({place}). Please report this."

"""The progress bar on a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from tt_migrate.results import Migration, Progress, Stage
from tt_migrate.terminal.output import Output
from tt_migrate.terminal.redaction import Foreign

_QUIET_SECONDS = 0.5
_REDRAW_SECONDS = 0.1
_WIDTH = 12


class ProgressBar:
    """Shows keys scanned of DBSIZE, keys migrated and the rate, once a stage takes long.

    Pass it as a Migrator's `progress`. It shows nothing if `out` is not a terminal. `foreign`:
    escapes the server's own text.
    """

    def __init__(self, out: Output, foreign: Foreign) -> None:
        self._out = out
        self._foreign = foreign
        self._stage: Stage | None = None
        self._since = 0.0
        self._drawn = 0.0
        self._waiting = ""
        self._is_open = False

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def __call__(self, progress: Progress) -> None:
        """Show the progress of the run."""
        if not self._out.is_terminal:
            return
        now = time.monotonic()
        if progress.stage != self._stage:
            self._close()
            self._stage, self._since = progress.stage, now
        is_long = self._is_open or progress.waiting or now - self._since > _QUIET_SECONDS
        is_news = progress.waiting != self._waiting
        if is_long and (is_news or now - self._drawn > _REDRAW_SECONDS):
            self._is_open, self._drawn, self._waiting = True, now, progress.waiting
            self._out.over(self._text(progress, now - self._since))

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._out.line("")

    def _text(self, progress: Progress, seconds: float) -> str:
        length = max(progress.dbsize, progress.scanned, 1)
        done = progress.scanned / length
        bar = f"[{'#' * int(done * _WIDTH):-<{_WIDTH}}] {progress.scanned}/{length} {done:4.0%}"
        waiting = f", {self._foreign.shown(progress.waiting)}" if progress.waiting else ""
        return f"{bar} {_label(progress, seconds)}{waiting}"


def _label(progress: Progress, seconds: float) -> str:
    label: str = progress.stage
    if progress.stage == "migrating" and isinstance(progress.so_far, Migration):
        migrated = progress.so_far.total
        label += f": {migrated} migrated, {migrated / max(seconds, 0.001):.0f}/s"
    if progress.stage == "converting" and isinstance(progress.so_far, Migration):
        label += f": {sum(progress.so_far.converted.values())} converted"
    return label

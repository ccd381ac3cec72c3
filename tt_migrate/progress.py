"""The progress bar on a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import click

from tt_migrate.results import Migration, Progress, Stage

_QUIET_SECONDS = 0.5
_REDRAW_SECONDS = 0.1


class ProgressBar:
    """Shows keys scanned of DBSIZE, keys migrated and the rate on stderr, once a stage takes long.

    A Migrator's `progress`. Nothing appears where stderr is no terminal.
    """

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._since = 0.0
        self._drawn = 0.0
        self._waiting = ""
        self._bar: click._termui_impl.ProgressBar[int] | None = None

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
        """Show where the run stands."""
        now = time.monotonic()
        if progress.stage != self._stage:
            self._close()
            self._stage, self._since = progress.stage, now
        if self._bar is None and (progress.waiting or now - self._since > _QUIET_SECONDS):
            self._open(progress)
        is_news = progress.waiting != self._waiting
        if self._bar is not None and (is_news or now - self._drawn > _REDRAW_SECONDS):
            self._drawn, self._waiting = now, progress.waiting
            self._bar.length = max(progress.dbsize, progress.scanned, 1)
            # Set and not update(): a scan that begins anew goes back.
            self._bar.pos = progress.scanned
            self._bar.label = _label(progress, now - self._since)
            self._bar.render_progress()

    def _open(self, progress: Progress) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            self._bar = click.progressbar(
                length=max(progress.dbsize, 1),
                file=sys.stderr,
                show_eta=False,
                show_pos=True,
                width=24,
            )
            self._bar.__enter__()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _label(progress: Progress, seconds: float) -> str:
    label: str = progress.stage
    if progress.stage == "migrating" and isinstance(progress.so_far, Migration):
        migrated = progress.so_far.total
        label += f": {migrated} migrated, {migrated / max(seconds, 0.001):.0f}/s"
    if progress.stage == "converting" and isinstance(progress.so_far, Migration):
        label += f": {sum(progress.so_far.converted.values())} converted"
    return f"{label}, {progress.waiting}" if progress.waiting else label

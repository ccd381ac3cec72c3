"""The progress of a run: what is known of it, and how it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from typing import TypeVar

from tt_migrate.results import Effort, Migration, Progress, Stage
from tt_migrate.terminal.output import Output

_R = TypeVar("_R")

_QUIET_SECONDS = 0.5
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 10.0
_BAR = 8
_MINUTE, _HOUR = 60, 3600


class Watch:
    """Follows a run: keeps the last progress and the time, and shows the progress."""

    def __init__(self, display: ProgressBar | ProgressLines | None) -> None:
        self._display = display
        self._stage: Stage | None = None
        self._last: Progress | None = None
        self._began = self._stage_began = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Receive a Migrator's progress."""
        self._last = progress
        if self._display:
            now = time.monotonic()
            if progress.stage != self._stage:
                self._display.close()
                self._stage, self._stage_began = progress.stage, now
            self._display.show(progress, now - self._stage_began)

    @property
    def seconds(self) -> float:
        """Seconds since the run began, or since its last operation began."""
        return time.monotonic() - self._began

    @property
    def last(self) -> Progress | None:
        """The last progress, with the time until now; None before the first batch has ended."""
        if self._last is None:
            return None
        so_far = self._last.so_far
        effort = replace(so_far.effort, seconds=self.seconds)
        return replace(self._last, so_far=replace(so_far, effort=effort))

    @property
    def effort(self) -> Effort:
        """The cost of the run, or of its last operation."""
        return self.last.so_far.effort if self.last else Effort(0, self.seconds, None, 0)

    def follow(self, operation: Callable[[], _R]) -> _R:
        """Carry out an operation of the Migrator. The display is closed when it ends."""
        self._last, self._began = None, time.monotonic()
        with closing(self._display) if self._display else nullcontext():
            return operation()


class ProgressBar:
    """Shows how far a stage has got, once it takes long, in the last line of a terminal."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._drawn = 0.0
        self._waiting = ""
        self._is_open = False

    def show(self, progress: Progress, seconds: float) -> None:
        """Show the progress of a stage that has taken so many seconds so far."""
        now = time.monotonic()
        is_long = self._is_open or progress.waiting or seconds > _QUIET_SECONDS
        is_news = progress.waiting != self._waiting
        if is_long and (is_news or now - self._drawn > _REDRAW_SECONDS):
            self._is_open, self._drawn, self._waiting = True, now, progress.waiting
            self._out.over(fitting(progress, seconds, self._out.width))

    def close(self) -> None:
        """End the line."""
        if self._is_open:
            self._is_open = False
            self._out.line("")


class ProgressLines:
    """Writes a dated line every 10 seconds, for the log of a job."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._written = time.monotonic()

    def show(self, progress: Progress, seconds: float) -> None:
        """Write the progress of a stage if a line is due."""
        now = time.monotonic()
        if now - self._written >= _LINE_SECONDS:
            self._written = now
            self.write(", ".join(text for text, _ in _parts(progress, seconds)))

    def close(self) -> None:
        """Do nothing: each line is ended."""

    def write(self, text: str) -> None:
        """Write a line with the date and time (RFC 3339, UTC)."""
        self._out.line(f"{datetime.now(timezone.utc).isoformat(timespec='seconds')} {text}")


def fitting(progress: Progress, seconds: float, width: int) -> str:
    """The progress of a stage in at most `width` characters, without its least important parts.

    `seconds`: how long the stage has taken so far.
    """
    filled = int(_share(progress) * _BAR)
    parts = [(f"[{'#' * filled:-<{_BAR}}]", 3), *_parts(progress, seconds)]
    while len(text := "  ".join(text for text, _ in parts)) > width and len(parts) > 1:
        parts.remove(max(parts, key=lambda part: part[1]))
    return text[:width]


def _parts(progress: Progress, seconds: float) -> Iterator[tuple[str, int]]:
    """The parts of a progress in the order of the line, each with its rank: 0 is kept longest."""
    share = _share(progress)
    yield f"{share:4.0%}".strip(), 1
    yield progress.stage, 4
    if isinstance(progress.so_far, Migration) and progress.stage == "migrating":
        run = progress.so_far
        done = run.total if run.plan.rename else sum(run.converted.values())
        yield f"{done} {'migrated' if run.plan.rename else 'converted'}", 5
        yield f"{done / max(seconds, 0.001):.0f}/s", 7
    yield f"{progress.scanned}/{max(progress.dbsize, progress.scanned)}", 6
    if 0 < share < 1:
        yield _left(seconds * (1 - share) / share), 2
    if progress.waiting:
        yield progress.waiting, 0


def _share(progress: Progress) -> float:
    return progress.scanned / max(progress.dbsize, progress.scanned, 1)


def _left(seconds: float) -> str:
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s left"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min left"
    return f"{seconds / _HOUR:.0f} h left"

"""What is known of a run while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import TypeVar

from tt_migrate.results import Effort, Progress, Result
from tt_migrate.terminal.progress import ProgressBar, ProgressLines

_R = TypeVar("_R")


class Watch:
    """Follows a run: keeps the last progress and the time, and updates the bar."""

    def __init__(self, bar: ProgressBar | ProgressLines | None) -> None:
        self._bar = bar
        self._so_far: Result | None = None
        self._began = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Receive a Migrator's progress."""
        self._so_far = progress.so_far
        if self._bar:
            self._bar(progress)

    @property
    def seconds(self) -> float:
        """Seconds since the run began, or since its last operation began."""
        return time.monotonic() - self._began

    @property
    def so_far(self) -> Result | None:
        """The result so far; None before the first batch has ended."""
        if self._so_far is None:
            return None
        return replace(self._so_far, effort=replace(self._so_far.effort, seconds=self.seconds))

    @property
    def effort(self) -> Effort:
        """The cost of the run, or of its last operation."""
        return self.so_far.effort if self.so_far else Effort(0, self.seconds, None, 0)

    def follow(self, operation: Callable[[], _R]) -> _R:
        """Carry out an operation of the Migrator. The bar is closed when it ends."""
        self._so_far, self._began = None, time.monotonic()
        with closing(self._bar) if self._bar else nullcontext():
            return operation()

"""SIGINT and SIGTERM: the first one ends a run after the batch in flight."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StoppedBySignal(BaseException):
    """A signal asked for the end. Not an Exception, so that nothing on the way swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def status(self) -> int:
        """The exit status a shell gives to a process that the signal ended: 128 + its number."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}"


class StopSignals:
    """Remembers a first signal while batches run; else, and for a second one, stops at once."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._patient = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Take a signal, as signal.signal calls it."""
        if self._patient and self._received is None:
            self._received = signum
        else:
            raise StoppedBySignal(signum)

    @contextmanager
    def between_batches(self) -> Iterator[None]:
        """Hold the first signal back until check() is called."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def check(self) -> None:
        """Raise StoppedBySignal when a signal has come."""
        if self._received is not None:
            raise StoppedBySignal(self._received)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Take SIGINT and SIGTERM over, and give them back afterwards."""
    signals = StopSignals()
    taken = {s: signal.signal(s, signals.handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for signum, handler in taken.items():
            signal.signal(signum, handler)

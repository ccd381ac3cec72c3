"""Handles SIGINT, SIGTERM and SIGHUP from the program's start to its end.

The handlers are installed before the other imports, so this module imports very little.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Windows has no SIGHUP and no clock that ticks.
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)
)
_TICKS = hasattr(signal, "SIGALRM") and hasattr(signal, "setitimer")
_GRACE_SECONDS = 3.0
# A signal that arrives just before a system call that waits does not interrupt the call, and Python
# runs no handler until the call returns. A clock that ticks interrupts every wait.
_TICK_SECONDS = 0.2


class StoppedBySignal(BaseException):
    """A signal stopped the run. Not an Exception, so that no `except Exception` catches it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def status(self) -> int:
        """128 + the signal's number: the status a shell reports for a process that it ended."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}"


class StopSignals:
    """Decides what a signal does, by the phase that the program is in.

    - Before hold(): a signal ends the program.
    - After hold(): signals wait for release(), because the run owes a report.
    - After release(): a signal raises StoppedBySignal, at once or at the end of a shield().
    - After StoppedBySignal or finish(), while the report is written: the first signal is ignored,
      the next one ends the program.
    """

    def __init__(self) -> None:
        self._react: Callable[[int], None] = _end
        self._noted: int | None = None
        self._noted_at = 0.0
        self._spared = [True]

    def take(self) -> None:
        """Install the handlers. Signals that are ignored (nohup, a shell's `&`) stay ignored."""
        for signum in _SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self.handle)
        if _TICKS:
            signal.signal(signal.SIGALRM, self._tick)
            signal.setitimer(signal.ITIMER_REAL, _TICK_SECONDS, _TICK_SECONDS)
        sys.unraisablehook = _tell_of_all_but_signals

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal; the signature is that of signal.signal()."""
        self._react(signum)

    def hold(self) -> None:
        """Hold signals back until release()."""
        self._react = self._note

    def release(self) -> None:
        """Raise StoppedBySignal for a signal that was held back, and for later signals."""
        self._react = self._stop
        if self._noted is not None:
            self._stop(self._noted)

    def finish(self) -> None:
        """Mark the run as finished: only the report remains to be written."""
        self._react = self._spare

    def ignore(self) -> None:
        """Ignore signals while Python exits, because Python resets their handlers then."""
        self.stop_ticking()
        for signum in (*_SIGNALS, *([signal.SIGALRM] if _TICKS else [])):
            signal.signal(signum, signal.SIG_IGN)

    def stop_ticking(self) -> None:
        """Stop the clock: it would go on in a program that replaces this one."""
        if _TICKS:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold back the first signal until the block ends, for at most three seconds."""
        if self._noted is not None:  # its exception was lost, for example in a destructor
            self._stop(self._noted)
        self._react = self._note_for_a_while
        try:
            yield
        finally:
            if self._react == self._note_for_a_while:
                self._react = self._stop
            if self._noted is not None:
                self._stop(self._noted)

    def _note(self, signum: int) -> None:
        self._noted = self._noted or signum

    def _note_for_a_while(self, signum: int) -> None:
        self._noted = signum
        self._noted_at = time.monotonic()
        self._react = self._stop

    def _tick(self, signum: int, frame: FrameType | None) -> None:
        is_late = time.monotonic() - self._noted_at > _GRACE_SECONDS
        if self._noted is not None and self._react == self._stop and is_late:
            self._stop(self._noted)

    def _stop(self, signum: int) -> None:
        self._noted = self._noted or signum
        self._react = self._spare
        raise StoppedBySignal(self._noted)

    def _spare(self, signum: int) -> None:
        # Python can run a second handler inside the first one. pop() is one step, so each of the
        # two counts.
        try:
            self._spared.pop()
        except IndexError:
            _end(signum)


def _end(signum: int) -> None:
    os._exit(128 + signum)


def _tell_of_all_but_signals(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, StoppedBySignal):
        sys.__unraisablehook__(unraisable)

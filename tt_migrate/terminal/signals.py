"""SIGINT, SIGTERM and SIGHUP, from the first moment of the program to its last.

Installed before all else is imported, so this module imports next to nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 3.0


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
    """What a signal does, which depends on how far the program is.

    At first it ends the program. From hold() on the run has a report to give: a signal waits for
    release(), and raises StoppedBySignal from then on, at once or at the end of a shield(). After
    that, and from finish() on, the report is being written: one more signal changes nothing, and
    the next ends the program.
    """

    def __init__(self) -> None:
        self._react: Callable[[int], None] = _end
        self._noted: int | None = None

    def take(self) -> None:
        """Take the signals over, but those that are ignored, as nohup and shells have it."""
        for signum in _SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self.handle)
        sys.unraisablehook = _tell_of_all_but_signals

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Take a signal, as signal.signal calls it."""
        self._react(signum)

    def hold(self) -> None:
        """Hold signals back from now on, until release()."""
        self._react = self._note

    def release(self) -> None:
        """Raise StoppedBySignal for a signal that was held back, and for each from now on."""
        self._react = self._stop
        if self._noted is not None:
            self._stop(self._noted)

    def finish(self) -> None:
        """Say that the end has come, and only the report is to be written."""
        self._react = self._spare

    def ignore(self) -> None:
        """Ignore signals: all is said, and Python resets their handlers while it exits."""
        for signum in _SIGNALS:
            signal.signal(signum, signal.SIG_IGN)

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold the first signal back until the end of a block, or for three seconds at most."""
        if self._noted is not None:  # and what it raised got lost, as in a destructor
            self._stop(self._noted)
        alarm = signal.getsignal(signal.SIGALRM)
        self._react = self._note_for_a_while
        try:
            yield
        finally:
            if self._react == self._note_for_a_while:
                self._react = self._stop
            if self._noted is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, alarm)
                self._stop(self._noted)

    def _note(self, signum: int) -> None:
        self._noted = self._noted or signum

    def _note_for_a_while(self, signum: int) -> None:
        self._noted = signum
        self._react = self._stop
        signal.signal(signal.SIGALRM, self._lose_patience)
        signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS)

    def _lose_patience(self, signum: int, frame: FrameType | None) -> None:
        if self._noted is not None and self._react == self._stop:
            self._stop(self._noted)

    def _stop(self, signum: int) -> None:
        self._noted = self._noted or signum
        self._react = self._spare
        raise StoppedBySignal(self._noted)

    def _spare(self, signum: int) -> None:
        self._react = _end


def _end(signum: int) -> None:
    os._exit(128 + signum)


def _tell_of_all_but_signals(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, StoppedBySignal):
        sys.__unraisablehook__(unraisable)

"""Writes all output. It handles limited encodings and readers that go away."""

from __future__ import annotations

import codecs
import errno
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TextIO

from tt_migrate.escape import escaped, printable


@dataclass(frozen=True)
class Symbols:
    """The symbols in the output."""

    preview: str
    done: str
    warning: str
    question: str
    arrow: str
    more: str


_UNICODE = Symbols(preview="🔍", done="✅", warning="⚠️", question="🔄", arrow="→", more="…")
_ASCII = Symbols(
    preview="[preview]", done="[ok]", warning="[!]", question="[?]", arrow="->", more="..."
)


_LINES_AT_ONCE = 1000
_COLUMNS = 80
_LINES = 40


class OutputError(Exception):
    """A stream cannot be written, for example because the disk is full."""


class Output:
    """One text stream. If its reader goes away (`| head`), the rest is dropped without an error.

    Every method that writes, except `as_it_is`, escapes unprintable characters. It raises
    OutputError if writing fails for another reason, unless the stream is `optional`: then the text
    is dropped. `begun`: whether anything was written.
    """

    def __init__(self, stream: TextIO | None, *, optional: bool = False) -> None:
        self._stream = _buffered(stream)
        self._optional = optional
        self.begun = False
        self._encoding = getattr(stream, "encoding", None) or "ascii"
        self.symbols = _UNICODE if _can_encode(_UNICODE, self._encoding) else _ASCII
        self.is_terminal = stream is not None and stream.isatty()

    @property
    def lost(self) -> bool:
        """Whether the stream is closed, so that nobody can see what is written."""
        return self._stream is None

    def lines(self, lines: Iterable[str]) -> None:
        """Write lines."""
        rest = iter(lines)
        while some := list(islice(rest, _LINES_AT_ONCE)):
            self._write("\n".join(map(printable, some)) + "\n")
        self.flush()

    def line(self, line: str) -> None:
        """Write one line."""
        self.lines((line,))

    def as_it_is(self, text: str) -> None:
        """Write text of this program's own for a shell, tabs included. Nothing is escaped."""
        self._write(text)
        self.flush()

    def prompt(self, text: str) -> None:
        """Write without ending the line."""
        self._write(printable(text))
        self.flush()

    @property
    def width(self) -> int:
        """The characters that fit into a line of the terminal without moving the cursor on."""
        return (self._size()[0] or _COLUMNS) - 1

    @property
    def height(self) -> int:
        """The lines that a reader sees at once: those of a terminal, 40 elsewhere and at most."""
        return min(self._size()[1] or _LINES, _LINES)

    def over(self, text: str) -> None:
        """Overwrite the current line of a terminal, cut to its width."""
        width = self.width
        self._write("\r" + printable(text)[:width].ljust(width))
        self.flush()

    def _size(self) -> tuple[int, int]:
        """The columns and lines of a terminal, 0 if unknown."""
        try:
            return os.get_terminal_size(self._stream.fileno()) if self._stream else (0, 0)
        except OSError:
            return 0, 0

    def flush(self) -> None:
        """Flush the buffer."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except OSError as error:
                self._drop(error)

    def _write(self, text: str) -> None:
        if self._stream is None and not self._optional and not self.begun:
            raise OutputError("cannot write the report: standard output is closed")
        self.begun = True
        if self._stream is not None:
            try:
                encoded = text.encode(self._encoding, "tt-migrate")
                self._stream.write(encoded.decode(self._encoding))
            except OSError as error:
                self._drop(error)

    def _drop(self, error: OSError) -> None:
        # Python flushes the stream again at exit and needs an open file for that.
        stream, self._stream = self._stream, None
        if stream is not None:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), stream.fileno())
        # The error of a terminal whose window was closed.
        hung_up = self.is_terminal and error.errno == errno.EIO
        if not (self._optional or hung_up or isinstance(error, BrokenPipeError)):
            raise OutputError(f"cannot write the report: {error.strerror}") from error


def _buffered(stream: TextIO | None) -> TextIO | None:
    """Buffer an unbuffered stream (PYTHONUNBUFFERED), which may write only a part of a text."""
    raw = getattr(stream, "buffer", None)
    if stream is None or not isinstance(raw, io.RawIOBase):
        return stream
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors)


def _can_encode(symbols: Symbols, encoding: str) -> bool:
    try:
        "".join(vars(symbols).values()).encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escape what an encoding lacks. A codec calls it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(escaped, error.object[error.start : error.end])), error.end


codecs.register_error("tt-migrate", _escape)

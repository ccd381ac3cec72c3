"""Writing to stdout and stderr, whatever they can encode and whether or not somebody reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TextIO


@dataclass(frozen=True)
class Symbols:
    """The signs in the output."""

    preview: str
    done: str
    warning: str
    question: str
    arrow: str


_UNICODE = Symbols(preview="🔍", done="✅", warning="⚠️", question="🔄", arrow="→")
_ASCII = Symbols(preview="[preview]", done="[ok]", warning="[!]", question="[?]", arrow="->")


_LINES_AT_ONCE = 1000


class OutputError(Exception):
    """A stream cannot be written, for a reason such as a full disk."""


class Output:
    """One text stream. A reader who went away (`| head`) is not an error: the rest is dropped.

    Every method that writes raises OutputError when that fails for another reason.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "ascii"
        self.symbols = _UNICODE if _encodable(_UNICODE, self.encoding) else _ASCII

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks on."""
        return self._stream is not None and self._stream.isatty()

    def lines(self, lines: Iterable[str]) -> None:
        """Write lines; what the stream cannot encode is written with backslash escapes."""
        rest = iter(lines)
        while some := list(islice(rest, _LINES_AT_ONCE)):
            self._write("\n".join(some) + "\n")
        self.flush()

    def line(self, line: str) -> None:
        """Write one line."""
        self.lines((line,))

    def prompt(self, text: str) -> None:
        """Write without ending the line."""
        self._write(text)
        self.flush()

    def flush(self) -> None:
        """Hand on what is buffered."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except OSError as error:
                self._drop(error)

    def _write(self, text: str) -> None:
        if self._stream is not None:
            encodable = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            try:
                self._stream.write(encodable)
            except OSError as error:
                self._drop(error)

    def _drop(self, error: OSError) -> None:
        # Python flushes the stream once more at exit; that must find an open file.
        stream, self._stream = self._stream, None
        if stream is not None:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"cannot write the report: {error.strerror}") from error


def _encodable(symbols: Symbols, encoding: str) -> bool:
    try:
        "".join(vars(symbols).values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True

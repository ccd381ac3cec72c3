"""Escapes text for display: replaces characters that do not print. No other module does this."""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shown(name: bytes) -> str:
    r"""Escape a key or a town for display: one line, no control characters.

    The result can be turned back into the name, so two names never look the same. A backslash
    becomes `\\`. A byte that is not UTF-8 becomes `\xff`. An ASCII character that does not print
    becomes `\n`, `\r`, `\t` or `\x1b`, any other one `\u202e` or `\U000e0001`.
    """
    return shown_text(name.decode("utf-8", "surrogateescape"))


def shown_text(text: str) -> str:
    """Escape a text for display like shown(). Surrogates stand for bytes that are not UTF-8."""
    return printable(text.replace("\\", "\\\\"))


def printable(text: str) -> str:
    """Escape characters that do not print like shown(), but leave backslashes as they are."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else escaped(c) for c in text)


def escaped(character: str) -> str:
    """The escape for one character."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

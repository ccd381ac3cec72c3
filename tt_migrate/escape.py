"""Making text harmless to show: what does not print is escaped. Nothing else in here escapes."""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shown(name: bytes) -> str:
    r"""A key or a town for the eyes of a person: always one line, never a control sequence.

    It can be turned back into the name, so two names are never shown alike. A backslash is `\\`, a
    byte that is not UTF-8 `\xff`; a character that does not print is `\n`, `\r`, `\t` or `\x1b`
    when it is ASCII, else `\u202e` or `\U000e0001`.
    """
    return shown_text(name.decode("utf-8", "surrogateescape"))


def shown_text(text: str) -> str:
    """A text for the eyes of a person, as shown() has it; surrogates stand for bytes."""
    return printable(text.replace("\\", "\\\\"))


def printable(text: str) -> str:
    """A text with all that does not print escaped as in shown(), and backslashes as they are."""
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

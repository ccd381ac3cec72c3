"""Tinytown's key names, as far as Python needs them; Lua decides which keys are old ones."""

from __future__ import annotations

from collections.abc import Iterable

FAMILIES = ("agent", "inbox", "urgent", "task", "activity", "stop", "backlog")
"""The key families, in the order in which the scripts count them and reports show them."""

_PREFIX = b"tt:"


def town_bytes(town: str) -> bytes:
    """The bytes that stand for a town in its keys.

    A name from the command line may hold undecodable bytes, as surrogates: they come back as
    they were given.
    """
    return town.encode("utf-8", "surrogateescape")


def new_key(town: str, old: bytes) -> bytes:
    """The key of the town-isolated format for an old key: `tt:x` becomes `tt:<town>:x`."""
    return _PREFIX + town_bytes(town) + b":" + old.removeprefix(_PREFIX)


def family_of(old: bytes) -> str:
    """The family of an old key or of an ambiguous one."""
    return old.split(b":", 2)[1].decode()


def in_order(keys: Iterable[bytes]) -> list[bytes]:
    """Old keys by family, in the order of FAMILIES, then by id, bytewise."""
    rank = {family.encode(): n for n, family in enumerate(FAMILIES)}

    def order(key: bytes) -> tuple[int, bytes]:
        family, _, key_id = key.removeprefix(_PREFIX).partition(b":")
        return rank[family], key_id

    return sorted(keys, key=order)


def shown(name: bytes) -> str:
    r"""A key or a town for the eyes of a person: always one line, never a control sequence.

    Printable UTF-8 is shown as it is. In any other name each byte that is not UTF-8 (`\xff`), each
    character that does not print (`\n`, `\x1b`, `\u202e`) and each backslash (`\\`) is escaped.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def shown_text(text: str) -> str:
    """A text for the eyes of a person, as shown() has it; surrogates stand for bytes."""
    return shown(text.encode("utf-8", "surrogateescape"))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode("ascii")

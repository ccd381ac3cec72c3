"""Shows text from servers and libraries: escaped, and without the passwords that were used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from os.path import commonprefix
from urllib.parse import quote, quote_plus

from tt_migrate.escape import printable, shown_text

_TELLING = 8
_SERVERS_ESCAPES = str.maketrans(
    {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\a": r"\a", "\b": r"\b"}
)


@dataclass(frozen=True)
class Redactor:
    """Shows text from a server with `***` in place of secrets.

    `secrets`: every spelling of what to hide. Redactor.hiding() finds them.
    """

    secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def hiding(cls, *secrets: bytes) -> Redactor:
        """Hide secrets, in every spelling that a server or a library is known to use."""
        spelt = {form for secret in secrets for form in _spellings(secret)}
        # Repeated blanks may have been collapsed.
        spelt |= {" ".join(form.split()) for form in spelt}
        return cls(tuple(spelt - {""}))

    def redacted(self, text: str) -> str:
        """Return a text without the secrets. Also hides the start of one that was cut off."""
        if not self.secrets:
            return text
        beginning = re.compile("|".join(re.escape(secret[:_TELLING]) for secret in self.secrets))
        pieces, end = [], 0
        while found := beginning.search(text, end):
            pieces += [text[end : found.start()], "***"]
            end = found.start() + max(_shared(text[found.start() :], s) for s in self.secrets)
        return "".join([*pieces, text[end:]])

    def shown(self, text: str) -> str:
        """Return a server's own text without the secrets, escaped like a name."""
        return shown_text(self.redacted(text))

    def words(self, text: str) -> str:
        """Return one line without the secrets. Keeps backslashes: names are escaped already."""
        return printable(self.redacted(text))


NO_SECRETS = Redactor()
"""Hides nothing: no password was used, or none is known."""


def without_url_passwords(text: str) -> str:
    """Return a text that quotes the command line, without the passwords of URLs in it."""
    text = re.sub(r"(://[^:@/]*:).*@", r"\1***@", text, flags=re.DOTALL)
    return re.sub(r"(\b(?:sentinel_)?pass(?:word)?=)[^&\s']+", r"\1***", text)


def _shared(text: str, secret: str) -> int:
    """How many characters of a secret the text begins with."""
    return len(commonprefix([text, secret]))  # noqa: RUF071 - it is for texts here


def _spellings(secret: bytes) -> Iterator[str]:
    for text in (
        secret.decode("utf-8", "surrogateescape"),
        secret.decode("utf-8", "replace"),
        secret.decode("latin-1"),
        # How Redis quotes an argument.
        "".join(
            chr(byte) if 0x20 <= byte < 0x7F or byte in b"\n\r\t\a\b" else f"\0{byte:02x}"
            for byte in secret
        )
        .translate(_SERVERS_ESCAPES)
        .replace("\0", "\\x"),
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        repr(secret)[2:-1],
    ):
        # An error is one line: Redis replaces line breaks with blanks.
        yield from (text, shown_text(text), text.replace("\r", " ").replace("\n", " "))
        yield from (json.dumps(text)[1:-1], repr(text)[1:-1])

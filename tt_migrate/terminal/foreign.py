"""Text that others wrote: shown escaped, and without the passwords that were used."""

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
class Foreign:
    """Shows text of a server: whoever repeats a secret there, `***` stands in its place.

    `secrets`: what is to be hidden, as it may be spelt. Foreign.without() makes them.
    """

    secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def without(cls, *secrets: bytes) -> Foreign:
        """One that hides secrets, in every spelling that a server or a library is known to use."""
        spelt = {form for secret in secrets for form in _spellings(secret)}
        # Blanks may have been put together since.
        spelt |= {" ".join(form.split()) for form in spelt}
        return cls(tuple(spelt - {""}))

    def redacted(self, text: str) -> str:
        """A text without the secrets, nor the first part of a long one that was cut off."""
        if not self.secrets:
            return text
        beginning = re.compile("|".join(re.escape(secret[:_TELLING]) for secret in self.secrets))
        pieces, end = [], 0
        while found := beginning.search(text, end):
            pieces += [text[end : found.start()], "***"]
            end = found.start() + max(_shared(text[found.start() :], s) for s in self.secrets)
        return "".join([*pieces, text[end:]])

    def shown(self, text: str) -> str:
        """A server's own text, without the secrets and escaped as a name is."""
        return shown_text(self.redacted(text))

    def words(self, text: str) -> str:
        """Words that may quote names that are escaped already: without the secrets, on one line."""
        return printable(self.redacted(text))


NO_SECRETS = Foreign()
"""Where no password was used, or none is known."""


def without_url_passwords(text: str) -> str:
    """A text that repeats what a person typed, without the passwords of the URLs in it."""
    text = re.sub(r"(://[^:@/]*:).*@", r"\1***@", text, flags=re.DOTALL)
    return re.sub(r"(\bpass(?:word)?=)[^&\s']+", r"\1***", text)


def _shared(text: str, secret: str) -> int:
    """How many characters of a secret the text begins with."""
    return len(commonprefix([text, secret]))  # noqa: RUF071 - it is for texts here


def _spellings(secret: bytes) -> Iterator[str]:
    for text in (
        secret.decode("utf-8", "surrogateescape"),
        secret.decode("utf-8", "replace"),
        secret.decode("latin-1"),
        # Redis' way to quote an argument.
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
        # A line of an error has no line breaks: Redis puts blanks there.
        yield from (text, shown_text(text), text.replace("\r", " ").replace("\n", " "))
        yield from (json.dumps(text)[1:-1], repr(text)[1:-1])

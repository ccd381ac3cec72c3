"""A Redis URL: from its text to what a connection takes, and back without the password."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from tt_migrate.escape import shown_text
from tt_migrate.settings.config import ConfigError

_KINDS = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+unix": "unix",
    "valkey+unix": "unix",
}
"""The schemes that Tinytown takes, each with the one that is shown for it."""

_ALIASES = {"user": "username", "pass": "password"}
"""Names of parameters in the unix:// URLs that Tinytown takes."""


def _database(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 2**31:
        raise ValueError
    return int(text)


def _seconds(text: str) -> float:
    if not 0 < float(text) <= 3600:
        raise ValueError
    return float(text)


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError
    return text


_Rule = tuple[Callable[[str], Any], str]
_SECONDS: _Rule = (_seconds, "more than 0 and at most 3600 seconds")
_PATH: _Rule = (_path, "a path")
_RULES: dict[str, _Rule] = {
    "db": (_database, "a database number"),
    "username": (str, "a text"),
    "password": (str, "a text"),
    "protocol": ({"2": 2, "resp2": 2, "3": 3, "resp3": 3}.__getitem__, "resp2 or resp3"),
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
}
_FLAGS = dict.fromkeys(("true", "yes", "1"), True) | dict.fromkeys(("false", "no", "0"), False)
_TLS_RULES: dict[str, _Rule] = {
    "ssl_certfile": _PATH,
    "ssl_keyfile": _PATH,
    "ssl_ca_certs": _PATH,
    "ssl_ca_path": _PATH,
    "ssl_cert_reqs": (
        {text: text for text in ("none", "optional", "required")}.__getitem__,
        "none, optional or required",
    ),
    "ssl_check_hostname": (lambda text: _FLAGS[text.lower()], "true or false"),
}


def read_url(url: str, place: str) -> tuple[str, dict[str, Any]]:
    """A URL's kind (`redis`, `rediss` or `unix`), and its parts by the names that redis-py has.

    Bytes that are not UTF-8 are surrogates. `place`: what a message begins with.

    Raises ConfigError, whose text repeats no part of the URL that might be of a password.
    """
    if scheme := _foreign_scheme(url):
        known = ", ".join(f"{scheme}://" for scheme in _KINDS)
        raise ConfigError(f"{place} begins with {scheme}://, and not with one of {known}")
    try:
        split = urlsplit(url)
        if _is_misread(url, split):
            raise ValueError
        kind = _KINDS[split.scheme]
        parts = _address(kind, split)
    except ValueError:
        raise ConfigError(
            f"{place} is no valid Redis URL. Write redis://USER:PASSWORD@HOST:PORT/DB, rediss://"
            " or unix:///PATH, with special characters of the password percent-encoded"
        ) from None
    rules = _RULES | (_TLS_RULES if kind == "rediss" else {})
    secret_before = False
    for name, text in _parameters(kind, split):
        # A raw `&` in a password makes a parameter of what follows it.
        named = "" if secret_before else f" '{shown_text(name)}'"
        secret_before = secret_before or name in ("password", "pass")
        if name not in rules:
            named = "" if split.password else named
            raise ConfigError(f"{place} has a parameter{named} that is not known")
        convert, rule = rules[name]
        if name in parts:
            raise ConfigError(f"{place} has a parameter{named} that is given twice")
        try:
            parts[name] = convert(text)
        except (LookupError, ValueError):
            raise ConfigError(f"{place} has a parameter{named} that is not {rule}") from None
    return kind, parts


def write_url(kind: str, parts: Mapping[str, Any]) -> str:
    """A URL that read_url() reads as these parts, but with `***` in the password's place."""
    user, password = parts.get("username"), parts.get("password")
    login = _quoted(user or "").replace("/", "%2F") + (":***" if password else "")
    query = {name: value for name, value in parts.items() if name not in _NOT_IN_QUERY}
    if kind == "unix":
        place = _quoted(parts["path"])
        query = ({"db": parts["db"]} if parts.get("db") else {}) | query
    else:
        host = parts.get("host", "localhost").replace("%", "%25")
        host = f"[{host}]" if ":" in host else host
        place = f"{host}:{parts.get('port', 6379)}/{parts.get('db', 0)}"
    ending = "&".join(f"{name}={_quoted(str(value))}" for name, value in query.items())
    return f"{kind}://{login}{'@' if login else ''}{place}{'?' if ending else ''}{ending}"


_NOT_IN_QUERY = ("username", "password", "host", "port", "path", "db")


def is_host(text: str) -> bool:
    """Whether a text can be the name or the address of a host."""
    try:
        text.encode("idna")  # as looking it up does
        if ":" in text:
            ip_address(text)
    except ValueError:
        return False
    return text.isprintable() and not re.search(r"[\s/?#@\\\[\]]", text)


def _foreign_scheme(url: str) -> str | None:
    # Letters only: anything else might be of a password.
    match = re.match("([A-Za-z+-]{1,30})://", url)
    return match[1] if match and match[1].lower() not in _KINDS else None


def _is_misread(url: str, split: SplitResult) -> bool:
    # A raw `/`, `?` or `#` in a password ends the host's part early: the rest of it would be taken
    # for a path, a query or a fragment, and the beginning for a host or a port. Line breaks and
    # tabs would be dropped.
    if split.fragment and (split.fragment, _KINDS.get(split.scheme)) != ("insecure", "rediss"):
        return True
    return (
        split.scheme not in _KINDS
        or not url.lower().startswith(f"{split.scheme}://")
        or "@" in split.query
        or any(c < " " or c == "\x7f" for c in url)
    )


def _address(kind: str, split: SplitResult) -> dict[str, Any]:
    """Where the server is, and who connects. Raises ValueError."""
    parts: dict[str, Any] = {
        name: unquote(text, errors="surrogateescape")
        for name, text in (("username", split.username), ("password", split.password))
        if text
    }
    host = split.netloc.rpartition("@")[2]
    if kind == "unix":
        if host not in ("", "localhost") or not split.path.strip("/"):
            raise ValueError
        return {**parts, "path": _path(unquote(split.path, errors="surrogateescape"))}
    if not re.fullmatch(r"(\[[^\[\]]*\]|[^\[\]]*)(:[0-9]*)?", host):
        raise ValueError
    if split.hostname:
        parts["host"] = unquote(split.hostname)
        if not is_host(parts["host"]):
            raise ValueError
    if split.port is not None:
        if not split.port:
            raise ValueError
        parts["port"] = split.port
    if db := split.path.strip("/"):
        parts["db"] = _database(db)
    return parts


def _parameters(kind: str, split: SplitResult) -> Iterator[tuple[str, str]]:
    for name, text in parse_qsl(split.query, keep_blank_values=True, errors="surrogateescape"):
        yield _ALIASES.get(name, name) if kind == "unix" else name, text
    if split.fragment:  # `#insecure`, as Tinytown writes it
        yield "ssl_cert_reqs", "none"


def _quoted(text: str) -> str:
    # Letters and digits of any script can stay: they are printable.
    return re.sub(
        r"[^\w./~-]", lambda match: quote(match[0], safe="", errors="surrogateescape"), text
    )

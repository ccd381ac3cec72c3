"""Parses a Redis URL into connection parameters, and writes it back without the password."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from tt_migrate.escape import shown_text
from tt_migrate.settings.checks import QUOTES, ConfigError

_KINDS = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+unix": "unix",
    "valkey+unix": "unix",
    "redis+sentinel": "redis+sentinel",
    "valkey+sentinel": "redis+sentinel",
    "rediss+sentinel": "rediss+sentinel",
    "valkeys+sentinel": "rediss+sentinel",
}
"""The URL schemes, each with its canonical scheme. Tinytown accepts those without Sentinel."""

_SENTINEL_PORT = 26379

_ALIASES = {"user": "username", "pass": "password"}
"""Other names for parameters that Tinytown accepts in unix:// URLs."""


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
    "username": (str, "text"),
    "password": (str, "text"),
    "protocol": ({"2": 2, "resp2": 2, "3": 3, "resp3": 3}.__getitem__, "resp2 or resp3"),
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
}
_FLAGS = dict.fromkeys(("true", "yes", "1"), True) | dict.fromkeys(("false", "no", "0"), False)
_SENTINEL_RULES: dict[str, _Rule] = {
    "sentinel_username": (str, "text"),
    "sentinel_password": (str, "text"),
}
_TLS_RULES: dict[str, _Rule] = {
    "ssl_certfile": _PATH,
    "ssl_keyfile": _PATH,
    "ssl_ca_certs": _PATH,
    "ssl_ca_path": _PATH,
    "ssl_cert_reqs": (
        {text: text for text in ("none", "optional", "required")}.__getitem__,
        "none, optional or required",
    ),
    "ssl_exclude_verify_flags": (
        {"VERIFY_X509_STRICT": "VERIFY_X509_STRICT"}.__getitem__,
        "VERIFY_X509_STRICT",
    ),
    "ssl_check_hostname": (lambda text: _FLAGS[text.lower()], "true or false"),
}


def read_url(url: str, place: str) -> tuple[str, dict[str, Any]]:
    """Return a URL's kind and its parts, by redis-py's names.

    The kind is `redis`, `rediss`, `unix`, `redis+sentinel` or `rediss+sentinel`. For a Sentinel's
    URL, the parts have `sentinels`, a tuple of hosts and ports, and `master`, its name. Bytes that
    are not UTF-8 become surrogates. `place`: how messages begin.

    Raises ConfigError. The message contains no part of the URL that could belong to a password.
    """
    if url.startswith(tuple(QUOTES)):
        raise ConfigError(f"{place} is in quotes, which a shell would remove: leave them out")
    if scheme := _unknown_scheme(url):
        raise ConfigError(
            f"{place} begins with {scheme}://, which is not supported: {_cure(scheme.lower())}"
        )
    try:
        single, hosts = _split_hosts(url)
        split = urlsplit(single)
        if _is_misread(single, split):
            raise ValueError
        kind = _KINDS[split.scheme]
        parts = _address(kind, split)
        if _is_sentinels(kind):
            parts["sentinels"] = tuple(map(_sentinel, hosts))
    except ValueError:
        form = "redis://USER:PASSWORD@HOST:PORT/DB, rediss:// or unix:///PATH"
        if _is_sentinels(url.partition("://")[0]):
            form = _SENTINEL_FORM
        raise ConfigError(
            f"{place} is not a valid Redis URL: write {form}, and percent-encode special characters"
            " in the password"
        ) from None
    rules = _RULES | (_TLS_RULES if kind.startswith("rediss") else {})
    rules |= _SENTINEL_RULES if "sentinels" in parts else {}
    secret_before = False
    for name, text in _parameters(kind, split):
        # After an unescaped `&` in a password, the rest of the password looks like a parameter.
        named = "" if secret_before else f" '{shown_text(name)}'"
        secret_before = secret_before or name in SECRETS
        if name not in rules:
            named = "" if split.password else named
            raise ConfigError(f"{place} has an unknown parameter{named}")
        convert, rule = rules[name]
        if name in parts:
            raise ConfigError(f"{place} has a duplicate parameter{named}")
        try:
            parts[name] = convert(text)
        except (LookupError, ValueError):
            raise ConfigError(f"{place} has a parameter{named} that must be {rule}") from None
    return kind, parts


def has_password(url: str) -> bool:
    """Whether a URL has a password. False for one that read_url() refuses."""
    try:
        _, parts = read_url(url, "")
    except ConfigError:
        return False
    return "password" in parts


def write_url(kind: str, parts: Mapping[str, Any]) -> str:
    """Return the URL that read_url() parses into these parts, with `***` as the password."""
    user, password = parts.get("username"), parts.get("password")
    login = _quoted(user or "").replace("/", "%2F") + (":***" if password else "")
    query = {name: value for name, value in parts.items() if name not in _NOT_IN_QUERY}
    if kind == "unix":
        place = _quoted(parts["path"])
        query = ({"db": parts["db"]} if parts.get("db") else {}) | query
    elif "sentinels" in parts:
        master = _quoted(parts["master"]).replace("/", "%2F")
        hosts = ",".join(_written(*address) for address in parts["sentinels"])
        place = f"{hosts}/{master}/{parts.get('db', 0)}"
    else:
        host = _written(parts.get("host", "localhost"), parts.get("port", 6379))
        place = f"{host}/{parts.get('db', 0)}"
    ending = "&".join(
        f"{name}={'***' if name in SECRETS else _quoted(str(value))}"
        for name, value in query.items()
    )
    return f"{kind}://{login}{'@' if login else ''}{place}{'?' if ending else ''}{ending}"


SECRETS = ("password", "pass", "sentinel_password")
"""The parameters of URLs that are passwords."""

_NOT_IN_QUERY = ("username", "password", "host", "port", "path", "db", "sentinels", "master")


def _written(host: str, port: int) -> str:
    host = host.replace("%", "%25")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_host(text: str) -> bool:
    """Whether a text can be a host name or an IP address."""
    try:
        text.encode("idna")  # as name resolution does
        if ":" in text:
            ip_address(text)
    except ValueError:
        return False
    return text.isprintable() and not re.search(r"[\s/?#@\\\[\]]", text)


def _unknown_scheme(url: str) -> str | None:
    # Letters, `+` and `-` only: other text could belong to a password.
    match = re.match("([A-Za-z+-]{1,30})://", url)
    return match[1] if match and match[1].lower() not in _KINDS else None


_SENTINEL_FORM = "redis+sentinel://USER:PASSWORD@HOST:26379,HOST/MASTER/DB"


def _is_sentinels(scheme: str) -> bool:
    return scheme.lower().endswith("+sentinel")


def _cure(scheme: str) -> str:
    """What to use in place of an unknown scheme."""
    known = "redis://, rediss:// or unix://"
    if scheme in ("http", "https"):
        return (
            f"use {known}. This is the address of a REST service, no Redis URL: Upstash shows a"
            " rediss:// URL too"
        )
    if "sentinel" not in scheme:
        return f"use {known}"
    # Other libraries write sentinel:// and redis-sentinel://, for TLS sentinels:// and rediss-.
    has_tls = scheme.endswith("s") or scheme.startswith("rediss")
    return f"use {_SENTINEL_FORM.replace('redis+', 'rediss+') if has_tls else _SENTINEL_FORM}"


def _split_hosts(url: str) -> tuple[str, list[str]]:
    """Return a Sentinel's URL with the first host only, and all hosts. Other URLs have none."""
    # urlsplit() takes one host, and refuses a list that has an IPv6 address.
    found = re.fullmatch(r"([^:/?#]*)://([^/?#]*)(.*)", url, re.DOTALL)
    if not found or not _is_sentinels(found[1]):
        return url, []
    login, at, hosts = found[2].rpartition("@")
    first, *others = hosts.split(",")
    return f"{found[1]}://{login}{at}{first}{found[3]}", [first, *others]


def _sentinel(host: str) -> tuple[str, int]:
    """Return a Sentinel's host and port. Raises ValueError."""
    parts = _address("redis", urlsplit(f"redis://{host}"))
    if "host" not in parts:
        raise ValueError
    return parts["host"], parts.get("port", _SENTINEL_PORT)


def _is_misread(url: str, split: SplitResult) -> bool:
    # An unescaped `/`, `?` or `#` in a password ends the host part early. The start of the password
    # would be read as a host or a port, the rest as a path, a query or a fragment. urlsplit()
    # removes line breaks and tabs.
    has_tls = _KINDS.get(split.scheme, "").startswith("rediss")
    if split.fragment and not (has_tls and split.fragment == "insecure"):
        return True
    return (
        split.scheme not in _KINDS
        or not url.lower().startswith(f"{split.scheme}://")
        or "@" in split.query
        or any(c < " " or c == "\x7f" for c in url)
    )


def _address(kind: str, split: SplitResult) -> dict[str, Any]:
    """Return the address of the server and the login. Raises ValueError."""
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
    path = split.path.strip("/")
    if _is_sentinels(kind):
        # In an unescaped password, the `/` would make the rest of it the master's name.
        master, _, path = path.partition("/")
        if not master or "@" in split.path:
            raise ValueError
        login = {name: parts[name] for name in parts.keys() & {"username", "password"}}
        parts = {**login, "master": unquote(master, errors="surrogateescape")}
    if path:
        parts["db"] = _database(path)
    return parts


def _parameters(kind: str, split: SplitResult) -> Iterator[tuple[str, str]]:
    for name, text in parse_qsl(split.query, keep_blank_values=True, errors="surrogateescape"):
        yield _ALIASES.get(name, name) if kind == "unix" else name, text
    if split.fragment:  # `#insecure`, Tinytown's way to skip certificate checks
        yield "ssl_cert_reqs", "none"


def _quoted(text: str) -> str:
    # Letters and digits of any script are printable, so they stay as they are.
    return re.sub(
        r"[^\w./~-]", lambda match: quote(match[0], safe="", errors="surrogateescape"), text
    )

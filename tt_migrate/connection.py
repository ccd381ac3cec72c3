"""From an endpoint to an open redis-py client."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from redis import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from tt_migrate.config import URL_SOURCES, ConfigError, Endpoint
from tt_migrate.keyspace import shown, shown_text, town_bytes

_CONNECT_SECONDS = 5
_REPLY_SECONDS = 10
_PARAMETERS = {"db", "username", "password", "protocol", "socket_timeout", "socket_connect_timeout"}
_TLS_FILES = {"ssl_certfile": "tls_cert", "ssl_keyfile": "tls_key", "ssl_ca_certs": "tls_ca_cert"}
_TLS_PARAMETERS = {*_TLS_FILES, "ssl_ca_path", "ssl_cert_reqs", "ssl_check_hostname"}
_ALIASES = {"user": "username", "pass": "password"}
"""Names of redis-py's parameters in the unix:// URLs that Tinytown takes."""

_SECONDS = (lambda seconds: 0 < seconds <= 3600, "more than 0 and at most 3600 seconds")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "db": (lambda db: 0 <= db < 2**31, "a database number"),
    "protocol": (lambda version: str(version) in ("2", "3"), "2 or 3"),
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "ssl_cert_reqs": (("none", "optional", "required").__contains__, "none, optional or required"),
}


def open_client(endpoint: Endpoint) -> Redis:
    """A client for an endpoint, with replies as bytes and without retries; connects on first use.

    Raises ConfigError for a URL or a certificate file that is no good.
    """
    defaults = {
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _REPLY_SECONDS,
        # Its handshake takes a password that the server does not want; RESP2's refuses it.
        "protocol": 3,
        "redis_connect_func": _shake_hands,
    }
    pool = ConnectionPool(retry=Retry(NoBackoff(), 0), **{**defaults, **_parameters(endpoint)})
    return Redis.from_pool(pool)


def redacted(endpoint: Endpoint) -> str:
    """An endpoint's URL for people: every part but the password, whose place shows `***`.

    Raises ConfigError as open_client does.
    """
    parts = _parameters(endpoint)
    user = shown(parts.get("username", b""))
    login = f"{user}{':***' if parts.get('password') else ''}"
    login += "@" if login else ""
    kind, db = parts.get("connection_class"), parts.get("db", 0)
    if kind is UnixDomainSocketConnection:
        return f"unix://{login}{shown_text(parts['path'])}" + (f"?db={db}" if db else "")
    host = shown_text(parts.get("host", "localhost"))
    scheme = "rediss" if kind is SSLConnection else "redis"
    return (
        f"{scheme}://{login}{f'[{host}]' if ':' in host else host}:{parts.get('port', 6379)}/{db}"
    )


def secrets(endpoint: Endpoint) -> list[bytes]:
    """The password that a connection uses, and how the URL spells it.

    Raises ConfigError as open_client does.
    """
    password = _parameters(endpoint).get("password", b"")
    split = urlsplit(endpoint.url or "")
    query = (parameter.partition("=") for parameter in split.query.split("&"))
    spelt = [value for name, _, value in query if name in ("password", "pass")]
    spelt.append(split.password or "")
    return [secret for secret in (password, *map(town_bytes, spelt)) if secret]


def _shake_hands(connection: Connection) -> None:
    # Telling the server the library's name would cost two round trips.
    for attribute in ("driver_info", "lib_name", "lib_version"):
        setattr(connection, attribute, None)
    try:
        connection.on_connect()
    except (AttributeError, RecursionError, TypeError, ValueError):
        # What redis-py's parsers say to the greeting of a mail server, for one.
        raise redis_errors.InvalidResponse("no reply of Redis") from None


def _parameters(endpoint: Endpoint) -> dict[str, Any]:
    """What redis-py's connection takes, checked as far as can be without connecting."""
    files = {
        parameter: str(getattr(endpoint, field))
        for parameter, field in _TLS_FILES.items()
        if getattr(endpoint, field)
    }
    if endpoint.url:
        parameters = _parse(endpoint.url, _place(endpoint, "url"))
        tls = parameters.get("connection_class") is SSLConnection
        parameters = {**files, **parameters} if tls else parameters
    else:
        tls = endpoint.tls and not endpoint.socket_path
        parameters = {"password": endpoint.password} if endpoint.password else {}
        if endpoint.socket_path:
            parameters["path"] = str(endpoint.socket_path)
            parameters["connection_class"] = UnixDomainSocketConnection
        elif _is_host(endpoint.host):
            parameters.update(host=endpoint.host, port=endpoint.port)
        else:
            raise ConfigError(f"{_place(endpoint, 'host')} must be a host's name or address")
        if tls:
            parameters.update(files, connection_class=SSLConnection)
    if tls:
        _check_files(parameters, endpoint)
    for name in parameters.keys() & {"username", "password"}:
        # From an option or a variable they may hold bytes that are not UTF-8, as surrogates.
        parameters[name] = parameters[name].encode("utf-8", "surrogateescape")
    return parameters


def _place(endpoint: Endpoint, field: str) -> str:
    source = endpoint.source
    return f"{source}:" if source in URL_SOURCES else f"{source}: 'redis.{field}'"


def _parse(url: str, place: str) -> dict[str, Any]:
    """A URL's parameters. No message repeats a part of the URL that might be of a password."""
    parameters: dict[str, Any] = {}
    try:
        split = urlsplit(url)
        misread = _is_misread(url, split)
        parameters = {} if misread else parse_url(url)
    except ValueError:
        misread = True
    if misread or not _is_host(parameters.get("host", "localhost")):
        raise ConfigError(
            f"{place} is no valid Redis URL. Write redis://USER:PASSWORD@HOST:PORT/DB, rediss://"
            " or unix:///PATH, with special characters of the password percent-encoded"
        )
    if split.scheme == "unix":
        parameters = {_ALIASES.get(name, name): value for name, value in parameters.items()}
    known = _PARAMETERS | (_TLS_PARAMETERS if split.scheme == "rediss" else set())
    unknown = parameters.keys() - known - {"host", "port", "path", "connection_class"}
    if unknown:
        # A raw `&` in a password makes a parameter of what follows it.
        secret = parameters.keys() & {"password", "pass"}
        name = "" if secret else f" '{shown_text(min(unknown))}'"
        raise ConfigError(f"{place} has a parameter{name} that is not known")
    for name, (is_valid, rule) in _RULES.items():
        if name in parameters and not is_valid(parameters[name]):
            raise ConfigError(f"{place} has a parameter '{name}' that is not {rule}")
    if parameters.get("ssl_cert_reqs") == "none":
        parameters.setdefault("ssl_check_hostname", False)  # the one demands the other
    return parameters


def _is_misread(url: str, split: SplitResult) -> bool:
    # A raw `/`, `?` or `#` in a password ends the host's part early: the rest of it would be taken
    # for a path, a query or a fragment, and the beginning for a host or a port. Line breaks and
    # tabs would be dropped.
    if split.fragment or "@" in split.query or any(c < " " or c == "\x7f" for c in url):
        return True
    if split.query:
        parse_qsl(split.query, strict_parsing=True)  # which raises, where parse_url drops
    if split.scheme == "unix":
        return not split.path.strip("/") or split.netloc.rpartition("@")[2] != ""
    if split.scheme not in ("redis", "rediss") or split.port == 0:
        return True
    return not re.fullmatch("/*[0-9]{0,10}/*", split.path)


def _is_host(host: str) -> bool:
    try:
        host.encode("idna")  # as looking it up does
    except ValueError:
        return False
    return host.isprintable() and not re.search(r"[\s/@\[\]]", host)


def _check_files(parameters: dict[str, Any], endpoint: Endpoint) -> None:
    fields = []
    for parameter, field in _TLS_FILES.items():
        if path := parameters.get(parameter):
            of_table = path == str(getattr(endpoint, field))
            fields.append(f"'redis.{field}'" if of_table else f"'{parameter}' of the URL")
            try:
                with Path(path).open("rb"):
                    pass
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                where = f"{endpoint.source}: {fields[-1]}: {shown_text(path)}"
                raise ConfigError(f"{where} cannot be read: {why}") from None
    certificate, key, authority = (parameters.get(parameter) for parameter in _TLS_FILES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if authority:
            context.load_verify_locations(authority)
        if certificate or key:
            # Given no passphrase at all, OpenSSL asks the terminal for one, at every connection.
            context.load_cert_chain(certificate or "", key, password="")
    except (OSError, ValueError):
        raise ConfigError(
            f"{endpoint.source}: no TLS with {', '.join(fields)}: each must be a PEM file, the key"
            " that of the certificate and without a passphrase"
        ) from None

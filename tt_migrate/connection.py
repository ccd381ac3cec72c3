"""From an endpoint to an open redis-py client, and from its errors to words for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from redis import ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from tt_migrate.config import ConfigError, Endpoint
from tt_migrate.keyspace import shown
from tt_migrate.server import UnsupportedServerError

_CONNECT_SECONDS = 5
_REPLY_SECONDS = 10
_PARAMETERS = {"db", "username", "password", "protocol", "socket_timeout", "socket_connect_timeout"}
_TLS_FILES = {"ssl_certfile": "tls_cert", "ssl_keyfile": "tls_key", "ssl_ca_certs": "tls_ca_cert"}
_TLS_PARAMETERS = {*_TLS_FILES, "ssl_ca_path", "ssl_cert_reqs", "ssl_check_hostname"}


def open_client(endpoint: Endpoint) -> Redis:
    """A client for an endpoint, with replies as bytes and without retries; connects on first use.

    Raises ConfigError for a URL or a certificate file that is no good.
    """
    defaults = {
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _REPLY_SECONDS,
        # Its handshake takes a password that the server does not want; RESP2's refuses it.
        "protocol": 3,
    }
    pool = ConnectionPool(retry=Retry(NoBackoff(), 0), **{**defaults, **_parameters(endpoint)})
    return Redis.from_pool(pool)


def redacted(endpoint: Endpoint) -> str:
    """An endpoint's URL for people: every part but the password, whose place shows `***`.

    Raises ConfigError as open_client does.
    """
    parts = _parameters(endpoint)
    user = shown(str(parts.get("username") or "").encode())
    login = f"{user}{':***' if parts.get('password') else ''}"
    login += "@" if login else ""
    kind, db = parts.get("connection_class"), parts.get("db", 0)
    if kind is UnixDomainSocketConnection:
        path = shown(str(parts["path"]).encode("utf-8", "surrogateescape"))
        return f"unix://{login}{path}" + (f"?db={db}" if db else "")
    host = shown(str(parts.get("host", "localhost")).encode("utf-8", "surrogateescape"))
    scheme = "rediss" if kind is SSLConnection else "redis"
    return (
        f"{scheme}://{login}{f'[{host}]' if ':' in host else host}:{parts.get('port', 6379)}/{db}"
    )


def _parameters(endpoint: Endpoint) -> dict[str, Any]:
    """What redis-py's connection takes."""
    files = {
        parameter: str(getattr(endpoint, field))
        for parameter, field in _TLS_FILES.items()
        if getattr(endpoint, field)
    }
    if endpoint.url:
        parameters = _parse(endpoint.url, endpoint.source)
        tls = parameters.get("connection_class") is SSLConnection
        parameters = {**files, **parameters} if tls else parameters
    else:
        tls = endpoint.tls and not endpoint.socket_path
        parameters = {"password": endpoint.password} if endpoint.password else {}
        if endpoint.socket_path:
            parameters["path"] = str(endpoint.socket_path)
            parameters["connection_class"] = UnixDomainSocketConnection
        else:
            parameters.update(host=endpoint.host, port=endpoint.port)
        if tls:
            parameters.update(files, connection_class=SSLConnection)
    for parameter, field in _TLS_FILES.items():
        if parameter in parameters:
            _check_file(parameters[parameter], f"{endpoint.source}: {field}")
    return parameters


def _parse(url: str, source: str) -> dict[str, Any]:
    """A URL's parameters. No message repeats a part of the URL that might be of a password."""
    try:
        split = urlsplit(url)
        misread = _is_misread(split)
        parameters: dict[str, Any] = {} if misread else parse_url(url)
        str(parameters.get("host", "")).encode("idna")
    except ValueError:
        misread = True
    if misread:
        raise ConfigError(
            f"{source}: is no valid Redis URL. Write redis://USER:PASSWORD@HOST:PORT/DB, rediss://"
            " or unix:///PATH, with special characters of the password percent-encoded"
        )
    known = _PARAMETERS | (_TLS_PARAMETERS if split.scheme == "rediss" else set())
    for name in parameters.keys() - known - {"host", "port", "path", "connection_class"}:
        raise ConfigError(f"{source}: the URL's parameter '{shown(name.encode())}' is not known")
    if parameters.get("ssl_cert_reqs") == "none":
        parameters.setdefault("ssl_check_hostname", False)  # the one demands the other
    if parameters.get("db", 0) < 0:
        raise ConfigError(f"{source}: the URL's database number is negative")
    return parameters


def _is_misread(split: SplitResult) -> bool:
    # A raw `/`, `?` or `#` in a password ends the host's part early: the rest of it would be taken
    # for a path, a query or a fragment, and the beginning for a host or a port.
    if split.fragment or "@" in split.query:
        return True
    if split.scheme == "unix":
        return not split.path.strip("/") or split.netloc.rpartition("@")[2] != ""
    if split.scheme not in ("redis", "rediss") or split.port == 0:
        return True
    database = split.path.strip("/")
    return bool(database) and not (database.isascii() and database.isdigit())


def _check_file(path: str, field: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        name = shown(path.encode("utf-8", "surrogateescape"))
        raise ConfigError(f"{field}: {name} cannot be read: {error.strerror}") from None


_NEEDED = "HELLO, SCRIPT LOAD, EVALSHA, SCAN, DBSIZE, EXISTS and, to migrate, RENAMENX"
_Sign = type[Exception] | str
_MEANINGS: tuple[tuple[tuple[_Sign, ...], str], ...] = (
    ((UnsupportedServerError,), "{text}"),
    ((redis_errors.BusyLoadingError,), "it is loading its data: try again when it is done"),
    (
        ("NOAUTH", "Authentication required", "HELLO must be called"),
        "it wants a password: put it into the URL, or for a town's file into"
        " TINYTOWN_REDIS_PASSWORD",
    ),
    (("without any password configured",), "it has no password, but one was given"),
    (
        (redis_errors.NoPermissionError, "NOPERM", "no permission"),
        f"the user lacks a permission; {_NEEDED} are needed ({{text}})",
    ),
    ((redis_errors.AuthenticationError,), "wrong user name or password"),
    ((redis_errors.ReadOnlyError,), "it is a read-only replica: use the URL of its master"),
    (
        ("MASTERDOWN", "Link with MASTER is down"),
        "it is a replica without its master, and serves no stale data",
    ),
    (("MISCONF",), "it takes no writes because it cannot save to disk: see its log"),
    (("NOREPLICAS",), "it takes no writes because too few of its replicas are there"),
    (("BUSY ",), "a script of somebody else holds it: try again later"),
    ((redis_errors.OutOfMemoryError,), "it is full ({text})"),
    (("DB index is out of range",), "it has no database of that number"),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "its certificate cannot be verified: is tls_ca_cert, or ssl_ca_certs in the URL, the right"
        " one? ({text})",
    ),
    (("SSL",), "TLS failed: is it a TLS port, and does it want a client certificate? ({text})"),
    (("Connection refused",), "nothing listens there. Is it running?"),
    (("No such file",), "no such socket. Is the town's Redis running?"),
    ((redis_errors.InvalidResponse,), "what answers there is not Redis"),
    (
        (redis_errors.TimeoutError,),
        "no answer in time. Is the address right, and is TLS on at both ends or at neither?",
    ),
    ((redis_errors.ConnectionError,), "the connection failed ({text})"),
)
"""What an error is recognised by, in this order: its class, or a piece of its text."""


def explain(error: Exception, shown_url: str) -> str:
    """One line for a person about an error of redis-py: what happened, to which server, what to do.

    `shown_url`: the server, redacted.
    """
    text = shown(" ".join(str(error).split()).rstrip(".").encode("utf-8", "surrogateescape"))
    for signs, meaning in _MEANINGS:
        if any(
            sign in text if isinstance(sign, str) else isinstance(error, sign) for sign in signs
        ):
            return f"Redis at {shown_url}: {meaning.format(text=text)}"
    return f"Redis at {shown_url}: {text or type(error).__name__}"

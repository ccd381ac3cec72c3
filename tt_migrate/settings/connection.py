"""Opens a redis-py client for an endpoint."""

from __future__ import annotations

import errno
import ssl
import time
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from redis import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis import __version__ as redis_version
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisClusterException, RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from tt_migrate.engine.calls.replies import malformed_as_invalid
from tt_migrate.engine.calls.retry import CutOffError
from tt_migrate.engine.calls.server import Handshake
from tt_migrate.escape import shown_text
from tt_migrate.keyspace import town_bytes
from tt_migrate.settings.checks import ConfigError, read_file
from tt_migrate.settings.config import URL_SOURCES, Endpoint
from tt_migrate.settings.sentinel import MasterConnection, Sentinels
from tt_migrate.settings.url import SECRETS, is_host, read_url, write_url

_CONNECT_SECONDS = 5
_REPLY_SECONDS = 10
# One of several Sentinels is enough, so one that hangs should not take long.
_SENTINEL_SECONDS = 3
_TLS_FILES = {"ssl_certfile": "tls_cert", "ssl_keyfile": "tls_key", "ssl_ca_certs": "tls_ca_cert"}
_TLS_FILE_BYTES = 16 << 20


class _Strict:
    """Makes malformed replies errors of redis-py, in each of its kinds of connection."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        with malformed_as_invalid():
            return super().read_response(*args, **kwargs)  # type: ignore[misc]


class _Node:
    """A connection to a node of a cluster. redis-py has a redis_connect_func of its own for it."""

    def on_connect(self) -> None:
        _shake_hands(self, super().on_connect)  # type: ignore[misc]


def _connection(*bases: type) -> Any:
    return type(bases[-1].__name__, bases, {})


_CLASSES = {
    "redis": _connection(_Strict, Connection),
    "rediss": _connection(_Strict, SSLConnection),
    "unix": _connection(_Strict, UnixDomainSocketConnection),
    "redis+sentinel": _connection(_Strict, MasterConnection, SentinelManagedConnection),
    "rediss+sentinel": _connection(_Strict, MasterConnection, SentinelManagedSSLConnection),
}
_NODE_CLASSES = {
    "redis": _connection(_Node, _Strict, Connection),
    "rediss": _connection(_Node, _Strict, SSLConnection),
}


def open_client(endpoint: Endpoint) -> Redis:
    """Return a client for an endpoint. It connects on first use.

    Replies are bytes, and redis-py does not retry. The client of a Sentinel's URL asks for the
    master each time that it connects.

    Raises ConfigError for an invalid URL, host or TLS file.
    """
    kind, parts = _parts(endpoint)
    addresses, master = parts.pop("sentinels", None), parts.pop("master", "")
    login_there = {
        name.removeprefix("sentinel_"): parts.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in parts
    }
    settings = _pool_settings(kind, parts)
    if addresses is None:
        return Redis.from_pool(ConnectionPool(**settings))
    # TLS, the protocol and the timeouts of the URL apply to the Sentinels too.
    common = {name: parts[name] for name in parts.keys() - {"username", "password", "db"}}
    common.setdefault("socket_connect_timeout", _SENTINEL_SECONDS)
    common.setdefault("socket_timeout", _SENTINEL_SECONDS)
    there = _pool_settings(kind.removesuffix("+sentinel"), {**common, **login_there})
    sentinels = Sentinels(
        [Redis.from_pool(ConnectionPool(**there, host=host, port=port)) for host, port in addresses]
    )
    client: Redis = sentinels.master_for(master, **settings)  # type: ignore[no-untyped-call]
    return client


def open_cluster(endpoint: Endpoint) -> RedisCluster:
    """Return a connected client for the cluster of which the endpoint is a node.

    Replies are bytes. Raises ConfigError as open_client does, and if the endpoint is no host and
    port; redis.exceptions.RedisError if the cluster cannot be discovered.
    """
    kind, parts = _parts(endpoint)
    if kind not in _NODE_CLASSES:
        raise ConfigError(
            f"{_place(endpoint, 'url')} leads to a node of a cluster with several shards: use"
            " redis:// or rediss:// with its host and port"
        )
    settings = _pool_settings(kind, parts) | {"connection_class": _NODE_CLASSES[kind]}
    host, port = settings.pop("host"), settings.pop("port", 6379)
    settings.pop("db", None)  # A cluster has only database 0.
    del settings["redis_connect_func"], settings["retry"]
    address = f"[{host}]" if ":" in host else host
    try:
        # Only with a URL does redis-py use the class.
        return RedisCluster(
            url=f"redis://{address}:{port}", require_full_coverage=False, **settings
        )
    except RedisClusterException as error:
        raise _reason_of(error) or RedisConnectionError(str(error)) from error
    except RedisConnectionError as error:
        if "onnecting to" in str(error) or type(error) is not RedisConnectionError:
            raise
        # redis-py sends COMMAND once it knows the servers. No other reply is nearly as large.
        raise CutOffError("the reply to COMMAND did not come") from error


def _reason_of(error: BaseException | None) -> RedisError | None:
    """The server's own error. redis-py reports any error of CLUSTER SLOTS as a missing cluster."""
    while error:
        if isinstance(error, RedisError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _pool_settings(kind: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a connection pool takes, for the parts of a URL of this kind."""
    settings = {
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _REPLY_SECONDS,
        # With RESP3, a server without a password accepts one; with RESP2 it refuses it.
        "protocol": 3,
        "connection_class": _CLASSES[kind],
        "redis_connect_func": lambda connection: _shake_hands(connection, connection.on_connect),
        "retry": Retry(NoBackoff(), 0),
        **parts,
    }
    for name in settings.keys() & {"username", "password"}:
        # Options and variables can contain bytes that are not UTF-8, as surrogates.
        settings[name] = settings[name].encode("utf-8", "surrogateescape")
    if settings.get("ssl_cert_reqs") == "none":
        settings["ssl_check_hostname"] = False  # Python requires this
    if flag := settings.get("ssl_exclude_verify_flags"):
        if "ssl_exclude_verify_flags" not in signature(SSLConnection).parameters:
            raise ConfigError(
                f"redis-py {redis_version} has no ssl_exclude_verify_flags: install redis-py 7.0 or"
                " later"
            )
        settings["ssl_exclude_verify_flags"] = [ssl.VerifyFlags[flag]]
    return settings


def redacted(endpoint: Endpoint) -> str:
    """Return an endpoint's URL for display, with `***` in place of the password.

    The URL works when `***` is replaced by the password.

    Raises ConfigError as open_client does.
    """
    return write_url(*_parts(endpoint))


def secrets(endpoint: Endpoint) -> list[bytes]:
    """Return the passwords that a connection uses, decoded and as the URL spells them.

    Raises ConfigError as open_client does.
    """
    _, parts = _parts(endpoint)
    address, _, query = (endpoint.url or "").partition("#")[0].partition("?")
    login, _, _ = address.partition("://")[2].partition("/")[0].rpartition("@")
    parameters = (parameter.partition("=") for parameter in query.split("&"))
    spelt = [value for name, _, value in parameters if name in SECRETS]
    found = (parts.get("password"), parts.get("sentinel_password"), login.partition(":")[2], *spelt)
    return [town_bytes(secret) for secret in found if secret]


def _shake_hands(connection: Any, on_connect: Callable[[], object]) -> None:
    # CLIENT SETINFO and the request for maintenance notifications cost round trips. Servers refuse
    # the latter, and then redis-py 7.0 to 8.0 fails on a Unix socket.
    for attribute in ("driver_info", "lib_name", "lib_version", "maint_notifications_config"):
        setattr(connection, attribute, None)
    began = time.monotonic()
    try:
        on_connect()
    except AttributeError:
        # redis-py treats any reply to HELLO as a map, even a mail server's greeting.
        if connection.protocol != 3 or isinstance(connection.handshake_metadata, dict):
            raise
    said: Any = connection.handshake_metadata
    if isinstance(said, list) and b"proto" in said:
        raise ResponseError("NOPROTO the reply to HELLO 3 is one of RESP2")
    if connection.protocol == 3 and not isinstance(said, dict):
        raise InvalidResponse("the reply to HELLO is not a map")
    if connection.protocol == 3:
        # The engine finds it there, and sends no HELLO of its own.
        now = time.monotonic()
        handshake = Handshake(said, now, now - began)
        setattr(connection, "handshake", handshake)  # noqa: B010 - redis-py has no such name


def _parts(endpoint: Endpoint) -> tuple[str, dict[str, Any]]:
    """Return the kind and the parts of the URL. Checks all that can be checked offline."""
    if endpoint.url:
        kind, parts = read_url(endpoint.url, _place(endpoint, "url"))
    elif endpoint.socket_path:
        kind, parts = "unix", {"path": str(endpoint.socket_path)}
    elif is_host(endpoint.host):
        kind = "rediss" if endpoint.tls else "redis"
        parts = {"host": endpoint.host, "port": endpoint.port}
    else:
        raise ConfigError(f"{_place(endpoint, 'host')} must be a host name or address")
    if endpoint.password:
        parts.setdefault("password", endpoint.password)
    if kind.startswith("rediss"):
        for parameter, field in _TLS_FILES.items():
            if path := getattr(endpoint, field):
                parts.setdefault(parameter, str(path))
        _check_files(parts, endpoint)
    return kind, parts


def _place(endpoint: Endpoint, field: str) -> str:
    source = endpoint.source
    return f"{source}:" if source in URL_SOURCES else f"{source}: 'redis.{field}'"


def _check_files(parameters: dict[str, Any], endpoint: Endpoint) -> None:
    fields = []
    for parameter, field in _TLS_FILES.items():
        if path := parameters.get(parameter):
            of_table = path == str(getattr(endpoint, field))
            fields.append(f"'redis.{field}'" if of_table else f"'{parameter}' of the URL")
            try:
                if not read_file(Path(path), _TLS_FILE_BYTES):
                    raise OSError(errno.EINVAL, "it is empty")
            except OSError as error:
                where = f"{endpoint.source}: {fields[-1]}: {shown_text(path)}"
                raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
    certificate, key, authority = (parameters.get(parameter) for parameter in _TLS_FILES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if authority:
            context.load_verify_locations(authority)
        if certificate or key:
            # Without a passphrase, OpenSSL prompts for one on the terminal at every connection.
            context.load_cert_chain(certificate or "", key, password="")
    except (OSError, ValueError):
        raise ConfigError(
            f"{endpoint.source}: cannot use {', '.join(fields)} for TLS: each must be a PEM file,"
            " and the key must match the certificate and have no passphrase"
        ) from None

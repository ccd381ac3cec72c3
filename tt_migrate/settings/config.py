"""Loads settings from the options, the environment and the town's file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from tt_migrate.escape import shown_text
from tt_migrate.settings.checks import ConfigError, given_password, read_file, town_name_problem
from tt_migrate.settings.url import has_password

_T = TypeVar("_T")

URL_SOURCES = ("--redis-url", "REDIS_URL")
"""Where a Redis URL can come from, besides the town's file."""

_TOWN_FILES = ("tinytown.toml", "tinytown.json")
_TOWN_FILE_BYTES = 256 << 10


@dataclass(frozen=True)
class Endpoint:
    """The address of a Redis server: a URL, else a socket, else a host and port.

    `source`: where the address comes from, for messages: one of URL_SOURCES, or the escaped path
    of the town's file. Paths are absolute. The TLS files also apply to a `rediss://` URL.
    `remark`: what is odd about a password from the environment. `old_socket`: the town's socket in
    Tinytown 0.5 and older; set only if the default socket is used and differs from it.
    """

    source: str
    url: str | None = field(default=None, repr=False)
    socket_path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 6379
    password: str | None = field(default=None, repr=False)
    remark: str = ""
    tls: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca_cert: Path | None = None
    old_socket: Path | None = None


@dataclass(frozen=True)
class Settings:
    """The settings of a run. `town_source`: where the town's name comes from, as in Endpoint."""

    town: str
    town_source: str
    redis: Endpoint


def load_settings(
    town_dir: Path, town_name: str | None, redis_url: str | None, environ: Mapping[str, str]
) -> Settings:
    """Load the settings in Tinytown's order: option, environment variable, the town's file.

    The town's file is `tinytown.toml`, or else `tinytown.json`, in `town_dir` or the nearest
    directory above it. It is read only for settings that are not given otherwise. `REDIS_URL`, if
    not blank, replaces the file's whole `[redis]` table. `TINYTOWN_REDIS_PASSWORD`, if set,
    replaces the table's `password`; empty means no password. `REDIS_PASSWORD` is the password of a
    URL that has none. `REDIS_PASSWORD_FILE` and `TINYTOWN_REDIS_PASSWORD_FILE` name files that hold
    them.

    Raises ConfigError.
    """
    if town_name is not None and (problem := town_name_problem("--town-name", town_name)):
        raise ConfigError(problem)
    if redis_url is not None and not redis_url.strip():
        raise ConfigError("--redis-url is blank: give a URL such as redis://localhost:6379")
    file = cache(lambda: _town_file(town_dir))
    name, named_by = (town_name, "--town-name") if town_name else _name(file())
    env_url = environ.get("REDIS_URL", "").strip()
    source, url = (URL_SOURCES[0], redis_url.strip()) if redis_url else (URL_SOURCES[1], env_url)
    redis = Endpoint(source, url=url) if url else _endpoint(file(), environ)
    if redis.url and not has_password(redis.url):
        given = given_password("REDIS_PASSWORD", environ)
        redis = replace(redis, password=given.text or None, remark=given.remark)
    return Settings(name, named_by, redis)


@dataclass(frozen=True)
class _Table:
    """A table in the town's file. Its errors name the file and the field."""

    path: Path
    values: Mapping[str, Any] = field(repr=False)
    prefix: str = ""

    def get(self, name: str, kind: type[_T]) -> _T | None:
        value = self.values.get(name)
        if value is None:
            return None
        # In Python, a bool is an int too.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(name, f"must be {_KINDS[kind]}")
        # JSON can contain a lone surrogate, such as "\ud800".
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise self.error(name, "contains half of a surrogate pair, which is not valid text")
        return value

    def path_of(self, name: str, default: str | None = None) -> Path | None:
        text = self.get(name, str) or default
        if text and "\0" in text:
            raise self.error(name, "contains a NUL character, which a path cannot contain")
        return _absolute(self.path.parent / text) if text else None

    def error(self, name: str, problem: str) -> ConfigError:
        return ConfigError(f"{shown_text(str(self.path))}: '{self.prefix}{name}' {problem}")


_KINDS = {str: "a string", bool: "true or false", int: "a whole number", dict: "a table"}


def _name(file: _Table) -> tuple[str, str]:
    name = file.get("name", str)
    if name is None or not name.strip():
        problem = "is missing" if name is None else "is blank"
        raise file.error("name", f"{problem}: set it to the town's name")
    return name, shown_text(str(file.path))


def _endpoint(file: _Table, environ: Mapping[str, str]) -> Endpoint:
    table = _Table(file.path, file.get("redis", dict) or {}, "redis.")
    url = (table.get("url", str) or "").strip()
    port = table.get("port", int)
    if port is not None and not 0 < port < 65536:
        raise table.error("port", "must be a port from 1 to 65535")
    use_socket = table.get("use_socket", bool)
    old_socket = _absolute(file.path.with_name("redis.sock"))
    default = ".tt/redis.sock"
    if file.path.suffix == ".json":  # written by Tinytown 0.1 and 0.2
        default = old_socket.name
    socket_path = table.path_of("socket_path", default)
    is_default = use_socket is not False and not table.get("socket_path", str) and not url
    host, password = table.get("host", str), table.get("password", str)
    given = given_password("TINYTOWN_REDIS_PASSWORD", environ)
    return Endpoint(
        source=shown_text(str(file.path)),
        url=url or None,
        socket_path=None if use_socket is False else socket_path,
        host=host or "127.0.0.1",
        port=port or 6379,
        password=password if given.text is None else given.text,
        remark=given.remark,
        tls=table.get("tls_enabled", bool) or False,
        tls_cert=table.path_of("tls_cert"),
        tls_key=table.path_of("tls_key"),
        tls_ca_cert=table.path_of("tls_ca_cert"),
        old_socket=old_socket if is_default and socket_path != old_socket else None,
    )


def _town_file(town_dir: Path) -> _Table:
    for path in (folder / name for folder in _with_parents(town_dir) for name in _TOWN_FILES):
        name = path.name
        try:
            # Tinytown accepts a byte order mark too.
            text = read_file(path, _TOWN_FILE_BYTES).decode("utf-8-sig")
            values = tomllib.loads(text) if name.endswith("toml") else json.loads(text)
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            break
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            problem = "is not UTF-8 text"
        except (ValueError, RecursionError) as error:
            problem = f"is not valid {name[-4:].upper()}: {_where(error)}"
        else:
            if isinstance(values, dict):
                return _Table(path, values)
            problem = "must be a table of settings that contains 'name'"
        raise ConfigError(f"{shown_text(str(path))}: {problem}")
    town = _absolute(town_dir)
    deleted = ", because the current directory has been deleted"
    where = " or above it" if town.is_absolute() else deleted
    raise ConfigError(
        f"no tinytown.toml in {shown_text(str(town))}{where}: name the town's directory with"
        " -t, or give --town-name and --redis-url"
    )


def _with_parents(folder: Path) -> Iterator[Path]:
    """A folder and its parents, nearest first. One that does not exist comes alone."""
    yield folder
    with suppress(OSError):
        folder.stat()
        yield from _absolute(folder).parents


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except OSError:  # The current directory has been deleted.
        return path


def _where(error: Exception) -> str:
    # The parser's message may quote the line with the password, so give only the position.
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}"
    _, at, place = str(error).rpartition("(at ")
    return place.rstrip(")") if at else "it cannot be parsed"

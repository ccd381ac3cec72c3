"""A stand-in for redis-cli: `-s SOCKET`, then `--rdb FILE` or a command.

The server that comes in a wheel comes without its client.
"""

from __future__ import annotations

import argparse
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry


def put(folder: Path, cli: Path | None) -> None:
    """Put `redis-cli` into a folder: a link to a real one, or else this stand-in."""
    program = folder / "redis-cli"
    if cli:
        program.symlink_to(cli)
    else:
        program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, __file__])} "$@"\n')
        program.chmod(0o755)


def main(arguments: list[str]) -> int | str:
    """Run a command and print its reply. Returns the argument for `sys.exit`."""
    parser = argparse.ArgumentParser(prog="redis-cli", description="A stand-in for redis-cli.")
    parser.add_argument("-s", dest="socket", required=True, help="the server's Unix socket")
    parser.add_argument("--rdb", type=Path, help="copy the data of the server to this file")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    try:
        if given.rdb:
            given.rdb.write_bytes(_snapshot(given.socket))
        elif given.command:
            _print(_reply(given.socket, given.command))
        else:
            parser.error("give --rdb FILE or a command")
    except (OSError, RedisError) as error:
        return f"Error: {error}"
    return 0


def _snapshot(path: str) -> bytes:
    """Ask for the data as a replica does that knows nothing newer than SYNC."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"SYNC\r\n")
        with connection.makefile("rb") as replies:
            # Until the data is ready, the server sends empty lines.
            while (line := replies.readline()) == b"\n":
                pass
            if not line.startswith(b"$"):
                raise RedisError(line.decode(errors="replace").strip() or "no data came")
            size = int(line[1:])
            data = replies.read(size)
    if len(data) < size:
        raise RedisError("the connection ended before all data came")
    return data


def _reply(path: str, command: list[str]) -> Any:
    with Redis(unix_socket_path=path, retry=Retry(NoBackoff(), 0)) as client:
        client.response_callbacks.clear()
        try:
            return client.execute_command(*command)
        except NoConnectionError:
            if command[0].upper() == "SHUTDOWN":
                return None
            raise


def _print(reply: Any) -> None:
    if isinstance(reply, dict):
        reply = [part for pair in reply.items() for part in pair]
    for part in reply if isinstance(reply, list) else [reply]:
        if part is not None:
            print(part.decode(errors="replace") if isinstance(part, bytes) else part)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs the demo on a real server step by step, or opens a shell in its old town's directory."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from demo import old_town, redis_cli
from demo.ending import Ending
from tests.servers import Kind, Server, StartError, kinds, newest_kind


@dataclass(frozen=True)
class Demo:
    """An old town on its own server, and the commands run in it."""

    server: Server
    town: Path
    ending: Ending

    def journey(self) -> int:
        """Show all steps. Returns how many of them went wrong."""
        redis = self.server.client()
        key = f"inbox:{old_town.SUPERVISOR}"
        message = redis.lindex(f"tt:{key}", 0)
        wrong = [
            self._show("tt migrate --upgrade --dry-run --limit 1"),
            self._show("tt migrate --upgrade", answer="y\n"),
            self._show("tt migrate"),
            self._show("tt migrate --check"),
            self._show("tt migrate --reverse --dry-run --limit 1"),
        ]
        arrived = message and redis.lindex(f"tt:my-project:{key}", 0) == message
        print("\nThe supervisor's first message arrived as it was:", bool(arrived), flush=True)
        return sum(wrong) + (not arrived)

    def shell(self) -> int:
        """Open the user's shell in the town. Returns its status."""
        print("Try `tt migrate --upgrade --dry-run`; `exit` stops the server.\n", flush=True)
        wanted = os.environ.get("SHELL") or "sh"
        return self._run([shutil.which(wanted) or "sh"])

    def _show(self, command: str, answer: str | None = None, meant: int = 0) -> bool:
        """Show a command and its output. Returns whether its status differs from `meant`."""
        print(
            f"\n$ {command}{f'   (answered with {answer.strip()})' if answer else ''}", flush=True
        )
        status = self._run(command.split(), answer)
        print(f"(exit status {status}{f', not {meant}' if status != meant else ''})", flush=True)
        return status != meant

    def _run(self, command: list[str], answer: str | None = None) -> int:
        """Run a command in the town, with this checkout's `tt` on the PATH. Returns its status."""
        # The user may have set these for another town.
        theirs = ("REDIS_URL", "REDIS_PASSWORD", "TINYTOWN_REDIS_PASSWORD", "TT_MIGRATE_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        ours = (self.town.parent / "bin", Path(sys.executable).parent)
        env["PATH"] = os.pathsep.join([*map(str, ours), env.get("PATH", os.defpath)])
        return self.ending.run(command, self.town, env, answer)


def main(arguments: list[str]) -> int:
    """Start a server with an old town, show the steps or open a shell, and stop the server.

    Returns:
        The exit status: the shell's, or 1 if a step went wrong, else 0.

    """
    ending = Ending()
    ending.listen()
    server = Server.start(_kind())
    try:
        ending.check()
        keys = old_town.build(server.client())
        # The server's folder is removed even if this process is killed.
        town = server.directory / "my-project"
        old_town.settle(town, server.socket)
        _put_commands(server.directory / "bin", server.kind.cli)
        print(f"A real server, {server.kind.name}, runs for this demo only, at {server.url}.")
        print(f"It holds a town of Tinytown 0.6, {keys} keys, whose file tinytown.toml is here.")
        demo = Demo(server, town, ending)
        if arguments == ["--shell"]:
            return demo.shell()
        wrong = demo.journey()
        if wrong:
            print(f"{wrong} of these steps did not do what this demo is to show.", file=sys.stderr)
        return 1 if wrong else 0
    finally:
        server.stop()


def _kind() -> Kind:
    """Return the server from the wheel, or else the newest one on this machine."""
    ours = next((kind for kind in kinds() if kind.name == "valkey-9.1"), None)
    return ours if ours and ours.program else newest_kind()


def _put_commands(folder: Path, cli: Path | None) -> None:
    """Write a `tt` script, and put `redis-cli` beside it.

    The script that pip installs does not work from every path.
    """
    folder.mkdir()
    script = Path(sys.executable).with_name("tt")
    (folder / "tt").write_text(
        f'#!/bin/sh\nexec {shlex.join([sys.executable, str(script)])} "$@"\n'
    )
    (folder / "tt").chmod(0o755)
    redis_cli.put(folder, cli)


def run(arguments: list[str]) -> int | str:
    """Run `main`. Returns the argument for `sys.exit`: a status, or an error in one line."""
    try:
        return main(arguments)
    except (OSError, RedisError, StartError) as error:
        # Discard the buffered output, so that flushing it at exit does not fail.
        if sys.stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141 if isinstance(error, BrokenPipeError) else f"The demo ended: {error}"

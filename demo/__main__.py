"""Run the demo (`make demo`), or a shell in an old town's directory (`make try`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import old_town
from tests.servers import Kind, Server, kinds


def main(arguments: list[str]) -> None:
    """Start a server with an old town on it, show the journey or open a shell, and stop it."""
    server = Server.start(_kind())
    try:
        redis = server.client()
        keys = old_town.build(redis)
        print(f"A real server, {server.kind.name}, runs for this demo only, at {server.url}.")
        print(f"It holds a town of Tinytown 0.6, {keys} keys, whose file tinytown.toml is here.")
        with tempfile.TemporaryDirectory(prefix="my-project-") as town:
            old_town.settle(Path(town), server.socket)
            if arguments == ["--shell"]:
                print("Try `tt migrate --dry-run`; `exit` stops the server.\n", flush=True)
                _run(os.environ.get("SHELL", "sh"), town)
            else:
                _journey(server, town)
    finally:
        server.stop()


def _kind() -> Kind:
    kind = next((kind for kind in reversed(kinds()) if kind.program), None)
    if kind is None:
        sys.exit("No server: no wheel has one for this Python, and the PATH has no redis-server.")
    return kind


def _journey(server: Server, town: str) -> None:
    key = f"inbox:{old_town.SUPERVISOR}"
    message = server.client().lindex(f"tt:{key}", 0)
    _show("tt migrate --check", town)
    _show("tt migrate --dry-run", town)
    _show("tt migrate", town, answer="y\n")
    _show("tt migrate --check", town)
    _show("tt migrate", town)
    moved = server.client().lindex(f"tt:my-project:{key}", 0)
    print("\nThe supervisor's first message arrived as it was:", moved == message)


def _show(command: str, town: str, answer: str | None = None) -> None:
    print(f"\n$ {command}{f'   (answered with {answer.strip()})' if answer else ''}", flush=True)
    status = _run(command, town, answer)
    print(f"(exit status {status})")


def _run(command: str, town: str, answer: str | None = None) -> int:
    """Run a shell command in the town's directory, where `tt` is this checkout's."""
    # Set for the person's own town, it would lead there.
    ours = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    done = subprocess.run(  # noqa: S602 - the commands are those above
        command,
        shell=True,
        cwd=town,
        env={**ours, "PATH": path},
        input=answer,
        text=True,
        check=False,
    )
    return done.returncode


main(sys.argv[1:])

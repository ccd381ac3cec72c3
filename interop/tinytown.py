"""Builds Tinytown's own program, and runs it with a separate town and home directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from tests.servers import Server

OLD, NEW = "0.6.0", "0.10.0"
"""The last version that writes old keys, and a current version that reads the new ones."""

_CACHE = Path(__file__).parent.parent / ".cache" / "interop"
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def build(version: str) -> Path:
    """Return the program `tt` of a version of the crate `tinytown`; builds it if not cached.

    Exits with a message if cargo is missing or the build fails.
    """
    program = _CACHE / version / "bin" / "tt"
    if program.exists():
        return program
    cargo = shutil.which("cargo")
    if cargo is None:
        sys.exit("This needs cargo, which builds Tinytown itself: https://rustup.rs")
    print(f"Building tinytown {version}, which takes some minutes ...", flush=True)
    command = [cargo, "install", "tinytown", "--version", version, "--locked", "--quiet"]
    done = subprocess.run([*command, "--root", _CACHE / version], check=False)
    if done.returncode:
        sys.exit(f"cargo could not build tinytown {version}: see above.")
    return program


@dataclass(frozen=True)
class Ran:
    """A finished command: its exit status, and its stdout and stderr together."""

    status: int
    text: str


@dataclass(frozen=True)
class Town:
    """A town's directory, and a home directory that points Tinytown to a running server."""

    name: str
    home: Path
    directory: Path
    server: Server
    password: ClassVar[str] = "only-for-this-run"

    @classmethod
    def found(cls, name: str, folder: Path, server: Server) -> Town:
        """Create the folders. Sets a password on the server, as Tinytown does on its own."""
        home, directory = folder / "home", folder / name
        (home / ".tt" / "bin").mkdir(parents=True)
        directory.mkdir()
        (home / ".tt" / "bin" / "redis-server").symlink_to(str(server.kind.program))
        (home / ".tt" / "redis.pid").write_text(str(server.pid))
        (home / ".tt" / "config.toml").write_text(
            f'default_cli = "true"\n[redis]\nport = {urlsplit(server.url).port}\n'
            f'password = "{cls.password}"\nuse_central = true\n'
        )
        server.client().config_set("requirepass", cls.password)
        return cls(name, home, directory, server)

    def run(self, *command: str | Path) -> Ran:
        """Run a command in the town's directory."""
        ours = {n: v for n, v in os.environ.items() if n not in ("REDIS_URL", "TOWNHALL_TOKEN")}
        # Not a pipe: agents that Tinytown leaves running would keep it open.
        with tempfile.TemporaryFile("w+") as output:
            status = subprocess.run(
                command,
                cwd=self.directory,
                env={**ours, "HOME": str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=60,
                check=False,
            ).returncode
            output.seek(0)
            return Ran(status, _STYLE.sub("", output.read()))

    def must(self, *command: str | Path) -> str:
        """Run a command and return its output. Exits with a message if the command fails."""
        ran = self.run(*command)
        if ran.status:
            sys.exit(f"{' '.join(map(str, command))} failed with {ran.status}:\n{ran.text}")
        return ran.text

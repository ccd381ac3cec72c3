"""Run the demo: `make demo`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from demo import old_town
from tests.servers import Server, kinds

TT = str(Path(sys.executable).with_name("tt"))


def main() -> None:
    """Start a server, build an old town on it, and migrate that in front of the reader."""
    kind = next((kind for kind in reversed(kinds()) if kind.program), None)
    if kind is None:
        sys.exit(
            "No server: none of the wheels fits this Python, and the PATH has no redis-server."
        )
    server = Server.start(kind)
    try:
        redis = server.client()
        print(f"A real server, {kind.name}, runs at {server.url} for this demo only.")
        print(f"It holds a town of Tinytown 0.6: {old_town.build(redis)} keys.")
        message = redis.lindex(f"tt:inbox:{old_town.SUPERVISOR}", 0)
        tt = [TT, "migrate", "--town-name", "my-project", "--redis-url", server.url]
        show(tt, "--check")
        show(tt, "--dry-run")
        show(tt, answer="y\n")
        show(tt, "--check")
        show(tt)
        moved = redis.lindex(f"tt:my-project:inbox:{old_town.SUPERVISOR}", 0)
        print("\nThe supervisor's first message arrived as it was:", moved == message)
    finally:
        server.stop()


def show(tt: list[str], *options: str, answer: str = "") -> None:
    """Run a command before the reader's eyes."""
    command = [*tt, *options]
    typed = f"   (answered with {answer.strip()})" if answer else ""
    print(f"\n$ tt {' '.join(command[1:])}{typed}", flush=True)
    done = subprocess.run(command, input=answer, text=True, check=False)
    print(f"(exit status {done.returncode})")


main()

"""Run one process: print as JSON its seconds, exit status and peak memory.

A program of its own that imports little: the peak that the system tells of a process is never below
that of the process it was started from.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main(stdin: str, output: str, *command: str) -> None:
    """Run a command with its standard input from a file and all its output to another."""
    began = time.perf_counter()
    pid = os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - began
    # Kibibytes, but bytes on macOS.
    peak_mb = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps([seconds, os.waitstatus_to_exitcode(status), peak_mb]))


main(*sys.argv[1:])

"""Processes: those that are measured, and those that run beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO

from redis import Redis

_GETS_A_SECOND = 1000


@dataclass(frozen=True)
class Process:
    """What a process has cost: seconds from its start to its end, its peak memory in MiB."""

    seconds: float
    peak_mb: float


def program(name: str, *arguments: str) -> list[str]:
    """The command that runs one of the programs beside this file."""
    return [sys.executable, str(Path(__file__).parent / "programs" / f"{name}.py"), *arguments]


def run(
    command: list[str],
    *,
    directory: Path | None = None,
    environment: dict[str, str] | None = None,
    stdin: Path | None = None,
) -> Process:
    """Run a command to its end. Exits with its output where it fails."""
    python, spawn = program("spawn")
    # A person's Python keeps what it has compiled.
    inherited = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.NamedTemporaryFile() as output:
        told = subprocess.run(
            [python, "-I", "-S", spawn, str(stdin or os.devnull), output.name, *command],
            cwd=directory,
            env={**inherited, **(environment or {})},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, status, peak_mb = json.loads(told.stdout)
        if status:
            text = Path(output.name).read_text(errors="replace")
            raise SystemExit(f"bench: {' '.join(command)} ended with {status}:\n{text}")
    return Process(seconds, peak_mb)


@contextmanager
def delayed(port: int, rtt_ms: float, jitter_ms: float = 0) -> Iterator[int]:
    """A port that leads to another one with a delay, and with more delay by chance."""
    with _beside("proxy", str(port), str(rtt_ms), str(jitter_ms)) as (line, _):
        yield int(line)


def round_trip_ms(port: int, times: int = 30) -> float:
    """The median time of a PING."""
    taken = []
    with Redis(port=port, single_connection_client=True) as redis:
        for _ in range(times):
            began = time.perf_counter()
            redis.ping()
            taken.append(time.perf_counter() - began)
    return median(taken) * 1000


@contextmanager
def asking(port: int, latencies: list[float]) -> Iterator[None]:
    """Another client that asks meanwhile; afterwards, its GETs' latencies are in the list."""
    with _beside("gets", str(port), str(_GETS_A_SECOND)) as (_, process):
        yield
        latencies.extend(json.loads(process.communicate()[0]))


@contextmanager
def _beside(name: str, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A program with its first line; it ends when its standard input does."""
    with subprocess.Popen(
        program(name, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        line = _pipe(process.stdout).readline()
        try:
            yield line, process
        finally:
            _pipe(process.stdin).close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream, "it has a pipe"
    return stream

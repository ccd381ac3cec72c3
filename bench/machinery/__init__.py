"""What the experiments work with: contestants, and what it costs to let them migrate.

An experiment needs no more than the names below. `programs/` has what runs in processes of its own.
"""

from bench.machinery.contestants import (
    CLIENT_SIDE,
    LIMIT,
    OURS,
    REPLAY,
    SCANNING,
    TINYTOWN,
    Contestant,
    limit,
    ours,
    tinytown,
)
from bench.machinery.measure import SLOW_MS, Run, measure, measure_within, running
from bench.machinery.process import Process, asking, delayed, round_trip_ms, run
from bench.machinery.scripts import migrate, rename_all, scan, scan_in_script

__all__ = [
    "CLIENT_SIDE",
    "LIMIT",
    "OURS",
    "REPLAY",
    "SCANNING",
    "SLOW_MS",
    "TINYTOWN",
    "Contestant",
    "Process",
    "Run",
    "asking",
    "delayed",
    "limit",
    "measure",
    "measure_within",
    "migrate",
    "ours",
    "rename_all",
    "round_trip_ms",
    "run",
    "running",
    "scan",
    "scan_in_script",
    "tinytown",
]

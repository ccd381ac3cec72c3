"""`make bench`: migrate as a person would by other means, and by this project, and compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench import cluster, distance, far, foreign, gentle, idle, local, looks, shard, size, upgrade
from bench.machinery import Run
from bench.plots import draw
from bench.results import Latency, Results
from bench.table import table
from tests.servers import Kind, kinds, newest_kind

_FOLDER = Path(__file__).parent / "results"


def main() -> None:
    """Run all experiments, print the tables, write them, the figures and the pictures."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--keys", type=int, default=200_000, help="old keys, default 200000")
    parser.add_argument("--rtt", default="1,10,50", help="round-trip times, ms, default 1,10,50")
    parser.add_argument("--only", help="one experiment; the others keep what was measured before")
    given = parser.parse_args()
    at_hand = [kind for kind in kinds() if kind.program]
    for kind in kinds():
        if not kind.program:
            print(f"skipped: {kind.why_missing}", file=sys.stderr)
    # The kind that the figures in the README are of.
    main_kind = next((kind for kind in at_hand if kind.name == "redis-8.2"), newest_kind())
    rtts = [float(rtt) for rtt in given.rtt.split(",")]
    found = []
    for one in _measured(at_hand, main_kind, given.keys, rtts, given.only):
        print(one, file=sys.stderr)
        found.append(one)
    results = Results.made(given.keys, main_kind.name, found)
    if given.only:
        results = Results.load(_FOLDER / "results.json").with_new(results)
    _FOLDER.mkdir(exist_ok=True)
    results.save(_FOLDER / "results.json")
    text = table(results)
    (_FOLDER / "README.md").write_text(f"# `make bench`\n\n{text}", "utf-8")
    draw(results, _FOLDER)
    print(text)


def _measured(
    at_hand: list[Kind], kind: Kind, keys: int, rtts: list[float], only: str | None
) -> Iterator[Run | Latency]:
    most = 5 * keys
    experiments = {
        "local": (
            run for k in at_hand for run in local.runs(k, keys, keys if k == kind else keys // 10)
        ),
        "distance": distance.runs(kind, keys, rtts),
        "far": far.runs(kind, keys),
        "looks": looks.runs(kind, keys // 2),
        "upgrade": upgrade.runs(kind, keys),
        "foreign": foreign.runs(kind, keys),
        "idle": idle.runs(kind, keys),
        "shard": shard.runs(kind, keys),
        "cluster": cluster.runs(kind, keys),
        "size": size.runs(kind, most),
        "gentle": gentle.runs(kind, keys, most),
    }
    for name, found in experiments.items():
        for one in found if only in (None, name) else ():
            if isinstance(one, Run):
                yield replace(one, experiment=one.experiment or name)
            else:
                yield one


main()

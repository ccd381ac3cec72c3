"""`make bench`: migrate as a person would by other means, and by this project, and compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from bench import experiments
from bench.experiments import Delay
from bench.gentle import Latency
from bench.measure import Run
from bench.results import Results
from bench.table import table
from tests.servers import Kind, kinds, newest_kind

_FOLDER = Path(__file__).parent / "results"


def main() -> None:
    """Run all experiments, print the tables, write them, the figures and the pictures."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--keys", type=int, default=200_000, help="old keys, default 200000")
    parser.add_argument("--rtt", default="1,10,50", help="round-trip times, ms, default 1,10,50")
    given = parser.parse_args()
    keys, rtts = given.keys, [float(rtt) for rtt in given.rtt.split(",")]
    at_hand = _at_hand()
    # The kind that the figures in the README are of.
    main_kind = next((kind for kind in at_hand if kind.name == "redis-8.2"), newest_kind())
    most = 5 * keys
    results = Results(keys, main_kind.name)

    def keep(found: Iterable[Run | Delay | Latency]) -> None:
        for one in found:
            print(one, file=sys.stderr)
            results.add(one)

    for kind in at_hand:
        keep(experiments.local(kind, keys, is_main=kind == main_kind))
    keep(experiments.distance(main_kind, keys, rtts))
    keep(experiments.foreign(main_kind, keys))
    keep(experiments.size(main_kind, _sizes(most)))
    keep(experiments.gentle(main_kind, keys, most))
    for name, seconds in experiments.start_seconds():
        results.starts.setdefault(name, []).append(seconds)

    # Imported last: it is large, and processes that are measured start from this one.
    from bench.plots import draw

    _FOLDER.mkdir(exist_ok=True)
    results.save(_FOLDER / "results.json")
    text = table(results)
    (_FOLDER / "README.md").write_text(f"# `make bench`\n\n{text}", "utf-8")
    draw(results, _FOLDER)
    print(text)


def _at_hand() -> list[Kind]:
    found = []
    for kind in kinds():
        if kind.program:
            found.append(kind)
        else:
            print(f"skipped: {kind.why_missing}", file=sys.stderr)
    return found


def _sizes(most: int) -> list[int]:
    """1,000, and on tenfold to the most."""
    sizes = []
    keys = 1000
    while keys < most:
        sizes.append(keys)
        keys *= 10
    return [*sizes, most]


main()

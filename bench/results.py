"""All that one `make bench` measured: kept in a file, asked for medians, held against bars."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import Any

from bench.machinery import Run

ROUNDS = 3
"""How often contestants run that do not send a command a key."""


@dataclass(frozen=True)
class Latency:
    """Latencies of GETs in milliseconds; `asked`: how many there were."""

    contestant: str
    keys: int
    seconds: float
    asked: int
    p50: float
    p99: float
    p999: float
    most: float

    @classmethod
    def of(cls, latencies: list[float], contestant: str, keys: int, seconds: float) -> Latency:
        """What they were while a contestant ran."""
        ordered, asked = sorted(latencies), len(latencies)
        p50, p99, p999 = (
            ordered[min(asked - 1, int(share * asked))] for share in (0.5, 0.99, 0.999)
        )
        return cls(contestant, keys, seconds, asked, p50, p99, p999, ordered[-1])


@dataclass(frozen=True)
class Bar:
    """One figure that was wanted and what was measured, not a number where nothing was."""

    what: str
    wanted: float
    measured: float
    at_least: bool = False
    unit: str = ""

    @property
    def got(self) -> float | None:
        """What was measured, None where nothing was."""
        return None if isnan(self.measured) else self.measured

    @property
    def verdict(self) -> str:
        """`yes`, `no` or `not measured`."""
        if self.got is None:
            return "not measured"
        reached = self.got >= self.wanted if self.at_least else self.got <= self.wanted
        return "yes" if reached else "no"


@dataclass(frozen=True)
class Results:
    """What was measured, in the order in which it was.

    `keys`: old keys of most experiments. `server`: the kind that most of them used.
    """

    keys: int
    server: str
    runs: tuple[Run, ...]
    latencies: tuple[Latency, ...]

    @classmethod
    def made(cls, keys: int, server: str, found: Sequence[Run | Latency]) -> Results:
        """From what the experiments found."""
        runs = tuple(one for one in found if isinstance(one, Run))
        return cls(keys, server, runs, tuple(one for one in found if isinstance(one, Latency)))

    def with_new(self, new: Results) -> Results:
        """These results, with other ones in place of those of the same experiments."""
        experiments = {run.experiment for run in new.runs}
        felt = {latency.contestant for latency in new.latencies}
        runs = (run for run in self.runs if run.experiment not in experiments)
        latencies = (one for one in self.latencies if one.contestant not in felt)
        return replace(self, runs=(*runs, *new.runs), latencies=(*latencies, *new.latencies))

    def of(self, **wanted: Any) -> list[Run]:
        """The runs with these values."""
        return [r for r in self.runs if all(getattr(r, n) == v for n, v in wanted.items())]

    def values(self, what: str, **wanted: Any) -> list[Any]:
        """What is different in the runs with these values, in their order."""
        return list(dict.fromkeys(getattr(run, what) for run in self.of(**wanted)))

    def median(self, what: str, **wanted: Any) -> float:
        """The median of what the runs with these values say, not a number where none does."""
        said = [getattr(run, what) for run in self.of(**wanted)]
        return median(said) if said else nan

    def felt(self) -> list[Latency]:
        """What another client felt in the runs of each contestant: medians, and the longest."""
        groups: dict[tuple[str, int], list[Latency]] = {}
        for latency in self.latencies:
            groups.setdefault((latency.contestant, latency.keys), []).append(latency)
        return [
            replace(
                group[0],
                asked=sum(x.asked for x in group),
                most=max(x.most for x in group),
                **{
                    name: median(getattr(x, name) for x in group)
                    for name in ("seconds", "p50", "p99", "p999")
                },
            )
            for group in groups.values()
        ]

    def save(self, path: Path) -> None:
        """Write all as JSON, what was found a line each."""
        text = json.dumps(asdict(self), indent=1)
        path.write_text(re.sub(r"\n {3}|\n {2}(?=\})", " ", text) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """What save() wrote."""
        all_ = json.loads(path.read_text("utf-8"))
        runs = tuple(Run(**run) for run in all_["runs"])
        latencies = tuple(Latency(**latency) for latency in all_["latencies"])
        return cls(all_["keys"], all_["server"], runs, latencies)

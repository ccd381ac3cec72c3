"""All that one `make bench` measured: kept in a file, asked for medians."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.experiments import Delay
from bench.gentle import Latency
from bench.measure import Run


@dataclass
class Results:
    """What was measured, in the order in which it was.

    `keys`: old keys of most experiments. `server`: the kind that all of them used. `starts`:
    seconds of a program's start by its name.
    """

    keys: int
    server: str
    runs: list[Run] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    starts: dict[str, list[float]] = field(default_factory=dict)

    def add(self, found: Run | Delay | Latency) -> None:
        """Keep one more."""
        if isinstance(found, Run):
            self.runs.append(found)
        elif isinstance(found, Delay):
            self.delays.append(found)
        else:
            self.latencies.append(found)

    def of(self, **wanted: Any) -> list[Run]:
        """The runs with these values."""
        return [r for r in self.runs if all(getattr(r, n) == v for n, v in wanted.items())]

    def median(self, what: Callable[[Run], float], **wanted: Any) -> float:
        """The median of what the runs with these values say. Raises KeyError where none has."""
        runs = self.of(**wanted)
        if not runs:
            raise KeyError(f"no run of {wanted}")
        return median(map(what, runs))

    def felt(self) -> list[Latency]:
        """What another client felt in the runs of each contestant: medians, and the longest."""
        groups: dict[tuple[str, int], list[Latency]] = {}
        for latency in self.latencies:
            groups.setdefault((latency.contestant, latency.keys), []).append(latency)
        return [
            replace(
                group[0],
                seconds=median(x.seconds for x in group),
                asked=sum(x.asked for x in group),
                p50=median(x.p50 for x in group),
                p99=median(x.p99 for x in group),
                p999=median(x.p999 for x in group),
                most=max(x.most for x in group),
            )
            for group in groups.values()
        ]

    def felt_during(self, contestant: str, keys: int) -> Latency:
        """The same of one contestant. Raises KeyError where it was not measured."""
        for latency in self.felt():
            if (latency.contestant, latency.keys) == (contestant, keys):
                return latency
        raise KeyError(f"no latencies of {contestant} with {keys} keys")

    def save(self, path: Path) -> None:
        """Write all as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """What save() wrote."""
        all_ = json.loads(path.read_text("utf-8"))
        return cls(
            all_["keys"],
            all_["server"],
            [Run(**r) for r in all_["runs"]],
            [Delay(**d) for d in all_["delays"]],
            [Latency(**x) for x in all_["latencies"]],
            all_["starts"],
        )

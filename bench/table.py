"""The results as text: Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator

from bench.bars import bars, cpu_ratio, start_of
from bench.contestants import LIMIT, OURS
from bench.experiments import AGAIN, BARE_SCAN, FLOOR, SCRIPT_SCAN
from bench.measure import Run
from bench.results import Results

_COLUMNS = (
    "server",
    "contestant",
    "keys",
    "others",
    "RTT",
    "seconds",
    "round trips",
    "server CPU s",
    "client MiB",
    "longest ms",
)
_EXPERIMENTS = {
    "local": "On one machine",
    "distance": "At a distance",
    "foreign": "Among other keys",
    "size": "From few keys to many",
    "gentle": "While another client asks",
}


def table(results: Results) -> str:
    """All that was measured, medians where there were several runs."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    yield from _bars(results)
    if results.starts:
        starts = (f"{name} {start_of(results, name):.2f} s" for name in results.starts)
        yield f"\nStart and end of a process: {', '.join(starts)}."
    yield from _latencies(results)
    for experiment, title in _EXPERIMENTS.items():
        runs = [r for r in results.of(experiment=experiment) if r.seconds]
        yield f"\n## {title}\n"
        if experiment == "distance":
            for delay in results.delays:
                yield f"- RTT {delay.rtt_ms:g}: a PING took {delay.measured_ms:.2f} ms"
            yield ""
        yield from _row(*_COLUMNS)
        yield from _row(*("---" for _ in _COLUMNS))
        # A dict, since it keeps the order in which they ran.
        for group in dict.fromkeys(map(_group, runs)):
            yield from _run(results, [run for run in runs if _group(run) == group])
        if experiment == "local":
            yield from _parts(results)


def _bars(results: Results) -> Iterator[str]:
    yield from _row("bar", "wanted", "measured", "reached")
    yield from _row("---", "---", "---", "---")
    for bar in bars(results):
        sign = "≥" if bar.at_least else "≤"
        got = "–" if bar.got is None else f"{_short(bar.got)}{bar.unit}"
        yield from _row(bar.what, f"{sign} {bar.wanted:,g}{bar.unit}", got, bar.verdict)


def _short(number: float) -> str:
    """Three digits at least."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def _latencies(results: Results) -> Iterator[str]:
    yield "\n## What another client feels\n"
    columns = ("while", "keys", "seconds", "GETs", "p50 ms", "p99", "p99.9", "max")
    yield from _row(*columns)
    yield from _row(*("---" for _ in columns))
    for x in results.felt():
        yield from _row(
            f"{x.contestant} migrates",
            f"{x.keys:,}" if x.keys else "",
            f"{x.seconds:.1f}",
            f"{x.asked:,}",
            *(f"{ms:.2f}" for ms in (x.p50, x.p99, x.p999, x.most)),
        )


def _run(results: Results, runs: list[Run]) -> Iterator[str]:
    first = runs[0]
    found = {name: getattr(first, name) for name in ("experiment", "server", "contestant")}
    found |= {name: getattr(first, name) for name in ("keys", "foreign", "rtt_ms")}
    yield from _row(
        first.server,
        first.contestant,
        f"{first.keys:,}",
        f"{first.foreign:,}" if first.foreign else "",
        f"{first.rtt_ms:g}",
        f"{results.median(lambda r: r.seconds, **found):.2f}",
        ""
        if first.round_trips is None
        else f"{results.median(lambda r: r.round_trips or 0, **found):,.0f}",
        f"{results.median(lambda r: r.server_seconds, **found):.2f}",
        f"{results.median(lambda r: r.client_mb, **found):.0f}",
        f"{max(r.longest_ms for r in runs):.1f}" if any(r.longest_ms for r in runs) else "< 1",
    )


def _parts(results: Results) -> Iterator[str]:
    yield "\nServer CPU in microseconds a key, and in multiples of the first two together:\n"
    names = (LIMIT, BARE_SCAN, SCRIPT_SCAN, FLOOR, AGAIN, OURS.name)
    yield from _row("server", *names)
    yield from _row(*("---" for _ in ("server", *names)))
    for server in dict.fromkeys(run.server for run in results.of(experiment="local")):
        yield from _row(server, *(_part(results, server, name) for name in names))


def _part(results: Results, server: str, name: str) -> str:
    wanted = {"experiment": "local", "server": server, "contestant": name, "keys": results.keys}
    try:
        cost = results.median(lambda run: run.server_seconds, **wanted) / results.keys * 1_000_000
        return f"{cost:.1f} ({cpu_ratio(results, server, name):.2f})"
    except KeyError:
        return "–"


def _group(run: Run) -> tuple[object, ...]:
    return run.server, run.contestant, run.keys, run.foreign, run.rtt_ms


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"

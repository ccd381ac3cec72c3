"""The results as text: Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from bench import cluster, distance, far, foreign, gentle, idle, local, looks, shard, size, upgrade
from bench.machinery import PARTS
from bench.machinery.contestants import LIMIT, OURS
from bench.results import Bar, Results

_TITLES = {
    "local": "On one machine",
    "distance": "At a distance",
    "upgrade": "An upgrade of records",
    "far": "Calls sent ahead of replies",
    "looks": "To look, near and far",
    "foreign": "Among other keys",
    "shard": "In a cluster with one shard",
    "cluster": "In a cluster with several shards",
    "size": "From few keys to many",
    "gentle": "While another client asks",
}


def bars(results: Results) -> list[Bar]:
    """All bars in the order of the table."""
    experiments = (
        local,
        idle,
        upgrade,
        distance,
        far,
        looks,
        foreign,
        shard,
        cluster,
        gentle,
        size,
    )
    return [bar for of in experiments for bar in of.bars(results)]


def table(results: Results) -> str:
    """All that was measured, medians where there were several runs."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    yield from _head("bar", "wanted", "measured", "reached")
    for bar in bars(results):
        sign = "≥" if bar.at_least else "≤"
        got = "–" if bar.got is None else f"{_short(bar.got)}{bar.unit}"
        yield _row(bar.what, f"{sign} {bar.wanted:,g}{bar.unit}", got, bar.verdict)
    starts = {"experiment": distance.STARTS}
    medians = (
        f"{program} {results.median('seconds', contestant=program, **starts):.2f} s"
        for program in results.values("contestant", **starts)
    )
    yield f"\nStart and end of a process: {', '.join(medians)}."
    yield "\n## What another client feels\n"
    yield from _head("while", "keys", "seconds", "GETs", "p50 ms", "p99", "p99.9", "max")
    for x in results.felt():
        yield _row(
            f"{x.contestant} migrates",
            f"{x.keys:,}" if x.keys else "",
            f"{x.seconds:.1f}",
            f"{x.asked:,}",
            *(f"{ms:.2f}" for ms in (x.p50, x.p99, x.p999, x.most)),
        )
    for experiment, title in _TITLES.items():
        yield f"\n## {title}\n"
        if experiment == "distance":
            for ping in results.of(experiment=distance.PINGS):
                yield f"- RTT {ping.rtt_ms:g}: a PING took {ping.seconds * 1000:.2f} ms"
            yield ""
        yield from _runs(results, experiment)
        if experiment == "local":
            yield from _parts(results)


def _runs(results: Results, experiment: str) -> Iterator[str]:
    columns = ("server", "contestant", "keys", "others", "RTT", "seconds", "round trips")
    yield from _head(*columns, "server CPU s", "client MiB", "longest ms")
    # Whatever is a part of the work and no process has no seconds.
    found = (run for run in results.of(experiment=experiment) if run.seconds)
    # A dict, since it keeps the order in which they ran.
    firsts = {(x.server, x.contestant, x.keys, x.foreign, x.rtt_ms): x for x in found}
    for x in firsts.values():
        alike = ("experiment", "server", "contestant", "keys", "foreign", "rtt_ms")
        wanted = {name: getattr(x, name) for name in alike}
        longest = max(run.longest_ms for run in results.of(**wanted))
        yield _row(
            x.server,
            x.contestant,
            f"{x.keys:,}",
            f"{x.foreign:,}" if x.foreign else "",
            f"{x.rtt_ms:g}",
            f"{results.median('seconds', **wanted):.2f}",
            "" if x.round_trips is None else f"{results.median('round_trips', **wanted):,.0f}",
            f"{results.median('server_seconds', **wanted):.2f}",
            f"{results.median('client_mb', **wanted):.0f}",
            f"{longest:.1f}" if longest else "< 1",
        )


def _parts(results: Results) -> Iterator[str]:
    yield "\nServer CPU in microseconds a key, and in multiples of the first two together:\n"
    names = (LIMIT.name, *PARTS, OURS.name)
    yield from _head("server", *names)
    for server in results.values("server", experiment="local"):
        yield _row(server, *(_part(results, server, name) for name in names))


def _part(results: Results, server: str, name: str) -> str:
    wanted = {"experiment": "local", "server": server, "contestant": name, "keys": results.keys}
    cost = results.median("server_seconds", **wanted) / results.keys * 1_000_000
    ratio = local.cpu_ratio(results, server, name)
    return "–" if isnan(ratio) else f"{cost:.1f} ({ratio:.2f})"


def _short(number: float) -> str:
    """Three digits at least."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield _row(*("---" for _ in cells))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"

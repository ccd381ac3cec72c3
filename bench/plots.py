"""The results as pictures: SVG files."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import far
from bench.distance import PATIENT
from bench.machinery.contestants import CLIENT_SIDE, OURS, REPLAY
from bench.results import Results

matplotlib.use("svg")
# Text as text, and the same file from the same figures.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9})
_OURS, _OTHER = "#0072b2", "#999999"


def draw(results: Results, folder: Path) -> None:
    """Write the pictures into a folder."""
    _local(results, folder / "local.svg")
    _distance(results, folder / "distance.svg")
    _far(results, folder / "far.svg")
    _size(results, folder / "size.svg")
    _gentle(results, folder / "gentle.svg")


def _local(results: Results, path: Path) -> None:
    wanted = {"experiment": "local", "server": results.server, "keys": results.keys}
    names = results.values("contestant", **wanted)
    seconds = {name: results.median("seconds", contestant=name, **wanted) for name in names}
    # Parts of the work have no process, and so no seconds.
    names = sorted(filter(seconds.get, names), key=seconds.__getitem__, reverse=True)
    figure, axes = pyplot.subplots(figsize=(7, 0.45 * len(names) + 0.9))
    bars = axes.barh(names, [seconds[n] for n in names], color=[_color(n) for n in names])
    axes.bar_label(bars, [f" {seconds[n]:.1f} s" for n in names])
    axes.set_title(f"Migrating {results.keys:,} keys on one machine, {results.server}", loc="left")
    axes.set_xlabel("seconds, whole process")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _distance(results: Results, path: Path) -> None:
    keys = results.keys // 10
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    for contestant, style in ((OURS, "-"), (PATIENT, "--"), (CLIENT_SIDE, "-")):
        wanted = {"experiment": "distance", "contestant": contestant.name, "keys": keys}
        rtts = sorted(filter(None, results.values("rtt_ms", **wanted)))
        seconds = [results.median("seconds", rtt_ms=rtt, **wanted) for rtt in rtts]
        _line(axes, contestant.name, rtts, seconds, style)
    axes.set_title(f"Migrating {keys:,} keys at a distance, {results.server}", loc="left")
    axes.set_xlabel("round-trip time, ms")
    axes.set_ylim(bottom=0)
    _finish(figure, axes, path)


def _far(results: Results, path: Path) -> None:
    distances = (far.NEAR, far.TEN, far.FAR, far.JITTERY, far.VERY_FAR)
    wanted = {"experiment": "far", "keys": results.keys}
    names = [far.contestant_at(OURS, distance) for distance in distances]
    seconds = [results.median("seconds", contestant=name, **wanted) for name in names]
    figure, axes = pyplot.subplots(figsize=(7, 2.8))
    labels = ["near", *(distance.name for distance in distances[1:])]
    bars = axes.barh(labels, seconds, color=_OURS)
    axes.bar_label(bars, [f" {taken:.1f} s" for taken in seconds])
    axes.invert_yaxis()
    axes.set_title(f"Migrating {results.keys:,} keys near and far, {results.server}", loc="left")
    axes.set_xlabel("seconds, whole process")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _size(results: Results, path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    for contestant, style in ((OURS, "-"), (CLIENT_SIDE, "-"), (REPLAY, ":")):
        wanted = {"experiment": "size", "contestant": contestant.name}
        sizes = sorted(results.values("keys", **wanted))
        seconds = [results.median("seconds", keys=keys, **wanted) for keys in sizes]
        _line(axes, contestant.name, sizes, seconds, style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(f"From few keys to many, {results.server}", loc="left")
    axes.set_xlabel("old keys")
    _finish(figure, axes, path)


def _gentle(results: Results, path: Path) -> None:
    most = max(latency.keys for latency in results.latencies)
    felt = [latency for latency in results.felt() if latency.keys != most]
    names = [x.contestant if x.keys else "no migration" for x in felt]
    figure, axes = pyplot.subplots(figsize=(7, 0.4 * len(felt) + 0.9))
    for y, (name, latency) in enumerate(zip(names, felt, strict=True)):
        axes.plot([latency.p50, latency.most], [y, y], color=_color(name), linewidth=1)
        marks = (("|", latency.p50), ("o", latency.p99), ("D", latency.p999), ("x", latency.most))
        for marker, value in marks:
            axes.plot(value, y, marker, color=_color(name))
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_title(f"Another client's GETs meanwhile, {results.server}", loc="left")
    axes.set_xlabel("latency, ms:  | median   ● p99   ◆ p99.9   × longest")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _color(name: str) -> str:
    return _OURS if name.startswith(OURS.name) else _OTHER


def _line(axes: Axes, name: str, x: list[float], y: list[float], style: str) -> None:
    axes.plot(x, y, style, marker="o", label=name, color=_color(name))


def _finish(figure: Figure, axes: Axes, path: Path) -> None:
    axes.set_ylabel("seconds, whole process")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)

"""One run of the command, from its options to its exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from redis.exceptions import RedisError

from tt_migrate.config import ConfigError, Settings, load_settings
from tt_migrate.connection import open_client, redacted
from tt_migrate.document import JsonReport
from tt_migrate.errors import explain
from tt_migrate.interrupt import StoppedBySignal, StopSignals, stop_signals
from tt_migrate.keyspace import FAMILIES, RECORDS, shown_text
from tt_migrate.migrator import Migrator
from tt_migrate.output import Output
from tt_migrate.plan import HASH, RENAME, REVERSE, UPGRADE, Plan
from tt_migrate.progress import ProgressBar
from tt_migrate.report import TextReport
from tt_migrate.results import Count, Effort, Left, Migration, Preview, Progress, Result
from tt_migrate.server import check_writable, inspect_server

DONE = 0
LEFT_BEHIND = 1
USAGE = 2
SERVER = 3
CANCELLED = 4
"""Exit statuses; a signal's is 128 + its number."""

_R = TypeVar("_R")
Report = TextReport | JsonReport


@dataclass(frozen=True)
class Options:
    """The command line. `max_pause_ms`: milliseconds; the rest as `tt migrate --help` has it."""

    town_dir: Path
    town_name: str | None
    redis_url: str | None
    dry_run: bool
    check: bool
    to_hash: bool
    upgrade: bool
    reverse: bool
    on_conflict: str
    legacy_prefix: str | None
    force: bool
    max_pause_ms: int
    nice: float
    json: bool
    quiet: bool
    verbose: bool

    @property
    def plan(self) -> Plan:
        """What is to be done."""
        if self.to_hash:
            return HASH
        if self.reverse:
            return REVERSE
        return replace(
            UPGRADE if self.upgrade else RENAME,
            oldest=self.upgrade or self.legacy_prefix is not None,
            merge=self.on_conflict == "merge",
        )

    @property
    def mode(self) -> str:
        """Whether it is to be done, or to be previewed or checked only."""
        return "check" if self.check else "preview" if self.dry_run else "migrate"


class Watch:
    """Follows a run: keeps the last Progress, shows the bar, lets signals in between batches."""

    def __init__(self, signals: StopSignals, bar: ProgressBar) -> None:
        self.so_far: Result | None = None
        self._signals = signals
        self._bar = bar

    def __call__(self, progress: Progress) -> None:
        """Take a Migrator's progress."""
        self.so_far = progress.so_far
        self._bar(progress)
        self._signals.check()

    def follow(self, operation: Callable[[], _R]) -> _R:
        """Carry out an operation of the Migrator; the bar is gone when it has ended."""
        with self._signals.between_batches(), self._bar:
            return operation()


def run(options: Options) -> int:
    """Carry the options out. Returns the exit status.

    Raises OutputError when stdout or stderr cannot be written; nothing else that a user can cause.
    """
    out, err = Output(sys.stdout), Output(sys.stderr)
    plan = options.plan
    report: Report = TextReport(out, err, plan, options.quiet)
    if options.json:
        report = JsonReport(out, err, plan, options.mode)
    try:
        settings = load_settings(options.town_dir, options.town_name, options.redis_url, os.environ)
        url = redacted(settings.redis)
        report = replace(report, town=settings.town, server=url)
        client = open_client(settings.redis)
    except ConfigError as error:
        report.stopped(None, str(error))
        return USAGE
    if options.verbose:
        err.lines(_settings(settings, url))
    with stop_signals() as signals, client:
        watch = Watch(signals, ProgressBar())
        migrator = Migrator(client, settings.town, plan, options.max_pause_ms, options.nice, watch)
        try:
            if options.verbose:
                server = inspect_server(client)
                err.line(f"server: {server.name} {server.version}, {server.role}")
            if options.check:
                return _check(watch.follow(migrator.count), report)
            if options.dry_run:
                report.previewed(watch.follow(migrator.preview))
                return DONE
            if options.force:
                return _migrated(watch.follow(migrator.migrate), report)
            check_writable(inspect_server(client))
            return _ask_and_migrate(migrator, watch, report, signals)
        except StoppedBySignal as stop:
            report.stopped(watch.so_far, str(stop))
            return stop.status
        except (RedisError, OSError) as error:
            report.stopped(watch.so_far, explain(error, url, settings.redis.old_socket))
            return SERVER
        finally:
            if options.verbose and watch.so_far:
                err.line(_effort(watch.so_far.effort))


def _check(count: Count, report: Report) -> int:
    report.checked(count)
    return LEFT_BEHIND if count.undone else DONE


def _ask_and_migrate(migrator: Migrator, watch: Watch, report: Report, signals: StopSignals) -> int:
    count = watch.follow(migrator.count)
    if not count.promising:
        return _migrated(_nothing_done(watch.follow(migrator.preview), count), report)
    if not _confirmed(report.question(count), signals):
        report.cancelled(count)
        return CANCELLED
    return _migrated(watch.follow(migrator.migrate), report)


def _migrated(migration: Migration, report: Report) -> int:
    report.migrated(migration)
    return DONE if migration.complete else LEFT_BEHIND


def _nothing_done(preview: Preview, count: Count) -> Migration:
    return Migration(
        plan=preview.plan,
        town=preview.town,
        keys=dict.fromkeys(FAMILIES, 0),
        merged=dict.fromkeys(FAMILIES, 0),
        converted=dict.fromkeys(RECORDS, 0),
        conflicts=preview.conflicts,
        failed=preview.failed,
        ambiguous=preview.ambiguous,
        unconverted=preview.unconverted,
        before=count,
        left=Left(count.keys, count.strings, count),
        effort=preview.effort,
    )


def _confirmed(out: Output, signals: StopSignals) -> bool:
    signals.check()
    out.prompt("Continue? [y/N] ")
    try:
        answer = sys.stdin.readline() if sys.stdin else ""
    except (OSError, ValueError):  # closed, or not text
        answer = ""
    except StoppedBySignal:
        out.line("")
        raise
    if not answer.endswith("\n") or not sys.stdin.isatty():
        out.line("")
    return answer.strip().lower() in ("y", "yes")


def _settings(settings: Settings, url: str) -> Iterator[str]:
    yield f"town: {shown_text(settings.town)} (from {settings.town_source})"
    yield f"redis: {url} (from {settings.redis.source})"


def _effort(effort: Effort) -> str:
    pause = "unknown" if effort.max_pause_ms is None else f"{effort.max_pause_ms:.1f} ms"
    return f"{effort.batches} batch(es) in {effort.seconds:.2f} s, longest pause {pause}"

"""Runs the command once, from its options to its exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from tt_migrate.engine.calls.scripts import IncompleteError
from tt_migrate.engine.calls.server import SeveralShardsError, handshake_of, server_of
from tt_migrate.escape import shown_text
from tt_migrate.migrator import Migrator, Run
from tt_migrate.results import Count, Effort, Migration
from tt_migrate.settings.checks import ConfigError, town_name_problem
from tt_migrate.settings.config import Settings, load_settings
from tt_migrate.settings.connection import open_client, open_cluster, redacted, secrets
from tt_migrate.terminal import exit_status
from tt_migrate.terminal.change_log import ChangeLog, ChangeLogError
from tt_migrate.terminal.errors import explain
from tt_migrate.terminal.internal_error import internal_error
from tt_migrate.terminal.json_report import JsonReport
from tt_migrate.terminal.options import Options
from tt_migrate.terminal.output import Output, OutputError
from tt_migrate.terminal.progress import ProgressBar, ProgressLines, Watch
from tt_migrate.terminal.redaction import Redactor
from tt_migrate.terminal.signals import StoppedBySignal, StopSignals
from tt_migrate.terminal.text_report import TextReport
from tt_migrate.terminal.words import counted, server_words

_LONGEST_ANSWER = 100
_UNWRITTEN = logging.NullHandler()
"""Without a handler, Python writes libraries' log messages to stderr, unescaped."""


class Ending(NamedTuple):
    """How a run ends: its exit status, and the function that writes the report."""

    status: int
    tell: Callable[[], None]


def run(options: Options, signals: StopSignals, out: Output, err: Output) -> int:
    """Carry out the options. Returns the exit status.

    Always writes one report to `out`; errors and `--verbose` go to `err`. Raises OutputError if the
    report cannot be written. Nothing else that a user can cause raises.
    """
    logging.getLogger().addHandler(_UNWRITTEN)
    return _Command(options, signals, out, err).end()


class _Command:
    """The state of a run. `_report` gets the settings once they are loaded."""

    def __init__(self, options: Options, signals: StopSignals, out: Output, err: Output) -> None:
        self._options = options
        self._signals = signals
        self._out = out
        self._err = err
        # Dated lines for the log of a job.
        is_logged = options.verbose and not err.is_terminal
        self._log = ProgressLines(err) if is_logged else None
        self._watch = Watch(ProgressBar(err) if err.is_terminal else self._log)
        self._old_socket: Path | None = None
        self._remark = ""
        plan, limit = options.plan, options.limit
        self._report = TextReport(out, err, plan, options.quiet, limit, options.record is not None)
        if options.json:
            self._report = JsonReport(
                err, err, plan, limit=limit, stdout=out, mode=options.mode, options=options.shown
            )

    def end(self) -> int:
        """Carry out the run and write the report. Returns the exit status."""
        try:
            self._signals.release()
            ending = self._ending()
            self._signals.finish()
        except StoppedBySignal as stop:
            ending = self._stopped(stop.status, str(stop))
        effort = self._watch.effort
        ending.tell()
        if self._options.verbose and self._report.server:
            self._err.line(_effort(effort))
        if self._log:
            self._log.write(f"ended with exit status {ending.status}")
        return ending.status

    def _ending(self) -> Ending:
        try:
            return self._carried_out()
        except OutputError as error:
            return Ending(exit_status.USAGE, partial(self._err.line, f"Error: {error}"))
        except (ConfigError, IncompleteError, ChangeLogError) as error:
            return self._stopped(exit_status.USAGE, str(error))
        except (RedisError, OSError) as error:
            report = self._report
            said = explain(error, report.server or "", report.redactor, self._old_socket)
            if self._remark and isinstance(error, AuthenticationError):
                said += f" ({self._remark})"
            return self._stopped(exit_status.SERVER, said)
        except Exception as error:
            return self._stopped(exit_status.SERVER, internal_error(error, self._report.redactor))

    def _stopped(self, status: int, error: str) -> Ending:
        watch = self._watch
        return Ending(status, partial(self._report.stopped, watch.last, error, watch.seconds))

    def _carried_out(self) -> Ending:
        options, watch = self._options, self._watch
        settings = load_settings(options.town_dir, options.town_name, options.redis_url, os.environ)
        url, redactor = redacted(settings.redis), Redactor.hiding(*secrets(settings.redis))
        self._report = replace(
            self._report,
            town=settings.town,
            server=url,
            repeated=options.repeated(url),
            redactor=redactor,
        )
        _check_former_name(options.from_town, settings)
        self._old_socket, self._remark = settings.redis.old_socket, settings.redis.remark
        if options.verbose:
            self._err.lines(_settings(settings, url))
        with ExitStack() as held:
            client = held.enter_context(open_client(settings.redis))
            if options.verbose:
                said = server_words(server_of(handshake_of(client)))
                self._err.line(f"server: {redactor.shown(said)}")
            database = client.connection_pool.connection_kwargs.get("db") or 0
            self._report = replace(self._report, database=database)
            log = closing(ChangeLog(options.record, redactor)) if options.record else nullcontext()
            migrator = Migrator(
                client,
                settings.town,
                options.plan,
                options.max_pause_ms,
                options.nice,
                watch,
                held.enter_context(log),
                shield=self._signals.shield,
                max_lag=options.max_lag_mb * 1_000_000,
            )
            if self._log:
                self._log.write(f"{options.plan.name} begins, mode {options.mode}")
            try:
                return self._operated(migrator)
            except SeveralShardsError:
                if watch.last:  # The cluster has got more shards meanwhile.
                    raise
                cluster = held.enter_context(open_cluster(settings.redis))
                return self._operated(replace(migrator, client=cluster))

    def _operated(self, migrator: Migrator) -> Ending:
        options, watch = self._options, self._watch
        self._check_leftovers(migrator)
        if options.check:
            count = watch.follow(partial(self._checked, migrator))
            return Ending(exit_status.of_check(count), partial(self._report.tell, count))
        if options.dry_run:
            preview = watch.follow(migrator.preview)
            return Ending(exit_status.DONE, partial(self._report.tell, preview))
        if options.force:
            return self._migrated(watch.follow(migrator.migrate))
        with migrator.opened(writes=True) as run:
            run.check()
            return self._asked_and_migrated(run)

    def _check_leftovers(self, migrator: Migrator) -> None:
        """Refuse a former name that has leftovers of a shell, unless there are keys to rename.

        Without this, a job whose variable has a carriage return renames nothing, with status 0.
        Raises ConfigError.
        """
        former = self._options.from_town
        problem = town_name_problem("--from-town", former) if former else None
        # Without progress, because it would pass for the run itself.
        if problem and not replace(migrator, progress=None).count(conflicts=False).total:
            raise ConfigError(f"{problem}; no key has the name as it is")

    def _checked(self, migrator: Migrator) -> Count:
        try:
            return migrator.count(conflicts=False)
        except NoPermissionError:
            if not self._options.checks_everything:
                raise
            # Without TYPE, a user can at least learn which keys have old names.
            plan = replace(migrator.plan, convert=None)
            return migrator.with_plan(plan).count(conflicts=False)

    def _asked_and_migrated(self, run: Run) -> Ending:
        count = self._watch.follow(run.count)
        if not count.promising:
            return self._migrated(self._watch.follow(run.preview).as_migration(count))
        if not _confirmed(self._report.question(count)):
            return Ending(exit_status.CANCELLED, partial(self._report.cancelled, count))
        return self._migrated(self._watch.follow(run.migrate))

    def _migrated(self, migration: Migration) -> Ending:
        return Ending(exit_status.of_migration(migration), partial(self._told, migration))

    def _told(self, migration: Migration) -> None:
        if self._options.force:
            self._report.tell_towns(migration)
        self._report.tell(migration)


def _check_former_name(former: str | None, settings: Settings) -> None:
    if former == settings.town:
        raise ConfigError(
            f"the town is still called {shown_text(settings.town)} ({settings.town_source}):"
            " give its new name there, or with --town-name"
        )
    if former is not None and not former.strip():
        raise ConfigError("--from-town is blank: give the town's former name")


def _confirmed(out: Output) -> bool:
    out.prompt("Continue? [y/N] ")
    try:
        # A longer answer is not a yes, and may never end.
        answer = sys.stdin.readline(_LONGEST_ANSWER) if sys.stdin else ""
    except (OSError, ValueError):  # closed, or not text
        answer = ""
    except StoppedBySignal:
        out.line("")
        raise
    if not answer.endswith("\n") or not sys.stdin.isatty():
        out.line("")
    return not out.lost and answer.strip().lower() in ("y", "yes")


def _settings(settings: Settings, url: str) -> Iterator[str]:
    yield f"town: {shown_text(settings.town)} (from {settings.town_source})"
    yield f"redis: {url} (from {settings.redis.source})"
    if settings.redis.remark:
        yield f"password: {settings.redis.remark}"


def _effort(effort: Effort) -> str:
    pause = "unknown" if effort.max_pause_ms is None else f"{effort.max_pause_ms:.1f} ms"
    batches = counted(effort.batches, "batch", "batches")
    alone = f", one at a time: {effort.one_at_a_time}" if effort.one_at_a_time else ""
    lag = f", {effort.replica_wait:.2f} s for replicas" if effort.replica_wait else ""
    if effort.replica_wait is None:
        lag = ", replicas not watched: the user may not run INFO"
    return f"{batches} in {effort.seconds:.2f} s, longest pause {pause}{lag}{alone}"

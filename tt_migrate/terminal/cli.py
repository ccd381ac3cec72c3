"""The command line of `tt migrate` and `tt-migrate`. It uses click, and nothing of Redis."""

from __future__ import annotations

import math
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import click

from tt_migrate.terminal import exit_status
from tt_migrate.terminal.internal_error import internal_error
from tt_migrate.terminal.other_tt import hand_over
from tt_migrate.terminal.output import Output, OutputError
from tt_migrate.terminal.redaction import NO_SECRETS, without_url_passwords
from tt_migrate.terminal.signals import StopSignals

_TOWN = click.option(
    "-t",
    "--town",
    "town_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The town's directory, which contains tinytown.toml.  [default: .]",
)
_VERBOSE = click.option(
    "-v", "--verbose", is_flag=True, help="Show where settings come from, the server and the cost."
)
_VERSION = click.version_option(None, "--version", package_name="tt-migrate")


_EXCLUSIVE = (
    ("--dry-run", "--check"),
    ("--hash", "--upgrade", "--reverse"),
    ("--hash", "--legacy-prefix"),
    ("--hash", "--on-conflict merge"),
    ("--reverse", "--legacy-prefix"),
    ("--reverse", "--on-conflict merge"),
)
"""Options that cannot be used together."""


class _Ratio(click.FloatRange):
    """A float range that excludes NaN and negative zero."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        ratio: float = super().convert(value, param, ctx)
        if math.isnan(ratio) or math.copysign(1, ratio) < 0:
            self.fail(f"{value!r} is not in the range {self._describe_range()}.", param, ctx)
        return ratio


@click.command(epilog=exit_status.HELP)
@_TOWN
@click.option("--dry-run", is_flag=True, help="Preview, change nothing.")
@click.option(
    "--hash", "to_hash", is_flag=True, help="Convert agents and tasks from JSON strings to hashes."
)
@click.option(
    "--upgrade",
    is_flag=True,
    help="Do all that a current Tinytown needs: rename mt: keys and old keys, then --hash.",
)
@click.option("--reverse", is_flag=True, help="Give the town's keys their old names back.")
@click.option(
    "--on-conflict",
    type=click.Choice(["skip", "merge"]),
    default="skip",
    show_default=True,
    help="What to do with a key whose new name is taken.",
)
@click.option(
    "--legacy-prefix",
    type=click.Choice(["mt"]),
    help="Rename version 0.1's keys (mt:agent:ID) too.",
)
@click.option("--force", is_flag=True, help="Skip the confirmation prompt.")
@click.option(
    "--check",
    is_flag=True,
    help="Print one line, change nothing; exit with status 1 if there is something to do.",
)
@click.option(
    "--town-name", metavar="NAME", help="The town's name; by default, the one in its file."
)
@click.option(
    "--redis-url",
    metavar="URL",
    help="redis://, rediss:// or unix://; by default REDIS_URL, else the town's file.",
)
@click.option(
    "--max-pause",
    "max_pause_ms",
    metavar="MS",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="How long one batch may hold the server, in milliseconds.",
)
@click.option(
    "--nice",
    metavar="RATIO",
    type=_Ratio(0, 1000),
    default=0,
    show_default=True,
    help="After each batch, wait RATIO times as long as it took.",
)
@click.option("--json", is_flag=True, help="Print one JSON document instead of text.")
@click.option("-q", "--quiet", is_flag=True, help="Print only problems.")
@_VERBOSE
@_VERSION
@click.argument("command", type=click.Choice(["migrate"]), required=False, metavar="")
def migrate(command: str | None, **options: Any) -> dict[str, Any]:
    """Rename a town's old keys (tt:agent:ID) to the town-isolated format (tt:TOWN:agent:ID).

    Nothing is ever overwritten, and running it again is safe. --hash, --upgrade and --reverse
    select another operation; --dry-run, --check, --force and --json work with each of the four.
    """
    given = {
        "--dry-run": options["dry_run"],
        "--check": options["check"],
        "--hash": options["to_hash"],
        "--upgrade": options["upgrade"],
        "--reverse": options["reverse"],
        "--legacy-prefix": options["legacy_prefix"],
        "--on-conflict merge": options["on_conflict"] == "merge",
    }
    for exclusive in _EXCLUSIVE:
        names = [name for name in exclusive if given[name]]
        if len(names) > 1:
            raise click.UsageError(f"{' and '.join(names)} cannot be used together")
    return options


class _UnknownCommand(click.UsageError):
    """The command is not one of ours, and perhaps one of Tinytown's."""


class _SharedName(click.Group):
    """A group whose program has the name of another program."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            unknown = f"No such command '{args[0]}', and no other tt on the PATH."
            raise _UnknownCommand(unknown, ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_SharedName, no_args_is_help=False)
@_TOWN
@_VERBOSE
@_VERSION
@click.pass_context
def tt(context: click.Context, town_dir: Path, verbose: bool) -> None:
    """Tools for a Tinytown's Redis.

    A command that is not listed here is handed to the next tt on the PATH: Tinytown's own.
    """
    context.default_map = {"migrate": {"town_dir": town_dir, "verbose": verbose}}


tt.add_command(migrate)


def main(name: str, args: list[str], signals: StopSignals) -> int:
    """Run `tt` or `tt-migrate`, as `name` says. Returns the exit status; raises nothing."""
    out, err = Output(sys.stdout), Output(sys.stderr, optional=True)
    try:
        return _main(name, args, signals, out, err)
    except OutputError as error:
        signals.finish()
        err.line(f"Error: {error}")
        return exit_status.USAGE
    except Exception as error:
        signals.finish()
        _failed(internal_error(error, NO_SECRETS), args, out, err)
        return exit_status.SERVER


def _main(name: str, args: list[str], signals: StopSignals, out: Output, err: Output) -> int:
    text = StringIO()
    try:
        with redirect_stdout(text):  # --help and --version print
            options = (tt if name == "tt" else migrate).main(args, name, standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, _UnknownCommand):
            signals.stop_ticking()
            hand_over(args)
        signals.finish()
        if isinstance(error, click.UsageError) and error.ctx and not _wants_json(args):
            err.lines(
                [
                    *error.ctx.get_usage().splitlines(),
                    f"Try '{error.ctx.command_path} --help' for help.",
                    "",
                ]
            )
        _failed(without_url_passwords(error.format_message()), args, out, err)
        return exit_status.USAGE
    if not isinstance(options, dict):
        signals.finish()
        out.lines(text.getvalue().splitlines())
        return 0
    # The options are known, so from here on a signal leads to a report.
    signals.hold()
    from tt_migrate.terminal.options import Options
    from tt_migrate.terminal.run import run

    return run(Options(**options), signals, out, err)


def _failed(message: str, args: list[str], out: Output, err: Output) -> None:
    if _wants_json(args) and not out.begun:
        from tt_migrate.terminal.json_report import JsonReport

        JsonReport(out, err, None, None).stopped(None, message, 0)
    else:
        err.line(f"Error: {message}")


def _wants_json(args: list[str]) -> bool:
    """Whether --json is given as an option, even if other options are wrong."""
    parser = migrate.make_parser(click.Context(migrate))
    parser.ignore_unknown_options = True
    try:
        options, _, _ = parser.parse_args(list(args))
    except click.UsageError:
        return "--json" in args
    return bool(options.get("json"))

"""The command line of `tt migrate` and `tt-migrate`. It imports no redis-py, which is slow."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from difflib import get_close_matches
from io import BytesIO, TextIOWrapper
from itertools import chain, product
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tt_migrate.escape import shown_text
from tt_migrate.terminal import exit_status
from tt_migrate.terminal.internal_error import internal_error
from tt_migrate.terminal.other_tt import hand_over
from tt_migrate.terminal.output import Output, OutputError
from tt_migrate.terminal.redaction import NO_SECRETS, without_url_passwords
from tt_migrate.terminal.signals import StopSignals

_EXCLUSIVE = (
    ("--dry-run", "--check", "--record"),
    ("--hash", "--upgrade", "--reverse", "--downgrade", "--from-town"),
    *product(("--hash", "--reverse", "--downgrade"), ("--legacy-prefix", "--on-conflict merge")),
    ("--from-town", "--legacy-prefix"),
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


def _check_name(context: click.Context, parameter: click.Parameter, name: str | None) -> None:
    """Accept `tt-migrate migrate` for `tt-migrate`, but not `tt migrate migrate`."""
    if name is not None and (context.parent or name != migrate.name):
        meant = "" if context.parent else f".{_meant(name, ['migrate'])}"
        raise click.UsageError(f"Got unexpected extra argument ({name}){meant}", context)


def _meant(word: str, words: Iterable[str]) -> str:
    """The word that was perhaps meant, as a sentence."""
    return "".join(f" Did you mean '{near}'?" for near in get_close_matches(word, words, 1))


class _Path(click.Path):
    """A path. `refused`: texts that would be misunderstood, each with its error."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        super().__init__(path_type=Path)
        self._refused = refused

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if error := self._refused.get(value):
            self.fail(error, param, ctx)
        return super().convert(value, param, ctx)


# Path('') would be the current directory.
_EMPTY = {"": "it is empty. Name a path, or leave the option out."}
_STDOUT = {
    "-": "'-' names no file: the report goes to the standard output. Name another file, or"
    " /dev/stdout for both."
}


class _Option(click.Option):
    """An option that an environment variable can give: TT_MIGRATE_ and its name."""

    def __init__(self, *names: str, **attributes: Any) -> None:
        long = next(name for name in names if name.startswith("--"))
        variable = f"TT_MIGRATE_{long[2:].replace('-', '_').upper()}"
        super().__init__(names, envvar=variable, show_envvar=True, **attributes)

    def value_from_envvar(self, ctx: click.Context) -> Any:
        """Read the option's variable. A flag's is true or false, in every version of click."""
        if not self.is_flag:
            return super().value_from_envvar(ctx)
        # For click 8.2.0 and 8.2.1, any text sets a flag.
        text = (click.Parameter.resolve_envvar_value(self, ctx) or "").strip()
        if not text:
            return None
        try:
            return click.BOOL.convert(text, self, ctx)
        except click.BadParameter:
            problem = f"{self.envvar} is '{shown_text(text)}': set it to true or false"
            raise click.UsageError(problem, ctx) from None


def _flag(*names: str, help: str) -> _Option:  # noqa: A002 - as click calls it
    return _Option(*names, is_flag=True, help=help)


_TOWN = _Option(
    "-t",
    "--town",
    "town_dir",
    metavar="DIR",
    type=_Path(_EMPTY),
    default=Path(),
    help="The town's directory, with tinytown.toml in it or above it.  [default: .]",
)
_VERBOSE = _flag("-v", "--verbose", help="Show where settings come from, the server and the cost.")
_SECTIONS = {
    "What to do": [
        _flag("-n", "--dry-run", help="Preview, change nothing."),
        _flag(
            "--check",
            help="Print one line, change nothing; exit with status 1 if there is something to do.",
        ),
        _flag(
            "--upgrade",
            help="Do all that a current Tinytown needs: rename mt: keys and old keys, then --hash.",
        ),
        _flag("--hash", help="Convert agents and tasks from JSON strings to hashes."),
        _flag("--reverse", help="Give the town's keys their old names back."),
        _flag(
            "--downgrade",
            help="Do all that Tinytown 0.6 needs: convert hashes to JSON strings, then --reverse.",
        ),
        _Option(
            "--from-town",
            metavar="NAME",
            help="Rename the keys of the town's former name NAME, events and missions included.",
        ),
        _Option(
            "--on-conflict",
            type=click.Choice(["skip", "merge"]),
            default="skip",
            show_default=True,
            help="What to do with a key whose new name is taken.",
        ),
        _Option(
            "--legacy-prefix",
            type=click.Choice(["mt"]),
            help="Rename version 0.1's keys (mt:agent:ID) too.",
        ),
        _flag("-y", "--force", help="Skip the confirmation prompt."),
    ],
    "Town and server": [
        _TOWN,
        _Option(
            "--town-name",
            metavar="NAME",
            help="The town's name; by default, the one in its file.",
        ),
        _Option(
            "--redis-url",
            metavar="URL",
            help="redis://, rediss://, unix:// or redis+sentinel://; by default REDIS_URL, else the"
            " town's file.",
        ),
    ],
    "Pace": [
        _Option(
            "--max-pause",
            "max_pause_ms",
            metavar="MS",
            type=click.IntRange(1, 1000),
            default=5,
            show_default=True,
            help="How long one batch may block the server, in milliseconds.",
        ),
        _Option(
            "--nice",
            metavar="RATIO",
            type=_Ratio(0, 1000),
            default=0,
            show_default=True,
            help="After each batch, wait RATIO times as long as it took.",
        ),
        _Option(
            "--max-lag",
            "max_lag_mb",
            metavar="MB",
            type=click.IntRange(0, 1_000_000),
            default=48,
            show_default=True,
            help="Wait while a replica is more than MB megabytes behind, 0: do not.",
        ),
    ],
    "Output": [
        _flag("--json", help="Print one JSON document instead of text."),
        _Option(
            "--limit",
            metavar="N",
            type=click.IntRange(0),
            help="List N keys of each family, on a terminal also of each kind of problem, 0: all."
            "  [default: 20 on a terminal, else 0]",
        ),
        _Option(
            "--record",
            metavar="FILE",
            type=_Path(_EMPTY | _STDOUT),
            help="Append a JSON line to FILE for each key that was changed or left.",
        ),
        _flag("-q", "--quiet", help="Print only problems."),
        _VERBOSE,
    ],
}
"""The options, by the section of the help in which they stand."""


class _Sections(click.Command):
    """A command whose help shows options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section's options, and the rest under Other."""
        listed = {*chain(*_SECTIONS.values())}
        rest = [parameter for parameter in self.get_params(ctx) if parameter not in listed]
        sections: dict[str, Iterable[click.Parameter]] = {**_SECTIONS, "Other": rest}
        for section, parameters in sections.items():
            records = [parameter.get_help_record(ctx) for parameter in parameters]
            with formatter.section(section):
                formatter.write_dl([record for record in records if record])


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from tt_migrate.terminal.version import own_version

        click.echo(f"tt-migrate {own_version() or '(unknown version)'}")
        context.exit()


_VERSION = click.Option(
    ["--version"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
_NAME = click.Argument(
    ["name"], required=False, metavar="", expose_value=False, callback=_check_name
)
# Not in docstrings, which `python -OO` leaves out.
_MIGRATE_HELP = """\
Rename a town's old keys (tt:agent:ID) to the town-isolated format (tt:TOWN:agent:ID).

Nothing is ever overwritten, and running it again is safe. --hash, --upgrade, --reverse,
--downgrade and --from-town select another operation; --dry-run, --check, --force and --json
work with each.
"""
_TT_HELP = """Tools for a Tinytown's Redis.

A command that is not listed here is handed to the next tt on the PATH: Tinytown's own.
"""
_EXAMPLES = """\b
Examples:
  tt migrate --upgrade --dry-run  see what an upgrade would do
  tt migrate --upgrade            upgrade the town in this directory
  tt migrate -y --nice 3 --json   rename old keys in a job, on a shared server
  tt migrate --from-town web-dev  the town was called web-dev before

"""
_HELP = {"help_option_names": ["-h", "--help"]}


@click.command(
    cls=_Sections,
    params=[*chain(*_SECTIONS.values()), _VERSION, _NAME],
    context_settings=_HELP,
    help=_MIGRATE_HELP,
    epilog=_EXAMPLES + exit_status.HELP,
)
@click.pass_context
def migrate(context: click.Context, /, **options: Any) -> dict[str, Any]:
    """Return the options that are given, checked."""
    before = context.obj or {}
    options |= before
    typed = {name for name in options if _is_typed(context, name)}
    given = {name for name, value in options.items() if value not in (None, False)}
    chosen = {f"--{name.replace('_', '-')}" for name in given}
    chosen.add(f"--on-conflict {options['on_conflict']}")
    for exclusive in _EXCLUSIVE:
        names = [name for name in exclusive if name in chosen]
        if len(names) > 1:
            raise click.UsageError(f"{' and '.join(names)} cannot be used together")
    return {**options, "typed": frozenset(typed | before.keys())}


def _is_typed(context: click.Context, name: str) -> bool:
    """Whether an option was given on the command line, and not in the environment."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


class _UnknownCommand(click.UsageError):
    """The command is not ours. It may be Tinytown's."""


class _SharedName(click.Group):
    """The commands of `tt`, whose name Tinytown's own program has too."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            unknown = f"No such command '{args[0]}', and no other tt on the PATH."
            raise _UnknownCommand(unknown + _meant(args[0], self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_SharedName,
    context_settings=_HELP,
    help=_TT_HELP,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    params=[_TOWN, _VERBOSE, _VERSION],
)
@click.pass_context
def tt(context: click.Context, town_dir: Path, verbose: bool) -> None:
    """Keep the options before the command. Without a command, show the help."""
    values = {"town_dir": town_dir, "verbose": verbose}
    # Options before the command override the environment, as those after it do.
    context.obj = {name: value for name, value in values.items() if _is_typed(context, name)}
    if context.invoked_subcommand is None:
        if context.obj:
            raise click.UsageError("Missing command.", context)
        click.echo(context.get_help())


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
    # What --help, --version and shell completion print. The last prints bytes.
    printed = BytesIO()
    stream = TextIOWrapper(printed, "utf-8", write_through=True)
    try:
        with redirect_stdout(stream):
            options = (tt if name == "tt" else migrate).main(args, name, standalone_mode=False)
    except SystemExit as end:  # shell completion
        signals.finish()
        out.as_it_is(printed.getvalue().decode())
        return int(end.code or 0)
    except click.ClickException as error:
        if isinstance(error, _UnknownCommand):
            signals.stop_ticking()
            hand_over(args)
        signals.finish()
        if isinstance(error, click.UsageError) and error.ctx and not _wants_json(args):
            usage = error.ctx.get_usage().splitlines()
            err.lines([*usage, f"Try '{error.ctx.command_path} --help' for help.", ""])
        _failed(without_url_passwords(error.format_message()), args, out, err)
        return exit_status.USAGE
    if not isinstance(options, dict):
        signals.finish()
        out.lines(printed.getvalue().decode().splitlines())
        return 0
    # The options are known, so from here on a signal leads to a report.
    signals.hold()
    from tt_migrate.terminal.options import Options
    from tt_migrate.terminal.run import run

    return run(Options(**options), signals, out, err)


def _failed(message: str, args: list[str], out: Output, err: Output) -> None:
    if _wants_json(args) and not out.begun:
        from tt_migrate.plan import RENAME
        from tt_migrate.terminal.json_report import JsonReport

        JsonReport(err, err, RENAME, stdout=out, mode=None).stopped(None, message, 0)
    else:
        err.line(f"Error: {message}")


def _wants_json(args: list[str]) -> bool:
    """Whether --json is given as an option, even if other options are wrong."""
    parser = migrate.make_parser(click.Context(migrate))
    parser.ignore_unknown_options = True
    variable = os.environ.get("TT_MIGRATE_JSON") or "false"
    try:
        options, _, _ = parser.parse_args(list(args))
    except click.UsageError:
        return "--json" in args
    try:
        return bool(options.get("json") or click.BOOL.convert(variable, None, None))
    except click.BadParameter:
        return False

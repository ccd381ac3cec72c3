"""The command line: `tt migrate` and `tt-migrate`. Knows click and nothing of Redis."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

_TOWN = click.option(
    "-t",
    "--town",
    "town_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The town's directory, with its tinytown.toml.  [default: .]",
)
_VERBOSE = click.option(
    "-v", "--verbose", is_flag=True, help="Say where the settings come from and what a run cost."
)
_VERSION = click.version_option(None, "--version", package_name="tt-migrate")


_EXIT_STATUS = """\b
Exit status:
  0    done, or nothing to do, or previewed
  1    keys were left behind, or --check found something to do
  2    wrong usage or configuration
  3    the server could not be reached, or refused
  4    cancelled at the prompt
  130  stopped by SIGINT, 143 by SIGTERM
"""


@click.command(epilog=_EXIT_STATUS)
@_TOWN
@click.option("--dry-run", is_flag=True, help="Preview, change nothing.")
@click.option(
    "--hash", "to_hash", is_flag=True, help="Convert agents and tasks from JSON strings to hashes."
)
@click.option(
    "--upgrade",
    is_flag=True,
    help="Do all that a current Tinytown needs: keys of version 0.1, old keys, then --hash.",
)
@click.option("--reverse", is_flag=True, help="Give the town's keys their old names back.")
@click.option(
    "--on-conflict",
    type=click.Choice(["skip", "merge"]),
    default="skip",
    show_default=True,
    help="What becomes of a key whose new name is taken.",
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
    help="Change and list nothing; exit status 1 when there is something to do.",
)
@click.option(
    "--town-name", metavar="NAME", help="The town's name; else the one in the town's file."
)
@click.option(
    "--redis-url",
    metavar="URL",
    help="redis://, rediss:// or unix://; else REDIS_URL, else the town's file.",
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
    type=click.FloatRange(0, 1000),
    default=0,
    show_default=True,
    help="Wait RATIO times as long as each batch has taken before the next one.",
)
@click.option("--json", is_flag=True, help="Print one JSON document in place of text.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but problems.")
@_VERBOSE
@_VERSION
@click.argument("command", type=click.Choice(["migrate"]), required=False, metavar="")
def migrate(command: str | None, **options: Any) -> int:
    """Rename a town's old keys (tt:agent:ID) to the town-isolated format (tt:TOWN:agent:ID).

    Nothing is ever overwritten, and running it again is safe. With --hash, --upgrade or --reverse
    it does that instead; --dry-run, --check, --force and --json serve each of the four.
    """
    from tt_migrate.run import Options, run

    _refuse_together(options, "--dry-run", "--check")
    _refuse_together(options, "--hash", "--upgrade", "--reverse")
    for only_names in ("--hash", "--reverse"):
        _refuse_together(options, only_names, "--legacy-prefix")
        _refuse_together(options, only_names, "--on-conflict merge")
    return run(Options(**options))


def _refuse_together(options: dict[str, Any], *names: str) -> None:
    values = {**options, "hash": options["to_hash"]}
    values["on_conflict merge"] = options["on_conflict"] == "merge"
    given = [name for name in names if values[name[2:].replace("-", "_")]]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other")


@click.group()
@_TOWN
@_VERBOSE
@_VERSION
@click.pass_context
def tt(context: click.Context, town_dir: Path, verbose: bool) -> None:
    """Tools for a Tinytown's Redis."""
    context.default_map = {"migrate": {"town_dir": town_dir, "verbose": verbose}}


tt.add_command(migrate)


def tt_main() -> None:
    """Run `tt`."""
    _main(tt, "tt")


def tt_migrate_main() -> None:
    """Run `tt-migrate`, which is `tt migrate` under a name that nothing else has."""
    _main(migrate, "tt-migrate")


def _main(command: click.Command, name: str) -> None:
    from tt_migrate.output import Output, OutputError

    try:
        status = command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        status = error.exit_code
        _usage_error(error)
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except OutputError as error:
        status = 2
        Output(sys.stderr).line(f"Error: {error}")
    except BrokenPipeError:
        status = 0
    sys.exit(status)


def _usage_error(error: click.ClickException) -> None:
    if "--json" in sys.argv[1:]:
        from tt_migrate.document import JsonReport
        from tt_migrate.output import Output

        JsonReport(Output(sys.stdout), Output(sys.stderr), None, None).stopped(
            None, error.format_message()
        )
    else:
        error.show()

"""The entry points. They install signal handlers before the slow imports."""

import sys

from tt_migrate.terminal.signals import StopSignals


def tt_main() -> None:
    """Run `tt`."""
    _main("tt")


def tt_migrate_main() -> None:
    """Run `tt-migrate`, which is `tt migrate` under a name that no other program has."""
    _main("tt-migrate")


def _main(name: str) -> None:
    signals = StopSignals()
    signals.take()
    try:
        from tt_migrate.terminal.cli import main

        status = main(name, sys.argv[1:], signals)
    finally:  # an import can fail, and the clock would end the program while Python exits
        signals.ignore()
    sys.exit(status)


if __name__ == "__main__":
    tt_migrate_main()

"""`python -m tt_migrate` is `tt-migrate`."""

from tt_migrate.cli import tt_migrate_main

tt_migrate_main()

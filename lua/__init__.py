"""The scripts that run inside Redis; `tt_migrate.scripts` reads them."""

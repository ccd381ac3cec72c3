"""The scripts that run inside Redis; `tt_migrate.engine.scripts` reads them."""

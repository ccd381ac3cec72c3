"""The scripts that run inside Redis; `tt_migrate.engine.calls.scripts` reads them."""

"""`keyturn serve` and `keyturn migrate`: what runs beside the database, from settings in the environment."""

from __future__ import annotations

import gc
import os

import click

from keyturn.cli.failure import flush_streams
from keyturn.config import load_settings


@click.command()
def serve() -> None:
    """Start the server with the settings in the environment (KEYTURN_DATA, KEYTURN_PORT, …)."""
    settings = load_settings()
    gc.disable()  # nothing of what a start makes is garbage; a worker begins to collect when it is ready
    # Imported only now, so that wrong settings are reported at once.
    from keyturn.bootstrap.serving import run_server

    run_server(settings)
    # Everything is closed; to take a thousand modules apart would only keep waiting whoever stops it.
    flush_streams()
    os._exit(0)


@click.command()
def migrate() -> None:
    """Bring the database schema up to date; harmless when it is."""
    settings = load_settings()
    from keyturn.bootstrap.folder import create_folder
    from keyturn.storage.migrate import migrate as run_migrations

    if settings.database_url is None:
        create_folder(settings.data)
    done = run_migrations(settings)
    click.echo(f"the schema is at revision {done.after}" + ("" if done.changed else " already"))

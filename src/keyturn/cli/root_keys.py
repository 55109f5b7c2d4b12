"""`keyturn root-key` and `keyturn workspace-keys`: what everything is sealed under, and how to change it.

keyturn root-key rotate                      on the server's machine: a new root key seals
keyturn root-key rewrap                      over the API: every workspace key moves to it
keyturn root-key retire ID --keep FILE       on the server's machine: the old one goes
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, json_option, table
from keyturn.cli.policy import limit_option
from keyturn.cli.session import open_session
from keyturn.config import load_settings
from keyturn.wire.root_keys import RESEAL_MAX, REWRAP_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

_PATH = click.Path(path_type=Path, dir_okay=False)
_COLUMNS = ("id", "seals", "given", "retired", "workspace_keys")


@click.group("root-key", cls=Commands)
def root_key() -> None:
    """Rotate the root key while the server runs; see `docs/guides/rotate-the-root-key.md`."""


@root_key.command()
@json_option
def status(*, as_json: bool) -> None:
    """Show root keys as the settings and the database have them, without a server."""
    from dataclasses import asdict

    from keyturn.bootstrap.root_keys import root_key_status

    items = [asdict(one) for one in asyncio.run(root_key_status(load_settings()))]
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *_COLUMNS))


@root_key.command()
@click.option("--output", type=_PATH, help="A new file of mode 0600 to write it to, instead of printing it.")
def generate(*, output: Path | None) -> None:
    """Make a root key for the `env` provider; it is used nowhere until you set it."""
    from keyturn.storage.kek_file import create_private, read_private, readable
    from keyturn.storage.kek_held import generate as new_root_key

    line = new_root_key()
    if output is None:
        click.echo(line, nl=False)
        return
    with readable(output):
        create_private(output, line)
        if read_private(output) != line:
            message = f"{output} exists already, and is left as it is"
            raise click.UsageError(message)
    click.echo(f"root key {line.split()[1]} is written to {output}")


@root_key.command()
@json_option
def rotate(*, as_json: bool) -> None:
    """Make a root key that seals from now on, in the file of the server; the others open."""
    from keyturn.bootstrap.root_keys import add_root_key

    made = asyncio.run(add_root_key(load_settings()))
    emit(
        {"root_key": made},
        as_json=as_json,
        human=lambda a: (
            f"root key {a['root_key']} seals from now on\ncopy it to where you keep the old one, then rewrap"
        ),
    )


@root_key.command()
@json_option
def rewrap(*, as_json: bool) -> None:
    """Wrap every workspace key under the root key that seals, over the API; may be interrupted and repeated."""
    session = open_session()
    done = _until_done(lambda: session.post("/root-keys/rewrap", {"keys_max": REWRAP_MAX}).json, "rewrapped")
    emit(
        done,
        as_json=as_json,
        human=lambda a: f"{a['rewrapped']} workspace keys rewrapped under {a['root_key']}, {a['remaining']} remain",
    )


@root_key.command()
@json_option
def census(*, as_json: bool) -> None:
    """Show how many workspace keys are wrapped under each root key, as the server has them."""
    answer = open_session().get("/root-keys").json
    emit(answer, as_json=as_json, human=lambda a: table(a["items"], *_COLUMNS))


@root_key.command()
@click.argument("root_key_id")
@click.option("--keep", type=_PATH, help="A new file of mode 0600 that it is written to: older backups need it.")
@click.option("--discard", is_flag=True, help="Keep it nowhere.")
@json_option
def retire(*, root_key_id: str, keep: Path | None, discard: bool, as_json: bool) -> None:
    """Retire a root key that no workspace key is wrapped under, and take it out of the server's file."""
    if (keep is None) != discard:
        message = "give either --keep FILE or --discard"
        raise click.UsageError(message)
    from keyturn.bootstrap.root_keys import retire_root_key

    removed = asyncio.run(retire_root_key(load_settings(), root_key_id, keep))
    emit({"root_key": root_key_id, "removed": removed}, as_json=as_json, human=_retired_text)


def _retired_text(answer: dict[str, Any]) -> str:
    if answer["removed"]:
        return f"root key {answer['root_key']} is retired, and removed from the file"
    return f"root key {answer['root_key']} is retired; take it out of the settings"


@click.group("workspace-keys", cls=Commands)
def workspace_keys() -> None:
    """Rotate, reseal and destroy the keys that a workspace's values are sealed under."""


@workspace_keys.command("list")
@limit_option
@json_option
def list_keys(*, limit: int | None, as_json: bool) -> None:
    """List workspace keys, with the number of values under each."""
    items = list(open_session().pages("/workspace-keys", limit=limit))
    columns = ("id", "state", "seals", "values", "root_key", "created_at")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@workspace_keys.command("rotate")
@json_option
def rotate_workspace(*, as_json: bool) -> None:
    """Make a new workspace key, which seals from now on."""
    emit(open_session().post("/workspace-keys/rotate", {}, idempotency=True).json, as_json=as_json)


@workspace_keys.command()
@json_option
def reseal(*, as_json: bool) -> None:
    """Seal every value under the newest workspace key; may be interrupted and repeated."""
    session = open_session()
    done = _until_done(lambda: session.post("/workspace-keys/reseal", {"values_max": RESEAL_MAX}).json, "resealed")
    emit(
        done,
        as_json=as_json,
        human=lambda a: f"{a['resealed']} values resealed under {a['workspace_key']}, {a['remaining']} remain",
    )


@workspace_keys.command()
@click.argument("key_id")
@click.option("--force", is_flag=True, help="Also when held secrets are lost with it, for good.")
@click.option("--confirm", metavar="ID", default="", help="With --force: the id again.")
@json_option
def destroy(*, key_id: str, force: bool, confirm: str, as_json: bool) -> None:
    """Destroy a workspace key; with --force every held secret under it is lost."""
    body = {"force": force, "confirm": confirm}
    emit(open_session().post(f"/workspace-keys/{quote(key_id, safe='')}/destroy", body).json, as_json=as_json)


def _until_done(ask: Callable[[], dict[str, Any]], counted: str) -> dict[str, Any]:
    """Ask until nothing remains, or a request has moved nothing; return the last answer with the sum."""
    total = 0
    while True:
        answer = ask()
        total += answer[counted]
        if not answer["remaining"] or not answer[counted]:
            return {**answer, counted: total}

"""`keyturn backup`, `restore` and `admin-token`: what works on the database itself, with the settings of the server.

keyturn backup --output FILE                      while a server runs
keyturn restore FILE --revocations EXPORT.jsonl   into an empty database; then it may be served
keyturn restore FILE                              ... then it may not, until one of these:
keyturn restore --revocations EXPORT.jsonl
keyturn restore --accept-lost-revocations
keyturn admin-token                               when nobody has a token any more
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyturn.cli.failure import REFUSED
from keyturn.cli.output import cell, emit, json_option
from keyturn.config import load_settings
from keyturn.errors import ConfigError

if TYPE_CHECKING:
    from keyturn.bootstrap.restoration import Settlement
    from keyturn.config import Settings
    from keyturn.storage.backup import Restored

TEN_YEARS = 10 * 366 * 86400
_PATH = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--output", type=_PATH, required=True, help="The file to write; it must not exist yet.")
@json_option
def backup(*, output: Path, as_json: bool) -> None:
    """Write a backup of the database to a new file, complete or not at all; a server may be running.

    The root key is not in it, and it cannot be restored without: keep a copy of the root key, in another place.
    """
    settings = load_settings()
    _require_database(settings)
    from keyturn.bootstrap.restoration import back_up

    manifest = asyncio.run(back_up(settings, output))
    answer = {
        "output": str(output),
        "bytes": output.stat().st_size,
        "created_at": manifest.created_at,
        "revision": manifest.revision,
        "root_keys": list(manifest.kek_ids),
        "rows": sum(part.rows for part in manifest.tables.values()),
    }
    emit(answer, as_json=as_json, human=_backup_text)


@click.command()
@click.argument("file", type=_PATH, required=False)
@click.option(
    "--revocations",
    type=_PATH,
    multiple=True,
    help="Audit export made after the backup; one of each workspace, repeatable.",
)
@click.option("--accept-lost-revocations", is_flag=True, help="Serve even though revocations made since may be undone.")
@json_option
def restore(*, file: Path | None, revocations: tuple[Path, ...], accept_lost_revocations: bool, as_json: bool) -> int:
    """Restore a backup into an empty database.

    The root key of the backup has to be in place.
    A backup knows nothing of what was revoked after it was made, so the server refuses to serve what was restored
    until --revocations has done that again for every workspace, or --accept-lost-revocations gives it up.
    Without FILE that is done to what was restored before.
    The exit code is 3 while the database may not be served.
    """
    if file is None and not revocations and not accept_lost_revocations:
        raise click.UsageError("give the FILE of a backup, or say what becomes of the revocations made since")
    settings = load_settings()
    from keyturn.bootstrap.folder import FolderLock, create_folder
    from keyturn.bootstrap.restoration import restore as load_backup
    from keyturn.bootstrap.restoration import settle_restored

    if file is None:
        _require_database(settings)
    restored: Restored | None = None
    with ExitStack() as held:
        if file is not None:
            _require_root_key(settings, file)
        create_folder(settings.data)
        if settings.database_url is None:
            held.enter_context(FolderLock.acquire(settings.data))
        if file is None:
            settled = asyncio.run(
                settle_restored(settings, revocations, accept_lost_revocations=accept_lost_revocations)
            )
        else:
            restored, settled = asyncio.run(
                load_backup(settings, file, revocations, accept_lost_revocations=accept_lost_revocations)
            )
    emit(_restored_document(restored, settled), as_json=as_json, human=_restored_text)
    return REFUSED if settled.missing else 0


@click.command("admin-token")
@click.option("--workspace", default="default", show_default=True, help="Name of the workspace to administer.")
@click.option("--expires-in-seconds", type=click.IntRange(1, TEN_YEARS), help="When it ends, from now.")
@click.option("--output", type=_PATH, help="Write the token to this file, of mode 0600, instead of printing it.")
@json_option
def admin_token(*, workspace: str, expires_in_seconds: int | None, output: Path | None, as_json: bool) -> None:
    """Issue an admin token from the database itself, when nobody has one any more; a server may be running.

    It belongs to the principal `break-glass` of the workspace and is on record in its audit log.
    Whoever has the database and the root key can do this.
    """
    settings = load_settings()
    _require_database(settings)
    from keyturn.bootstrap.break_glass import Rescue, break_glass

    issued = asyncio.run(break_glass(settings, Rescue(workspace, expires_in_seconds, output)))
    answer: dict[str, Any] = {
        "id": issued.token_id,
        "workspace": workspace,
        "output": None if output is None else str(output),
        "token": issued.token.reveal() if output is None else None,
    }
    emit(answer, as_json=as_json, human=_token_text)


def _require_database(settings: Settings) -> None:
    # Opening a SQLite file that is not there would make an empty one.
    if settings.database_url is None and not settings.sqlite_path.exists():
        message = f"there is no database at {settings.sqlite_path}"
        raise ConfigError(message, hint="set KEYTURN_DATA or KEYTURN_DATABASE_URL as the server has it")


def _require_root_key(settings: Settings, file: Path) -> None:
    """Fail before anything is created when the backup needs another root key, naming it."""
    from keyturn.storage.backup_format import Reader
    from keyturn.storage.kek import load_provider

    with Reader(file) as reader:
        reader.check_seal(load_provider(settings, create=False, wanted=reader.manifest.kek_ids))


def _backup_text(answer: dict[str, Any]) -> str:
    keys = " and ".join(answer["root_keys"]) or "none"
    return (
        f"{answer['rows']} rows written to {answer['output']} ({answer['bytes']} bytes)\n"
        f"it opens with root key {keys}, which is not in it: keep that in another place"
    )


def _restored_document(restored: Restored | None, settled: Settlement) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "servable": not settled.missing,
        "workspaces_without_revocations": settled.missing,
        "accepted_lost_revocations": settled.accepted,
        "reapplied": settled.reapplied,
        "known_until": settled.until,
        "look_at": settled.for_a_person,
        "operations_lost": settled.lost,
    }
    if restored is not None:
        manifest = restored.manifest
        answer["backup"] = {
            "created_at": manifest.created_at,
            "revision": manifest.revision,
            "root_keys": list(manifest.kek_ids),
            "rows": sum(part.rows for part in manifest.tables.values()),
            "sealed": restored.sealed,
        }
    return answer


def _restored_text(answer: dict[str, Any]) -> str:
    lines = []
    if "backup" in answer:
        made = answer["backup"]
        lines.append(f"restored {made['rows']} rows from the backup of {made['created_at']}")
        if not made["sealed"]:
            lines.append("warning: the backup carries no proof that it was made by a holder of the root key")
    lines.extend(f"done again: {count} x {action}" for action, count in sorted(answer["reapplied"].items()))
    lines.extend(_known(name, at) for name, at in answer["known_until"].items())
    lines.extend(f"look at: {cell(one)}" for one in answer["look_at"])
    if answer["operations_lost"]:
        lines.append(f"{answer['operations_lost']} other operations since the backup are lost")
    if answer["servable"]:
        lines.append("the database may be served: start it with `keyturn serve`")
    else:
        names = ", ".join(answer["workspaces_without_revocations"])
        again = "keyturn restore"
        lines += [
            f"the database may NOT be served yet: revocations made since the backup may be missing in {names}",
            f"next: `{again} --revocations EXPORT.jsonl` for each, or `{again} --accept-lost-revocations`",
        ]
    return "\n".join(lines)


def _known(name: str, until: str) -> str:
    if until:
        return f"workspace {name}: revocations are known until {until}"
    return f"warning: workspace {name}: its export holds nothing newer than the backup; was it made after the backup?"


def _token_text(answer: dict[str, Any]) -> str:
    if answer["token"] is not None:
        return str(answer["token"])
    return f"token {answer['id']} written to {answer['output']}"

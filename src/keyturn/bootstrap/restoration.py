"""Back up an installation and restore it, so that no revocation is undone unnoticed.

back_up    database -> one file
restore    migrate an empty database -> load -> settle
settle     every workspace: its audit export is verified against the key and the checkpoint in the backup, and what
was taken away since is taken away again; or the operator accepts in so many words that it is lost
-> only then may the database be served
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from keyturn.audit import checkpoint, export_lines
from keyturn.audit.leaf import SYSTEM, Detail, Leaf
from keyturn.audit.signing import presented_key
from keyturn.audit.tree import read_checkpoint
from keyturn.audit.verification import verify_export
from keyturn.bootstrap.reapplication import Plan, plan, reapply
from keyturn.errors import ConfigError, IntegrityError
from keyturn.kernel.clock import Clock
from keyturn.storage.backup import RESTORED_SEQ, allow_serving, dump, load, serving_is_refused
from keyturn.storage.backup_format import Reader
from keyturn.storage.engine import make_database
from keyturn.storage.kek import load_provider
from keyturn.storage.keyring import Keyring, wanted_keks
from keyturn.storage.migrate import migrate_async, require_current
from keyturn.storage.schema import fact, workspace
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.vault.wrap_store import end_all
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from keyturn.bootstrap.reapplication import Taken
    from keyturn.config import Settings
    from keyturn.storage.backup import Restored
    from keyturn.storage.backup_format import Manifest
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

UNIT_SIZE: Final = 200


@dataclass(slots=True)
class Settlement:
    """What became of the revocations made since the backup."""

    accepted: bool = False
    """The operator accepted that they are lost."""
    reapplied: dict[str, int] = field(default_factory=dict)
    """How many of each action were done again."""
    for_a_person: list[str] = field(default_factory=list)
    """What restricted something and could not be done again: look at each."""
    lost: int = 0
    until: dict[str, str] = field(default_factory=dict)
    """Of each workspace, the time of the last leaf of its export: what was revoked later is not known."""
    missing: list[str] = field(default_factory=list)
    """Workspaces without an export; while there are any, the database is not served."""


async def back_up(settings: Settings, target: Path) -> Manifest:
    """Write a backup of the settings' database to a new file; the server may be running.

    Raises KekError, ConfigError, ConflictError or StorageError; there is no file then.
    """
    async with _opened(settings) as (database, keyring):
        return await dump(database, target, keyring.provider)


async def restore(
    settings: Settings, source: Path, exports: Sequence[Path] = (), *, accept_lost_revocations: bool = False
) -> tuple[Restored, Settlement]:
    """Load a backup into the settings' database, which is created if need be and must hold nothing, and settle it.

    Raises KekError, ConfigError, ConflictError, IntegrityError or StorageError; if `settle` failed, the backup is
    loaded and refuses to be served, and `settle_restored` goes on from there.
    """
    await migrate_async(settings)
    with Reader(source) as reader:
        provider = load_provider(settings, create=False, wanted=reader.manifest.kek_ids)
    database = make_database(settings, Clock())
    await database.open()
    try:
        restored = await load(database, source, provider)
    finally:
        await database.close()
    return restored, await settle_restored(settings, exports, accept_lost_revocations=accept_lost_revocations)


async def settle_restored(
    settings: Settings, exports: Sequence[Path] = (), *, accept_lost_revocations: bool = False
) -> Settlement:
    """Settle a database that was restored before; harmless when it is settled already."""
    async with _opened(settings) as (database, keyring):
        return await settle(database, keyring, exports, accept_lost_revocations=accept_lost_revocations)


async def settle(
    database: Database, keyring: Keyring, exports: Sequence[Path], *, accept_lost_revocations: bool = False
) -> Settlement:
    """Do again what the exports say, and allow the database to be served when every workspace is accounted for.

    Raises IntegrityError for an export that does not verify, InputError for a file that is none.
    """
    settlement = Settlement(accepted=accept_lost_revocations)
    if await database.read(serving_is_refused) is None:
        return settlement
    names, after_seq = await database.read(_restored_state)
    plans = {}
    for path in exports:
        workspace_id, found = await _verified(database, keyring, path, after_seq)
        if workspace_id is not None and workspace_id in names:
            plans[workspace_id] = found
    for workspace_id, found in plans.items():
        await _reapply_all(database, workspace_id, found, settlement)
        settlement.until[names[workspace_id]] = found.until
    settlement.missing = sorted(names[workspace_id] for workspace_id in names if workspace_id not in plans)
    if accept_lost_revocations:
        settlement.missing = []
    if not settlement.missing:
        await database.write(lambda transaction: _conclude(transaction, names, settlement))
    return settlement


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Database, Keyring]]:
    database = make_database(settings, Clock())
    await database.open()
    try:
        await database.read(require_current)
        wanted = await database.read(wanted_keks)
        keyring = Keyring(load_provider(settings, create=False, wanted=wanted))
        await database.read(keyring.check)
        yield database, keyring
    finally:
        await database.close()


def _restored_state(connection: Connection) -> tuple[dict[str, str], int]:
    names = {row.id: row.name for row in connection.execute(select(workspace.c.id, workspace.c.name)).all()}
    found = connection.execute(select(fact.c.value).where(fact.c.name == RESTORED_SEQ)).scalar_one_or_none()
    if found is None:
        raise ConfigError("the database refuses to be served, and was not restored", hint="run `keyturn doctor`")
    return names, int(found)


async def _verified(database: Database, keyring: Keyring, path: Path, after_seq: int) -> tuple[str | None, Plan]:
    """Verify one export against the restored log, and read it; the workspace is None when it is not in the backup."""
    header = await asyncio.to_thread(_header, path)
    workspace_id = header.workspace or ""

    def look(connection: Connection) -> tuple[str | None, str | None, int]:
        key = presented_key(connection, keyring, workspace_id)
        newest = read_checkpoint(connection, workspace_id)
        size = 0 if newest is None else newest.size
        verifier_key = None if key is None else checkpoint.verifier_key(workspace_id, key)
        return verifier_key, None if newest is None else newest.note, size

    verifier_key, note, size = await database.read(look)
    if verifier_key is None:
        return None, Plan()
    if (header.first or 0) > size:
        message = f"the export {path} begins at leaf {header.first}, after the {size} leaves of the backup"
        raise IntegrityError(message, hint="give an export of everything")
    return workspace_id, await asyncio.to_thread(_read_verified, path, verifier_key, note, after_seq)


def _header(path: Path) -> export_lines.Line:
    try:
        with path.open("rb") as lines:
            return export_lines.decode(lines.readline())
    except OSError as error:
        raise ConfigError(f"the export {path} cannot be read", internal=type(error).__name__) from error
    except ValueError as error:
        raise IntegrityError(f"{path} is not an audit export") from error


def _read_verified(path: Path, verifier_key: str, note: str | None, after_seq: int) -> Plan:
    with path.open("rb") as lines:
        report = verify_export(lines, verifier_key, witnesses=[] if note is None else [note])
    if not report.ok:
        found = report.findings[0]
        message = f"the export {path} does not verify: {found.message}"
        raise IntegrityError(message, hint="see `keyturn audit verify`; use an export that verifies")
    with path.open("rb") as lines:
        return plan(lines, after_seq)


async def _reapply_all(database: Database, workspace_id: str, found: Plan, settlement: Settlement) -> None:
    settlement.for_a_person += found.for_a_person
    settlement.lost += found.lost
    for start in range(0, len(found.taken), UNIT_SIZE):
        unit = partial(_reapply_some, workspace_id, found.taken[start : start + UNIT_SIZE])
        for action in (await database.write(unit)).value:
            settlement.reapplied[action] = settlement.reapplied.get(action, 0) + 1


def _reapply_some(workspace_id: str, some: Sequence[Taken], transaction: Transaction) -> list[str]:
    done = []
    for taken in some:
        entry = reapply(transaction.connection, workspace_id, taken, transaction.now)
        if entry is not None:
            transaction.append(entry)
            done.append(str(taken.action))
    return done


def _conclude(transaction: Transaction, names: dict[str, str], settlement: Settlement) -> None:
    allow_serving(transaction.connection)
    for workspace_id, name in names.items():
        detail: dict[str, Detail] = {"revocations": "lost" if name not in settlement.until else "reapplied"}
        if name in settlement.until:
            detail["until"] = settlement.until[name]
        else:
            # Which were opened since is not known, and none is opened twice.
            detail["ended_wraps"] = end_all(transaction.connection, workspace_id)
        leaf = Leaf(
            workspace=workspace_id,
            action=Action.SYSTEM_RESTORE,
            outcome="allowed",
            actor=SYSTEM,
            resource=f"workspace/{name}",
            at=transaction.now,
            detail=detail,
        )
        transaction.append(Entry(workspace_id, ChangeKind.AUDIT, "", leaf.row()))

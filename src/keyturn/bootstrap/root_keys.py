"""Root keys and workspace keys: what wires them, the rotation by age, and what is done beside a running server.

    status      which root keys the settings give, and what is wrapped under each
    rotate      make a root key that seals from now on, where the provider keeps its keys in a file
    retire      mark a root key that nothing is wrapped under, then take it out of that file

The order of a retirement is such that a kill leaves no data behind: the mark is committed first, and from then on no
server wraps anything under that root key, whatever its file says.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import func, insert, select

from keyturn.access.audit_keys import AuditKeyService
from keyturn.access.root_keys import RootKeyService, census, retired_keys, root_key_resource
from keyturn.access.workspace_keys import WorkspaceKeyService, workspace_key_resource
from keyturn.audit.leaf import SYSTEM, Leaf
from keyturn.bootstrap.preparation import open_database
from keyturn.errors import ConfigError, ConflictError, not_found
from keyturn.kernel.clock import Clock
from keyturn.storage import election
from keyturn.storage.kek import load_provider
from keyturn.storage.keyring import OPEN, RETIRED, Keyring, wanted_keks
from keyturn.storage.migrate import require_current
from keyturn.storage.schema import fact, workspace, workspace_key
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Connection

    from keyturn.access.door import Door
    from keyturn.config import Settings
    from keyturn.storage.database import Database
    from keyturn.storage.kek import RootKeys, Wrapped
    from keyturn.storage.transaction import Transaction

ELECTION: Final = "workspace_keys"
LEASE_SECONDS: Final = 600.0
LOOK_EVERY_SECONDS: Final = 3600.0
DAY_SECONDS: Final = 86400.0

_log = structlog.get_logger("keyturn")


@dataclass(frozen=True, slots=True)
class RootKeyParts:
    """The services of the keys that the server itself needs."""

    root_keys: RootKeyService
    workspace_keys: WorkspaceKeyService
    audit_keys: AuditKeyService

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {
            "root_keys": self.root_keys,
            "workspace_keys": self.workspace_keys,
            "audit_keys": self.audit_keys,
        }


def open_root_keys(door: Door, keyring: Keyring) -> RootKeyParts:
    """Wire the services."""
    return RootKeyParts(
        RootKeyService(door, keyring), WorkspaceKeyService(door, keyring), AuditKeyService(door, keyring)
    )


async def rotate_aged(database: Database, keyring: Keyring, node: str, days: int) -> int:
    """Give every workspace whose newest key is older than `days` a new one; return how many, 0 days means none.

    One worker does it, elected; a second one finds nothing left to do.  Raises as `Keyring.create_workspace_key`.
    """
    if not days:
        return 0
    stood = await database.write(lambda t: election.stand(t.connection, ELECTION, node, LEASE_SECONDS, t.now))
    if not stood.value:
        return 0
    before = database.clock.now() - days * DAY_SECONDS
    aged = await database.read(lambda connection: _aged(connection, before))
    for workspace_id, _ in aged:
        made = await asyncio.to_thread(keyring.wrapped_key)
        await database.write(lambda t, w=workspace_id, m=made: _rotate(t, keyring, w, before, m))  # type: ignore[misc]
    if aged:
        _log.info("workspace keys rotated by age", workspaces=len(aged))
    return len(aged)


@dataclass(frozen=True, slots=True)
class RootKeyStatus:
    """One root key as the settings and the database have it."""

    id: str
    seals: bool
    given: bool
    retired: bool
    workspace_keys: int


async def root_key_status(settings: Settings) -> list[RootKeyStatus]:
    """Tell which root keys the settings give and the data wants, the one that seals first.

    Raises KekError when the settings give none, or ConfigError or StorageError for the database.
    """
    async with _database(settings) as database:
        wanted = await database.read(wanted_keks)
        provider = load_provider(settings, create=False, wanted=wanted)
        return await database.read(lambda connection: _status(connection, provider))


async def add_root_key(settings: Settings) -> str:
    """Make a root key that seals from now on, and return its id; servers on this machine follow.

    Raises KekError where root keys are not kept in a file of Keyturn's, saying what to do instead.
    """
    async with _database(settings) as database:
        provider = load_provider(settings, create=False, wanted=await database.read(wanted_keks))
        await database.read(Keyring(provider).check)

        def unit(transaction: Transaction) -> str:
            kek_id = provider.add()
            _record(transaction, kek_id, "add")
            return kek_id

        return (await database.write(unit)).value


async def retire_root_key(settings: Settings, kek_id: str, keep: Path | None) -> bool:
    """Retire a root key that nothing is wrapped under; return whether it was in a file here, and is removed from it.

    `keep` is a new file that it is written to first, for the sake of backups.  May be repeated after a kill.
    Raises ConflictError while workspace keys are wrapped under it or it seals, NotFoundError for an unknown one.
    """
    async with _database(settings) as database:
        provider = load_provider(settings, create=False, wanted=await database.read(wanted_keks))
        await database.write(lambda transaction: _retire(transaction, provider, kek_id))
        return await asyncio.to_thread(provider.take, kek_id, keep)


def _retire(transaction: Transaction, provider: RootKeys, kek_id: str) -> None:
    connection = transaction.connection
    already = kek_id in retired_keys(connection)
    wrapped = census(connection).get(kek_id, 0)
    if kek_id not in provider.ids and not already and not wrapped:
        raise not_found("root key", kek_id)
    if kek_id == provider.id:
        message = f"root key {kek_id} is the one that seals"
        raise ConflictError(message, hint="make a newer one with `keyturn root-key rotate`, and rewrap")
    if wrapped:
        message = f"{wrapped} workspace keys are wrapped under root key {kek_id}"
        raise ConflictError(message, code="root_key_in_use", hint="run `keyturn root-key rewrap`, then try again")
    if not already:
        connection.execute(insert(fact).values(name=f"{RETIRED}{kek_id}", value=kek_id))
        _record(transaction, kek_id, "retire")


def _status(connection: Connection, provider: RootKeys) -> list[RootKeyStatus]:
    counted, retired = census(connection), retired_keys(connection)
    return [
        RootKeyStatus(kek_id, kek_id == provider.id, kek_id in provider.ids, kek_id in retired, counted.get(kek_id, 0))
        for kek_id in dict.fromkeys([*provider.ids, *counted])
    ]


def _aged(connection: Connection, before: float) -> list[tuple[str, float]]:
    newest = func.max(workspace_key.c.created_at)
    rows = connection.execute(
        select(workspace_key.c.workspace, newest)
        .where(workspace_key.c.state == OPEN)
        .group_by(workspace_key.c.workspace)
        .having(newest < before)
    ).all()
    return [(row[0], row[1]) for row in rows]


def _rotate(transaction: Transaction, keyring: Keyring, workspace_id: str, before: float, made: Wrapped) -> None:
    if workspace_id not in {found for found, _ in _aged(transaction.connection, before)}:
        return  # another worker was first
    key_id = keyring.create_workspace_key(transaction.connection, workspace_id, transaction.now, made)
    leaf = Leaf(
        workspace=workspace_id,
        action=Action.WORKSPACE_KEY_ROTATE,
        outcome="allowed",
        actor=SYSTEM,
        resource=workspace_key_resource(key_id).name,
        at=transaction.now,
        detail={"root_key": made.kek_id, "reason": "age"},
    )
    transaction.append(Entry(workspace_id, ChangeKind.WORKSPACE_KEY, key_id, leaf.row()))


def _record(transaction: Transaction, kek_id: str, what: str) -> None:
    """Leave a leaf in every workspace: each of them depends on the root key."""
    for row in transaction.connection.execute(select(workspace.c.id).order_by(workspace.c.id)).all():
        leaf = Leaf(
            workspace=row.id,
            action=Action.SYSTEM_ROOT_KEY,
            outcome="allowed",
            actor=SYSTEM,
            resource=root_key_resource(kek_id).name,
            at=transaction.now,
            detail={"change": what, "root_key": kek_id},
        )
        transaction.append(Entry(row.id, ChangeKind.AUDIT, "", leaf.row()))


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    if settings.database_url is None and not settings.sqlite_path.exists():
        # Opening a SQLite file that is not there would make an empty one.
        message = f"there is no database at {settings.sqlite_path}"
        raise ConfigError(message, hint="set KEYTURN_DATA or KEYTURN_DATABASE_URL as the server has it")
    database = open_database(settings, Clock())
    await database.open()
    try:
        await database.read(require_current)
        yield database
    finally:
        await database.close()

"""Before the first worker starts: data folder, schema, root key, and the first start of an installation.

    no table at all      create them (either database)
    SQLite, older        migrate
    PostgreSQL, older    refuse: `keyturn migrate` is the operator's decision
    no workspace         found `default` with an administrator and write its token to $KEYTURN_DATA/admin-token

Nothing is created over data that exists: a missing root key is an error then.  Safe to run in several servers at
once on one PostgreSQL; one of them founds.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, inspect, select

from keyturn.access.founding import DEFAULT_WORKSPACE, found_workspace
from keyturn.audit.leaf import SYSTEM, Leaf
from keyturn.bootstrap.folder import create_folder
from keyturn.errors import ConfigError, ConflictError
from keyturn.kernel.clock import Clock, rfc3339
from keyturn.keys.authority import SystemTokens
from keyturn.storage.kek import load_provider
from keyturn.storage.keyring import Keyring, require_in_use, wanted_keks
from keyturn.storage.migrate import migrate, require_current
from keyturn.storage.schema import fact, workspace, workspace_key
from keyturn.storage.sqlite import SqliteDatabase
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from keyturn.config import Settings
    from keyturn.kernel.secret import Secret
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

TOKEN_NAME: Final = "admin-token"  # noqa: S105 -- the name of a file
SERVE_REFUSED: Final = "serve_refused"


@dataclass(frozen=True, slots=True)
class Preparation:
    """What was found or made."""

    first_start: bool
    token_path: Path


def open_database(settings: Settings, clock: Clock) -> Database:
    """Build the database the settings name; it is not opened yet."""
    url = settings.asyncpg_url
    if url is None:
        return SqliteDatabase(settings.sqlite_path, clock)
    # It brings SQLAlchemy's asyncio and mapper packages along, a quarter of the start-up time.
    from keyturn.storage.postgresql import PostgresqlDatabase

    return PostgresqlDatabase(url, clock)


def prepare(settings: Settings) -> Preparation:
    """Bring an installation to where a server can start; blocking.

    Raises ConfigError or KekError saying what to do, or StorageError when the database is out of reach.
    """
    create_folder(settings.data)
    if settings.asyncpg_url is None or asyncio.run(_is_empty(settings)):
        migrate(settings)
    return asyncio.run(_prepare(settings))


def require_servable(connection: Connection) -> None:
    """Refuse a database that a restore has left unconfirmed."""
    row = connection.execute(select(fact.c.value).where(fact.c.name == SERVE_REFUSED)).first()
    if row is not None and row.value:
        raise ConfigError(
            f"this database may not be served yet: {row.value}",
            code=SERVE_REFUSED,
            hint="see `keyturn restore --help`: give the revocations made since the backup, or confirm there were none",
        )


def is_refused(connection: Connection) -> bool:
    """Tell whether `require_servable` would refuse."""
    row = connection.execute(select(fact.c.value).where(fact.c.name == SERVE_REFUSED)).first()
    return row is not None and bool(row.value)


async def _is_empty(settings: Settings) -> bool:
    database = open_database(settings, Clock())
    await database.open()
    try:
        return not await database.read(lambda connection: inspect(connection).get_table_names())
    finally:
        await database.close()


async def _prepare(settings: Settings) -> Preparation:
    database = open_database(settings, Clock())
    await database.open()
    try:
        await database.read(require_current)
        await database.read(require_servable)
        has_data = await database.read(_has_data)
        wanted = await database.read(wanted_keks)
        root_keys = load_provider(settings, create=not has_data, wanted=wanted)
        keyring = Keyring(root_keys)
        await database.read(keyring.check)
        await database.read(lambda connection: require_in_use(connection, root_keys.id))
        await asyncio.to_thread(root_keys.prove)
        path = settings.data / TOKEN_NAME
        founded = await _found(database, keyring, path)
        if not founded:
            await database.read(keyring.check)
        return Preparation(founded, path)
    finally:
        await database.close()


def _has_data(connection: Connection) -> bool:
    return any(connection.execute(select(table.c.id).limit(1)).first() for table in (workspace, workspace_key))


async def _found(database: Database, keyring: Keyring, path: Path) -> bool:
    def unit(transaction: Transaction) -> bool:
        connection = transaction.connection
        if connection.execute(select(workspace.c.id).limit(1)).first() is not None:
            return False
        tokens = SystemTokens(keyring)
        founded = found_workspace(transaction, tokens, tokens, name=DEFAULT_WORKSPACE, created_by=SYSTEM.id)
        leaf = Leaf(
            workspace=founded.workspace.id,
            action=Action.SYSTEM_BOOTSTRAP,
            outcome="allowed",
            actor=SYSTEM,
            resource=f"workspace/{founded.workspace.name}",
            at=transaction.now,
            detail={"principal": founded.principal.id, "token": founded.token.token_id},
        )
        transaction.append(Entry(founded.workspace.id, ChangeKind.WORKSPACE, founded.workspace.id, leaf.row()))
        connection.execute(insert(fact).values(name="created_at", value=rfc3339(transaction.now)))
        # Before COMMIT: a crash in between leaves a token that opens nothing, never an installation without one.
        write_token(path, founded.token.token)
        return True

    try:
        return (await database.write(unit)).value
    except ConflictError:
        return False  # another server was first


def write_token(path: Path, token: Secret) -> None:
    """Write a token to a file that only its owner may read, replacing what is there."""
    waiting = path.with_name(f"{path.name}.{os.getpid()}")
    waiting.unlink(missing_ok=True)
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token.reveal() + "\n")
        file.flush()
        os.fsync(file.fileno())
    waiting.replace(path)

"""Back up a database while it serves, and load a backup into an empty one, on either engine.

    dump    one snapshot of every table -> a new private file, complete or not there at all
    load    check root key, revision and that the target is empty -> every row and hash -> a new log -> COMMIT
            the database then refuses to serve until the revocations made since are re-applied, or given up

Nodes and elections are not backed up, and neither are the sealed responses of idempotent requests.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, insert, null, select

from keyturn.errors import ConfigError, ConflictError, IntegrityError
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.secret import random_base62
from keyturn.storage.backup_format import Manifest, Reader, Writer
from keyturn.storage.change_log import read_head, start_log
from keyturn.storage.keyring import Keyring, wanted_keks
from keyturn.storage.migrate import HEAD_REVISION, current_revision
from keyturn.storage.schema import change_head, election, fact, idempotency, metadata, node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Table

    from keyturn.storage.database import Database
    from keyturn.storage.kek import KekProvider

SERVE_REFUSED: Final = "serve_refused"
"""The fact that keeps a restored database from being served; its value is the reason."""

RESTORED_SEQ: Final = "restored_seq"
"""The fact that says up to which number of the log the last restored backup went."""

LOST_REVOCATIONS: Final = "it was restored from a backup, and revocations made since may be missing"

DUMP_SECONDS: Final = 6 * 3600.0
PAGE: Final = 1000
_LEFT_OUT: Final = frozenset({node.name, election.name})


@dataclass(frozen=True, slots=True)
class Restored:
    """What was loaded."""

    manifest: Manifest
    sealed: bool
    """Whether the backup proved that it was made by a holder of the root key."""
    log_id: str


async def dump(database: Database, target: Path, provider: KekProvider | None = None) -> Manifest:
    """Write everything to a new file of mode 0600; on any error there is no file.

    With `provider` the backup is sealed, so that nobody without the root key can make or alter one unnoticed.
    Raises ConflictError when the file exists, ConfigError when it cannot be written, StorageError.
    """
    waiting = _waiting(target)
    created_at = rfc3339(database.clock.now())
    try:
        manifest = await database.read(
            lambda connection: _dump(connection, waiting, provider, created_at), within_seconds=DUMP_SECONDS
        )
        _put_in_place(waiting, target)
    finally:
        waiting.unlink(missing_ok=True)
    return manifest


async def load(database: Database, source: Path, provider: KekProvider) -> Restored:
    """Load a backup into a migrated, empty database; nothing is changed on any error.

    Afterwards the fact `serve_refused` is set; see `accept_lost_revocations`, and `keyturn.bootstrap.restoration`.
    Raises KekError naming the root key that is wanted, IntegrityError for an altered file, ConflictError when the
    target holds data, ConfigError when the revisions differ or the file cannot be read.
    """
    with Reader(source) as reader:
        sealed = reader.check_seal(provider)
        now = database.clock.now()
        log_id = await database.maintain(lambda connection: _load(connection, reader, provider, now))
        return Restored(reader.manifest, sealed, log_id)


def serving_is_refused(connection: Connection) -> str | None:
    """Return why the database may not be served, None when it may."""
    row = connection.execute(select(fact.c.value).where(fact.c.name == SERVE_REFUSED)).first()
    return None if row is None else row.value


def allow_serving(connection: Connection) -> None:
    """Let a restored database be served; the caller records why."""
    connection.execute(delete(fact).where(fact.c.name == SERVE_REFUSED))


def _waiting(target: Path) -> Path:
    if target.exists():
        raise _exists(target)
    return target.with_name(f".{target.name}.{random_base62(8)}")


def _put_in_place(waiting: Path, target: Path) -> None:
    try:
        os.link(waiting, target)  # unlike a rename it never overwrites
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError as error:
        raise _unwritable(target.parent, error) from error


def _dump(connection: Connection, path: Path, provider: KekProvider | None, created_at: str) -> Manifest:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            manifest = _write(connection, file, provider, created_at)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    return manifest


def _write(connection: Connection, file: IO[bytes], provider: KekProvider | None, created_at: str) -> Manifest:
    with Writer(file) as writer:
        head = read_head(connection)
        for table in _tables():
            writer.table(table, _rows(connection, table))
        return writer.finish(
            provider,
            created_at=created_at,
            revision=current_revision(connection) or "",
            kek_ids=tuple(dict.fromkeys([*wanted_keks(connection), *([] if provider is None else [provider.id])])),
            log_id=head.log_id,
            seq=head.seq,
        )


def _rows(connection: Connection, table: Table) -> Iterator[Any]:
    columns = [null().label(column.name) if column is idempotency.c.response else column for column in table.columns]
    wanted = select(*columns).order_by(*table.primary_key.columns)
    yield from connection.execution_options(yield_per=PAGE).execute(wanted)


def _load(connection: Connection, reader: Reader, provider: KekProvider, now: float) -> str:
    manifest = reader.manifest
    revision = current_revision(connection)
    if revision != manifest.revision:
        message = f"the backup has schema revision {manifest.revision}, the database {revision or 'none'}"
        hint = "restore with the release that made the backup, then migrate"
        raise ConfigError(message, hint="run `keyturn migrate`" if revision != HEAD_REVISION else hint)
    tables = list(_tables())
    if set(manifest.tables) != {table.name for table in tables}:
        raise IntegrityError("the backup was altered: its tables are not those of its revision")
    _require_empty(connection, tables)
    connection.execute(delete(change_head))
    for table in tables:
        if sorted(manifest.tables[table.name].columns) != sorted(column.name for column in table.columns):
            raise IntegrityError(f"the backup was altered: the columns of {table.name} are not those of its revision")
        rows = reader.rows(table)
        while page := list(islice(rows, PAGE)):
            connection.execute(insert(table), page)
    Keyring(provider).check(connection)
    if read_head(connection).seq != manifest.seq:
        raise IntegrityError("the backup was altered: its log does not end where the manifest says")
    connection.execute(delete(fact).where(fact.c.name.in_([SERVE_REFUSED, RESTORED_SEQ])))
    connection.execute(
        insert(fact),
        [
            {"name": SERVE_REFUSED, "value": LOST_REVOCATIONS},
            {"name": RESTORED_SEQ, "value": str(manifest.seq)},
        ],
    )
    for table in (node, election):
        connection.execute(delete(table))
    return start_log(connection, now).log_id


def _require_empty(connection: Connection, tables: list[Table]) -> None:
    found = [
        table.name
        for table in tables
        if table is not change_head and connection.execute(select(func.count()).select_from(table)).scalar_one()
    ]
    if found or read_head(connection).seq:
        message = f"the database holds data already ({', '.join(found) or 'a change log'})"
        raise ConflictError(message, hint="restore into a new, migrated, empty database")


def _tables() -> Iterator[Table]:
    return (table for table in metadata.sorted_tables if table.name not in _LEFT_OUT)


def _exists(target: Path) -> ConflictError:
    return ConflictError(f"{target} exists already", hint="name a file that does not exist; none is overwritten")


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    reason = error.strerror or type(error).__name__
    return ConfigError(f"the backup cannot be written in {folder}: {reason}", hint="check its owner, mode and space")

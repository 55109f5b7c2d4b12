"""What can be told of an installation from its own files and database, for `keyturn doctor`.

    serving rules -> data folder -> disk -> lock -> limit store -> database -> schema -> root key -> restore -> writes
                  -> file (SQLite) -> clock -> nodes -> audit -> quotas -> checkpoint sink

Every finding says what was looked at, how it is, and what to do next.  Nothing is created or changed, and no finding
holds a secret.  A check that cannot be made because of a fault before it is left out.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import stat
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import func, select, text

from keyturn.audit.sinks import open_sink
from keyturn.bootstrap.balances import wrong_balances
from keyturn.bootstrap.folder import LOCK_NAME
from keyturn.bootstrap.preparation import TOKEN_NAME
from keyturn.errors import ConfigError, KeyturnError
from keyturn.kernel.clock import Clock, wall
from keyturn.storage import nodes
from keyturn.storage.backup import serving_is_refused
from keyturn.storage.change_log import read_head
from keyturn.storage.engine import make_database
from keyturn.storage.kek import load_provider
from keyturn.storage.keyring import Keyring, require_in_use, wanted_keks
from keyturn.storage.migrate import HEAD_REVISION, current_revision, require_current
from keyturn.storage.schema import audit_leaf, audit_tree, usage_loss
from keyturn.usage.tally import left_behind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from keyturn.config import Settings
    from keyturn.storage.database import Database

OTHERS: Final = 0o077
FREE_BYTES_MIN: Final = 64 * 2**20
FREE_BYTES_LOW: Final = 512 * 2**20
WAL_BYTES_MAX: Final = 256 * 2**20
CLOCK_SECONDS_MAX: Final = 2.0
NODE_SECONDS_MAX: Final = 60.0
NODE_BEHIND_MAX: Final = 1000
UNBUILT_SECONDS_MAX: Final = 30.0
USAGE_LOSS_SECONDS: Final = 7 * 86_400.0
QUOTAS_SECONDS: Final = 300.0
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: Literal["ok", "warn", "fault"]
    detail: str
    next: str | None = None


def look(settings: Settings) -> list[Finding]:
    """Look at everything that is on this machine or behind its database address; blocking."""
    found = [_serving(settings), *_folder(settings), *_sink(settings), *_limit_store(settings)]
    if settings.database_url is None and not settings.sqlite_path.exists():
        detail = f"there is no database at {settings.sqlite_path}"
        hint = "`keyturn serve` makes it; if there should be one, set KEYTURN_DATA as the server has it"
        return [*found, Finding("database", "warn", detail, hint)]
    return [*found, *asyncio.run(_database(settings))]


def fault(check: str, error: KeyturnError) -> Finding:
    """Turn an error into a finding."""
    return Finding(check, "fault", error.message, error.hint)


def _serving(settings: Settings) -> Finding:
    from keyturn.http.serve import check_tls

    try:
        settings.check_serving()
        check_tls(settings)
    except ConfigError as error:
        return fault("serving", error)
    if settings.serves_tls:
        return Finding("serving", "ok", f"{settings.host} with TLS")
    if settings.tls == "terminated":
        return Finding("serving", "ok", f"{settings.host} behind a proxy that terminates TLS")
    return Finding("serving", "ok", f"{settings.host}, reachable from this machine only")


def _folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data
    if not folder.is_dir():
        yield Finding(
            "data_folder", "warn", f"there is no data folder {folder}", "run this where the server runs, as it does"
        )
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data_folder", "fault", f"{folder} cannot be written by this user", "check its owner and mode")
        return
    if _mode(folder) & OTHERS:
        yield Finding("data_folder", "warn", f"{folder} can be entered by others", f"chmod 700 {folder}")
    else:
        yield Finding("data_folder", "ok", f"{folder}")
    for name in (TOKEN_NAME, settings.sqlite_path.name):
        path = folder / name
        if path.exists() and _mode(path) & OTHERS:
            yield Finding("data_folder", "fault", f"{path} can be read by others", f"chmod 600 {path}")
    yield _disk(folder)
    if settings.database_url is None:
        yield _lock(folder / LOCK_NAME)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    said = f"{free // MIB} MiB are free on the volume of {folder}"
    if free < FREE_BYTES_MIN:
        return Finding("disk", "fault", said, "free space; writes are refused when it is full")
    if free < FREE_BYTES_LOW:
        return Finding("disk", "warn", said, "free space before it is full")
    return Finding("disk", "ok", said)


def _lock(path: Path) -> Finding:
    if not path.exists():
        return Finding("lock", "ok", "no server runs on this folder")
    with path.open("rb") as file:
        try:
            # Shared and at once let go of: a server that starts in this instant is the only one to notice.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            holder = file.read(32).decode("ascii", "replace").strip() or "unknown"
            return Finding("lock", "ok", f"a server runs on this folder (pid {holder})")
    return Finding("lock", "ok", "no server runs on this folder")


def _sink(settings: Settings) -> Iterator[Finding]:
    setting = settings.checkpoint_sink
    if not setting:
        hint = "set KEYTURN_CHECKPOINT_SINK, so that whoever has the database alone cannot rewrite history"
        yield Finding("checkpoint_sink", "ok", f"none; {hint}")
        return
    try:
        sink = open_sink(setting)
    except ConfigError as error:
        yield fault("checkpoint_sink", error)
        return
    if sink is None or "://" in setting:
        yield Finding("checkpoint_sink", "ok", "an https address; it is not called from here")
        return
    from pathlib import Path

    path = Path(setting)
    target = path if path.exists() else path.parent
    if os.access(target, os.W_OK):
        yield Finding("checkpoint_sink", "ok", f"{path}")
    else:
        yield Finding("checkpoint_sink", "fault", f"{target} cannot be written by this user", "check owner and mode")


def _limit_store(settings: Settings) -> Iterator[Finding]:
    if settings.valkey_url is None:
        return
    from keyturn.storage.valkey_probe import probe_store

    try:
        found = asyncio.run(probe_store(settings.valkey_url))
    except ConfigError as error:
        yield fault("limit_store", error)
        return
    if found.reason is not None:
        hint = "check that it runs, and KEYTURN_VALKEY_URL; until then each limit's on_store_error decides"
        yield Finding("limit_store", "fault", f"Valkey does not answer: {found.reason}", hint)
    elif found.evicts is not None:
        said = f"Valkey may drop counters when its memory is full (maxmemory-policy {found.evicts})"
        yield Finding("limit_store", "warn", said, "set maxmemory-policy to noeviction, and give it a store of its own")
    else:
        yield Finding("limit_store", "ok", "Valkey answers and counts")


def _sharing(settings: Settings, connection: Connection) -> list[Finding]:
    at = nodes.database_time(connection, wall())
    servers = [
        one
        for one in nodes.all_nodes(connection)
        if one.kind == nodes.SERVER and at - one.confirmed_at <= NODE_SECONDS_MAX
    ]
    if settings.valkey_url is not None or len(servers) < 2:
        return []
    said = (
        f"{len(servers)} workers share the database and count limits apart, so a limit is up to that many times as wide"
    )
    return [Finding("limits", "warn", said, "set KEYTURN_VALKEY_URL on each of them")]


async def _database(settings: Settings) -> list[Finding]:
    try:
        database = make_database(settings, Clock())
        await database.open()
    except KeyturnError as error:
        return [fault("database", error), _root_key_alone(settings)]
    found: list[Finding] = [Finding("database", "ok", f"{database.dialect} answers")]
    try:
        await _schema(settings, database, found)
    except KeyturnError as error:
        found.append(fault("database", error))
    finally:
        await database.close()
    return found


async def _schema(settings: Settings, database: Database, found: list[Finding]) -> None:
    try:
        await database.read(require_current)
    except ConfigError as error:
        found.append(fault("schema", error))
        return
    revision = await database.read(current_revision)
    if revision == HEAD_REVISION:
        found.append(Finding("schema", "ok", f"revision {revision}"))
    else:
        said = f"the schema is at revision {revision}, which is newer than this program ({HEAD_REVISION})"
        found.append(Finding("schema", "warn", said, "upgrade this program"))
    found.append(await _root_key(settings, database))
    refused = await database.read(serving_is_refused)
    if refused:
        hint = "`keyturn restore --revocations EXPORT.jsonl`, or `keyturn restore --accept-lost-revocations`"
        found.append(Finding("restore", "fault", f"this database may not be served yet: {refused}", hint))
    found.append(await _writes(database))
    if database.dialect == "sqlite":
        found.extend(await _file(settings, database))
    found.extend(await database.read(_time_and_nodes))
    found.extend(await database.read(partial(_sharing, settings)))
    found.append(await database.read(_audit))
    found.append(await database.read(partial(_usage, settings)))
    found.append(_quotas(await database.read(wrong_balances, within_seconds=QUOTAS_SECONDS)))


async def _root_key(settings: Settings, database: Database) -> Finding:
    wanted = await database.read(wanted_keks)
    try:
        provider = load_provider(settings, create=False, wanted=wanted)
        await database.read(Keyring(provider).check)
        await database.read(partial(_require_in_use, provider.id))
        await asyncio.to_thread(provider.prove)
    except KeyturnError as error:
        return fault("root_key", error)
    if not wanted:
        return Finding("root_key", "ok", f"{provider.id}, and nothing is sealed yet")
    others = [kek_id for kek_id in wanted if kek_id != provider.id]
    if others:
        said = f"{provider.id} seals, and there are workspace keys under {' and '.join(others)} still"
        return Finding("root_key", "warn", said, "run `keyturn root-key rewrap`, then retire the old one")
    return Finding("root_key", "ok", provider.id)


def _require_in_use(kek_id: str, connection: Connection) -> None:
    require_in_use(connection, kek_id)


def _root_key_alone(settings: Settings) -> Finding:
    # Which one is wanted, and whether any is before the first start, only the database could tell.
    try:
        provider = load_provider(settings, create=False)
    except KeyturnError as error:
        return Finding("root_key", "warn", error.message, error.hint)
    return Finding("root_key", "ok", f"{provider.id}; whether it is the right one, the database would have to tell")


async def _writes(database: Database) -> Finding:
    try:
        await database.write(lambda _transaction: None)
    except KeyturnError as error:
        return fault("writes", error)
    return Finding("writes", "ok", "the database takes writes")


async def _file(settings: Settings, database: Database) -> list[Finding]:
    log = settings.sqlite_path.with_name(f"{settings.sqlite_path.name}-wal")
    size = log.stat().st_size if log.exists() else 0
    said = f"the write-ahead log has {size // MIB} MiB"
    found = [Finding("wal", "ok", said)]
    if size > WAL_BYTES_MAX:
        found = [Finding("wal", "warn", said, "something reads for long, such as a backup; else restart the server")]
    first = await database.read(lambda connection: str(connection.execute(text("PRAGMA quick_check(1)")).scalar()))
    if first == "ok":
        return [*found, Finding("integrity", "ok", "the pages of the file fit together")]
    return [*found, Finding("integrity", "fault", "the database file is damaged", "restore it from a backup")]


def _time_and_nodes(connection: Connection) -> list[Finding]:
    at = nodes.database_time(connection, wall())
    apart = abs(at - wall())
    said = f"this machine and the database are {apart:.1f} s apart"
    found = [Finding("clock", "ok", said)]
    if apart > CLOCK_SECONDS_MAX:
        found = [Finding("clock", "warn", said, "keep both in step, for example with chrony")]
    head = read_head(connection)
    registered = nodes.all_nodes(connection)
    for node in registered:
        silent = at - node.confirmed_at
        if silent > NODE_SECONDS_MAX:
            said = f"{node.label} ({node.id}) has not confirmed for {silent:.0f} s; it answers nothing from memory"
            found.append(Finding("nodes", "warn", said, "look at that server; if it is gone, this passes in a day"))
        elif node.log_id == head.log_id and head.seq - node.applied > NODE_BEHIND_MAX:
            said = f"{node.label} ({node.id}) is {head.seq - node.applied} changes behind"
            found.append(Finding("nodes", "warn", said, "look at the load of that server and of the database"))
    if not any(one.check == "nodes" for one in found):
        found.append(Finding("nodes", "ok", f"{len(registered)} registered, none behind"))
    return found


def _quotas(wrong: str | None) -> Finding:
    if wrong is None:
        return Finding("quotas", "ok", "every balance adds up, to the unit")
    return Finding("quotas", "fault", wrong, "keep a backup of it as it is, and report this: it is a bug")


def _audit(connection: Connection) -> Finding:
    row = connection.execute(
        select(func.count().label("waiting"), func.min(audit_leaf.c.at).label("oldest"))
        .select_from(audit_leaf)
        .join(audit_tree, audit_tree.c.workspace == audit_leaf.c.workspace)
        .where(audit_leaf.c.seq > audit_tree.c.built_seq)
    ).one()
    waiting: int = row.waiting
    oldest: float | None = row.oldest
    if oldest is not None and oldest < nodes.database_time(connection, wall()) - UNBUILT_SECONDS_MAX:
        said = f"{waiting} audit leaves wait to be signed, the oldest for over {UNBUILT_SECONDS_MAX:.0f} s"
        return Finding("audit", "warn", said, "a running server signs them; if one runs, see its log")
    return Finding("audit", "ok", f"{waiting} audit leaves wait to be signed")


def _usage(settings: Settings, connection: Connection) -> Finding:
    """Tell what was counted and not written by servers that were killed."""
    waiting = left_behind(settings.data)
    if waiting:
        said = f"{waiting} servers were killed, and what they lost of usage is not on record yet"
        return Finding("usage", "warn", said, "the next start on this data folder puts it on record")
    since = nodes.database_time(connection, wall()) - USAGE_LOSS_SECONDS
    row = connection.execute(
        select(func.count().label("ends"), func.coalesce(func.sum(usage_loss.c.lost), 0).label("lost")).where(
            usage_loss.c["at"] >= since
        )
    ).one()
    if not row.ends:
        return Finding("usage", "ok", "no server has lost usage within a week")
    said = f"{row.ends} servers that were killed within a week have lost {row.lost} counted verifications"
    return Finding("usage", "warn", said, "`keyturn usage losses` names them; stop servers by SIGTERM")

"""Drivers' exceptions, turned into ours once: nothing above storage sees a driver's error.

    says what is wrong          SQLSTATE, or SQLite's result code          becomes
    full, locked, read-only ..  the tables below                           StorageError with a code of its own
    a name or id is taken       23505, SQLITE_CONSTRAINT_UNIQUE            ConflictError
    a value cannot be stored    class 22, lone surrogates, too large int   InputError
    anything else of a driver                                              StorageError, or BrokenInvariantError

The texts never hold what a statement held; drivers put parameters into theirs, so theirs are not passed on.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from sqlalchemy import exc

from keyturn.errors import BrokenInvariantError, ConflictError, InputError, KeyturnError, StorageError


@dataclass(frozen=True, slots=True)
class _Fault:
    code: str
    message: str
    hint: str


_FULL = _Fault("storage_full", "the disk is full; nothing was written", "free space on the data volume")
_LOCKED = _Fault("storage_locked", "the database is locked by another process", "run `keyturn doctor`")
_READONLY = _Fault("storage_readonly", "the database is read-only", "check the file's owner and mode, or the replica")
_IO = _Fault("storage_io", "the disk reported an I/O error", "check the data volume")
_SCHEMA = _Fault("storage_schema", "the schema is older than the program", "run `keyturn migrate`")
_CORRUPT = _Fault("storage_corrupt", "the database file is damaged or is no database", "restore it from a backup")
_PATH = _Fault("storage_path", "the database file cannot be opened", "check the data folder, its owner and mode")
_SLOW = _Fault("storage_slow", "the database ended a statement or transaction that took too long", "try again")
_BUSY = _Fault("storage_busy", "the database accepts no more connections", "raise its limit or lower KEYTURN_WORKERS")
_REFUSED = _Fault("storage_refused", "the database refused the user or password", "check KEYTURN_DATABASE_URL")
_ABSENT = _Fault("storage_absent", "the server has no such database", "create it, or check KEYTURN_DATABASE_URL")
_AWAY = _Fault(
    "storage_unavailable",
    "the database did not answer",
    "check that it is running and reachable, then run `keyturn doctor`",
)
_UNKNOWN = _Fault(
    "storage_unknown",
    "the database went away while it was committing; the outcome is unknown",
    "read the state back before trying again",
)

# The longest prefix that fits counts.
_POSTGRESQL = {
    "08": _AWAY,
    "25006": _READONLY,
    "25P03": _SLOW,
    "28": _REFUSED,
    "3D000": _ABSENT,
    "40": _LOCKED,
    "42703": _SCHEMA,
    "42P01": _SCHEMA,
    "53100": _FULL,
    "53300": _BUSY,
    "55P03": _LOCKED,
    "57014": _SLOW,
    "57P": _AWAY,
    "58": _IO,
    "XX001": _CORRUPT,
    "XX002": _CORRUPT,
}
_SQLITE = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_CANTOPEN": _PATH,
    "SQLITE_CORRUPT": _CORRUPT,
    "SQLITE_FULL": _FULL,
    "SQLITE_IOERR": _IO,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_NOTADB": _CORRUPT,
    "SQLITE_PERM": _PATH,
    "SQLITE_READONLY": _READONLY,
}
_DUPLICATES = {"23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}
_CONNECTION_LOST = ("08", "57P")


def translate(error: BaseException, *, committing: bool = False) -> BaseException:
    """Turn a driver's exception into one of ours; ours and bugs pass through unchanged.

    `committing` says that COMMIT had been sent: if the connection was lost then, the outcome is unknown.
    """
    if isinstance(error, KeyturnError):
        return error
    origin = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    ours = _translated(error, origin, committing=committing)
    if ours is not error:
        ours.__cause__ = error
    return ours


def is_disconnect(error: BaseException) -> bool:
    """Tell whether a connection was lost, so that another one may do better."""
    if isinstance(error, exc.DBAPIError):
        return error.connection_invalidated
    return isinstance(error, ConnectionError)


def _translated(error: BaseException, origin: BaseException, *, committing: bool) -> BaseException:
    state = _state(origin)
    if isinstance(error, exc.IntegrityError):
        return _integrity(origin, state)
    if isinstance(origin, OverflowError | UnicodeEncodeError) or state.startswith("22"):
        return InputError("a value is too large, or of characters that cannot be stored", internal=_name(origin))
    if not _is_drivers(error):
        if isinstance(error, exc.SQLAlchemyError):
            return BrokenInvariantError("the database layer was used wrongly", internal=_name(error))
        return error
    fault = _fault(origin, state)
    if committing and (not state or state.startswith(_CONNECTION_LOST)) and not state.startswith("SQLITE"):
        fault = _UNKNOWN
    return StorageError(fault.message, code=fault.code, hint=fault.hint, internal=f"{_name(origin)} {state}".strip())


def _integrity(origin: BaseException, state: str) -> KeyturnError:
    if state in _DUPLICATES:
        return ConflictError("a row with the same unique name or id exists already", code="duplicate", internal=state)
    return BrokenInvariantError("a row broke a rule of the schema", internal=f"{_name(origin)} {state}".strip())


def _fault(origin: BaseException, state: str) -> _Fault:
    table = _SQLITE if state.startswith("SQLITE") else _POSTGRESQL
    for length in range(len(state), 1, -1):
        if state[:length] in table:
            return table[state[:length]]
    text = str(origin)
    if "no such table" in text or "no such column" in text or "has no column named" in text:
        return _SCHEMA
    return _AWAY


def _state(origin: BaseException) -> str:
    """Return the SQLSTATE or the name of SQLite's result code; empty when the error came from elsewhere."""
    for name in ("sqlstate", "sqlite_errorname"):
        found = getattr(origin, name, None)
        if isinstance(found, str):
            return found
    return ""


def _is_drivers(error: BaseException) -> bool:
    if isinstance(error, exc.DBAPIError | exc.TimeoutError | sqlite3.Error | OSError | TimeoutError):
        return True
    # Errors of a failed connect reach us unwrapped; asyncpg itself is not imported on SQLite.
    return type(error).__module__.startswith("asyncpg.")


def _name(error: BaseException) -> str:
    return type(error).__name__

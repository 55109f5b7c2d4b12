"""Drivers' exceptions, turned into ours once: nothing above storage sees a driver's error."""

from __future__ import annotations

import sqlite3

from sqlalchemy import exc

from keyturn.errors import BrokenInvariantError, ConflictError, KeyturnError, StorageError

_SYMPTOMS = (
    ("database or disk is full", "storage_full", "the disk is full", "free space on the data volume"),
    ("no space left", "storage_full", "the disk is full", "free space on the data volume"),
    ("database is locked", "storage_locked", "the database is locked by another process", "run `keyturn doctor`"),
    ("lock timeout", "storage_locked", "a lock was not granted in time", "run `keyturn doctor`"),
    ("readonly database", "storage_readonly", "the database is read-only", "check the file's owner and mode"),
    ("disk i/o error", "storage_io", "the disk reported an I/O error", "check the data volume"),
    ("no such table", "storage_schema", "the schema is older than the program", "run `keyturn migrate`"),
    ("does not exist", "storage_schema", "the schema is older than the program", "run `keyturn migrate`"),
)


def translate(error: BaseException) -> BaseException:
    """Turn a driver's exception into one of ours; ours and bugs pass through unchanged."""
    if isinstance(error, KeyturnError):
        return error
    if isinstance(error, exc.IntegrityError):
        return ConflictError(
            "a row with the same unique name or id exists already",
            code="duplicate",
            internal=type(error.orig).__name__,
        )
    if isinstance(error, exc.DBAPIError | sqlite3.Error | OSError | TimeoutError | exc.TimeoutError):
        return _storage_error(error)
    if isinstance(error, exc.SQLAlchemyError):
        wrapped = BrokenInvariantError("the database layer was used wrongly", internal=type(error).__name__)
        wrapped.__cause__ = error
        return wrapped
    return error


def _storage_error(error: BaseException) -> StorageError:
    origin = error.orig if isinstance(error, exc.DBAPIError) else error
    text = str(origin).lower()
    for symptom, code, message, hint in _SYMPTOMS:
        if symptom in text:
            return StorageError(message, code=code, hint=hint, internal=type(origin).__name__)
    return StorageError(
        "the database did not answer",
        hint="check that it is running and reachable, then run `keyturn doctor`",
        internal=f"{type(origin).__name__}: {text[:200]}",
    )

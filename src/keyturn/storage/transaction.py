"""The unit of work: state, audit leaf and change row together, or not at all."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from keyturn.errors import BrokenInvariantError, KeyturnError
from keyturn.storage.driver import execute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

T = TypeVar("T")

# As the driver takes them, and under one name: the same three statements for every unit.
_BEGIN_UNIT = "SAVEPOINT keyturn_unit"
_KEEP_UNIT = "RELEASE SAVEPOINT keyturn_unit"
_UNDO_UNIT = "ROLLBACK TO SAVEPOINT keyturn_unit"

TEXT_BYTES_MAX = 1000
"""Bound of every text of an entry, in UTF-8: a third of what an index row of PostgreSQL holds."""


class ChangeKind(StrEnum):
    """What a change row is about; followers read the entity's current state."""

    WORKSPACE = "workspace"
    PRINCIPAL = "principal"
    ROLE = "role"
    GRANT = "grant"
    KEYSPACE = "keyspace"
    KEY = "key"
    PLAN = "plan"
    OWNER = "owner"
    QUOTA = "quota"
    WEBHOOK = "webhook"
    SECRET = "secret"  # noqa: S105 -- the name of a kind
    GUARD = "guard"
    LOGIN = "login"
    CREDENTIAL = "credential"
    LEASE = "lease"
    FINDING = "finding"
    LEAK_POLICY = "leak_policy"
    LEAK_INTAKE = "leak_intake"
    DECOY = "decoy"
    WORKSPACE_KEY = "workspace_key"
    AUDIT = "audit"


class LeafRow(msgspec.Struct, frozen=True, gc=False):
    """An audit leaf ready to be stored: its exact bytes and the columns it can be found by."""

    id: str
    at: float
    action: str
    outcome: str
    actor: str
    resource: str
    body: bytes


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One row of the change log, with its audit leaf if it has one.

    `awaited` asks every node to confirm as soon as it has applied this entry.
    """

    workspace: str
    kind: ChangeKind
    entity: str
    leaf: LeafRow | None = None
    awaited: bool = False


@dataclass(slots=True)
class Transaction:
    """What a unit of work sees: a connection inside a transaction, the time, and a place for its entries.

    `before` are the entries of the units that ran before it in the same transaction; they have no number yet.
    `shared` is one for all units of the transaction: what one leaves there, under a key of its own, is there for those
    after it, also when that unit was undone.
    """

    connection: Connection
    now: float
    entries: list[Entry] = field(default_factory=list)
    before: Sequence[Entry] = ()
    shared: dict[object, object] = field(default_factory=dict)

    def append(self, entry: Entry) -> None:
        """Add an entry; it gets its number in the last step before COMMIT."""
        self.entries.append(entry)


@dataclass(frozen=True, slots=True)
class Committed(Generic[T]):
    """The value of a unit of work, and the log position its last entry got (0 when it had none)."""

    value: T
    log_id: str
    seq: int


class RefusedError(KeyturnError):
    """Raised inside a unit of work: undo it, but keep `refusal` on record, then raise `public` to the caller.

    The only way to leave a leaf behind from a unit that is rolled back.
    """

    def __init__(self, public: KeyturnError, refusal: Entry) -> None:
        """Pair the public error with the entry that records the refusal."""
        super().__init__(public.message)
        self.public = public
        self.refusal = refusal


@dataclass(slots=True)
class Outcome:
    """How one unit of a batch ended; exactly one of `error` and a committed value counts."""

    value: object = None
    error: BaseException | None = None
    last_entry: int = 0


def run_units(
    connection: Connection, works: list[Callable[[Transaction], object]], now: float
) -> tuple[list[Outcome], list[Entry]]:
    """Run each unit in a savepoint of its own; return how each ended and the entries to number, in order.

    An exception undoes its own unit only.  `Outcome.last_entry` is the 1-based place of a unit's last entry.
    Raises the unit's error when the database undid more than the unit: the batch as a whole has failed then.
    """
    outcomes: list[Outcome] = []
    entries: list[Entry] = []
    shared: dict[object, object] = {}
    for work in works:
        transaction = Transaction(connection, now, before=tuple(entries), shared=shared)
        execute(connection, _BEGIN_UNIT)
        try:
            value = work(transaction)
            _check_entries(transaction.entries)
            execute(connection, _KEEP_UNIT)
        except Exception as error:  # noqa: BLE001 -- handed to the caller of this unit, never swallowed
            _undo(connection, error)
            outcome, kept = _failed(error)
            entries.extend(kept)
            outcomes.append(outcome)
        else:
            entries.extend(transaction.entries)
            outcomes.append(Outcome(value=value, last_entry=len(entries) if transaction.entries else 0))
    return outcomes, entries


def _undo(connection: Connection, error: Exception) -> None:
    if connection.invalidated:
        raise error
    try:
        execute(connection, _UNDO_UNIT)
        execute(connection, _KEEP_UNIT)
    except (SQLAlchemyError, sqlite3.Error):
        # A full disk makes SQLite roll the whole transaction back, and the savepoint is gone with it.
        raise error from None


def _failed(error: Exception) -> tuple[Outcome, list[Entry]]:
    if not isinstance(error, RefusedError):
        return Outcome(error=error), []
    try:
        _check_entries([error.refusal])
    except BrokenInvariantError as broken:
        return Outcome(error=broken), []
    return Outcome(error=error.public), [error.refusal]


def _check_entries(entries: Sequence[Entry]) -> None:
    """Raise for an entry that the last step could not store, while it still fails its own unit only."""
    for entry in entries:
        texts = [entry.workspace, entry.entity]
        if entry.leaf is not None:
            leaf = entry.leaf
            texts += [leaf.id, leaf.action, leaf.outcome, leaf.actor, leaf.resource]
        together = "".join(texts)
        if len(together) <= TEXT_BYTES_MAX and together.isascii() and "\x00" not in together:
            continue
        for text in texts:
            if text.isascii() and len(text) <= TEXT_BYTES_MAX and "\x00" not in text:
                continue
            if "\x00" in text or len(text.encode(errors="replace")) > TEXT_BYTES_MAX or not _is_encodable(text):
                message = "an entry of the change log holds text that is too long or cannot be stored"
                raise BrokenInvariantError(message)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""The private keys a log is signed with: one at a time, replaced by a handover.

    current    signs, from the next checkpoint on
    previous   signed before; signs once more, beside its successor, at the handover
    retired    its private half is overwritten

The key that signed the newest checkpoint is the one to present: until the handover is signed, that is still the old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select

from keyturn.audit import checkpoint
from keyturn.audit.tree import StoredCheckpoint, read_checkpoint, store_checkpoint
from keyturn.errors import IntegrityError
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.note import NoteError, VerifierKey, public_key
from keyturn.storage.schema import audit_handover, sealed_key
from keyturn.wire.audit import AuditKey, AuditPublicKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.audit.tree import Growth
    from keyturn.storage.keyring import Keyring, OpenedKey

PURPOSE: Final = "audit-signing"
PATH: Final = "audit"


def sign_growth(connection: Connection, keyring: Keyring, growth: Growth, now: float) -> StoredCheckpoint:
    """Sign and store the checkpoint over a growth; the first one of a new key is signed by the one before it too."""
    workspace, size, root = growth.workspace, growth.after.size, growth.root
    keys = _keys(connection, keyring, workspace)
    key = keys[0].value if keys else keyring.create(connection, workspace, PURPOSE, PATH, now).value
    outgoing = _outgoing(connection, growth, keys)
    note = checkpoint.sign(workspace, size, root, growth.checkpoint_number, key, outgoing=outgoing)
    signed = StoredCheckpoint(size, growth.after.built_seq, root, note, now)
    store_checkpoint(connection, workspace, signed)
    if outgoing is not None:
        connection.execute(insert(audit_handover).values(workspace=workspace, size=size, note=note))
    return signed


def presented_key(connection: Connection, keyring: Keyring, workspace: str) -> bytes | None:
    """Return the private key that signed the newest checkpoint, the current one before the first; None without any."""
    keys = _keys(connection, keyring, workspace)
    newest = read_checkpoint(connection, workspace) if len(keys) > 1 else None
    if newest is None:
        return keys[0].value if keys else None
    return _signer(workspace, newest.note, keys).value


def present_key(connection: Connection, keyring: Keyring, workspace: str, now: float) -> bytes:
    """Return that key, made when there is none yet."""
    found = presented_key(connection, keyring, workspace)
    return keyring.create(connection, workspace, PURPOSE, PATH, now).value if found is None else found


def is_handed_over(connection: Connection, keyring: Keyring, workspace: str) -> bool:
    """Tell whether no key before the current one is needed any more: it is the one that signed last."""
    keys = _keys(connection, keyring, workspace)
    return len(keys) <= 1 or presented_key(connection, keyring, workspace) == keys[0].value


def handovers(connection: Connection, workspace: str, up_to: int | None = None) -> tuple[str, ...]:
    """Return the checkpoints at which a new key took over, of at most `up_to` leaves, the oldest first."""
    query = select(audit_handover.c.note).where(audit_handover.c.workspace == workspace)
    if up_to is not None:
        query = query.where(audit_handover.c.size <= up_to)
    return tuple(connection.execute(query.order_by(audit_handover.c.size)).scalars())


def public_keys(connection: Connection, workspace: str, presented: bytes) -> AuditPublicKey:
    """Show the key that the newest checkpoint is signed with, and what leads to it from those before."""
    rows = connection.execute(
        select(sealed_key.c.number, sealed_key.c.state, sealed_key.c.created_at)
        .where(sealed_key.c.workspace == workspace, sealed_key.c.purpose == PURPOSE, sealed_key.c.path == PATH)
        .order_by(sealed_key.c.number.desc())
    ).all()
    return AuditPublicKey(
        origin=checkpoint.origin_of(workspace),
        verifier_key=checkpoint.verifier_key(workspace, presented),
        keys=tuple(AuditKey(number=row.number, state=row.state, created_at=rfc3339(row.created_at)) for row in rows),
        handovers=handovers(connection, workspace),
    )


def _keys(connection: Connection, keyring: Keyring, workspace: str) -> list[OpenedKey]:
    return keyring.all(connection, workspace, PURPOSE, PATH)


def _outgoing(connection: Connection, growth: Growth, keys: Sequence[OpenedKey]) -> bytes | None:
    """Return the key that signed so far, when it is not the one that is to sign."""
    if len(keys) <= 1 or growth.before is None:
        return None
    last = read_checkpoint(connection, growth.workspace, growth.before.size)
    if last is None:
        raise IntegrityError(f"the audit tree of {growth.workspace} has no checkpoint over what it was built from")
    signer = _signer(growth.workspace, last.note, keys)
    return None if signer is keys[0] else signer.value


def _signer(workspace: str, note: str, keys: Sequence[OpenedKey]) -> OpenedKey:
    for key in keys:
        if _has_signed(workspace, note, key):
            return key
    raise IntegrityError(
        f"the newest checkpoint of {workspace} was signed by no key that is kept",
        hint="run `keyturn audit verify`, and keep a copy of the database as it is",
    )


def _has_signed(workspace: str, note: str, key: OpenedKey) -> bool:
    try:
        checkpoint.read(note, VerifierKey(checkpoint.origin_of(workspace), public_key(key.value)))
    except NoteError:
        return False
    return True

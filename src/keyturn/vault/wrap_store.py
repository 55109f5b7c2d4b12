"""SQL of wrapped answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, insert, select, update

from keyturn.storage.schema import workspace, wrap

if TYPE_CHECKING:
    from sqlalchemy import Connection

NEW: Final = "new"
USED: Final = "used"
EXPIRED: Final = "expired"

_READ: Final = (
    select(*wrap.c)
    .join(workspace, workspace.c.id == wrap.c.workspace)
    .where(wrap.c.id == bindparam("wrap"), workspace.c.state == "active")
)


@dataclass(frozen=True, slots=True)
class Wrap:
    """A row of `wrap` without what is sealed in it."""

    id: str
    workspace: str
    digest: bytes
    creation_path: str
    state: str
    ttl_seconds: int
    created_at: float
    created_by: str
    expires_at: float
    used_at: float | None = None


def insert_wrap(connection: Connection, made: Wrap, sealed: bytes) -> None:
    """Store a new wrap with what it holds."""
    connection.execute(
        insert(wrap).values(
            id=made.id,
            workspace=made.workspace,
            digest=made.digest,
            creation_path=made.creation_path,
            state=made.state,
            sealed=sealed,
            ttl_seconds=made.ttl_seconds,
            created_at=made.created_at,
            created_by=made.created_by,
            expires_at=made.expires_at,
            used_at=made.used_at,
        )
    )


def load_wrap(connection: Connection, wrap_id: str) -> Wrap | None:
    """Return a wrap of a workspace that is active, whatever became of it."""
    row = connection.execute(_READ, {"wrap": wrap_id}).first()
    return None if row is None else _wrap(row)


def claim(connection: Connection, wrap_id: str, now: float) -> bytes | None:
    """Take what a wrap holds, leaving nothing; None when it was taken before, or has expired.

    Of any number of callers at once, on either database and over all nodes, one gets it.
    """
    row = connection.execute(
        update(wrap)
        .where(wrap.c.id == wrap_id, wrap.c.state == NEW, wrap.c.expires_at > now)
        .values(state=USED, used_at=now)
        .returning(wrap.c.sealed)
    ).first()
    if row is None:
        return None
    connection.execute(update(wrap).where(wrap.c.id == wrap_id).values(sealed=None))
    sealed: bytes | None = row.sealed
    return sealed


def end_all(connection: Connection, of: str) -> int:
    """End every wrap of a workspace that was not opened, as far as is known; return how many there were."""
    living = (wrap.c.workspace == of, wrap.c.state == NEW)
    return connection.execute(update(wrap).where(*living).values(state=EXPIRED, sealed=None)).rowcount


def _wrap(row: Any) -> Wrap:  # noqa: ANN401 -- a row of `wrap`
    return Wrap(
        id=row.id,
        workspace=row.workspace,
        digest=row.digest,
        creation_path=row.creation_path,
        state=row.state,
        ttl_seconds=row.ttl_seconds,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        used_at=row.used_at,
    )

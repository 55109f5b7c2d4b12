"""SQL of guards and approvals.  Every query names the workspace; no row is deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import bindparam, func, insert, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.storage.schema import approval, guard
from keyturn.vault.guards import Approval, Guard, pattern_resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

# Built once: every read and write of a secret runs the first, and the second where a guard covers it.
_GUARDS: Final = select(*guard.c).where(guard.c.workspace == bindparam("of"), guard.c.revoked_at.is_(None))
_USABLE: Final = (
    select(approval.c.id)
    .where(
        approval.c.workspace == bindparam("of"),
        approval.c.requester == bindparam("by"),
        approval.c.action == bindparam("what"),
        approval.c.resource == bindparam("where"),
        approval.c.state == "approved",
        approval.c.valid_until > bindparam("now"),
        approval.c.decided_at >= bindparam("since"),
    )
    .order_by(approval.c.valid_until.desc())
    .limit(1)
)


def guards_of(connection: Connection, workspace: str) -> tuple[Guard, ...]:
    """Return the guards of a workspace that are in force."""
    return tuple(map(_guard, connection.execute(_GUARDS, {"of": workspace}).all()))


def usable(
    connection: Connection, workspace: str, requester: str, action: str, resource: str, now: float, since: float
) -> str | None:
    """Return the id of an approval, given since a time, that lets the requester do this now."""
    wanted = {"of": workspace, "by": requester, "what": action, "where": resource, "now": now, "since": since}
    return connection.execute(_USABLE, wanted).scalar()


def count_uses(connection: Connection, approvals: Iterable[str]) -> None:
    """Count one use for each time an approval is named."""
    for one in approvals:
        connection.execute(update(approval).where(approval.c.id == one).values(uses=approval.c.uses + 1))


def insert_guard(connection: Connection, made: Guard) -> None:
    """Store a new guard."""
    connection.execute(
        insert(guard).values(
            id=made.id,
            workspace=made.workspace,
            pattern=made.pattern,
            actions_json=msgspec.json.encode(made.actions).decode(),
            description=made.description,
            valid_seconds=made.valid_seconds,
            created_at=made.created_at,
            created_by=made.created_by,
            revoked_at=made.revoked_at,
        )
    )


def revoke_guard(connection: Connection, guard_id: str, now: float) -> None:
    """End a guard."""
    connection.execute(update(guard).where(guard.c.id == guard_id).values(revoked_at=now))


def load_guard(connection: Connection, workspace: str, guard_id: str) -> Guard | None:
    """Return a guard of the workspace, revoked or not."""
    row = connection.execute(select(*guard.c).where(guard.c.id == guard_id, guard.c.workspace == workspace)).first()
    return None if row is None else _guard(row)


def guards_after(connection: Connection, workspace: str, after: str, limit: int) -> Sequence[Guard]:
    """Return guards in order of id, revoked ones too."""
    rows = connection.execute(
        select(*guard.c).where(guard.c.workspace == workspace, guard.c.id > after).order_by(guard.c.id).limit(limit)
    ).all()
    return [_guard(row) for row in rows]


def insert_approval(connection: Connection, made: Approval) -> None:
    """Store a new request."""
    connection.execute(
        insert(approval).values(
            id=made.id,
            workspace=made.workspace,
            requester=made.requester,
            action=made.action,
            resource=made.resource,
            reason=made.reason,
            state=made.state,
            created_at=made.created_at,
            expires_at=made.expires_at,
            decided_by=made.decided_by,
            decided_at=made.decided_at,
            decision_reason=made.decision_reason,
            valid_until=made.valid_until,
            uses=made.uses,
            revision=made.revision,
        )
    )


def decide(connection: Connection, decided: Approval) -> None:
    """Store a decision under the next revision, which `decided` already holds."""
    done = connection.execute(
        update(approval)
        .where(approval.c.id == decided.id, approval.c.revision == decided.revision - 1)
        .values(
            state=decided.state,
            decided_by=decided.decided_by,
            decided_at=decided.decided_at,
            decision_reason=decided.decision_reason,
            valid_until=decided.valid_until,
            revision=decided.revision,
        )
    )
    if done.rowcount != 1:
        message = f"approval {decided.id} changed while it was being decided"
        raise BrokenInvariantError(message)


def load_approval(connection: Connection, workspace: str, approval_id: str) -> Approval | None:
    """Return an approval of the workspace."""
    row = connection.execute(
        select(*approval.c).where(approval.c.id == approval_id, approval.c.workspace == workspace)
    ).first()
    return None if row is None else _approval(row)


def pending_of(connection: Connection, workspace: str, requester: str, now: float) -> Sequence[Approval]:
    """Return the requests of a requester that wait for a decision."""
    rows = connection.execute(
        select(*approval.c).where(
            approval.c.workspace == workspace,
            approval.c.requester == requester,
            approval.c.state == "pending",
            approval.c.expires_at > now,
        )
    ).all()
    return [_approval(row) for row in rows]


def approvals_after(connection: Connection, workspace: str, after: str, limit: int) -> Sequence[Approval]:
    """Return approvals in order of id, whatever their state."""
    rows = connection.execute(
        select(*approval.c)
        .where(approval.c.workspace == workspace, approval.c.id > after)
        .order_by(approval.c.id)
        .limit(limit)
    ).all()
    return [_approval(row) for row in rows]


def count_guards(connection: Connection, workspace: str) -> int:
    """Return how many guards are in force."""
    return connection.execute(
        select(func.count()).select_from(guard).where(guard.c.workspace == workspace, guard.c.revoked_at.is_(None))
    ).scalar_one()


def _guard(row: Any) -> Guard:  # noqa: ANN401 -- a row of `guard`
    return Guard(
        id=row.id,
        workspace=row.workspace,
        pattern=row.pattern,
        resource=pattern_resource(row.pattern),
        actions=tuple(msgspec.json.decode(row.actions_json, type=list[str])),
        description=row.description,
        valid_seconds=row.valid_seconds,
        created_at=row.created_at,
        created_by=row.created_by,
        revoked_at=row.revoked_at,
    )


def _approval(row: Any) -> Approval:  # noqa: ANN401 -- a row of `approval`
    return Approval(
        id=row.id,
        workspace=row.workspace,
        requester=row.requester,
        action=row.action,
        resource=row.resource,
        reason=row.reason,
        state=row.state,
        created_at=row.created_at,
        expires_at=row.expires_at,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        decision_reason=row.decision_reason,
        valid_until=row.valid_until,
        uses=row.uses,
        revision=row.revision,
    )

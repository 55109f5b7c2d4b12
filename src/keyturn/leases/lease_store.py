"""SQL of leases: the queue of what is due and the record are one table."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, insert, select, update

from keyturn.leases.model import Lease
from keyturn.leases.rules import LIVE, OVER, Step, require_transition, when_due
from keyturn.storage.schema import credential_source, lease, login_role
from keyturn.wire.leases import LeaseState

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection

KEPT_SECONDS: Final = 30 * 86_400.0
_FIELDS = tuple(field.name for field in fields(Lease))
_LIVE = lease.c.state.in_([state.value for state in LIVE])
_CHUNK: Final = 500


def insert_lease(connection: Connection, made: Lease) -> None:
    """Store a new lease."""
    connection.execute(insert(lease).values({name: getattr(made, name) for name in _FIELDS}))


def load_lease(connection: Connection, workspace: str, lease_id: str) -> Lease | None:
    """Return a lease of the workspace by id."""
    row = connection.execute(select(*lease.c).where(lease.c.workspace == workspace, lease.c.id == lease_id)).first()
    return None if row is None else _lease(row)


def list_leases(
    connection: Connection, workspace: str, wanted: Sequence[ColumnElement[bool]], after: str, limit: int
) -> list[Lease]:
    """Return leases that meet the conditions in order of id, after the id given."""
    rows = connection.execute(
        select(*lease.c)
        .where(lease.c.workspace == workspace, lease.c.id > after, *wanted)
        .order_by(lease.c.id)
        .limit(limit)
    ).all()
    return [_lease(row) for row in rows]


def narrowed(
    *,
    state: LeaseState | None = None,
    prefix: str = "",
    principal: str | None = None,
    subject: str | None = None,
) -> list[ColumnElement[bool]]:
    """Return the conditions of a list; `prefix` is whole segments of a path."""
    wanted: list[ColumnElement[bool]] = []
    if state is not None:
        wanted.append(lease.c.state == state.value)
    if prefix:
        wanted.append((lease.c.path == prefix) | lease.c.path.startswith(prefix + "/", autoescape=True))
    if principal is not None:
        wanted.append(lease.c.principal == principal)
    if subject is not None:
        wanted.append(lease.c.subject == subject)
    return wanted


def count_live(connection: Connection, limit: int, *, role: str | None = None, login_role: str | None = None) -> int:
    """Return how many leases of a role, or of a login role, may have an account; counts no further than `limit`."""
    mine = lease.c.role == role if role is not None else lease.c.login_role == login_role
    some = select(lease.c.id).where(mine, _LIVE).limit(limit).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one()


def has_live(connection: Connection, source: str) -> bool:
    """Tell whether a source has a lease that may have an account."""
    return connection.execute(select(lease.c.id).where(lease.c.source == source, _LIVE).limit(1)).first() is not None


def login_role_cap(connection: Connection, role_id: str) -> tuple[str, int] | None:
    """Return the name of a login role and how many leases its logins may hold."""
    row = connection.execute(
        select(login_role.c.name, login_role.c.leases_max).where(login_role.c.id == role_id)
    ).first()
    return None if row is None else (row.name, row.leases_max)


def activate(connection: Connection, made: Lease) -> bool:
    """Make an intent a lease; False when it is an intent no longer."""
    done = connection.execute(
        update(lease)
        .where(lease.c.id == made.id, lease.c.state == LeaseState.INTENT.value)
        .values(
            state=LeaseState.ACTIVE.value, due_at=made.expires_at, account=made.account, revision=lease.c.revision + 1
        )
    )
    return done.rowcount == 1


def renew(connection: Connection, of: Lease, expires_at: float) -> bool:
    """Move the end of an active lease; False when it is active no longer."""
    done = connection.execute(
        update(lease)
        .where(lease.c.id == of.id, lease.c.state == LeaseState.ACTIVE.value)
        .values(expires_at=expires_at, due_at=expires_at, revision=lease.c.revision + 1)
    )
    return done.rowcount == 1


def begin_end(
    connection: Connection, ids: Sequence[str], was: LeaseState, becomes: LeaseState, reason: str, now: float
) -> int:
    """Let leases of one state end as soon as possible, for a reason; return how many did."""
    require_transition(was, becomes)
    count = 0
    for start in range(0, len(ids), _CHUNK):
        count += connection.execute(
            update(lease)
            .where(lease.c.id.in_(list(ids[start : start + _CHUNK])), lease.c.state == was.value)
            .values(
                state=becomes.value,
                due_at=now,
                claimed_until=0.0,
                attempts=0,
                revoke_reason=reason,
                revision=lease.c.revision + 1,
            )
        ).rowcount
    return count


def drop_again(connection: Connection, lease_id: str, now: float) -> None:
    """Drop the account of a lease that was given up once more, from the beginning, even if it is over."""
    connection.execute(
        update(lease)
        .where(
            lease.c.id == lease_id,
            lease.c.state.in_([LeaseState.LINGERING.value, LeaseState.FAILED.value, LeaseState.ABANDONED.value]),
        )
        .values(
            state=LeaseState.ABANDONED.value,
            due_at=now,
            claimed_until=0.0,
            attempts=0,
            revoked_at=None,
            revision=lease.c.revision + 1,
        )
    )


def ids_to_end(
    connection: Connection,
    workspace: str,
    state: LeaseState,
    wanted: Sequence[ColumnElement[bool]],
    but_of: Sequence[str],
    limit: int,
) -> list[str]:
    """Return ids of leases of one state that meet the conditions, without those of some sources."""
    query = select(lease.c.id).where(lease.c.workspace == workspace, lease.c.state == state.value, *wanted)
    return list(connection.execute(query.where(lease.c.source.not_in(list(but_of))).limit(limit)).scalars())


def count_of(
    connection: Connection,
    workspace: str,
    state: LeaseState,
    wanted: Sequence[ColumnElement[bool]],
    sources: Sequence[str],
) -> int:
    """Return how many leases of some sources are in one state and meet the conditions."""
    if not sources:
        return 0
    return connection.execute(
        select(func.count())
        .select_from(lease)
        .where(lease.c.workspace == workspace, lease.c.state == state.value, lease.c.source.in_(list(sources)), *wanted)
    ).scalar_one()


def note(connection: Connection, lease_id: str, error: str) -> None:
    """Keep what went wrong."""
    connection.execute(update(lease).where(lease.c.id == lease_id).values(last_error=error))


def due_sources(connection: Connection, now: float, busy: Collection[str], *, claimed: bool = False) -> list[str]:
    """Return the sources for which something is due, without those named.

    With `claimed` what somebody has claimed counts as due.
    """
    due = _due(now)[: 1 if claimed else 2]
    waits = select(lease.c.id).where(lease.c.source == credential_source.c.id, *due).exists()
    query = select(credential_source.c.id).where(waits)
    if busy:
        query = query.where(credential_source.c.id.not_in(sorted(busy)))
    return list(connection.execute(query.order_by(credential_source.c.id)).scalars())


def claim(connection: Connection, source: str, now: float, seconds: float, limit: int) -> list[Lease]:
    """Take up to `limit` due leases of a source, the longest waiting first, so that nobody else ends them meanwhile.

    Each is in the state under which it is worked on afterwards.
    """
    rows = connection.execute(
        select(*lease.c).where(lease.c.source == source, *_due(now)).order_by(lease.c.due_at).limit(limit)
    ).all()
    if not rows:
        return []
    claimed = []
    for row in rows:
        found = _lease(row)
        becomes = when_due(found)
        if becomes is not found.state:
            require_transition(found.state, becomes)
        reason = found.revoke_reason or ("expired" if found.state is LeaseState.ACTIVE else "creation_lost")
        claimed.append(replace(found, state=becomes, claimed_until=now + seconds, revoke_reason=reason))
    groups: dict[tuple[LeaseState, str | None], list[str]] = {}
    for one in claimed:
        groups.setdefault((one.state, one.revoke_reason), []).append(one.id)
    for (state, told), ids in groups.items():
        connection.execute(
            update(lease)
            .where(lease.c.id.in_(ids))
            .values(state=state.value, claimed_until=now + seconds, revoke_reason=told)
        )
    return claimed


def claim_one(connection: Connection, found: Lease, now: float, seconds: float) -> Lease:
    """Take one lease that is to be ended now, whoever else has it: dropping twice does no harm."""
    connection.execute(update(lease).where(lease.c.id == found.id).values(claimed_until=now + seconds))
    return replace(found, claimed_until=now + seconds)


def settle(connection: Connection, ended: Sequence[tuple[Lease, Step]], now: float) -> list[tuple[Lease, Step]]:
    """Write down what became of claimed leases, and return that; one whose state has changed since stays as it is."""
    stands: dict[str, str] = {}
    for start in range(0, len(ended), _CHUNK):
        ids = [one.id for one, _ in ended[start : start + _CHUNK]]
        stands |= {
            row.id: row.state
            for row in connection.execute(select(lease.c.id, lease.c.state).where(lease.c.id.in_(ids)))
        }
    settled = [(one, step) for one, step in ended if stands.get(one.id) == one.state.value]
    groups: dict[tuple[LeaseState, Step], list[str]] = {}
    for one, step in settled:
        require_transition(one.state, step.state)
        groups.setdefault((one.state, step), []).append(one.id)
    for (was, step), alike in groups.items():
        connection.execute(
            update(lease)
            .where(lease.c.id.in_(alike), lease.c.state == was.value)
            .values(
                state=step.state.value,
                due_at=step.due_at,
                attempts=step.attempts,
                last_error=step.error,
                revoked_at=now if step.state in OVER else None,
                claimed_until=0.0,
                revision=lease.c.revision + 1,
            )
        )
    return settled


def release(connection: Connection, claimed: Sequence[Lease]) -> None:
    """Give claims back that were not worked on."""
    for one in claimed:
        connection.execute(
            update(lease)
            .where(lease.c.id == one.id, lease.c.claimed_until == one.claimed_until)
            .values(claimed_until=0.0)
        )


def release_all(connection: Connection, now: float, but: Sequence[str]) -> None:
    """End the claims of a leader that is gone, without those named."""
    query = update(lease).where(lease.c.due_at <= now, lease.c.claimed_until > now)
    if but:
        query = query.where(lease.c.id.not_in(sorted(but)))
    connection.execute(query.values(claimed_until=0.0))


def drop_old(connection: Connection, now: float, limit: int) -> int:
    """Remove leases that were over before the retention; return how many."""
    over = [state.value for state in OVER]
    old = select(lease.c.id).where(lease.c.revoked_at < now - KEPT_SECONDS, lease.c.state.in_(over)).limit(limit)
    return connection.execute(delete(lease).where(lease.c.id.in_(old))).rowcount


def backlog(connection: Connection, now: float) -> tuple[dict[str, int], float]:
    """Return how many leases stand in each live state, and how long ago the oldest due one became due."""
    rows = connection.execute(select(lease.c.state, func.count()).where(_LIVE).group_by(lease.c.state)).all()
    counts = {state.value: 0 for state in LIVE} | {row[0]: row[1] for row in rows}
    oldest = connection.execute(select(func.min(lease.c.due_at)).where(lease.c.due_at <= now)).scalar()
    return counts, 0.0 if oldest is None else max(0.0, now - oldest)


def _due(now: float) -> tuple[ColumnElement[bool], ...]:
    return (lease.c.due_at <= now, lease.c.claimed_until <= now)


def _lease(row: Any) -> Lease:  # noqa: ANN401 -- a row of `lease`
    values = {name: getattr(row, name) for name in _FIELDS}
    return Lease(**(values | {"state": LeaseState(row.state)}))

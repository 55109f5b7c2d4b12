"""Whether what leaked still works, as the stored keys and secrets say now.

Changes are found by what the change log names, ends that come by time by looking for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, or_, select

from keyturn.keys.leaked import standing_of
from keyturn.leaks.matching import known_held, known_issued
from keyturn.leaks.model import KNOWN
from keyturn.leaks.store import finding_of
from keyturn.storage.schema import finding, issued_key, key_version, secret, secret_version
from keyturn.storage.transaction import ChangeKind
from keyturn.vault.held import held_like
from keyturn.wire.certainty import Certainty
from keyturn.wire.leaks import FindingState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection

    from keyturn.leaks.model import Finding, Known

_AT_ONCE: Final = 500
FOLLOWED: Final = frozenset({FindingState.OPEN, FindingState.CONFIRMED, FindingState.ACCEPTED, FindingState.ROTATED})
"""States that follow what is stored; a false positive stays one."""
_MAY_END: Final = [FindingState.OPEN, FindingState.CONFIRMED, FindingState.ACCEPTED]


def standing(connection: Connection, of: Finding, now: float) -> Known | None:
    """Return how what leaked stands now; None when it is gone altogether, or the server never knew it."""
    if of.certainty is Certainty.OWN:
        found = standing_of(connection, of.workspace, [of.version], now).get(of.version)
        return None if found is None else known_issued(found)
    if of.certainty is Certainty.HELD:
        held = held_like(connection, of.workspace, of.secret, of.sequence, of.field, now)
        return known_held(held[0]) if held else None
    return None


def standings(connection: Connection, findings: Sequence[Finding], now: float) -> dict[str, Known | None]:
    """Return how what leaked stands now for each of several findings, by id."""
    own: dict[str, list[Finding]] = {}
    for one in findings:
        if one.certainty is Certainty.OWN:
            own.setdefault(one.workspace, []).append(one)
    found = {one.id: standing(connection, one, now) for one in findings if one.certainty is not Certainty.OWN}
    for workspace, of in own.items():
        issued = standing_of(connection, workspace, sorted({one.version for one in of}), now)
        found |= {one.id: known_issued(issued[one.version]) if one.version in issued else None for one in of}
    return found


def works(connection: Connection, of: Finding, now: float) -> bool:
    """Tell whether what leaked is let in now, or held in a current version."""
    found = standing(connection, of, now)
    return found is not None and found.works


def touched(connection: Connection, changes: Iterable[tuple[str, str]]) -> list[Finding]:
    """Return the findings that changes may bear on; each change is a kind and an entity."""
    by_kind: dict[str, set[str]] = {}
    for kind, entity in changes:
        by_kind.setdefault(kind, set()).add(entity)
    found: list[Finding] = []
    for part in _parts(by_kind.get(ChangeKind.KEY, set())):
        found += _followed(connection, finding.c.key.in_(part))
    for part in _parts(by_kind.get(ChangeKind.SECRET, set())):
        found += _followed(connection, finding.c.secret.in_(part))
    for part in _parts(by_kind.get(ChangeKind.KEYSPACE, set())):
        keys = select(issued_key.c.id).where(issued_key.c.keyspace.in_(part))
        found += _followed(connection, finding.c.key.in_(keys))
    return found


def ended_by_time(connection: Connection, now: float, limit: int) -> list[Finding]:
    """Return findings, not closed, of what a time has ended."""
    own = (
        select(*finding.c)
        .join(key_version, key_version.c.id == finding.c.version)
        .join(issued_key, issued_key.c.id == key_version.c.key)
        .where(
            finding.c.certainty == Certainty.OWN,
            finding.c.state.in_(_MAY_END),
            or_(key_version.c.valid_until <= now, issued_key.c.expires_at <= now),
        )
    )
    held = (
        select(*finding.c)
        .join(secret, secret.c.id == finding.c.secret)
        .join(
            secret_version,
            and_(secret_version.c.secret == finding.c.secret, secret_version.c.sequence == finding.c.sequence),
        )
        .where(
            finding.c.certainty == Certainty.HELD,
            finding.c.state.in_(_MAY_END),
            or_(secret_version.c.delete_at <= now, secret.c.expires_at <= now),
        )
    )
    return [finding_of(row) for query in (own, held) for row in connection.execute(query.limit(limit)).all()]


def acceptance_over(connection: Connection, now: float, limit: int) -> list[Finding]:
    """Return findings that were accepted until a time that has come."""
    query = select(*finding.c).where(finding.c.state == FindingState.ACCEPTED, finding.c.accepted_until <= now)
    return [finding_of(row) for row in connection.execute(query.limit(limit)).all()]


def every_known(connection: Connection, after: str, limit: int) -> list[Finding]:
    """Return the findings that follow what is stored, in order of id, after the id given."""
    query = select(*finding.c).where(finding.c.id > after, *_follows()).order_by(finding.c.id).limit(limit)
    return [finding_of(row) for row in connection.execute(query).all()]


def _followed(connection: Connection, condition: ColumnElement[bool]) -> list[Finding]:
    rows: Sequence[Any] = connection.execute(select(*finding.c).where(condition, *_follows())).all()
    return [finding_of(row) for row in rows]


def _follows() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return finding.c.certainty.in_(sorted(KNOWN)), finding.c.state.in_(sorted(FOLLOWED))


def _parts(values: set[str]) -> Iterable[list[str]]:
    ordered = sorted(values)
    return (ordered[start : start + _AT_ONCE] for start in range(0, len(ordered), _AT_ONCE))

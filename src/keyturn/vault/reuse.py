"""Values that are held at more than one path; found by their fingerprints, and never shown."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from keyturn.errors import InputError
from keyturn.storage.schema import secret, secret_fingerprint, secret_version
from keyturn.vault.paths import Path, parse_folder
from keyturn.wire.actions import Action
from keyturn.wire.secrets import ReuseGroup, ReusePlace, ReuseReport

if TYPE_CHECKING:
    from keyturn.access.door import Operation
    from keyturn.vault.fingerprints import Fingerprints

GROUPS_MAX: Final = 1000
ROWS_MAX: Final = 50_000


@dataclass(frozen=True, slots=True)
class _Row:
    fingerprint: bytes
    field: str
    sequence: int
    number: int | None
    path: str
    owner: str


def report(op: Operation, fingerprints: Fingerprints, prefix: str) -> ReuseReport:
    """Return the values that at least two secrets below `prefix` hold, of those that the caller may list.

    A secret that it may not list is neither named nor counted.  Of each field the newest version that holds the value
    is named; versions that were destroyed hold none.
    """
    below = parse_folder(prefix) if prefix else ""
    places: defaultdict[bytes, dict[tuple[str, str], ReusePlace]] = defaultdict(dict)
    listable: dict[str, bool] = {}
    for row in _rows(op, below):
        may = listable.get(row.path)
        if may is None:
            may = listable[row.path] = op.allows(Action.SECRET_LIST, Path(row.path).resource)
        if may:
            place = ReusePlace(
                path=row.path, version=row.number, sequence=row.sequence, field=row.field, owner=row.owner
            )
            places[row.fingerprint].setdefault((row.path, row.field), place)
    reused = {
        found: sorted(held.values(), key=lambda place: (place.path, place.field))
        for found, held in places.items()
        if len({path for path, _ in held}) > 1
    }
    ordered = sorted(reused, key=lambda found: [(place.path, place.field) for place in reused[found]])[:GROUPS_MAX]
    names = fingerprints.group_of(op.connection, op.workspace, ordered)
    return ReuseReport(
        items=tuple(
            ReuseGroup(group=name, places=tuple(reused[found])) for name, found in zip(names, ordered, strict=True)
        )
    )


def _rows(op: Operation, below: str) -> list[_Row]:
    shared = (
        select(secret_fingerprint.c.fingerprint)
        .where(secret_fingerprint.c.workspace == op.workspace)
        .group_by(secret_fingerprint.c.fingerprint)
        .having(func.count(secret_fingerprint.c.secret.distinct()) > 1)
    )
    wanted = (
        select(
            secret_fingerprint.c.fingerprint,
            secret_fingerprint.c.field,
            secret_fingerprint.c.sequence,
            secret_version.c.number,
            secret.c.path,
            secret.c.owner,
        )
        .join(secret, secret.c.id == secret_fingerprint.c.secret)
        .join(
            secret_version,
            (secret_version.c.secret == secret_fingerprint.c.secret)
            & (secret_version.c.sequence == secret_fingerprint.c.sequence),
        )
        .where(
            secret_fingerprint.c.workspace == op.workspace,
            secret.c.deleted_at == 0.0,
            secret_version.c.destroyed_at.is_(None),
            secret_fingerprint.c.fingerprint.in_(shared),
        )
        .order_by(secret.c.path, secret_fingerprint.c.field, secret_fingerprint.c.sequence.desc())
        .limit(ROWS_MAX + 1)
    )
    if below:
        wanted = wanted.where(secret.c.path >= below, secret.c.path < below + "\x7f")
    rows = op.connection.execute(wanted).all()
    if len(rows) > ROWS_MAX:
        raise InputError("too many values are held more than once", field="prefix", hint="narrow the prefix")
    return [_Row(row.fingerprint, row.field, row.sequence, row.number, row.path, row.owner) for row in rows]

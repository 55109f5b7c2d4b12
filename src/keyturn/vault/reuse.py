"""Values that are held at more than one path; found by their fingerprints, and never shown.

What the caller knows, having written it or being free to read it, is compared with what it knows, and what it may only
list with what it may only list.  Were the two compared, whoever may write somewhere could test guesses at every value
that they may list.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from keyturn.errors import InputError
from keyturn.storage.schema import secret, secret_fingerprint, secret_version
from keyturn.vault.guards import covering
from keyturn.vault.paths import Path, parse_folder
from keyturn.vault.rules import reading_action
from keyturn.wire.actions import Action
from keyturn.wire.secrets import ReuseGroup, ReusePlace, ReuseReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.door import Operation
    from keyturn.vault.fingerprints import Fingerprints
    from keyturn.vault.guards import Guard

GROUPS_MAX: Final = 1000
ROWS_MAX: Final = 50_000

_LISTED: Final = b"listed\0"
"""Makes the name of a group another one: by equal names the two could be compared after all."""


@dataclass(frozen=True, slots=True)
class _Row:
    fingerprint: bytes
    field: str
    sequence: int
    number: int | None
    path: str
    owner: str
    created_by: str

    @property
    def place(self) -> tuple[bytes, str, str]:
        """Where which value is held."""
        return self.fingerprint, self.path, self.field


def report(op: Operation, fingerprints: Fingerprints, guards: Sequence[Guard], prefix: str) -> ReuseReport:
    """Return the values that at least two secrets below `prefix` hold, of those that the caller may list.

    A secret that it may not list is neither named nor counted.  Of each field the newest version that holds the value
    is named; versions that were destroyed hold none.
    """
    rows = _rows(op, parse_folder(prefix) if prefix else "")
    written = {row.place for row in rows if row.created_by == op.caller.principal}
    rights = {text: _rights(op, guards, Path(text)) for text in {row.path for row in rows}}
    places: defaultdict[bytes, dict[tuple[str, str], ReusePlace]] = defaultdict(dict)
    for row in rows:
        may_list, may_read = rights[row.path]
        if may_list:
            value = row.fingerprint if may_read or row.place in written else _LISTED + row.fingerprint
            place = ReusePlace(
                path=row.path, version=row.number, sequence=row.sequence, field=row.field, owner=row.owner
            )
            places[value].setdefault((row.path, row.field), place)
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


def _rights(op: Operation, guards: Sequence[Guard], path: Path) -> tuple[bool, bool]:
    """Tell whether the caller may list a secret, and whether it may read it without asking anybody."""
    reading = reading_action(op.caller.kind)
    may_read = op.allows(reading, path.resource) and not covering(guards, reading, path)
    return op.allows(Action.SECRET_LIST, path.resource), may_read


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
            secret_version.c.created_by,
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
    return [
        _Row(row.fingerprint, row.field, row.sequence, row.number, row.path, row.owner, row.created_by) for row in rows
    ]

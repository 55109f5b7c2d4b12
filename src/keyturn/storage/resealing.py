"""Which workspace key every sealed value is under, and how values move to the newest one.

    sealed_key         purpose, path, number                 peppers, signing keys, passwords of sources, ...
    secret_version     `secret`, `<secret id>/<path>`, sequence

The header of a sealed value names its workspace key at a fixed place, so the database counts and finds them.  A value
is opened and sealed again within one transaction; whoever reads meanwhile has the one or the other, and both open.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import LargeBinary, func, literal, select, update

from keyturn.errors import IntegrityError
from keyturn.storage.keyring import OPEN
from keyturn.storage.schema import sealed_key, secret, secret_version, workspace_key

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table

    from keyturn.storage.keyring import Keyring

KEY_ID_BYTES: Final = 26
_KEY_ID_AT: Final = 7
_ERASED: Final = b""
"""What is left of a server key that was destroyed; a held secret leaves NULL, which no comparison takes either."""

SECRET: Final = "secret"  # noqa: S105 -- the purpose that held secrets are sealed for


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction resealed; `last` is where the next one goes on, None at the end of a table."""

    resealed: int
    unopened: tuple[str, ...]
    last: str | None


def values_under(connection: Connection, workspace: str) -> dict[str, int]:
    """Count the sealed values of a workspace by the id of their workspace key."""
    found: Counter[str] = Counter()
    for table in (sealed_key, secret_version):
        using = _using(table)
        rows = connection.execute(
            select(using, func.count()).where(table.c.workspace == workspace, table.c.sealed != _ERASED).group_by(using)
        ).all()
        for key_id, count in rows:
            found[bytes(key_id).decode("ascii", "replace")] += count
    return dict(found)


def reseal(
    keyring: Keyring,
    connection: Connection,
    workspace: str,
    now: float,
    *,
    limit: int,
    after: str = "",
    held: bool = True,
) -> Batch:
    """Move up to `limit` values to the newest workspace key: server keys, or with `held` the held secrets.

    Values that do not open are left as they are and named.  The caller has made sure that there is a newest key.
    """
    table = secret_version if held else sealed_key
    outdated = outdated_keys(keyring, connection, workspace)
    rows = connection.execute(_outdated(table, workspace, outdated, after).limit(limit)).all()
    unopened: list[str] = []
    for row in rows:
        place = {"purpose": row.purpose, "path": row.path, "version": row.version}
        try:
            value = keyring.open(connection, workspace, row.sealed, **place)
        except IntegrityError:
            unopened.append(row.id)
            continue
        sealed = keyring.seal(connection, workspace, plaintext=value, now=now, **place)
        connection.execute(update(table).where(table.c.id == row.id).values(sealed=sealed))
    return Batch(len(rows) - len(unopened), tuple(unopened), rows[-1].id if len(rows) == limit else None)


def outdated_keys(keyring: Keyring, connection: Connection, workspace: str) -> list[str]:
    """Return the ids of the workspace keys that open and no longer seal."""
    newest = keyring.newest(connection, workspace)
    rows = connection.execute(
        select(workspace_key.c.id).where(workspace_key.c.workspace == workspace, workspace_key.c.state == OPEN)
    ).all()
    return [row.id for row in rows if row.id != newest]


def _outdated(table: Table, workspace: str, outdated: list[str], after: str) -> Any:  # noqa: ANN401 -- a select
    if table is secret_version:
        place = (
            literal(SECRET).label("purpose"),
            (secret.c.id + literal("/") + secret.c.path).label("path"),
            secret_version.c.sequence.label("version"),
        )
        source = select(table.c.id, table.c.sealed, *place).join(secret, secret.c.id == secret_version.c.secret)
    else:
        source = select(
            table.c.id, table.c.sealed, sealed_key.c.purpose, sealed_key.c.path, sealed_key.c.number.label("version")
        )
    return source.where(
        table.c.workspace == workspace,
        table.c.sealed != _ERASED,
        _using(table).in_([key_id.encode() for key_id in outdated]),
        table.c.id > after,
    ).order_by(table.c.id)


def _using(table: Table) -> ColumnElement[bytes]:
    return func.substr(table.c.sealed, _KEY_ID_AT, KEY_ID_BYTES, type_=LargeBinary)

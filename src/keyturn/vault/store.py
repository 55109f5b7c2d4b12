"""SQL of secrets and versions.  Every query of an operation names the workspace; no row is deleted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    delete,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)

from keyturn.errors import BrokenInvariantError
from keyturn.storage.schema import secret, secret_fingerprint, secret_reference, secret_version
from keyturn.vault.model import Secret, Version
from keyturn.wire.secrets import SecretState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from keyturn.vault.references import Reference

_LIVING = secret.c.deleted_at == 0.0
_METADATA = msgspec.json.Decoder(dict[str, str])
_NAMES = msgspec.json.Decoder(tuple[str, ...])

# Built once: every read and every write runs some of them.
_BY_PATH = select(*secret.c).where(
    secret.c.workspace == bindparam("workspace"), secret.c.path == bindparam("path"), _LIVING
)
_INSERT_SECRET = insert(secret)
_UPDATE_SECRET = (
    update(secret)
    .where(secret.c.id == bindparam("of"), secret.c.revision == bindparam("was"))
    .values({column.name: bindparam(column.name) for column in secret.c if not column.primary_key})
)
_INSERT_VERSION = insert(secret_version)
_SHIFT_LABELS = (
    update(secret_version)
    .where(
        secret_version.c.secret == bindparam("of"),
        or_(secret_version.c.state == SecretState.CURRENT, secret_version.c.state == SecretState.PREVIOUS),
    )
    .values(
        state=case(
            (secret_version.c.state == SecretState.CURRENT, literal(str(SecretState.PREVIOUS))),
            else_=literal(str(SecretState.SUPERSEDED)),
        )
    )
)
_INSERT_REFERENCE = insert(secret_reference)
_TARGETS = select(secret_reference.c.target).where(secret_reference.c.secret == bindparam("of")).distinct()
_BY_ID = select(*secret.c).where(secret.c.id == bindparam("id"))
_COUNT_PENDING = (
    select(func.count())
    .select_from(secret_version)
    .where(secret_version.c.secret == bindparam("of"), secret_version.c.state == SecretState.PENDING)
)
_NEWEST_PENDING = (
    select(*secret_version.c)
    .where(secret_version.c.secret == bindparam("of"), secret_version.c.state == SecretState.PENDING)
    .order_by(secret_version.c.sequence.desc())
    .limit(1)
)
_UPDATE_VERSION = (
    update(secret_version)
    .where(secret_version.c.id == bindparam("of"))
    .values({name: bindparam(name) for name in ("number", "state", "promoted_at", "delete_at", "deleted_at")})
)
_DESTROY = (
    update(secret_version)
    .where(
        secret_version.c.secret == bindparam("of"), secret_version.c.sequence.in_(bindparam("which", expanding=True))
    )
    .values(state=SecretState.DESTROYED, sealed=None, destroyed_at=bindparam("at"))
)
_DESTROY_BELOW = (
    update(secret_version)
    .where(
        secret_version.c.secret == bindparam("of"),
        secret_version.c.number < bindparam("below"),
        secret_version.c.sealed.is_not(None),
    )
    .values(state=SecretState.DESTROYED, sealed=None, destroyed_at=bindparam("at"))
    .returning(secret_version.c.sequence, secret_version.c.number)
)
_DELETE_DERIVED = tuple(
    delete(table).where(table.c.secret == bindparam("of"), table.c.sequence.in_(bindparam("which", expanding=True)))
    for table in (secret_fingerprint, secret_reference)
)
_BY_NUMBER = select(*secret_version.c).where(
    secret_version.c.secret == bindparam("secret"), secret_version.c.number == bindparam("number")
)
_BY_SEQUENCE = select(*secret_version.c).where(
    secret_version.c.secret == bindparam("secret"), secret_version.c.sequence == bindparam("sequence")
)


def load_secret(connection: Connection, workspace: str, path: str) -> Secret | None:
    """Return the secret that is at a path of the workspace now."""
    row = connection.execute(_BY_PATH, {"workspace": workspace, "path": path}).first()
    return None if row is None else secret_of(row)


def load_secret_by_id(connection: Connection, secret_id: str) -> Secret | None:
    """Return a secret by id, also when it was removed."""
    row = connection.execute(_BY_ID, {"id": secret_id}).first()
    return None if row is None else secret_of(row)


def load_version(
    connection: Connection, of: Secret, number: int | None = None, *, sequence: int | None = None
) -> Version | None:
    """Return a version by number or by sequence; the current one when neither is given."""
    if sequence is not None:
        row = connection.execute(_BY_SEQUENCE, {"secret": of.id, "sequence": sequence}).first()
    else:
        row = connection.execute(_BY_NUMBER, {"secret": of.id, "number": number or of.current}).first()
    return None if row is None else version_of(row)


def newest_pending(connection: Connection, of: Secret) -> Version | None:
    """Return the version that was written last and is not promoted."""
    row = connection.execute(_NEWEST_PENDING, {"of": of.id}).first()
    return None if row is None else version_of(row)


def count_pending(connection: Connection, of: Secret) -> int:
    """Return how many versions wait for their promotion."""
    return connection.execute(_COUNT_PENDING, {"of": of.id}).scalar_one()


def list_versions(connection: Connection, of: Secret) -> Sequence[Version]:
    """Return the versions that a secret keeps, the newest first: the last `versions_max`, and what holds a value."""
    kept = secret_version.c.number > of.last_number - of.versions_max
    rows = connection.execute(
        select(*secret_version.c)
        .where(secret_version.c.secret == of.id, or_(kept, secret_version.c.sealed.is_not(None)))
        .order_by(secret_version.c.sequence.desc())
    ).all()
    return [version_of(row) for row in rows]


def oldest_numbers(connection: Connection, secrets: Sequence[Secret]) -> dict[str, int]:
    """Return the lowest number that each secret keeps, by id; those without one are left out."""
    kept = secret_version.c.number > secret.c.last_number - secret.c.versions_max
    rows = connection.execute(
        select(secret_version.c.secret, func.min(secret_version.c.number).label("oldest"))
        .join(secret, secret.c.id == secret_version.c.secret)
        .where(
            secret_version.c.secret.in_([one.id for one in secrets]),
            secret_version.c.number.is_not(None),
            or_(kept, secret_version.c.sealed.is_not(None)),
        )
        .group_by(secret_version.c.secret)
    ).all()
    return {row.secret: row.oldest for row in rows}


def versions_by_number(connection: Connection, of: Secret, numbers: Iterable[int]) -> Sequence[Version]:
    """Return those of the versions that there are, by number."""
    rows = connection.execute(
        select(*secret_version.c)
        .where(secret_version.c.secret == of.id, secret_version.c.number.in_(list(numbers)))
        .order_by(secret_version.c.number)
    ).all()
    return [version_of(row) for row in rows]


def versions_by_sequence(connection: Connection, of: Secret, sequences: Iterable[int]) -> Sequence[Version]:
    """Return those of the versions that there are, by sequence."""
    rows = connection.execute(
        select(*secret_version.c)
        .where(secret_version.c.secret == of.id, secret_version.c.sequence.in_(list(sequences)))
        .order_by(secret_version.c.sequence)
    ).all()
    return [version_of(row) for row in rows]


def holding_values(connection: Connection, of: Secret) -> Sequence[Version]:
    """Return the versions whose values are not destroyed."""
    rows = connection.execute(
        select(*secret_version.c)
        .where(secret_version.c.secret == of.id, secret_version.c.sealed.is_not(None))
        .order_by(secret_version.c.sequence)
    ).all()
    return [version_of(row) for row in rows]


def insert_secret(connection: Connection, made: Secret) -> None:
    """Store a new secret; the database refuses a path that another one is at."""
    connection.execute(_INSERT_SECRET, _secret_values(made))


def update_secret(connection: Connection, changed: Secret) -> None:
    """Store a secret under the next revision, which `changed` already holds."""
    values = _secret_values(changed)
    del values["id"]
    done = connection.execute(_UPDATE_SECRET, values | {"of": changed.id, "was": changed.revision - 1})
    if done.rowcount != 1:
        message = f"secret {changed.id} changed while it was being changed"
        raise BrokenInvariantError(message)


def removal_moment(connection: Connection, of: Secret, now: float) -> float:
    """Return when a secret counts as removed: now, or as little later as it takes to differ from removals before it."""
    last = connection.execute(
        select(func.max(secret.c.deleted_at)).where(secret.c.workspace == of.workspace, secret.c.path == of.path)
    ).scalar()
    return now if last is None or last < now else math.nextafter(last, math.inf)


def insert_version(connection: Connection, made: Version) -> None:
    """Store a new version; the database refuses a sequence or number that is taken."""
    connection.execute(_INSERT_VERSION, _version_values(made))


def update_version(connection: Connection, changed: Version) -> None:
    """Store a version's state, number and times."""
    connection.execute(
        _UPDATE_VERSION,
        {
            "of": changed.id,
            "number": changed.number,
            "state": changed.state,
            "promoted_at": changed.promoted_at,
            "delete_at": changed.delete_at,
            "deleted_at": changed.deleted_at,
        },
    )


def shift_labels(connection: Connection, of: Secret) -> None:
    """Make room for a new current version: current becomes previous, and what was previous is superseded."""
    connection.execute(_SHIFT_LABELS, {"of": of.id})


def destroy_versions(connection: Connection, of: Secret, sequences: Sequence[int], now: float) -> None:
    """Forget for good what versions hold, with everything that was derived from it."""
    connection.execute(_DESTROY, {"of": of.id, "which": list(sequences), "at": now})
    _delete_derived(connection, of, sequences)


def destroy_below(connection: Connection, of: Secret, below: int, now: float) -> list[int]:
    """Forget for good what versions numbered below a number still hold; return their numbers, as they were written."""
    rows = connection.execute(_DESTROY_BELOW, {"of": of.id, "below": below, "at": now}).all()
    if rows:
        _delete_derived(connection, of, [row.sequence for row in rows])
    return [row.number for row in sorted(rows, key=lambda row: row.sequence)]


def _delete_derived(connection: Connection, of: Secret, sequences: Sequence[int]) -> None:
    for statement in _DELETE_DERIVED:
        connection.execute(statement, {"of": of.id, "which": list(sequences)})


def targets_of(connection: Connection, of: Secret) -> frozenset[str]:
    """Return the paths that any version of a secret refers to."""
    return frozenset(connection.execute(_TARGETS, {"of": of.id}).scalars())


def insert_references(connection: Connection, of: Secret, sequence: int, references: Sequence[Reference]) -> None:
    """Remember which paths and fields a version refers to."""
    rows = [
        {"workspace": of.workspace, "secret": of.id, "sequence": sequence, "target": one.path, "field": one.field}
        for one in references
    ]
    if rows:
        connection.execute(_INSERT_REFERENCE, rows)


def list_secrets(
    connection: Connection, workspace: str, prefix: str, after: str, limit: int, *, within: Sequence[str] | None = None
) -> Sequence[Secret]:
    """Return secrets whose paths begin so, and as one of `within` where it is given, by path, after the path given."""
    rows = connection.execute(
        select(*secret.c)
        .where(secret.c.workspace == workspace, _LIVING, secret.c.path > after, _begins_with(prefix), _within(within))
        .order_by(secret.c.path)
        .limit(limit)
    ).all()
    return [secret_of(row) for row in rows]


def next_paths(
    connection: Connection, workspace: str, folder: str, after: str, limit: int, *, within: Sequence[str] | None = None
) -> Sequence[str]:
    """Return the paths below a folder, in order, from the text `after` on and not itself; `within` as for a list."""
    return list(
        connection.execute(
            select(secret.c.path)
            .where(
                secret.c.workspace == workspace, _LIVING, secret.c.path > after, _begins_with(folder), _within(within)
            )
            .order_by(secret.c.path)
            .limit(limit)
        ).scalars()
    )


def secret_of(row: Any) -> Secret:  # noqa: ANN401 -- a row of `secret`
    """Return a row of `secret` as what it is."""
    return Secret(
        id=row.id,
        workspace=row.workspace,
        path=row.path,
        environment=row.environment,
        owner=row.owner,
        purpose=row.purpose,
        provider=row.provider,
        revocation_path=row.revocation_path,
        metadata=_METADATA.decode(row.metadata_json),
        next_rotation_at=row.next_rotation_at,
        expires_at=row.expires_at,
        current=row.current,
        last_number=row.last_number,
        last_sequence=row.last_sequence,
        versions_max=row.versions_max,
        cas_required=row.cas_required,
        delete_after_seconds=row.delete_after_seconds,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        revision=row.revision,
    )


def version_of(row: Any) -> Version:  # noqa: ANN401 -- a row of `secret_version`
    """Return a row of `secret_version` as what it is."""
    return Version(
        id=row.id,
        workspace=row.workspace,
        secret=row.secret,
        sequence=row.sequence,
        number=row.number,
        state=SecretState(row.state),
        sealed=row.sealed,
        fields=_NAMES.decode(row.fields_json),
        size_bytes=row.size_bytes,
        created_at=row.created_at,
        created_by=row.created_by,
        promoted_at=row.promoted_at,
        delete_at=row.delete_at,
        deleted_at=row.deleted_at,
        destroyed_at=row.destroyed_at,
    )


def _begins_with(prefix: str) -> ColumnElement[bool]:
    """Match paths by a range, which an index answers; no character of a path is above `~`."""
    return and_(secret.c.path >= prefix, secret.c.path < prefix + "\x7f")


def _within(starts: Sequence[str] | None) -> ColumnElement[bool]:
    """Match paths that begin as one of the names of grants does; names write some characters as `=` and two digits."""
    return true() if starts is None else or_(false(), *(_begins_with(one.partition("=")[0]) for one in starts))


def _secret_values(of: Secret) -> dict[str, Any]:
    return {
        "id": of.id,
        "workspace": of.workspace,
        "path": of.path,
        "environment": of.environment,
        "owner": of.owner,
        "purpose": of.purpose,
        "provider": of.provider,
        "revocation_path": of.revocation_path,
        "metadata_json": msgspec.json.encode(of.metadata).decode(),
        "next_rotation_at": of.next_rotation_at,
        "expires_at": of.expires_at,
        "current": of.current,
        "last_number": of.last_number,
        "last_sequence": of.last_sequence,
        "versions_max": of.versions_max,
        "cas_required": of.cas_required,
        "delete_after_seconds": of.delete_after_seconds,
        "created_at": of.created_at,
        "created_by": of.created_by,
        "updated_at": of.updated_at,
        "deleted_at": of.deleted_at,
        "revision": of.revision,
    }


def _version_values(of: Version) -> dict[str, Any]:
    return {
        "id": of.id,
        "workspace": of.workspace,
        "secret": of.secret,
        "sequence": of.sequence,
        "number": of.number,
        "state": of.state,
        "sealed": of.sealed,
        "fields_json": msgspec.json.encode(of.fields).decode(),
        "size_bytes": of.size_bytes,
        "created_at": of.created_at,
        "created_by": of.created_by,
        "promoted_at": of.promoted_at,
        "delete_at": of.delete_at,
        "deleted_at": of.deleted_at,
        "destroyed_at": of.destroyed_at,
    }

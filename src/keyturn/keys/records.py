"""Records: the current state of keyspaces and keys, as replicas are loaded from it.

Single look-ups serve change rows and read-through; pages serve the first load and resyncs.  Pages go by key id and
cost two statements each, whatever the number of keys, so a million are loaded without holding them twice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import or_, select

from keyturn.kernel import tokenformat
from keyturn.keys import plan_records
from keyturn.storage.schema import issued_key, key_owner, key_version, keyspace
from keyturn.wire.keys import LOOKUP_LENGTH_MAX, LOOKUP_LENGTH_MIN
from keyturn.wire.policy import (
    KeyRecord,
    KeyspaceRecord,
    LimitRule,
    PepperRecord,
    QuotaRule,
    Restrictions,
    VersionRecord,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection

    from keyturn.storage.keyring import Keyring
    from keyturn.wire.policy import OwnerRecord, PlanRecord

PEPPER = "pepper"
"""The purpose of a keyspace's peppers in the keyring; their path is the keyspace's id."""

PAGE = 5000
CANDIDATES_MAX = 16
_DESTROYED = "destroyed"

# Many keys have equal scopes and restrictions: each text is read once while it is remembered.
_read_restrictions = lru_cache(4096)(msgspec.json.Decoder(Restrictions).decode)
_read_texts = lru_cache(4096)(msgspec.json.Decoder(tuple[str, ...]).decode)
_read_limits = lru_cache(4096)(msgspec.json.Decoder(tuple[LimitRule, ...]).decode)
_read_quotas = lru_cache(4096)(msgspec.json.Decoder(tuple[QuotaRule, ...]).decode)
_read_metadata = msgspec.json.Decoder(dict[str, str]).decode

_KEY = (
    issued_key.c.id,
    issued_key.c.keyspace,
    issued_key.c.owner,
    issued_key.c.environment,
    issued_key.c.state,
    issued_key.c.scopes_json,
    issued_key.c.restrictions_json,
    issued_key.c.not_before,
    issued_key.c.expires_at,
    issued_key.c.metadata_json,
    issued_key.c.name,
    issued_key.c.plan,
    issued_key.c.limits_json,
    issued_key.c.quotas_json,
    issued_key.c.shadow_restrictions_json,
)
# After the key, in the order of VersionRecord's fields.
_VERSION = (
    key_version.c.key,
    key_version.c.id,
    key_version.c.number,
    key_version.c.state,
    key_version.c.digest_kind,
    key_version.c.digest,
    key_version.c.pepper,
    key_version.c.valid_until,
    key_version.c.foreign,
    key_version.c.lookup,
)


def load_record(connection: Connection, key_id: str) -> KeyRecord | None:
    """Return the current state of a key, with every version that is not destroyed; None when there is none."""
    row = connection.execute(select(*_KEY).where(issued_key.c.id == key_id)).first()
    if row is None:
        return None
    versions = connection.execute(
        select(*_VERSION)
        .where(key_version.c.key == key_id, key_version.c.state != _DESTROYED)
        .order_by(key_version.c.number)
    ).all()
    return _key_record(row, versions)


def load_keyspace_record(connection: Connection, keyring: Keyring, keyspace_id: str) -> KeyspaceRecord | None:
    """Return the current state of a keyspace with its peppers opened; None when there is none."""
    row = connection.execute(select(*keyspace.c).where(keyspace.c.id == keyspace_id)).first()
    return None if row is None else _keyspace_record(connection, keyring, row)


def load_keyspaces(connection: Connection, keyring: Keyring) -> list[KeyspaceRecord]:
    """Return every keyspace of every workspace; the system ones say so."""
    rows = connection.execute(select(*keyspace.c).order_by(keyspace.c.id)).all()
    return [_keyspace_record(connection, keyring, row) for row in rows]


def load_page(
    connection: Connection, after: str = "", *, limit: int = PAGE, keyspace_id: str | None = None
) -> list[KeyRecord]:
    """Return up to `limit` keys whose ids come after `after`, in order of id; empty at the end.

    Pages may be read in transactions of their own, if the changes since before the first are applied afterwards.
    """
    conditions: list[ColumnElement[bool]] = [issued_key.c.id > after]
    if keyspace_id is not None:
        conditions.append(issued_key.c.keyspace == keyspace_id)
    rows = connection.execute(select(*_KEY).where(*conditions).order_by(issued_key.c.id).limit(limit)).all()
    if not rows:
        return []
    within: list[ColumnElement[bool]] = [key_version.c.key >= rows[0].id, key_version.c.key <= rows[-1].id]
    if keyspace_id is not None:
        within.append(key_version.c.keyspace == keyspace_id)
    versions: dict[str, list[Any]] = {}
    for version in connection.execute(
        select(*_VERSION)
        .where(*within, key_version.c.state != _DESTROYED)
        .order_by(key_version.c.key, key_version.c.number)
    ):
        versions.setdefault(version.key, []).append(version)
    return [_key_record(row, versions.get(row.id, ())) for row in rows]


def load_keys(connection: Connection, *, limit: int = PAGE, keyspace_id: str | None = None) -> Iterator[KeyRecord]:
    """Yield every key, a page at a time."""
    after = ""
    while page := load_page(connection, after, limit=limit, keyspace_id=keyspace_id):
        yield from page
        after = page[-1].id


def load_all(connection: Connection, keyring: Keyring) -> tuple[list[KeyspaceRecord], Iterator[KeyRecord]]:
    """Return every keyspace, and every key as an iterator that must be used up inside the same transaction."""
    return load_keyspaces(connection, keyring), load_keys(connection)


def load_owners(connection: Connection) -> Iterator[OwnerRecord]:
    """Yield every owner that has a record, a page at a time."""
    after = ""
    while page := plan_records.load_owners(connection, after=after):
        yield from page
        after = page[-1].id


def load_terms(
    connection: Connection, key: KeyRecord, of: KeyspaceRecord
) -> tuple[list[PlanRecord], OwnerRecord | None]:
    """Return the plans that a key may be on, and the record of its owner.  For read-through."""
    owner_id = connection.execute(
        select(key_owner.c.id).where(key_owner.c.workspace == of.workspace, key_owner.c.name == key.owner)
    ).scalar()
    owner = None if owner_id is None else plan_records.load_owner(connection, owner_id)
    named = (key.plan, None if owner is None else owner.plan, of.default_plan)
    found = [plan_records.load_plan(connection, plan_id) for plan_id in dict.fromkeys(named) if plan_id is not None]
    return [plan for plan in found if plan is not None], owner


def find_version(connection: Connection, keyring: Keyring, version_id: str) -> tuple[KeyRecord, KeyspaceRecord] | None:
    """Return the key that has a secret version, with its keyspace; None when there is none.  For read-through."""
    row = connection.execute(
        select(key_version.c.key, key_version.c.keyspace).where(
            key_version.c.id == version_id, key_version.c.state != _DESTROYED
        )
    ).first()
    if row is None:
        return None
    return _pair(connection, keyring, row.key, row.keyspace)


def foreign_candidates(
    connection: Connection, keyring: Keyring, workspace: str, presented: str, keyspace_name: str | None = None
) -> list[tuple[KeyRecord, KeyspaceRecord]]:
    """Return the keys that a presented key of foreign shape may be, among those imported into a workspace.

    First those whose digest is equal, then those whose declared look-up prefix it begins with; at most 16.
    """
    conditions = [keyspace.c.workspace == workspace, keyspace.c.accepts_foreign, ~keyspace.c.system]
    if keyspace_name is not None:
        conditions.append(or_(keyspace.c.name == keyspace_name, keyspace.c.id == keyspace_name))
    hashed = tokenformat.sha256(presented)
    prefixes = [presented[:length] for length in range(LOOKUP_LENGTH_MIN, min(len(presented), LOOKUP_LENGTH_MAX) + 1)]
    found: list[tuple[KeyRecord, KeyspaceRecord]] = []
    for row in connection.execute(select(*keyspace.c).where(*conditions).order_by(keyspace.c.id)).all():
        record = _keyspace_record(connection, keyring, row)
        digests = [tokenformat.digest(pepper.value, hashed) for pepper in record.peppers]
        keys = connection.execute(
            select(key_version.c.key)
            .where(
                key_version.c.keyspace == row.id,
                key_version.c.foreign,
                key_version.c.state != _DESTROYED,
                or_(key_version.c.digest.in_(digests), key_version.c.lookup.in_(prefixes)),
            )
            .order_by(key_version.c.lookup.is_not(None), key_version.c.key)
            .limit(CANDIDATES_MAX - len(found))
        ).scalars()
        for key_id in dict.fromkeys(keys):
            key = load_record(connection, key_id)
            if key is not None:
                found.append((key, record))
        if len(found) >= CANDIDATES_MAX:
            break
    return found


def _pair(
    connection: Connection, keyring: Keyring, key_id: str, keyspace_id: str
) -> tuple[KeyRecord, KeyspaceRecord] | None:
    key = load_record(connection, key_id)
    of = load_keyspace_record(connection, keyring, keyspace_id)
    return None if key is None or of is None else (key, of)


def _key_record(row: Sequence[Any], versions: Sequence[Sequence[Any]]) -> KeyRecord:
    """Build a record from a row of `_KEY` and rows of `_VERSION`, by position: a million are built at a start."""
    key_id, keyspace_id, owner, environment, state, scopes, restrictions, not_before, expires_at, metadata = row[:10]
    name, plan, limits, quotas, shadow = row[10:]
    return KeyRecord(
        key_id,
        keyspace_id,
        owner,
        environment,
        state,
        tuple([VersionRecord(*version[1:]) for version in versions]),
        _read_texts(scopes),
        None if restrictions is None else _read_restrictions(restrictions),
        not_before,
        expires_at,
        None if metadata == "{}" else _read_metadata(metadata),
        name,
        plan,
        () if limits is None else _read_limits(limits),
        () if quotas is None else _read_quotas(quotas),
        None if shadow is None else _read_restrictions(shadow),
    )


def _keyspace_record(
    connection: Connection,
    keyring: Keyring,
    row: Any,  # noqa: ANN401 -- a row of `keyspace`
) -> KeyspaceRecord:
    return KeyspaceRecord(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        prefix=row.prefix,
        tag=row.tag,
        environment=row.environment,
        state=row.state,
        stale_after_seconds=row.stale_after_seconds,
        peppers=tuple(
            PepperRecord(number=pepper.number, value=pepper.value)
            for pepper in keyring.all(connection, row.workspace, PEPPER, row.id)
        ),
        restrictions=None if row.restrictions_json is None else _read_restrictions(row.restrictions_json),
        accepts_foreign=row.accepts_foreign,
        system=row.system,
        default_plan=row.default_plan,
        limits=() if row.limits_json is None else _read_limits(row.limits_json),
        quotas=() if row.quotas_json is None else _read_quotas(row.quotas_json),
        shadow_restrictions=(
            None if row.shadow_restrictions_json is None else _read_restrictions(row.shadow_restrictions_json)
        ),
    )

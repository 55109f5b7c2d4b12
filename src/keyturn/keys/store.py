"""SQL of keys and versions.  Every query names the workspace; no row is deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, func, insert, or_, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.keys.model import LIVE_VERSION_STATES, Key, Version
from keyturn.storage.schema import decoy, issued_key, key_tag, key_version, keyspace, last_used
from keyturn.storage.schema import plan as plan_table
from keyturn.wire.policy import LimitRule, QuotaRule, Restrictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection

    from keyturn.keys.model import VersionChange

MATCHES_AT_ONCE = 500

_read_restrictions = msgspec.json.Decoder(Restrictions).decode
_read_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_read_metadata = msgspec.json.Decoder(dict[str, str]).decode
_read_limits = msgspec.json.Decoder(tuple[LimitRule, ...]).decode
_read_quotas = msgspec.json.Decoder(tuple[QuotaRule, ...]).decode

_SELECTED = (
    select(*issued_key.c, keyspace.c.name.label("keyspace_name"), plan_table.c.name.label("plan_name"))
    .join(keyspace, keyspace.c.id == issued_key.c.keyspace)
    .outerjoin(plan_table, plan_table.c.id == issued_key.c.plan)
)

_INSERT_KEYS = insert(issued_key)
_INSERT_VERSIONS = insert(key_version)


def to_json(value: object) -> str:
    """Encode a structured value for a column."""
    return msgspec.json.encode(value).decode()


def restrictions_json(restrictions: Restrictions | None) -> str | None:
    """Encode restrictions for a column; none at all is NULL."""
    return None if restrictions is None else to_json(restrictions)


def read_restrictions(text: str | None) -> Restrictions | None:
    """Decode what `restrictions_json` wrote."""
    return None if text is None else _read_restrictions(text)


def read_texts(text: str) -> tuple[str, ...]:
    """Decode a list of texts of a column."""
    return _read_texts(text)


def rules_json(rules: Sequence[LimitRule] | Sequence[QuotaRule]) -> str | None:
    """Encode limits or quotas for a column; none at all is NULL."""
    return to_json(tuple(rules)) if rules else None


def read_limits(text: str | None) -> tuple[LimitRule, ...]:
    """Decode the limits that `rules_json` wrote."""
    return () if text is None else _read_limits(text)


def read_quotas(text: str | None) -> tuple[QuotaRule, ...]:
    """Decode the quotas that `rules_json` wrote."""
    return () if text is None else _read_quotas(text)


# --- keys --------------------------------------------------------------------------------------------------------


def insert_keys(connection: Connection, keys: Sequence[Key]) -> None:
    """Store new keys with their tags."""
    connection.execute(_INSERT_KEYS, [_key_values(key) for key in keys])
    tags = [{"key": key.id, "workspace": key.workspace, "tag": tag} for key in keys for tag in key.tags]
    if tags:
        connection.execute(insert(key_tag), tags)


def update_key(connection: Connection, key: Key) -> None:
    """Store a key that was loaded with `lock`, under the next revision, which `key` already holds."""
    values = _key_values(key)
    done = connection.execute(
        update(issued_key)
        .where(
            issued_key.c.id == key.id,
            issued_key.c.workspace == key.workspace,
            issued_key.c.revision == key.revision - 1,
        )
        .values(values)
    )
    if done.rowcount != 1:
        message = f"key {key.id} changed while it was locked"
        raise BrokenInvariantError(message)


def replace_tags(connection: Connection, key: Key) -> None:
    """Store the tags of a key in place of those before."""
    connection.execute(delete(key_tag).where(key_tag.c.key == key.id, key_tag.c.workspace == key.workspace))
    if key.tags:
        connection.execute(
            insert(key_tag), [{"key": key.id, "workspace": key.workspace, "tag": tag} for tag in key.tags]
        )


def is_decoy(connection: Connection, key: Key) -> bool:
    """Tell whether any use of the key is an alarm, as its workspace has said and not taken back."""
    of_it = (decoy.c.workspace == key.workspace, decoy.c.key == key.id, decoy.c.state != "retired")
    return connection.execute(select(decoy.c.id).where(*of_it).limit(1)).first() is not None


def load_key(
    connection: Connection, workspace: str, key_id: str, *, system: bool = False, lock: bool = False
) -> Key | None:
    """Return a key of the workspace; `lock` keeps others from changing it until this unit ends.

    Management tokens are found only with `system`, other keys only without.
    """
    query = _SELECTED.where(issued_key.c.workspace == workspace, issued_key.c.id == key_id, keyspace.c.system == system)
    if lock:
        query = query.with_for_update(of=issued_key)
    row = connection.execute(query).first()
    return None if row is None else _key(row)


def list_keys(
    connection: Connection,
    workspace: str,
    conditions: Sequence[ColumnElement[bool]],
    after: str,
    limit: int,
    *,
    system: bool = False,
) -> list[Key]:
    """Return keys that meet all conditions, in order of id, after the id given."""
    rows = connection.execute(
        _SELECTED.where(
            issued_key.c.workspace == workspace, keyspace.c.system == system, issued_key.c.id > after, *conditions
        )
        .order_by(issued_key.c.id)
        .limit(limit)
    ).all()
    return [_key(row) for row in rows]


def conditions_of(
    *,
    keyspace_id: str | None = None,
    owner: str | None = None,
    state: str | None = None,
    environment: str | None = None,
    plan: str | None = None,
    tag: str | None = None,
    name: str | None = None,
    expiring_before: float | None = None,
    unused_since: float | None = None,
    within: Sequence[str] | None = None,
) -> list[ColumnElement[bool]]:
    """Turn filters into conditions for `list_keys`; None does not filter.

    `within` are beginnings of `<keyspace>/<id>`, of which only the keyspaces narrow.
    """
    equal = (
        (issued_key.c.keyspace, keyspace_id),
        (issued_key.c.owner, owner),
        (issued_key.c.state, state),
        (issued_key.c.environment, environment),
        (issued_key.c.plan, plan),
    )
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal if value is not None]
    if name is not None:
        conditions.append(func.substr(issued_key.c.name, 1, len(name)) == name)
    if within is not None:
        conditions.append(keyspace.c.name.in_({one.partition("/")[0] for one in within}))
    if tag is not None:
        tagged = select(key_tag.c.key).where(key_tag.c.workspace == issued_key.c.workspace, key_tag.c.tag == tag)
        conditions.append(issued_key.c.id.in_(tagged))
    if expiring_before is not None:
        conditions.append(issued_key.c.expires_at < expiring_before)
    if unused_since is not None:
        used = select(last_used.c.key).where(last_used.c.key == issued_key.c.id, last_used.c.at >= unused_since)
        conditions.extend((issued_key.c.created_at < unused_since, ~used.exists()))
    return conditions


def _key_values(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "workspace": key.workspace,
        "keyspace": key.keyspace,
        "environment": key.environment,
        "name": key.name,
        "owner": key.owner,
        "purpose": key.purpose,
        "state": key.state,
        "scopes_json": to_json(key.scopes),
        "restrictions_json": restrictions_json(key.restrictions),
        "metadata_json": to_json(key.metadata),
        "tags_json": to_json(key.tags),
        "not_before": key.not_before,
        "expires_at": key.expires_at,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "updated_at": key.updated_at,
        "disabled_at": key.disabled_at,
        "revoked_at": key.revoked_at,
        "revoke_reason": key.revoke_reason,
        "revision": key.revision,
        "plan": key.plan,
        "limits_json": rules_json(key.limits),
        "quotas_json": rules_json(key.quotas),
        "shadow_restrictions_json": restrictions_json(key.shadow_restrictions),
    }


def _key(row: Any) -> Key:  # noqa: ANN401 -- a row of `_SELECTED`
    return Key(
        id=row.id,
        workspace=row.workspace,
        keyspace=row.keyspace,
        keyspace_name=row.keyspace_name,
        environment=row.environment,
        name=row.name,
        owner=row.owner,
        purpose=row.purpose,
        state=row.state,
        scopes=_read_texts(row.scopes_json),
        restrictions=read_restrictions(row.restrictions_json),
        metadata=_read_metadata(row.metadata_json),
        tags=_read_texts(row.tags_json),
        not_before=row.not_before,
        expires_at=row.expires_at,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        disabled_at=row.disabled_at,
        revoked_at=row.revoked_at,
        revoke_reason=row.revoke_reason,
        revision=row.revision,
        shadow_restrictions=read_restrictions(row.shadow_restrictions_json),
        plan=row.plan,
        plan_name=row.plan_name,
        limits=read_limits(row.limits_json),
        quotas=read_quotas(row.quotas_json),
    )


# --- versions ----------------------------------------------------------------------------------------------------


def insert_versions(connection: Connection, versions: Sequence[Version]) -> None:
    """Store new versions."""
    connection.execute(
        _INSERT_VERSIONS,
        [
            {
                "id": v.id,
                "key": v.key,
                "keyspace": v.keyspace,
                "number": v.number,
                "state": v.state,
                "digest_kind": v.digest_kind,
                "digest": v.digest,
                "pepper": v.pepper,
                "foreign": v.foreign,
                "lookup": v.lookup,
                "created_at": v.created_at,
                "created_by": v.created_by,
                "valid_until": v.valid_until,
                "retired_at": v.retired_at,
            }
            for v in versions
        ],
    )


def change_versions(connection: Connection, key_id: str, changes: Iterable[VersionChange]) -> None:
    """Store new states and ends of versions of a key that was loaded with `lock`."""
    for change in changes:
        connection.execute(
            update(key_version)
            .where(key_version.c.id == change.id, key_version.c.key == key_id)
            .values(state=change.state, valid_until=change.valid_until, retired_at=change.retired_at)
        )


def load_versions(connection: Connection, key_ids: Sequence[str]) -> dict[str, list[Version]]:
    """Return the versions of each key, newest first."""
    found: dict[str, list[Version]] = {key_id: [] for key_id in key_ids}
    rows = connection.execute(
        select(*key_version.c).where(key_version.c.key.in_(key_ids)).order_by(key_version.c.number.desc())
    ).all()
    for row in rows:
        found[row.key].append(_version(row))
    return found


def equal_digests(connection: Connection, keyspace_id: str, digests: Sequence[bytes]) -> set[bytes]:
    """Return those of the digests that some version of the keyspace already has."""
    found: set[bytes] = set()
    for start in range(0, len(digests), MATCHES_AT_ONCE):
        part = digests[start : start + MATCHES_AT_ONCE]
        found.update(
            connection.execute(
                select(key_version.c.digest).where(
                    key_version.c.keyspace == keyspace_id, key_version.c.digest.in_(part)
                )
            ).scalars()
        )
    return found


def count_lookups(connection: Connection, keyspace_id: str, lookups: Sequence[str]) -> int:
    """Count the versions with a slow digest that have one of these look-up prefixes."""
    return connection.execute(
        select(func.count())
        .select_from(key_version)
        .where(
            key_version.c.keyspace == keyspace_id,
            key_version.c.lookup.in_(lookups),
            key_version.c.state.in_(LIVE_VERSION_STATES),
        )
    ).scalar_one()


def census(connection: Connection, keyspace_id: str, now: float) -> dict[int, int]:
    """Count the versions that still need each pepper of a keyspace: those that may yet be admitted."""
    rows = connection.execute(
        select(key_version.c.pepper, func.count().label("versions"))
        .where(
            key_version.c.keyspace == keyspace_id,
            key_version.c.digest_kind == "blake2b",
            key_version.c.state.in_(LIVE_VERSION_STATES),
            or_(key_version.c.valid_until.is_(None), key_version.c.valid_until > now),
        )
        .group_by(key_version.c.pepper)
    ).all()
    return {row.pepper: row.versions for row in rows}


def _version(row: Any) -> Version:  # noqa: ANN401 -- a row of `key_version`
    return Version(
        id=row.id,
        key=row.key,
        keyspace=row.keyspace,
        number=row.number,
        state=row.state,
        digest_kind=row.digest_kind,
        digest=row.digest,
        pepper=row.pepper,
        foreign=row.is_foreign,
        lookup=row.lookup,
        created_at=row.created_at,
        created_by=row.created_by,
        valid_until=row.valid_until,
        retired_at=row.retired_at,
    )


# --- who uses what -----------------------------------------------------------------------------------------------


def last_used_at(connection: Connection, key_ids: Sequence[str]) -> Mapping[str, float]:
    """Return when each key was last used, without those that never were."""
    rows = connection.execute(
        select(last_used.c.key, func.max(last_used.c.at).label("latest"))
        .where(last_used.c.key.in_(key_ids))
        .group_by(last_used.c.key)
    ).all()
    return {row.key: row.latest for row in rows}

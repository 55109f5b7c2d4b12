"""Answers: stored values as the wire types show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from keyturn.access.moments import shown
from keyturn.kernel.clock import rfc3339
from keyturn.storage.effect import await_effect
from keyturn.wire.keys import (
    CallerInfo,
    KeyDetail,
    KeyInfo,
    KeyspaceDetail,
    KeyspaceInfo,
    LastUse,
    PepperInfo,
    VersionInfo,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import msgspec

    from keyturn.keys.model import Key, Keyspace, Version
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Committed
    from keyturn.wire.usage import VersionUse

T = TypeVar("T")

CALLERS_SHOWN = 10


def keyspace_info(of: Keyspace) -> KeyspaceInfo:
    """Show a keyspace as lists do."""
    return KeyspaceInfo(**_keyspace_fields(of))


def keyspace_detail(
    of: Keyspace, peppers: Sequence[tuple[int, str, float]], census: Mapping[int, int]
) -> KeyspaceDetail:
    """Show a keyspace with its peppers."""
    return KeyspaceDetail(
        **_keyspace_fields(of),
        peppers=tuple(
            PepperInfo(number=number, state=state, created_at=rfc3339(created_at), versions=census.get(number, 0))
            for number, state, created_at in peppers
        ),
    )


def key_info(of: Key, last_used_at: float | None) -> KeyInfo:
    """Show a key as lists do."""
    return KeyInfo(**_key_fields(of, last_used_at))


def key_detail(of: Key, versions: Sequence[Version], uses: Mapping[str, VersionUse]) -> KeyDetail:
    """Show a key with its versions, newest first, and who uses them."""
    last_used_at = max((use.at for use in uses.values()), default=None)
    return KeyDetail(
        **_key_fields(of, last_used_at),
        versions=tuple(_version_info(version, uses.get(version.id)) for version in versions),
    )


def fields_of(struct: msgspec.Struct) -> dict[str, Any]:
    """Return the fields of a wire struct, to build one that has more."""
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


async def effect_of(
    database: Database, committed: Committed[Any], bound_seconds: float, *, of_rights: bool = False
) -> dict[str, Any]:
    """Wait for every node, as `await_effect` does, and return the fields of an answer that tell of it."""
    effect = await await_effect(database, committed.log_id, committed.seq, bound_seconds, of_rights=of_rights)
    return {
        "effective": effect.effective,
        "lag_ms": effect.lag_ms,
        "effective_by": rfc3339(effect.effective_by),
        "laggards": effect.laggards,
    }


def _keyspace_fields(of: Keyspace) -> dict[str, Any]:
    return {
        "id": of.id,
        "name": of.name,
        "prefix": of.prefix,
        "tag": of.tag,
        "environment": of.environment,
        "state": of.state,
        "description": of.description,
        "stale_after_seconds": int(of.stale_after_seconds),
        "restrictions": of.restrictions,
        "accepts_foreign": of.accepts_foreign,
        "created_at": rfc3339(of.created_at),
        "created_by": of.created_by,
        "revision": of.revision,
        "shadow_restrictions": of.shadow_restrictions,
        "default_plan": of.default_plan_name,
        "limits": of.limits,
        "quotas": of.quotas,
    }


def _key_fields(of: Key, last_used_at: float | None) -> dict[str, Any]:
    return {
        "id": of.id,
        "keyspace": of.keyspace_name,
        "environment": of.environment,
        "name": of.name,
        "owner": of.owner,
        "purpose": of.purpose,
        "state": of.state,
        "scopes": of.scopes,
        "restrictions": of.restrictions,
        "metadata": of.metadata,
        "tags": of.tags,
        "not_before": shown(of.not_before),
        "expires_at": shown(of.expires_at),
        "created_at": rfc3339(of.created_at),
        "created_by": of.created_by,
        "updated_at": rfc3339(of.updated_at),
        "disabled_at": shown(of.disabled_at),
        "revoked_at": shown(of.revoked_at),
        "revoke_reason": of.revoke_reason,
        "last_used_at": shown(last_used_at),
        "revision": of.revision,
        "shadow_restrictions": of.shadow_restrictions,
        "plan": of.plan_name,
        "limits": of.limits,
        "quotas": of.quotas,
    }


def _version_info(of: Version, use: VersionUse | None) -> VersionInfo:
    last_used = None
    callers: tuple[CallerInfo, ...] = ()
    if use is not None:
        latest = use.callers[0] if use.callers else None
        last_used = LastUse(
            at=rfc3339(use.at),
            ip_network=latest.ip_network if latest else None,
            user_agent=latest.user_agent if latest else None,
            endpoint=latest.endpoint if latest else None,
        )
        callers = tuple(
            CallerInfo(
                first_at=rfc3339(caller.first_at),
                at=rfc3339(caller.at),
                ip_network=caller.ip_network,
                user_agent=caller.user_agent,
                endpoint=caller.endpoint,
                uses=caller.count,
                other=caller.other,
            )
            for caller in use.callers[:CALLERS_SHOWN]
        )
    return VersionInfo(
        id=of.id,
        number=of.number,
        state=of.state,
        created_at=rfc3339(of.created_at),
        created_by=of.created_by,
        valid_until=shown(of.valid_until),
        retired_at=shown(of.retired_at),
        foreign=of.foreign,
        digest_kind=of.digest_kind,
        last_used=last_used,
        callers=callers,
        uses=0 if use is None else use.count,
    )

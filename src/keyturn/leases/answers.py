"""Answers: stored values as the wire types show them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keyturn.access.moments import shown
from keyturn.kernel.clock import rfc3339
from keyturn.wire.leases import CredentialRoleInfo, LeaseInfo, LeaseState, SourceInfo

if TYPE_CHECKING:
    from keyturn.leases.model import Lease, Role, Source
    from keyturn.leases.ports import Connector


def source_info(of: Source, connector: Connector | None) -> SourceInfo:
    """Show a source; the names of what is sealed, and no value of it."""
    return SourceInfo(
        id=of.id,
        name=of.name,
        kind=of.kind,
        description=of.description,
        connection=of.connection,
        secrets=of.secrets,
        renewable=connector is not None and connector.renewable,
        revocable=connector is not None and connector.revocable,
        created_at=rfc3339(of.created_at),
        created_by=of.created_by,
        updated_at=rfc3339(of.updated_at),
        revision=of.revision,
    )


def role_info(of: Role) -> CredentialRoleInfo:
    """Show a role."""
    return CredentialRoleInfo(
        id=of.id,
        source=of.source_name,
        name=of.name,
        config=of.config,
        ttl_seconds=of.ttl_seconds,
        max_ttl_seconds=of.max_ttl_seconds,
        leases_max=of.leases_max,
        created_at=rfc3339(of.created_at),
        created_by=of.created_by,
        updated_at=rfc3339(of.updated_at),
        revision=of.revision,
    )


def left_of(of: Lease, now: float) -> int:
    """Return what is left of an active lease, in whole seconds."""
    return max(0, math.ceil(of.expires_at - now)) if of.state is LeaseState.ACTIVE else 0


def lease_info(of: Lease, connector: Connector | None, now: float) -> LeaseInfo:
    """Show a lease."""
    waits = of.state not in {LeaseState.ACTIVE, LeaseState.INTENT}
    return LeaseInfo(
        id=of.id,
        lease_id=of.path,
        source=of.source_name,
        role=of.role_name,
        account=of.account,
        state=of.state,
        principal=of.principal,
        subject=of.subject,
        ttl_seconds=left_of(of, now),
        renewable=connector is not None and connector.renewable,
        revocable=connector is not None and connector.revocable,
        created_at=rfc3339(of.created_at),
        expires_at=rfc3339(of.expires_at),
        max_expires_at=rfc3339(of.max_expires_at),
        attempts=of.attempts,
        next_attempt_at=shown(of.due_at) if waits else None,
        last_error=of.last_error,
        revoke_reason=of.revoke_reason,
        revoked_at=shown(of.revoked_at),
        revision=of.revision,
    )

"""What the operations answer, from what is stored."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from keyturn.access.moments import shown
from keyturn.kernel.clock import rfc3339
from keyturn.logins.model import JWT
from keyturn.logins.presets import weaknesses
from keyturn.wire.logins import LoginMethodInfo, LoginRoleInfo, LoginTokenInfo, SecretIdInfo

if TYPE_CHECKING:
    from keyturn.logins.model import LoginRole, LoginToken, Method, SecretId


def method_info(of: Method) -> LoginMethodInfo:
    """Describe a method; never what is sealed of it."""
    options = of.config.jwt or of.config.kubernetes or of.config.certificate
    held: dict[str, Any] = {} if options is None else msgspec.to_builtins(options)
    return LoginMethodInfo(
        id=of.id,
        name=of.name,
        kind=of.kind,
        preset=of.config.preset,
        description=of.description,
        state=of.state,
        options={name: value for name, value in held.items() if value is not None},
        created_at=rfc3339(of.created_at),
        created_by=of.created_by,
        updated_at=rfc3339(of.updated_at),
        revision=of.revision,
    )


def role_info(method: Method, of: LoginRole) -> LoginRoleInfo:
    """Describe a role, with what it lets in beyond one workload."""
    binding = of.config.jwt
    warnings = () if method.kind != JWT or binding is None else weaknesses(binding, method.config.preset)
    return LoginRoleInfo(
        id=of.id,
        method=method.name,
        name=of.name,
        role_id=of.role_id,
        principal=of.principal,
        jwt=of.config.jwt,
        kubernetes=of.config.kubernetes,
        certificate=of.config.certificate,
        approle=of.config.approle,
        scopes=of.scopes,
        resources=of.resources,
        cidrs=of.config.cidrs,
        ttl_seconds=of.ttl_seconds,
        max_ttl_seconds=of.max_ttl_seconds,
        tokens_max=of.tokens_max,
        leases_max=of.leases_max,
        warnings=warnings,
        created_at=rfc3339(of.created_at),
        created_by=of.created_by,
        updated_at=rfc3339(of.updated_at),
        revision=of.revision,
    )


def secret_info(of: SecretId) -> SecretIdInfo:
    """Describe a secret-id, not showing it."""
    return SecretIdInfo(
        id=of.id,
        role=of.role,
        state=of.state,
        metadata=of.metadata,
        cidrs=of.cidrs,
        uses_left=of.uses_left,
        created_at=rfc3339(of.created_at),
        created_by=of.created_by,
        expires_at=shown(of.expires_at),
        last_used_at=shown(of.last_used_at),
    )


def token_info(of: LoginToken, now: float) -> LoginTokenInfo:
    """Describe a login token, not showing it."""
    return LoginTokenInfo(
        id=of.id,
        kind="login",
        principal=of.principal,
        method=of.method,
        role=of.role,
        parent=of.parent,
        subject=of.subject,
        scopes=of.scopes,
        resources=of.resources,
        cidrs=of.cidrs,
        metadata=of.metadata,
        renewable=of.renewable,
        creation_ttl_seconds=of.ttl_seconds,
        ttl_seconds=seconds_left(of.expires_at, now),
        state=of.state if of.state != "active" or now < of.expires_at else "expired",
        created_at=rfc3339(of.created_at),
        expires_at=rfc3339(of.expires_at),
        max_expires_at=rfc3339(of.max_expires_at),
        revoked_at=shown(of.revoked_at),
    )


def seconds_left(until: float, now: float) -> int:
    """Return the whole seconds until then; never more than there are."""
    return max(0, math.floor(until - now + 1e-6))

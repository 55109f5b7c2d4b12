"""What logins keep: methods, roles, secret-ids and tokens as they are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from keyturn.access.caller import Resource
from keyturn.wire.logins import (
    ApproleBinding,
    CertificateBinding,
    CertificateOptions,
    JwtBinding,
    JwtOptions,
    KubernetesBinding,
    KubernetesOptions,
)

ACTIVE: Final = "active"
DISABLED: Final = "disabled"
REVOKED: Final = "revoked"

JWT: Final = "jwt"
APPROLE: Final = "approle"
KUBERNETES: Final = "kubernetes"
CERTIFICATE: Final = "certificate"


class MethodConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The options of a method, complete and without a secret; stored as JSON."""

    preset: str | None = None
    jwt: JwtOptions | None = None
    kubernetes: KubernetesOptions | None = None
    certificate: CertificateOptions | None = None


class RoleConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which identities a role lets in, and from where its tokens may be used; stored as JSON."""

    jwt: JwtBinding | None = None
    kubernetes: KubernetesBinding | None = None
    certificate: CertificateBinding | None = None
    approle: ApproleBinding | None = None
    cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """A way to log in."""

    id: str
    workspace: str
    name: str
    kind: str
    description: str
    config: MethodConfig
    state: str
    created_at: float
    created_by: str
    updated_at: float
    deleted_at: float
    revision: int

    @property
    def resource(self) -> Resource:
        """Name it as the object of an action."""
        return method_resource(self.name)


@dataclass(frozen=True, slots=True)
class LoginRole:
    """Whom a proven identity becomes, and what its tokens are bounded by."""

    id: str
    workspace: str
    method: str
    name: str
    role_id: str
    principal: str
    config: RoleConfig
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    ttl_seconds: int
    max_ttl_seconds: int
    tokens_max: int
    leases_max: int
    created_at: float
    created_by: str
    updated_at: float
    deleted_at: float
    revision: int


@dataclass(frozen=True, slots=True)
class SecretId:
    """A secret-id of AppRole; `id` is its accessor."""

    id: str
    workspace: str
    role: str
    lookup: str
    digest: bytes
    metadata: dict[str, str]
    cidrs: tuple[str, ...]
    uses_left: int | None
    state: str
    created_at: float
    created_by: str
    expires_at: float | None
    last_used_at: float | None

    def usable(self, now: float) -> bool:
        """Tell whether it lets anybody in now."""
        return (
            self.state == ACTIVE
            and (self.expires_at is None or now < self.expires_at)
            and (self.uses_left is None or self.uses_left > 0)
        )


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A token that a login gave, or one made below another."""

    id: str
    lookup: str
    workspace: str
    principal: str
    method: str | None
    role: str | None
    parent: str | None
    subject: str
    digest: bytes
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    cidrs: tuple[str, ...]
    metadata: dict[str, str]
    renewable: bool
    ttl_seconds: int
    state: str
    mark: bytes | None
    sealed: bytes | None
    created_at: float
    expires_at: float
    max_expires_at: float
    revoked_at: float | None

    def live(self, now: float) -> bool:
        """Tell whether it is neither revoked nor past its end."""
        return self.state == ACTIVE and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Proof:
    """An identity that was proven, and what a token for it may rest on."""

    subject: str
    metadata: dict[str, str] = field(default_factory=dict)
    expires_at: float | None = None
    """When the assertion ends."""
    replay: str | None = None
    """What may be used once: refused when it was used before."""
    phrase: bytes | None = None
    """The assertion where nobody else can know it; a token is sealed under it, so that it gets the same one again."""
    mark: bytes | None = None
    """A hash of the assertion where it is public, such as a certificate; the token is sealed in the workspace."""
    secret_id: str | None = None
    """The secret-id that was used."""


def method_resource(name: str) -> Resource:
    """Name a login method as the object of an action."""
    return Resource(f"login_method/{name}")


def role_resource(method: str, name: str) -> Resource:
    """Name a login role as the object of an action."""
    return Resource(f"login_role/{method}/{name}")


def token_resource(token_id: str) -> Resource:
    """Name a login token as the object of an action."""
    return Resource(f"login_token/{token_id}")


def to_json(value: Any) -> str:  # noqa: ANN401 -- any wire value
    """Write a value for a column."""
    return msgspec.json.encode(value).decode()

"""Who is calling: an authenticated principal with its rights, or a bearer token not yet proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from keyturn.kernel.secret import Secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brought: a bearer token to be proven inside the transaction, and where it came from."""

    token: Secret
    ip: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """What the token port answers for a proven token."""

    workspace: str
    principal: str
    token_id: str
    scopes: tuple[str, ...]
    """Patterns over action names; empty means no restriction beyond the principal's grants."""
    resources: tuple[str, ...]
    """Patterns over resource names; empty likewise."""
    expires_at: float | None = None
    """When the token ends; None is never."""
    subject: str = ""
    """Who logged in, where the token came from a login: such as the `sub` of a JWT; empty for a management token."""
    login_role: str | None = None
    """The id of the login role that gave the token."""
    cidrs: tuple[str, ...] = ()
    """Where the token may be used from; empty does not restrict."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """When a grant applies; an empty field does not restrict."""

    environments: tuple[str, ...] = ()
    cidrs: tuple[str, ...] = ()
    not_before: float | None = None
    not_after: float | None = None
    unknown: bool = False
    """The stored conditions are not understood by this release: the grant never applies."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One right that was not revoked; `subject` is the principal, or the role it is a member of."""

    id: str
    subject: str
    actions: tuple[str, ...]
    resource: str
    conditions: Conditions


class Caller(msgspec.Struct, frozen=True):
    """An authenticated principal, as seen inside one transaction."""

    workspace: str
    principal: str
    kind: str
    name: str
    token_id: str | None
    token_scopes: tuple[str, ...]
    token_resources: tuple[str, ...]
    grants: tuple[Grant, ...]
    ip: str | None = None
    request_id: str | None = None
    token_expires_at: float | None = None
    subject: str = ""
    login_role: str | None = None

    @property
    def consumer(self) -> str:
        """Who receives secrets, to the precision known: the principal, and the subject it logged in as."""
        return f"{self.principal}/{self.subject}" if self.subject else self.principal


@dataclass(frozen=True, slots=True)
class Resource:
    """What an operation touches: its name and, where it has one, its environment."""

    name: str
    environment: str | None = None

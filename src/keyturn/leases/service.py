"""Leases: create, look up, renew and revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.wire.keys import PAGE_DEFAULT

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.wire.leases import (
        LeaseCreated,
        LeaseInfo,
        LeasePage,
        LeasesRevoked,
        LeaseState,
    )


class LeaseService:
    """The operations on leases; `lease` is an id or a path, `<source>/creds/<role>/<id>`."""

    async def create(
        self, credentials: Credentials, source: str, role: str, *, ttl_seconds: int | None = None
    ) -> LeaseCreated:
        """Make an account and answer its credential, once."""
        raise NotImplementedError

    async def lookup(self, credentials: Credentials, lease: str) -> LeaseInfo:
        """Show a lease."""
        raise NotImplementedError

    async def list(
        self,
        credentials: Credentials,
        *,
        state: LeaseState | None = None,
        prefix: str = "",
        principal: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> LeasePage:
        """List leases, oldest first."""
        raise NotImplementedError

    async def renew(self, credentials: Credentials, lease: str, increment_seconds: int | None = None) -> LeaseInfo:
        """Let a lease end so long after now, within its most."""
        raise NotImplementedError

    async def revoke(self, credentials: Credentials, lease: str) -> LeaseInfo:
        """End a lease and drop its account; one that is over already stays as it is."""
        raise NotImplementedError

    async def revoke_prefix(self, credentials: Credentials, prefix: str) -> LeasesRevoked:
        """End every lease under a path."""
        raise NotImplementedError

    async def revoke_by_owner(
        self, credentials: Credentials, principal: str, subject: str | None = None
    ) -> LeasesRevoked:
        """End every lease of a principal."""
        raise NotImplementedError

    async def retry(self, credentials: Credentials, lease: str) -> LeaseInfo:
        """Try again to drop the account of an irrevocable lease."""
        raise NotImplementedError

    async def resolve(self, credentials: Credentials, lease: str, reason: str) -> LeaseInfo:
        """Take a person's word that the account of an irrevocable lease is gone."""
        raise NotImplementedError

"""The operations on the secret-ids of AppRole."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.wire.logins import IssueSecretId, SecretIdInfo, SecretIdIssued, SecretIdPage


class SecretIdService:
    """Secret-ids; their `id` is what others call the accessor."""

    async def issue(
        self,
        credentials: Credentials,
        method: str,
        role: str,
        request: IssueSecretId,
        *,
        idempotency: str | None = None,
    ) -> SecretIdIssued:
        """Make a secret-id of a role and show it once."""
        raise NotImplementedError

    async def list(
        self, credentials: Credentials, method: str, role: str, *, cursor: str | None = None, limit: int = 50
    ) -> SecretIdPage:
        """List the secret-ids of a role; never a secret."""
        raise NotImplementedError

    async def read(self, credentials: Credentials, method: str, role: str, secret_id_id: str) -> SecretIdInfo:
        """Show what is known of a secret-id, by its id."""
        raise NotImplementedError

    async def find(self, credentials: Credentials, method: str, role: str, secret_id: str) -> SecretIdInfo:
        """Show what is known of a secret-id, by itself; uses none of its uses."""
        raise NotImplementedError

    async def revoke(self, credentials: Credentials, method: str, role: str, secret_id_id: str) -> SecretIdInfo:
        """Revoke a secret-id, by its id; the tokens it gave live on until they end."""
        raise NotImplementedError

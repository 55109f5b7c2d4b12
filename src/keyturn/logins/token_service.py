"""The operations on login tokens: one's own, those below it, and those of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.wire.logins import (
        IssueLoginToken,
        LoginTokenInfo,
        LoginTokenIssued,
        LoginTokenPage,
        LoginTokenRevoked,
        RenewLoginToken,
    )


class LoginTokenService:
    """Tokens that a login gave, and those made below them."""

    async def read_self(self, credentials: Credentials) -> LoginTokenInfo:
        """Show the caller's own token; a management token too, with kind `management`."""
        raise NotImplementedError

    async def renew_self(self, credentials: Credentials, request: RenewLoginToken) -> LoginTokenInfo:
        """Let the caller's own token live on; raises ConflictError (code `not_renewable`) when it cannot."""
        raise NotImplementedError

    async def revoke_self(self, credentials: Credentials) -> LoginTokenRevoked:
        """End the caller's own token and those below it; ConflictError (code `not_a_login_token`) for others."""
        raise NotImplementedError

    async def issue(self, credentials: Credentials, request: IssueLoginToken) -> LoginTokenIssued:
        """Make a token below the caller's own; it can do no more and ends with it."""
        raise NotImplementedError

    async def list(
        self, credentials: Credentials, *, role: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> LoginTokenPage:
        """List the live and the revoked tokens that the caller may read, oldest first; `role` is a role's id."""
        raise NotImplementedError

    async def read(self, credentials: Credentials, token_id: str) -> LoginTokenInfo:
        """Show a token by its id (the accessor)."""
        raise NotImplementedError

    async def renew(self, credentials: Credentials, token_id: str, request: RenewLoginToken) -> LoginTokenInfo:
        """Let a token live on, by its id."""
        raise NotImplementedError

    async def revoke(self, credentials: Credentials, token_id: str) -> LoginTokenRevoked:
        """End a token and those below it, by its id."""
        raise NotImplementedError

    async def find(self, credentials: Credentials, token: str) -> str:
        """Return the id of a presented login token that is valid now, for a caller who may read it; NotFoundError."""
        raise NotImplementedError

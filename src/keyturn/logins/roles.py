"""The operations on the roles of login methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.wire.logins import CreateLoginRole, LoginRoleInfo, LoginRolePage, UpdateLoginRole


class LoginRoleService:
    """Which identities become which principal."""

    async def create(
        self, credentials: Credentials, method: str, request: CreateLoginRole, *, idempotency: str | None = None
    ) -> LoginRoleInfo:
        """Create a role; raises a recorded ForbiddenError when its tokens could do what the caller cannot."""
        raise NotImplementedError

    async def list(
        self, credentials: Credentials, method: str, *, cursor: str | None = None, limit: int = 50
    ) -> LoginRolePage:
        """List the roles of a method that the caller may read."""
        raise NotImplementedError

    async def read(self, credentials: Credentials, method: str, role: str) -> LoginRoleInfo:
        """Show a role; `role_id` of an AppRole is in it."""
        raise NotImplementedError

    async def update(
        self,
        credentials: Credentials,
        method: str,
        role: str,
        request: UpdateLoginRole,
        *,
        if_match: int | None = None,
    ) -> LoginRoleInfo:
        """Change a role."""
        raise NotImplementedError

    async def delete(self, credentials: Credentials, method: str, role: str, *, if_match: int | None = None) -> None:
        """Delete a role; its tokens are refused from the commit on."""
        raise NotImplementedError

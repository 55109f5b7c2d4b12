"""The operations on login methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.wire.logins import CreateLoginMethod, LoginMethodInfo, LoginMethodPage, UpdateLoginMethod


class MethodService:
    """Ways to log in."""

    async def create(
        self, credentials: Credentials, request: CreateLoginMethod, *, idempotency: str | None = None
    ) -> LoginMethodInfo:
        """Create a way to log in."""
        raise NotImplementedError

    async def list(self, credentials: Credentials, *, cursor: str | None = None, limit: int = 50) -> LoginMethodPage:
        """List the methods that the caller may read."""
        raise NotImplementedError

    async def read(self, credentials: Credentials, name: str) -> LoginMethodInfo:
        """Show a method."""
        raise NotImplementedError

    async def update(
        self, credentials: Credentials, name: str, request: UpdateLoginMethod, *, if_match: int | None = None
    ) -> LoginMethodInfo:
        """Change a method."""
        raise NotImplementedError

    async def delete(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> None:
        """Delete a method with its roles; their tokens are refused from the commit on."""
        raise NotImplementedError

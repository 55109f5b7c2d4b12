"""What access needs of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.access.caller import TokenOwner


class TokenAuthority(Protocol):
    """Proves management tokens; implemented by keys, whose system keyspace holds them."""

    def prove(self, connection: Connection, presented: str, now: float) -> TokenOwner | None:
        """Return whose token it is, or None for anything that is not a token valid now."""
        ...

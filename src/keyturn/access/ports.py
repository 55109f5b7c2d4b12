"""What access needs of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import TokenOwner
    from keyturn.kernel.secret import Secret
    from keyturn.storage.transaction import Transaction


class TokenAuthority(Protocol):
    """Proves management tokens; implemented by keys, whose system keyspace holds them."""

    def prove(self, connection: Connection, presented: str, now: float) -> TokenOwner | None:
        """Return whose token it is, or None for anything that is not a token valid now."""
        ...


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new management token; the only time its secret is seen."""

    token_id: str
    token: Secret


class TokenIssuer(Protocol):
    """Makes management tokens; implemented by keys.

    Whoever calls it has decided that the token may be made, and records the leaf.
    """

    def issue(
        self,
        transaction: Transaction,
        *,
        workspace: str,
        principal: str,
        name: str,
        scopes: Sequence[str],
        resources: Sequence[str],
        expires_at: float | None,
        created_by: str,
        now: float,
    ) -> IssuedToken:
        """Store a token of the principal in the workspace's system keyspace, and append its change row.

        Empty scopes or resources mean no bound beyond the principal's grants.
        """
        ...


class SystemKeyspace(Protocol):
    """Makes the keyspace that holds a workspace's management tokens; implemented by keys."""

    def create(self, connection: Connection, workspace: str, now: float) -> str:
        """Store the keyspace `~system` of a new workspace with its pepper, and return its id.

        The caller appends the change row.
        """
        ...

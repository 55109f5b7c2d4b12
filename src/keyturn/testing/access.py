"""Fakes of what access needs of others: tokens in memory, a system keyspace that is only an id, a counter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from keyturn.access.caller import Credentials, TokenOwner
from keyturn.access.ports import IssuedToken
from keyturn.kernel.ids import new_id, new_version_id
from keyturn.kernel.secret import Secret, random_base62
from keyturn.storage.transaction import ChangeKind, Entry, Transaction


@dataclass
class FakeTokenAuthority:
    """A `TokenAuthority` and `TokenIssuer` that keeps its tokens in memory.

    It proves exactly the tokens it issued, until they expire or are revoked here.  A token issued in a unit of work
    that fails stays issued, unlike a real one.
    """

    owners: dict[str, tuple[TokenOwner, float | None]] = field(default_factory=dict)

    def prove(self, connection: Connection, presented: str, now: float) -> TokenOwner | None:  # noqa: ARG002 -- the port
        """Return whose token it is."""
        owner, expires_at = self.owners.get(presented, (None, None))
        if owner is None or (expires_at is not None and now >= expires_at):
            return None
        return replace(owner, expires_at=expires_at)

    def issue(
        self,
        transaction: Transaction,
        *,
        workspace: str,
        principal: str,
        name: str,  # noqa: ARG002 -- the port
        scopes: Sequence[str],
        resources: Sequence[str],
        expires_at: float | None,
        created_by: str,  # noqa: ARG002 -- the port
        now: float,
    ) -> IssuedToken:
        """Make a token and append a change row, as a real issuer does."""
        transaction.append(Entry(workspace, ChangeKind.KEY, new_id("key", now)))
        token_id = str(new_version_id())
        owner = TokenOwner(workspace, principal, token_id, tuple(scopes), tuple(resources))
        return IssuedToken(token_id, self.add(owner, expires_at=expires_at))

    def add(self, owner: TokenOwner, *, expires_at: float | None = None) -> Secret:
        """Make a token of an owner, outside any unit of work."""
        text = f"fake_{random_base62(43)}"
        self.owners[text] = (owner, expires_at)
        return Secret(text)

    def credentials(
        self,
        workspace: str,
        principal: str,
        *,
        scopes: Sequence[str] = (),
        resources: Sequence[str] = (),
        ip: str | None = None,
    ) -> Credentials:
        """Return what a request of the principal brings, with a new token."""
        owner = TokenOwner(workspace, principal, str(new_version_id()), tuple(scopes), tuple(resources))
        return Credentials(self.add(owner), ip=ip, request_id=f"req_{random_base62(22)}")

    def revoke(self, token: Secret) -> None:
        """Prove the token no longer."""
        self.owners.pop(token.reveal(), None)


class FakeSystemKeyspace:
    """A `SystemKeyspace` that stores nothing."""

    def create(self, connection: Connection, workspace: str, now: float) -> str:  # noqa: ARG002 -- the port
        """Return the id that a keyspace would have."""
        return new_id("ksp", now)


@dataclass
class CountedFailures:
    """An `UnauthenticatedSink` that remembers each failure it was told of, as address and time."""

    seen: list[tuple[str | None, float]] = field(default_factory=list)

    def count(self, ip: str | None, at: float) -> None:
        """Remember one failure."""
        self.seen.append((ip, at))

"""Callers that are known from one unit of a write transaction to the next, or from one transaction to the next.

    token --prove--> owner              kept for tokens whose changes are in the change log: management tokens
    principal --> name, kind, grants    kept for all; every change of them is in the change log

It is exact, not fresh enough.  Whoever uses it is inside a write transaction, and has dropped from it what changed
since: what the units before it in the same transaction have put on record (`begin_unit`), and, to use it from one
transaction to the next, what the change log says since the last time (`drop`).  Write transactions follow one another
over all nodes (`keyturn.storage.database`), so what is left is what the database would say in this transaction.  Login
tokens are not in the change log: they are proven by each unit, or each batch of reads.  Expiry and conditions on time
are decided at each use.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from keyturn.access import rules, store
from keyturn.access.caller import Caller, Credentials, Grant, TokenOwner
from keyturn.kernel.ids import is_id
from keyturn.kernel.secret import Secret, random_bytes
from keyturn.storage.transaction import ChangeKind

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.access.ports import TokenAuthority
    from keyturn.storage.change_log import Change
    from keyturn.storage.transaction import Entry, Transaction

ENTRIES_MAX: Final = 4096
RIGHTS: Final = frozenset(
    {ChangeKind.WORKSPACE, ChangeKind.PRINCIPAL, ChangeKind.ROLE, ChangeKind.GRANT, ChangeKind.KEYSPACE}
)

_NOBODY: Final = Credentials(Secret(b""))


@dataclass(frozen=True, slots=True)
class _Identity:
    kind: str
    name: str
    grants: tuple[Grant, ...]


@dataclass(slots=True)
class _Workspace:
    """What is known within one workspace; dropped as a whole."""

    owners: dict[bytes, TokenOwner] = field(default_factory=dict)
    identities: dict[str, _Identity] = field(default_factory=dict)


class KnownCallers:
    """See the module; for one transaction at a time."""

    def __init__(self, tokens: TokenAuthority) -> None:
        """Begin with nobody."""
        self._tokens = tokens
        self._hash_key = random_bytes(32)
        self._workspaces: dict[str, _Workspace] = {}
        self._places: dict[bytes, str] = {}
        self._proven_now: dict[bytes, TokenOwner | None] = {}
        self._followed = 0

    def clear(self) -> None:
        """Forget everybody."""
        self._workspaces.clear()
        self._places.clear()
        self._proven_now.clear()

    def begin(self) -> None:
        """Begin a transaction: forget the tokens that are proven in each of them."""
        self._proven_now.clear()

    def begin_unit(self, transaction: Transaction) -> None:
        """Begin a unit of the one transaction that this memory is for: forget what the units before it changed.

        A unit that was undone has changed nothing, and what was known when it began is as true as before.
        """
        self._proven_now.clear()
        for entry in transaction.before[self._followed :]:
            self.drop(entry)
        self._followed = len(transaction.before)

    def drop(self, change: Change | Entry) -> None:
        """Forget what a change may concern."""
        if change.kind in RIGHTS or (change.kind == ChangeKind.KEY and is_id("tok", change.entity)):
            self._workspaces.pop(change.workspace, None)
        if change.kind == ChangeKind.WORKSPACE:
            self._workspaces.pop(change.entity, None)

    def find(self, connection: Connection, credentials: Credentials, now: float) -> Caller | None:
        """Return the caller as this transaction sees it, None when the token is not valid now."""
        token = credentials.token.reveal()
        mark = hashlib.blake2b(credentials.token.reveal_bytes(), digest_size=16, key=self._hash_key).digest()
        owner = self._owner(connection, mark, token, now)
        if owner is None or (owner.cidrs and not rules.within(owner.cidrs, credentials.ip)):
            return None
        identity = self._identity(connection, owner)
        if identity is None:
            return None
        return Caller(
            workspace=owner.workspace,
            principal=owner.principal,
            kind=identity.kind,
            name=identity.name,
            token_id=owner.token_id,
            token_scopes=owner.scopes,
            token_resources=owner.resources,
            grants=identity.grants,
            ip=credentials.ip,
            request_id=credentials.request_id,
            token_expires_at=owner.expires_at,
            subject=owner.subject,
            login_role=owner.login_role,
        )

    def _owner(self, connection: Connection, mark: bytes, token: str, now: float) -> TokenOwner | None:
        known = self._workspaces.get(self._places.get(mark, ""))
        owner = None if known is None else known.owners.get(mark)
        if owner is not None:
            if owner.expires_at is None or now < owner.expires_at:
                return owner
            return self._tokens.prove(connection, token, now)
        if mark in self._proven_now:
            return self._proven_now[mark]
        owner = self._proven_now[mark] = self._tokens.prove(connection, token, now)
        if owner is not None and owner.login_role is None and is_id("tok", owner.token_id):
            if len(self._places) >= ENTRIES_MAX:
                self._workspaces.clear()
                self._places.clear()
            self._places[mark] = owner.workspace
            self._workspaces.setdefault(owner.workspace, _Workspace()).owners[mark] = owner
        return owner

    def _identity(self, connection: Connection, owner: TokenOwner) -> _Identity | None:
        known = self._workspaces.setdefault(owner.workspace, _Workspace())
        identity = known.identities.get(owner.principal)
        if identity is None:
            # Where the token may be used from was decided already, and differs from request to request.
            found = store.load_caller(connection, replace(owner, cidrs=()), _NOBODY)
            if found is None:
                return None
            if len(known.identities) >= ENTRIES_MAX:
                known.identities.clear()
            identity = known.identities[owner.principal] = _Identity(found.kind, found.name, found.grants)
        return identity

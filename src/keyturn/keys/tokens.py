"""The operations on management tokens: issue, list, revoke; and the way in when there is none left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keyturn.access.founding import rescue
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.model import principal_resource
from keyturn.access.moments import shown
from keyturn.access.paging import page
from keyturn.access.token_rights import require_issuable, token_owner
from keyturn.audit.leaf import SYSTEM, Leaf
from keyturn.errors import not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import is_id
from keyturn.keys import rules, store
from keyturn.keys.answers import effect_of
from keyturn.keys.authority import STALE_AFTER_SECONDS, SystemTokens, resources_of
from keyturn.keys.model import REVOKED, Key
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.wire.actions import Action
from keyturn.wire.keys import (
    PAGE_DEFAULT,
    IssuedToken,
    IssueToken,
    RevokeReason,
    TokenEffect,
    TokenInfo,
    TokenPage,
)

if TYPE_CHECKING:
    from keyturn.access import ports
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.access.model import Principal
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.transaction import Transaction


class TokenService:
    """Management tokens of the principals of a workspace."""

    def __init__(self, door: Door, tokens: SystemTokens) -> None:
        """Need the door, and what makes tokens."""
        self._door = door
        self._tokens = tokens

    async def issue(
        self, credentials: Credentials, principal_id: str, request: IssueToken, *, idempotency: str | None = None
    ) -> IssuedToken:
        """Issue a token to a principal; its secret is in the answer and nowhere else.

        Raises ForbiddenError when it could do more than the caller can, or for longer than the caller's own token.
        """
        attempt = Attempt.of(credentials, Action.TOKEN_ISSUE, idempotency, principal_id, request)

        def again(op: Operation, token_id: str) -> IssuedToken:
            return IssuedToken(**_fields(_token(op, principal_id, token_id)), token=None)

        def work(op: Operation) -> IssuedToken:
            owner = token_owner(op, Action.TOKEN_ISSUE, principal_id)
            replay = Replay(IssuedToken, lambda issued: issued.id, lambda token_id: again(op, token_id))
            return idempotent(op, attempt, replay, lambda: self._issue(op, owner, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def list(
        self, credentials: Credentials, principal_id: str, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> TokenPage:
        """List the tokens of a principal, oldest first, revoked ones too; never a secret."""

        def work(op: Operation) -> TokenPage:
            token_owner(op, Action.TOKEN_READ, principal_id)
            conditions = store.conditions_of(owner=principal_id)
            found, following = page(
                op,
                lambda after, count: store.list_keys(
                    op.connection, op.workspace, conditions, after, count, system=True
                ),
                lambda _: True,
                cursor,
                limit,
            )
            return TokenPage(items=tuple(TokenInfo(**_fields(one)) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def revoke(self, credentials: Credentials, principal_id: str, token_id: str) -> TokenEffect:
        """Revoke a token for good; the database refuses it from the commit on.

        Revoking it again tells how far the first time has spread.
        """

        def work(op: Operation) -> Key:
            token_owner(op, Action.TOKEN_REVOKE, principal_id)
            found = _token(op, principal_id, token_id, lock=True)
            if found.state == REVOKED:
                op.unchanged()
                op.announce(ChangeKind.KEY, found.id, awaited=True)
                return found
            return revoke_token(op, found)

        committed = await self._door.write(credentials, work)
        effect = await effect_of(self._door.database, committed, STALE_AFTER_SECONDS, of_rights=True)
        return TokenEffect(**_fields(committed.value), **effect)

    def _issue(self, op: Operation, owner: Principal, request: IssueToken) -> IssuedToken:
        principal_id = owner.id
        expires_at = rules.expiry(request.expires_at, request.expires_in_seconds, op.now)
        require_issuable(op, owner, request.scopes, request.resources, expires_at)
        issued = self._tokens.issue(
            op.transaction,
            workspace=op.workspace,
            principal=principal_id,
            name=request.name,
            scopes=tuple(dict.fromkeys(request.scopes)),
            resources=tuple(dict.fromkeys(request.resources)),
            expires_at=expires_at,
            created_by=op.caller.principal,
            now=op.now,
        )
        op.record(
            Action.TOKEN_ISSUE,
            principal_resource(principal_id).name,
            kind=ChangeKind.AUDIT,
            entity=issued.token_id,
            detail={
                "token": issued.token_id,
                "name": request.name,
                "scopes": list(request.scopes),
                "resources": list(request.resources),
                "expires_at": shown(expires_at),
            },
        )
        return IssuedToken(**_fields(_token(op, principal_id, issued.token_id)), token=issued.token.reveal())


def issue_admin_token(
    transaction: Transaction, keyring: Keyring, workspace: str, now: float, *, expires_at: float | None = None
) -> ports.IssuedToken:
    """Issue the break-glass token of a workspace, named by its name, from offline; leaves `system.admin_token`.

    Raises NotFoundError when there is no such workspace.
    """
    founded = rescue(transaction, SystemTokens(keyring), name=workspace, expires_at=expires_at, created_by=SYSTEM.id)
    leaf = Leaf(
        workspace=founded.workspace.id,
        action=Action.SYSTEM_ADMIN_TOKEN,
        outcome="allowed",
        actor=SYSTEM,
        resource=principal_resource(founded.principal.id).name,
        at=now,
        detail={"token": founded.token.token_id, "expires_at": shown(expires_at)},
    )
    transaction.append(Entry(founded.workspace.id, ChangeKind.AUDIT, founded.token.token_id, leaf.row()))
    return founded.token


def revoke_token(op: Operation, found: Key) -> Key:
    """Revoke a token that is not revoked, on record; the caller has decided that it may be."""
    versions = store.load_versions(op.connection, [found.id])[found.id]
    reason = RevokeReason.UNSPECIFIED
    changes = rules.revoke(found, versions, reason, op.now) or ()
    revoked = replace(
        found,
        state=REVOKED,
        revoked_at=op.now,
        revoke_reason=str(reason),
        updated_at=op.now,
        revision=found.revision + 1,
    )
    store.change_versions(op.connection, found.id, changes)
    store.update_key(op.connection, revoked)
    op.record(
        Action.TOKEN_REVOKE,
        principal_resource(found.owner).name,
        kind=ChangeKind.KEY,
        entity=found.id,
        detail={"token": found.id},
        awaited=True,
    )
    return revoked


def _token(op: Operation, principal_id: str, token_id: str, *, lock: bool = False) -> Key:
    """Return a token of the principal; somebody else's answers as if there were none."""
    found = None
    if is_id("tok", token_id):
        found = store.load_key(op.connection, op.workspace, token_id, system=True, lock=lock)
    if found is None or found.owner != principal_id:
        raise not_found("token", token_id[:64])
    return found


def _fields(of: Key) -> dict[str, Any]:
    return {
        "id": of.id,
        "principal": of.owner,
        "name": of.name,
        "state": of.state,
        "scopes": of.scopes,
        "resources": resources_of(of.metadata),
        "expires_at": shown(of.expires_at),
        "created_at": rfc3339(of.created_at),
        "created_by": of.created_by,
        "revoked_at": shown(of.revoked_at),
        "revoke_reason": of.revoke_reason,
    }

"""The operations on login tokens: one's own, those below it, and those of others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.access import rules
from keyturn.access.moments import shown
from keyturn.access.paging import page
from keyturn.errors import CapError, ConflictError, ForbiddenError, InputError, not_found
from keyturn.kernel.ids import is_id, new_id
from keyturn.logins import store, token_store
from keyturn.logins.answers import seconds_left, token_info
from keyturn.logins.model import ACTIVE, LoginToken, token_resource
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.logins import (
    MAX_TTL_SECONDS_DEFAULT,
    TTL_SECONDS_DEFAULT,
    LoginTokenInfo,
    LoginTokenIssued,
    LoginTokenPage,
    LoginTokenRevoked,
)

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.logins.tokens import LoginTokens
    from keyturn.wire.logins import IssueLoginToken, RenewLoginToken


class LoginTokenService:
    """Tokens that a login gave, and those made below them."""

    def __init__(self, door: Door, tokens: LoginTokens) -> None:
        """Need the door, and what makes tokens."""
        self._door = door
        self._tokens = tokens

    async def read_self(self, credentials: Credentials) -> LoginTokenInfo:
        """Show the caller's own token; a management token too, with kind `management`."""

        def work(op: Operation) -> LoginTokenInfo:
            found = _own(op)
            return _management(op) if found is None else token_info(found, op.now)

        return await self._door.read(credentials, work)

    async def renew_self(self, credentials: Credentials, request: RenewLoginToken) -> LoginTokenInfo:
        """Let the caller's own token live on; raises ConflictError (code `not_renewable`) when it cannot."""

        def work(op: Operation) -> LoginTokenInfo:
            return _renew(op, Action.AUTH_RENEW, _required(_own(op)), request)

        return (await self._door.write(credentials, work)).value

    async def revoke_self(self, credentials: Credentials) -> LoginTokenRevoked:
        """End the caller's own token and those below it; ConflictError (code `not_a_login_token`) for others."""

        def work(op: Operation) -> LoginTokenRevoked:
            return _revoke(op, Action.AUTH_LOGOUT, _required(_own(op)))

        return (await self._door.write(credentials, work)).value

    async def issue(self, credentials: Credentials, request: IssueLoginToken) -> LoginTokenIssued:
        """Make a token below the caller's own; it can do no more and ends with it."""

        def work(op: Operation) -> LoginTokenIssued:
            token_id = new_id("lgt", op.now)
            op.authorise(Action.LOGIN_TOKEN_ISSUE, token_resource(token_id))
            stored, secret = self._tokens.make(op.connection, _below(op, request, token_id), op.now)
            op.record(
                Action.LOGIN_TOKEN_ISSUE,
                token_resource(stored.id).name,
                kind=ChangeKind.AUDIT,
                entity=stored.id,
                detail={
                    "parent": stored.parent,
                    "scopes": list(stored.scopes),
                    "resources": list(stored.resources),
                    "expires_at": shown(stored.expires_at),
                },
            )
            return LoginTokenIssued(token=secret.reveal(), info=token_info(stored, op.now))

        return (await self._door.write(credentials, work)).value

    async def list(
        self,
        credentials: Credentials,
        *,
        role: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> LoginTokenPage:
        """List the tokens that the caller may read, oldest first; `role` is a role's id."""

        def work(op: Operation) -> LoginTokenPage:
            found, following = page(
                op,
                lambda after, count: token_store.tokens_after(op.connection, op.workspace, after, count, role=role),
                lambda one: op.allows(Action.LOGIN_TOKEN_READ, token_resource(one.id)),
                cursor,
                limit,
                reading=Action.LOGIN_TOKEN_READ,
            )
            return LoginTokenPage(items=tuple(token_info(one, op.now) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def read(self, credentials: Credentials, token_id: str) -> LoginTokenInfo:
        """Show a token by its id (the accessor)."""
        return await self._door.read(
            credentials, lambda op: token_info(_authorised(op, Action.LOGIN_TOKEN_READ, token_id), op.now)
        )

    async def renew(self, credentials: Credentials, token_id: str, request: RenewLoginToken) -> LoginTokenInfo:
        """Let a token live on, by its id."""

        def work(op: Operation) -> LoginTokenInfo:
            found = _authorised(op, Action.LOGIN_TOKEN_RENEW, token_id)
            return _renew(op, Action.LOGIN_TOKEN_RENEW, found, request)

        return (await self._door.write(credentials, work)).value

    async def revoke(self, credentials: Credentials, token_id: str) -> LoginTokenRevoked:
        """End a token and those below it, by its id."""

        def work(op: Operation) -> LoginTokenRevoked:
            found = _authorised(op, Action.LOGIN_TOKEN_REVOKE, token_id)
            return _revoke(op, Action.LOGIN_TOKEN_REVOKE, found)

        return (await self._door.write(credentials, work)).value

    async def find(self, credentials: Credentials, token: str) -> str:
        """Return the id of a presented login token that is valid now, for a caller who may read it; NotFoundError."""

        def work(op: Operation) -> str:
            found = self._tokens.find(op.connection, token, op.now)
            if found is None or found.workspace != op.workspace:
                raise not_found("login token", "the one presented")
            if found.id != op.caller.token_id and not op.allows(Action.LOGIN_TOKEN_READ, token_resource(found.id)):
                raise not_found("login token", "the one presented")
            return found.id

        return await self._door.read(credentials, work)


def _own(op: Operation) -> LoginToken | None:
    token_id = op.caller.token_id
    return None if token_id is None else token_store.token_by_id(op.connection, op.workspace, token_id)


def _required(found: LoginToken | None) -> LoginToken:
    if found is None:
        raise ConflictError(
            "the caller's token is no login token",
            code="not_a_login_token",
            hint="a management token is revoked at its principal",
        )
    return found


def _authorised(op: Operation, action: Action, token_id: str) -> LoginToken:
    found = token_store.token_by_id(op.connection, op.workspace, token_id) if is_id("lgt", token_id) else None
    place = token_resource(token_id)
    op.authorise(action, None if found is None else place, kind="login token", name=token_id[:64], absent=place)
    if found is None:
        raise not_found("login token", token_id[:64])
    return found


def _renew(op: Operation, action: Action, found: LoginToken, request: RenewLoginToken) -> LoginTokenInfo:
    if not found.live(op.now) or not token_store.parents_stand(op.connection, found.parent, op.now):
        raise ConflictError("the token has ended", code="token_ended", hint="log in again")
    if not found.renewable:
        raise ConflictError("the token cannot be renewed", code="not_renewable", hint="log in again when it ends")
    until = op.now + (request.ttl_seconds or found.ttl_seconds)
    above = token_store.end_of_parent(op.connection, found.parent)
    ends = min(until, found.max_expires_at, *(() if above is None else (above,)))
    renewed = replace(found, expires_at=max(ends, found.expires_at) if request.ttl_seconds is None else ends)
    token_store.extend_token(op.connection, found.id, renewed.expires_at)
    op.record(
        action,
        token_resource(found.id).name,
        kind=ChangeKind.AUDIT,
        entity=found.id,
        detail={"expires_at": shown(renewed.expires_at)},
    )
    return token_info(renewed, op.now)


def _revoke(op: Operation, action: Action, found: LoginToken) -> LoginTokenRevoked:
    revoked = token_store.revoke_tree(op.connection, found.id, op.now)
    op.record(
        action,
        token_resource(found.id).name,
        kind=ChangeKind.AUDIT,
        entity=found.id,
        detail={"revoked": revoked},
    )
    return LoginTokenRevoked(id=found.id, revoked=revoked)


def _below(op: Operation, request: IssueLoginToken, token_id: str) -> LoginToken:
    """Build a token below the caller's own: within its bounds, and no longer."""
    rules.check_scopes(request.scopes, request.resources)
    own = _own(op)
    scopes = request.scopes or op.caller.token_scopes
    resources = request.resources or op.caller.token_resources
    ttl = request.ttl_seconds or (TTL_SECONDS_DEFAULT if own is None else own.ttl_seconds)
    longest = request.max_ttl_seconds or max(ttl, MAX_TTL_SECONDS_DEFAULT)
    if longest < ttl:
        raise InputError("expected max_ttl_seconds to be no less than ttl_seconds", field="max_ttl_seconds")
    ends, last = op.now + ttl, op.now + longest
    if op.caller.token_expires_at is not None:
        ends = min(ends, op.caller.token_expires_at)
        last = min(last, op.caller.token_expires_at if own is None else own.max_expires_at)
    if not rules.may_issue_token(op.caller, op.caller.principal, (), scopes, resources, op.now, expires_at=ends):
        public = ForbiddenError("a token below the caller's own cannot do more", code="exceeds_own_rights")
        raise op.refusal(Action.LOGIN_TOKEN_ISSUE, None, public)
    if token_store.depth(op.connection, op.caller.token_id) > token_store.PARENTS_MAX:
        raise CapError("too many tokens stand below one another", hint="make them below the first one")
    _require_room(op, own)
    return LoginToken(
        id=token_id,
        lookup="",
        workspace=op.workspace,
        principal=op.caller.principal,
        method=None if own is None else own.method,
        role=None if own is None else own.role,
        parent=op.caller.token_id,
        # Behind that of the token above: nobody reads as somebody else.
        subject="/".join(filter(None, (op.caller.subject, request.subject))),
        digest=b"",
        scopes=tuple(dict.fromkeys(scopes)),
        resources=tuple(dict.fromkeys(resources)),
        cidrs=() if own is None else own.cidrs,
        metadata=dict(request.metadata) or ({} if own is None else own.metadata),
        renewable=request.renewable,
        ttl_seconds=ttl,
        state=ACTIVE,
        mark=None,
        sealed=None,
        created_at=op.now,
        expires_at=ends,
        max_expires_at=last,
        revoked_at=None,
    )


def _require_room(op: Operation, own: LoginToken | None) -> None:
    """Refuse what would pass the cap of the role; below management tokens, that of the principal."""
    role = None if own is None or own.role is None else store.role_by_id(op.connection, op.workspace, own.role)
    if role is not None:
        live, most = token_store.count_live(op.connection, role.id, op.now), role.tokens_max
    else:
        live = token_store.count_live_below(op.connection, op.caller.token_id or "", op.now)
        most = token_store.BELOW_MAX
    if live >= most:
        raise CapError(
            f"there are {live} live tokens, and may be {most}",
            code="tokens_cap_reached",
            hint="revoke tokens, or let them end",
        )


def _management(op: Operation) -> LoginTokenInfo:
    caller = op.caller
    ends = caller.token_expires_at
    return LoginTokenInfo(
        id=caller.token_id or "",
        kind="management",
        principal=caller.principal,
        method=None,
        role=None,
        parent=None,
        subject="",
        scopes=caller.token_scopes,
        resources=caller.token_resources,
        cidrs=(),
        metadata={},
        renewable=False,
        creation_ttl_seconds=0,
        ttl_seconds=0 if ends is None else seconds_left(ends, op.now),
        state=ACTIVE,
        created_at=None,
        expires_at=shown(ends),
        max_expires_at=shown(ends),
        revoked_at=None,
    )

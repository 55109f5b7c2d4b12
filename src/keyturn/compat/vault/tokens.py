"""`auth/token/…`: the caller's own token, those made below it, and those of others.

An accessor is the id of a token, and its policies are the scopes that bound what it can do; without any they are
`default`.  A management token is shown like one that does not end and cannot be renewed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.compat.vault import durations
from keyturn.compat.vault.answers import NOTHING, PERMISSION_DENIED, Answer, RefusedAs
from keyturn.compat.vault.bodies import NewTokenBody, TokenBody
from keyturn.compat.vault.refusing import refuse_given
from keyturn.compat.vault.translation import words
from keyturn.errors import ConflictError, InputError, NotFoundError
from keyturn.http.body import printable
from keyturn.kernel.clock import parse_rfc3339
from keyturn.kernel.secret import constant_time_equal
from keyturn.wire.logins import IssueLoginToken, RenewLoginToken

if TYPE_CHECKING:
    from keyturn.access.service import AccessService
    from keyturn.compat.vault.asking import Ask
    from keyturn.compat.vault.routing import Table
    from keyturn.keys.tokens import TokenService
    from keyturn.logins.service import LoginService
    from keyturn.wire.logins import LoginTokenInfo

DEFAULT_POLICY: Final = "default"
LEAST_SCOPES: Final = ("wrap.create",)
"""What a token of the policy `default` alone may do: nothing besides itself, but wrap."""
NOT_RENEWABLE: Final = "lease is not renewable"
BAD_TOKEN: Final = "bad token"  # noqa: S105 -- what is said of one
INVALID_ACCESSOR: Final = "invalid accessor"
MISSING_TOKEN: Final = "missing token"  # noqa: S105 -- what is said of none
ACCESSORS_MAX: Final = 10_000
_NO_RENEWAL: Final = frozenset({"not_renewable", "not_a_login_token", "token_ended"})


class TokenOperations:
    """The routes of `auth/token`."""

    def __init__(self, logins: LoginService, management: TokenService, access: AccessService) -> None:
        """Need the logins with their tokens, the management tokens, and who the caller is."""
        self._methods = logins.methods
        self._tokens = logins.tokens
        self._management = management
        self._access = access

    def table(self) -> Table:
        """Return each route's functions."""
        return {
            "auth/token/lookup-self": {"read": self.lookup_self, "write": self.lookup_self},
            "auth/token/renew-self": {"write": self.renew_self},
            "auth/token/revoke-self": {"write": self.revoke_self},
            "auth/token/lookup": {"read": self.lookup, "write": self.lookup},
            "auth/token/renew": {"write": self.renew},
            "auth/token/revoke": {"write": self.revoke},
            "auth/token/lookup-accessor": {"write": self.lookup_accessor},
            "auth/token/renew-accessor": {"write": self.renew_accessor},
            "auth/token/revoke-accessor": {"write": self.revoke_accessor},
            "auth/token/accessors": {"list": self.accessors},
            "auth/token/create": {"write": self.create},
        }

    async def lookup_self(self, ask: Ask) -> Answer:
        """Show the caller's own token."""
        info = await self._tokens.read_self(ask.credentials)
        return await self._shown(ask, info, ask.credentials.token.reveal())

    async def renew_self(self, ask: Ask) -> Answer:
        """Let the caller's own token live on."""
        request = _renewal(ask)
        try:
            info = await self._tokens.renew_self(ask.credentials, request)
        except ConflictError as error:
            raise _worded(error) from None
        return Answer(auth=token_auth(info, ask.credentials.token.reveal()))

    async def revoke_self(self, ask: Ask) -> Answer:
        """End the caller's own token; a management token too, for whoever may revoke it."""
        try:
            await self._tokens.revoke_self(ask.credentials)
        except ConflictError as error:
            if error.code != "not_a_login_token":
                raise
            caller = await self._access.whoami(ask.credentials)
            if caller.token_id is None:
                raise
            try:
                await self._management.revoke(ask.credentials, caller.principal, caller.token_id)
            except NotFoundError:
                raise RefusedAs(403, PERMISSION_DENIED) from None
        return NOTHING

    async def lookup(self, ask: Ask) -> Answer:
        """Show the token in the body; the caller's own when there is none."""
        body = ask.fields(TokenBody)
        if body.token is None or _is_own(ask, body.token):
            return await self.lookup_self(ask)
        token_id = await self._find(ask, body.token)
        return await self._shown(ask, await self._tokens.read(ask.credentials, token_id), body.token)

    async def renew(self, ask: Ask) -> Answer:
        """Let the token in the body live on."""
        body = ask.fields(TokenBody)
        if body.token is None:
            raise RefusedAs(400, MISSING_TOKEN)
        if _is_own(ask, body.token):
            return await self.renew_self(ask)
        token_id = await self._find(ask, body.token)
        return Answer(auth=token_auth(await self._renewed(ask, token_id), body.token))

    async def revoke(self, ask: Ask) -> Answer:
        """End the token in the body and those made below it."""
        body = ask.fields(TokenBody)
        if body.token is None:
            raise RefusedAs(400, MISSING_TOKEN)
        if _is_own(ask, body.token):
            return await self.revoke_self(ask)
        await self._tokens.revoke(ask.credentials, await self._find(ask, body.token))
        return NOTHING

    async def lookup_accessor(self, ask: Ask) -> Answer:
        """Show a token by its accessor; the token itself is not in the answer."""
        try:
            info = await self._tokens.read(ask.credentials, _accessor(ask))
        except NotFoundError:
            raise RefusedAs(403, INVALID_ACCESSOR) from None
        return await self._shown(ask, info, "")

    async def renew_accessor(self, ask: Ask) -> Answer:
        """Let a token live on, by its accessor."""
        try:
            info = await self._renewed(ask, _accessor(ask))
        except NotFoundError:
            raise RefusedAs(403, INVALID_ACCESSOR) from None
        return Answer(auth=token_auth(info, ""))

    async def revoke_accessor(self, ask: Ask) -> Answer:
        """End a token and those made below it, by its accessor."""
        try:
            await self._tokens.revoke(ask.credentials, _accessor(ask))
        except NotFoundError:
            raise RefusedAs(403, INVALID_ACCESSOR) from None
        return NOTHING

    async def accessors(self, ask: Ask) -> Answer:
        """Name the tokens that the caller may read."""
        found: list[str] = []
        cursor: str | None = None
        while len(found) < ACCESSORS_MAX:
            page = await self._tokens.list(ask.credentials, cursor=cursor, limit=200)
            found.extend(one.id for one in page.items if one.state == "active")
            cursor = page.next_cursor
            if cursor is None:
                break
        if not found:
            raise RefusedAs(404)
        return Answer(data={"keys": found})

    async def create(self, ask: Ask) -> Answer:
        """Make a token below the caller's own."""
        body = ask.fields(NewTokenBody)
        refuse_given(
            id=body.id,
            no_parent=body.no_parent,
            period=durations.seconds(body.period, "period"),
            num_uses=body.num_uses,
            entity_alias=body.entity_alias,
            type=None if body.type in {None, "", "service"} else body.type,
        )
        metadata = dict(body.meta or {})
        if body.display_name not in {None, "", "token"}:
            metadata.setdefault("display_name", str(body.display_name))
        values: dict[str, Any] = {
            "ttl_seconds": durations.seconds(body.ttl or body.lease, "ttl") or None,
            "max_ttl_seconds": durations.seconds(body.explicit_max_ttl, "explicit_max_ttl") or None,
            "renewable": body.renewable,
            "scopes": scopes_of(words(body.policies)),
            "metadata": metadata,
        }
        try:
            request = msgspec.convert(values, IssueLoginToken)
        except msgspec.ValidationError as error:
            raise InputError(printable(str(error)).replace("`", "").replace("$.", "")) from None
        issued = await self._tokens.issue(ask.credentials, request)
        return Answer(auth=token_auth(issued.info, issued.token))

    async def _shown(self, ask: Ask, info: LoginTokenInfo, token: str) -> Answer:
        method = None if info.method is None else await self._methods.name_of(ask.credentials, info.method)
        return Answer(data=token_data(info, token, method))

    async def _find(self, ask: Ask, token: str) -> str:
        try:
            return await self._tokens.find(ask.credentials, token)
        except NotFoundError:
            raise RefusedAs(403, BAD_TOKEN) from None

    async def _renewed(self, ask: Ask, token_id: str) -> LoginTokenInfo:
        try:
            return await self._tokens.renew(ask.credentials, token_id, _renewal(ask))
        except ConflictError as error:
            raise _worded(error) from None


def token_data(info: LoginTokenInfo, token: str, method: str | None) -> dict[str, Any]:
    """Describe a token as a look-up does; `method` is the name of the login that it came from."""
    created = None if info.created_at is None else parse_rfc3339(info.created_at)
    return {
        "accessor": info.id,
        "creation_time": 0 if created is None else int(created),
        "creation_ttl": info.creation_ttl_seconds,
        "display_name": _display_name(info, method),
        "entity_id": info.principal,
        "expire_time": info.expires_at,
        "explicit_max_ttl": 0,
        "id": token,
        "issue_time": info.created_at,
        "meta": info.metadata or None,
        "num_uses": 0,
        "orphan": info.parent is None,
        "path": "auth/token/create" if method is None or info.parent is not None else f"auth/{method}/login",
        "policies": policies_of(info.scopes),
        "renewable": info.renewable,
        "ttl": info.ttl_seconds,
        "type": "service",
    }


def token_auth(info: LoginTokenInfo, token: str) -> dict[str, Any]:
    """Describe a token as an answer that gives or renews one does."""
    return auth_of(
        token=token,
        accessor=info.id,
        scopes=info.scopes,
        metadata=info.metadata,
        ttl_seconds=info.ttl_seconds,
        renewable=info.renewable,
        principal=info.principal,
        orphan=info.parent is None,
    )


def auth_of(
    *,
    token: str,
    accessor: str,
    scopes: tuple[str, ...],
    metadata: dict[str, str],
    ttl_seconds: int,
    renewable: bool,
    principal: str,
    orphan: bool,
) -> dict[str, Any]:
    """Return the `auth` of an answer."""
    policies = policies_of(scopes)
    return {
        "client_token": token,
        "accessor": accessor,
        "policies": policies,
        "token_policies": policies,
        "metadata": metadata or None,
        "lease_duration": ttl_seconds,
        "renewable": renewable,
        "entity_id": principal,
        "token_type": "service",
        "orphan": orphan,
        "mfa_requirement": None,
        "num_uses": 0,
    }


def policies_of(scopes: tuple[str, ...]) -> list[str]:
    """Return the policies of a token that has these scopes."""
    return list(scopes) or [DEFAULT_POLICY]


def scopes_of(policies: list[str]) -> tuple[str, ...]:
    """Return the scopes for policies; `default` alone gives next to nothing, and none does not bound."""
    kept = tuple(policy for policy in policies if policy != DEFAULT_POLICY)
    return kept or (LEAST_SCOPES if policies else ())


def _display_name(info: LoginTokenInfo, method: str | None) -> str:
    named = info.metadata.get("display_name") or info.subject or info.principal
    return named if method is None else f"{method}-{named}"


def _is_own(ask: Ask, token: str) -> bool:
    return constant_time_equal(ask.credentials.token.reveal_bytes(), token.encode())


def _accessor(ask: Ask) -> str:
    body = ask.fields(TokenBody)
    if body.accessor is None:
        raise RefusedAs(400, "missing accessor")
    return body.accessor


def _renewal(ask: Ask) -> RenewLoginToken:
    asked = durations.seconds(ask.fields(TokenBody).increment, "increment") or None
    try:
        return msgspec.convert({"ttl_seconds": asked}, RenewLoginToken)
    except msgspec.ValidationError:
        raise InputError("increment: expected at most 32 days", field="increment") from None


def _worded(error: ConflictError) -> Exception:
    return RefusedAs(400, NOT_RENEWABLE, str(error)) if error.code in _NO_RENEWAL else error

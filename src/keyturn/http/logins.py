"""Routes of workload identity: logging in, login methods and their roles, secret-ids, and login tokens."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.http.edge import EdgeSettings, Given, Page, StrictRequest, Tagged, scope_request_id, tagged
from keyturn.http.peer import client_ip
from keyturn.kernel.secret import Secret
from keyturn.logins.assertions import CertificateAssertion
from keyturn.logins.service import LoginService, assertion_of
from keyturn.vault.wrapping import WrapService
from keyturn.verify.forwarded import is_listed
from keyturn.wire.keys import Empty
from keyturn.wire.logins import (
    CreateLoginMethod,
    CreateLoginRole,
    FindSecretId,
    IssueLoginToken,
    IssueSecretId,
    LogIn,
    LoginAnswer,
    LoginMethodInfo,
    LoginMethodPage,
    LoginRemoved,
    LoginRoleInfo,
    LoginRolePage,
    LoginTokenInfo,
    LoginTokenIssued,
    LoginTokenPage,
    LoginTokenRevoked,
    RenewLoginToken,
    SecretIdInfo,
    SecretIdIssued,
    SecretIdPage,
    UpdateLoginMethod,
    UpdateLoginRole,
    WrapSecretId,
)
from keyturn.wire.wraps import WrapCreated

# What a request without any body asks for.
NOTHING = Empty()
SECRET_ID = IssueSecretId()
WRAPPED = WrapSecretId()
BELOW = IssueLoginToken()
RENEW = RenewLoginToken()

_METHODS = "/api/v1/login-methods"
_METHOD = _METHODS + "/{method:str}"
_ROLES = _METHOD + "/roles"
_ROLE = _ROLES + "/{role:str}"
_SECRET_IDS = _ROLE + "/secret-ids"
_TOKENS = "/api/v1/login-tokens"


@post("/api/v1/login", operation_id="logIn", tags=["logins"], status_code=200)
async def log_in(request: StrictRequest, data: JSONBody[LogIn], logins: Given[LoginService]) -> LoginAnswer:
    """Log in as a workload.

    Needs no bearer token: what the body holds, or the client certificate that a listed proxy hands on, is proven.
    """
    edge: EdgeSettings = request.app.state.edge
    client = request.scope.get("client")
    certificate = CertificateAssertion(
        tuple((bytes(name), bytes(value)) for name, value in request.scope["headers"]),
        is_listed(client[0] if client else None, edge.trusted_proxies),
    )
    assertion = assertion_of(_secret(data.jwt), data.role_id, _secret(data.secret_id), certificate)
    return await logins.login(
        data.method,
        data.role,
        assertion,
        workspace=data.workspace,
        ip=client_ip(request.scope, edge.trusted_proxies),
        request_id=scope_request_id(request.scope),
    )


# --- methods ---------------------------------------------------------------------------------------------------------


@post(_METHODS, operation_id="createLoginMethod", tags=["logins"])
async def create_method(
    data: JSONBody[CreateLoginMethod],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    idempotency: Given[str | None],
) -> Tagged[LoginMethodInfo]:
    """Create a way for workloads to log in."""
    made = await logins.methods.create(credentials, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get(_METHODS, operation_id="listLoginMethods", tags=["logins"])
async def list_methods(
    credentials: Given[Credentials], logins: Given[LoginService], page: Given[Page]
) -> LoginMethodPage:
    """List login methods, oldest first."""
    return await logins.methods.list(credentials, cursor=page.cursor, limit=page.limit)


@get(_METHOD, operation_id="readLoginMethod", tags=["logins"])
async def read_method(
    method: FromPath[str], credentials: Given[Credentials], logins: Given[LoginService]
) -> Tagged[LoginMethodInfo]:
    """Show a login method."""
    found = await logins.methods.read(credentials, method)
    return tagged(found, found.revision)


@patch(_METHOD, operation_id="updateLoginMethod", tags=["logins"])
async def update_method(
    method: FromPath[str],
    data: JSONBody[UpdateLoginMethod],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    if_match: Given[int | None],
) -> Tagged[LoginMethodInfo]:
    """Change, disable or enable a login method."""
    changed = await logins.methods.update(credentials, method, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post(_METHOD + "/delete", operation_id="deleteLoginMethod", tags=["logins"], status_code=200)
async def delete_method(
    method: FromPath[str],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> LoginRemoved:
    """Delete a login method with its roles."""
    await logins.methods.delete(credentials, method, if_match=if_match)
    return LoginRemoved(method=method)


# --- roles -----------------------------------------------------------------------------------------------------------


@post(_ROLES, operation_id="createLoginRole", tags=["logins"])
async def create_role(
    method: FromPath[str],
    data: JSONBody[CreateLoginRole],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    idempotency: Given[str | None],
) -> Tagged[LoginRoleInfo]:
    """Let certain identities become a principal.

    Its tokens can do no more than the caller can.
    """
    made = await logins.roles.create(credentials, method, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get(_ROLES, operation_id="listLoginRoles", tags=["logins"])
async def list_roles(
    method: FromPath[str], credentials: Given[Credentials], logins: Given[LoginService], page: Given[Page]
) -> LoginRolePage:
    """List the roles of a login method, oldest first."""
    return await logins.roles.list(credentials, method, cursor=page.cursor, limit=page.limit)


@get(_ROLE, operation_id="readLoginRole", tags=["logins"])
async def read_role(
    method: FromPath[str], role: FromPath[str], credentials: Given[Credentials], logins: Given[LoginService]
) -> Tagged[LoginRoleInfo]:
    """Show a login role."""
    found = await logins.roles.read(credentials, method, role)
    return tagged(found, found.revision)


@patch(_ROLE, operation_id="updateLoginRole", tags=["logins"])
async def update_role(
    method: FromPath[str],
    role: FromPath[str],
    data: JSONBody[UpdateLoginRole],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    if_match: Given[int | None],
) -> Tagged[LoginRoleInfo]:
    """Change a login role; tokens that it gave before keep their bounds."""
    changed = await logins.roles.update(credentials, method, role, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post(_ROLE + "/delete", operation_id="deleteLoginRole", tags=["logins"], status_code=200)
async def delete_role(
    method: FromPath[str],
    role: FromPath[str],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> LoginRemoved:
    """Delete a login role; its tokens are refused at once."""
    await logins.roles.delete(credentials, method, role, if_match=if_match)
    return LoginRemoved(method=method, role=role)


# --- secret-ids ------------------------------------------------------------------------------------------------------


@post(_SECRET_IDS, operation_id="issueSecretId", tags=["logins"])
async def issue_secret_id(
    method: FromPath[str],
    role: FromPath[str],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    idempotency: Given[str | None],
    data: JSONBody[IssueSecretId] = SECRET_ID,
) -> SecretIdIssued:
    """Make a secret-id of an AppRole and show it once."""
    return await logins.secret_ids.issue(credentials, method, role, data, idempotency=idempotency)


@post(_SECRET_IDS + "/wrapped", operation_id="wrapSecretId", tags=["logins"])
async def wrap_secret_id(
    method: FromPath[str],
    role: FromPath[str],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    wraps: Given[WrapService],
    data: JSONBody[WrapSecretId] = WRAPPED,
) -> WrapCreated:
    """Make a secret-id that only the first to open the wrap gets."""
    plain = IssueSecretId(ttl_seconds=data.ttl_seconds, uses=data.uses, cidrs=data.cidrs, metadata=data.metadata)
    issued = await logins.secret_ids.issue(credentials, method, role, plain)
    path = f"login-methods/{method}/roles/{role}/secret-ids"
    return await wraps.wrap_answer(credentials, path, msgspec.to_builtins(issued), data.wrap_ttl_seconds)


@get(_SECRET_IDS, operation_id="listSecretIds", tags=["logins"])
async def list_secret_ids(
    method: FromPath[str],
    role: FromPath[str],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    page: Given[Page],
) -> SecretIdPage:
    """List the secret-ids of an AppRole that were not revoked."""
    return await logins.secret_ids.list(credentials, method, role, cursor=page.cursor, limit=page.limit)


@post(_SECRET_IDS + "/lookup", operation_id="findSecretId", tags=["logins"], status_code=200)
async def find_secret_id(
    method: FromPath[str],
    role: FromPath[str],
    data: JSONBody[FindSecretId],
    credentials: Given[Credentials],
    logins: Given[LoginService],
) -> SecretIdInfo:
    """Show what is known of a secret-id, by itself; uses none of its uses."""
    return await logins.secret_ids.find(credentials, method, role, data.secret_id)


@get(_SECRET_IDS + "/{secret_id:str}", operation_id="readSecretId", tags=["logins"])
async def read_secret_id(
    method: FromPath[str],
    role: FromPath[str],
    secret_id: FromPath[str],
    credentials: Given[Credentials],
    logins: Given[LoginService],
) -> SecretIdInfo:
    """Show what is known of a secret-id, by its id."""
    return await logins.secret_ids.read(credentials, method, role, secret_id)


@post(_SECRET_IDS + "/{secret_id:str}/revoke", operation_id="revokeSecretId", tags=["logins"], status_code=200)
async def revoke_secret_id(
    method: FromPath[str],
    role: FromPath[str],
    secret_id: FromPath[str],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> SecretIdInfo:
    """Revoke a secret-id, by its id; the tokens it gave live on until they end."""
    return await logins.secret_ids.revoke(credentials, method, role, secret_id)


# --- tokens ----------------------------------------------------------------------------------------------------------


@post(_TOKENS, operation_id="issueLoginToken", tags=["logins"])
async def issue_token(
    credentials: Given[Credentials], logins: Given[LoginService], data: JSONBody[IssueLoginToken] = BELOW
) -> LoginTokenIssued:
    """Make a token below the caller's own: it can do no more, and ends with it."""
    return await logins.tokens.issue(credentials, data)


@get(_TOKENS, operation_id="listLoginTokens", tags=["logins"])
async def list_tokens(
    credentials: Given[Credentials],
    logins: Given[LoginService],
    page: Given[Page],
    role: Annotated[str | None, QueryParameter(max_length=64, description="Only those of the role of this id.")] = None,
) -> LoginTokenPage:
    """List login tokens, oldest first, those that have ended too, for a day."""
    return await logins.tokens.list(credentials, role=role, cursor=page.cursor, limit=page.limit)


@get(_TOKENS + "/self", operation_id="readOwnToken", tags=["logins"])
async def read_own_token(credentials: Given[Credentials], logins: Given[LoginService]) -> LoginTokenInfo:
    """Show the token that the request came with."""
    return await logins.tokens.read_self(credentials)


@post(_TOKENS + "/self/renew", operation_id="renewOwnToken", tags=["logins"], status_code=200)
async def renew_own_token(
    credentials: Given[Credentials], logins: Given[LoginService], data: JSONBody[RenewLoginToken] = RENEW
) -> LoginTokenInfo:
    """Let the token that the request came with live on."""
    return await logins.tokens.renew_self(credentials, data)


@post(_TOKENS + "/self/revoke", operation_id="revokeOwnToken", tags=["logins"], status_code=200)
async def revoke_own_token(
    credentials: Given[Credentials],
    logins: Given[LoginService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> LoginTokenRevoked:
    """End the token that the request came with, and those below it."""
    return await logins.tokens.revoke_self(credentials)


@get(_TOKENS + "/{token_id:str}", operation_id="readLoginToken", tags=["logins"])
async def read_token(
    token_id: FromPath[str], credentials: Given[Credentials], logins: Given[LoginService]
) -> LoginTokenInfo:
    """Show a login token, by its id."""
    return await logins.tokens.read(credentials, token_id)


@post(_TOKENS + "/{token_id:str}/renew", operation_id="renewLoginToken", tags=["logins"], status_code=200)
async def renew_token(
    token_id: FromPath[str],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    data: JSONBody[RenewLoginToken] = RENEW,
) -> LoginTokenInfo:
    """Let a login token live on, by its id."""
    return await logins.tokens.renew(credentials, token_id, data)


@post(_TOKENS + "/{token_id:str}/revoke", operation_id="revokeLoginToken", tags=["logins"], status_code=200)
async def revoke_token(
    token_id: FromPath[str],
    credentials: Given[Credentials],
    logins: Given[LoginService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> LoginTokenRevoked:
    """End a login token and those below it, by its id."""
    return await logins.tokens.revoke(credentials, token_id)


def _secret(text: str | None) -> Secret | None:
    return None if text is None else Secret(text)


ROUTES = (
    create_method,
    list_methods,
    read_method,
    update_method,
    delete_method,
    create_role,
    list_roles,
    read_role,
    update_role,
    delete_role,
    issue_secret_id,
    wrap_secret_id,
    list_secret_ids,
    find_secret_id,
    read_secret_id,
    revoke_secret_id,
    issue_token,
    list_tokens,
    read_own_token,
    renew_own_token,
    revoke_own_token,
    read_token,
    renew_token,
    revoke_token,
)
OPEN_ROUTES = (log_in,)

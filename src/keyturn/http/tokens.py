"""Routes of the management tokens of a principal."""

from __future__ import annotations

from litestar import get, post
from litestar.params import FromPath, JSONBody

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, Page
from keyturn.keys.tokens import TokenService
from keyturn.wire.keys import Empty, IssuedToken, IssueToken, TokenEffect, TokenPage

# What a request without any body asks for.
NOTHING = Empty()


@post("/api/v1/principals/{principal_id:str}/tokens", operation_id="issueToken", tags=["principals"])
async def issue_token(
    principal_id: FromPath[str],
    data: JSONBody[IssueToken],
    credentials: Given[Credentials],
    tokens: Given[TokenService],
    idempotency: Given[str | None],
) -> IssuedToken:
    """Issue a management token to a principal.

    `token` in the answer is the secret, shown this once.  It can do no more than the caller can.
    """
    return await tokens.issue(credentials, principal_id, data, idempotency=idempotency)


@get("/api/v1/principals/{principal_id:str}/tokens", operation_id="listTokens", tags=["principals"])
async def list_tokens(
    principal_id: FromPath[str],
    credentials: Given[Credentials],
    tokens: Given[TokenService],
    page: Given[Page],
) -> TokenPage:
    """List the management tokens of a principal, oldest first."""
    return await tokens.list(credentials, principal_id, cursor=page.cursor, limit=page.limit)


@post(
    "/api/v1/principals/{principal_id:str}/tokens/{token_id:str}/revoke",
    operation_id="revokeToken",
    tags=["principals"],
    status_code=200,
)
async def revoke_token(
    principal_id: FromPath[str],
    token_id: FromPath[str],
    credentials: Given[Credentials],
    tokens: Given[TokenService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> TokenEffect:
    """Revoke a management token for good."""
    return await tokens.revoke(credentials, principal_id, token_id)


ROUTES = (issue_token, list_tokens, revoke_token)

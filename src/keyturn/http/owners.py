"""Routes of owners.  A name may hold any printable character, and is percent-encoded in the path."""

from __future__ import annotations

from typing import Annotated

from litestar import get, patch
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, Page, StrictRequest, Tagged, tagged
from keyturn.http.encoded_names import owner_name
from keyturn.keys.owners import OwnerService
from keyturn.wire.plans import OwnerDetail, OwnerEffect, OwnerPage, UpdateOwner


@get("/api/v1/owners", operation_id="listOwners", tags=["owners"])
async def list_owners(
    credentials: Given[Credentials],
    owners: Given[OwnerService],
    page: Given[Page],
    plan: Annotated[str | None, QueryParameter(max_length=64, description="Only owners on this plan.")] = None,
) -> OwnerPage:
    """List the owners that something was set for."""
    return await owners.list(credentials, plan=plan, cursor=page.cursor, limit=page.limit)


@get("/api/v1/owners/{name:str}", operation_id="readOwner", tags=["owners"])
async def read_owner(
    name: FromPath[str], request: StrictRequest, credentials: Given[Credentials], owners: Given[OwnerService]
) -> Tagged[OwnerDetail]:
    """Show what was set for an owner, and how many keys it has."""
    found = await owners.show(credentials, owner_name(request.scope, name))
    return tagged(found, found.revision)


@patch("/api/v1/owners/{name:str}", operation_id="updateOwner", tags=["owners"])
async def update_owner(
    name: FromPath[str],
    request: StrictRequest,
    data: JSONBody[UpdateOwner],
    credentials: Given[Credentials],
    owners: Given[OwnerService],
    if_match: Given[int | None],
) -> Tagged[OwnerEffect]:
    """Change what holds for all keys of an owner.

    Limits and quotas given take the place of all before.
    """
    changed = await owners.update(credentials, owner_name(request.scope, name), data, if_match=if_match)
    return tagged(changed, changed.revision)


ROUTES = (list_owners, read_owner, update_owner)

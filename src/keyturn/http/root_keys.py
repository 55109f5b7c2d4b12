"""Routes of root keys and workspace keys."""

from __future__ import annotations

from litestar import get, post
from litestar.params import FromPath, JSONBody

from keyturn.access.caller import Credentials
from keyturn.access.root_keys import RootKeyService
from keyturn.access.workspace_keys import WorkspaceKeyService
from keyturn.http.edge import Given, Page
from keyturn.wire.keys import Empty
from keyturn.wire.root_keys import (
    DestroyWorkspaceKey,
    Resealed,
    ResealWorkspace,
    Rewrapped,
    RewrapRootKey,
    RootKeyList,
    WorkspaceKeyDestroyed,
    WorkspaceKeyInfo,
    WorkspaceKeyPage,
)

# What a request without any body asks for.
NOTHING = Empty()
REWRAP = RewrapRootKey()
RESEAL = ResealWorkspace()
DESTROY = DestroyWorkspaceKey()


@get("/api/v1/root-keys", operation_id="listRootKeys", tags=["root keys"])
async def list_root_keys(credentials: Given[Credentials], root_keys: Given[RootKeyService]) -> RootKeyList:
    """List root keys, as this server has them, with the number of workspace keys under each."""
    return await root_keys.census(credentials)


@post("/api/v1/root-keys/rewrap", operation_id="rewrapRootKey", tags=["root keys"], status_code=200)
async def rewrap_root_key(
    credentials: Given[Credentials], root_keys: Given[RootKeyService], data: JSONBody[RewrapRootKey] = REWRAP
) -> Rewrapped:
    """Wrap workspace keys under the root key that seals; ask again while some remain."""
    return await root_keys.rewrap(credentials, data)


@get("/api/v1/workspace-keys", operation_id="listWorkspaceKeys", tags=["root keys"])
async def list_workspace_keys(
    credentials: Given[Credentials], workspace_keys: Given[WorkspaceKeyService], page: Given[Page]
) -> WorkspaceKeyPage:
    """List the keys of the workspace, oldest first, with the number of values under each."""
    return await workspace_keys.list(credentials, cursor=page.cursor, limit=page.limit)


@post("/api/v1/workspace-keys/rotate", operation_id="rotateWorkspaceKey", tags=["root keys"])
async def rotate_workspace_key(
    credentials: Given[Credentials],
    workspace_keys: Given[WorkspaceKeyService],
    idempotency: Given[str | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> WorkspaceKeyInfo:
    """Make a new workspace key, which seals from now on; the others open."""
    return await workspace_keys.rotate(credentials, idempotency=idempotency)


@post("/api/v1/workspace-keys/reseal", operation_id="resealWorkspace", tags=["root keys"], status_code=200)
async def reseal_workspace(
    credentials: Given[Credentials],
    workspace_keys: Given[WorkspaceKeyService],
    data: JSONBody[ResealWorkspace] = RESEAL,
) -> Resealed:
    """Seal values under the newest workspace key; ask again while some remain."""
    return await workspace_keys.reseal(credentials, data)


@post(
    "/api/v1/workspace-keys/{key_id:str}/destroy",
    operation_id="destroyWorkspaceKey",
    tags=["root keys"],
    status_code=200,
)
async def destroy_workspace_key(
    key_id: FromPath[str],
    credentials: Given[Credentials],
    workspace_keys: Given[WorkspaceKeyService],
    data: JSONBody[DestroyWorkspaceKey] = DESTROY,
) -> WorkspaceKeyDestroyed:
    """Destroy a workspace key for good; with `force` also when held secrets are lost with it."""
    return await workspace_keys.destroy(credentials, key_id, data)


ROUTES = (
    list_root_keys,
    rewrap_root_key,
    list_workspace_keys,
    rotate_workspace_key,
    reseal_workspace,
    destroy_workspace_key,
)

"""Routes of held secrets: writing them, their versions, what is told of them, and lists.

A path is everything after the route's own, as the request gave it: `GET /api/v1/secrets/production/payments/stripe`.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote_to_bytes

from litestar import get, patch, post, put
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.errors import InputError
from keyturn.http.body import BULK_BYTES_MAX
from keyturn.http.edge import Given, Page, StrictRequest, Tagged, tagged
from keyturn.vault.service import VaultService
from keyturn.wire.keys import Empty
from keyturn.wire.secrets import (
    PATH_CHARACTERS_MAX,
    Describe,
    PatchSecret,
    PromoteSecret,
    PutSecret,
    RollbackSecret,
    SecretInfo,
    SecretNames,
    SecretPage,
    SecretRemoved,
    SecretWritten,
    SelectVersions,
)

# What a request without any body asks for.
CURRENT = SelectVersions()
NEWEST = PromoteSecret()
NOTHING = Empty()


@put("/api/v1/secrets/{path:path}", operation_id="putSecret", tags=["secrets"], request_max_body_size=BULK_BYTES_MAX)
async def put_secret(
    path: FromPath[str],
    request: StrictRequest,
    data: JSONBody[PutSecret],
    credentials: Given[Credentials],
    vault: Given[VaultService],
    idempotency: Given[str | None],
    if_match: Given[int | None],
) -> Tagged[SecretWritten]:
    """Write a new version of a secret, and the secret if there is none.

    It is current at once unless `pending`.  With `cas` it is written only if that number is current.
    """
    where = path_of(request, path)
    written = await vault.put(credentials, where, data, idempotency=idempotency, if_match=if_match)
    return tagged(written, written.revision)


@patch(
    "/api/v1/secrets/{path:path}", operation_id="patchSecret", tags=["secrets"], request_max_body_size=BULK_BYTES_MAX
)
async def patch_secret(
    path: FromPath[str],
    request: StrictRequest,
    data: JSONBody[PatchSecret],
    credentials: Given[Credentials],
    vault: Given[VaultService],
    idempotency: Given[str | None],
    if_match: Given[int | None],
) -> Tagged[SecretWritten]:
    """Write the current version, merged with the fields given (RFC 7396), as a new one; null takes a field away."""
    where = path_of(request, path)
    written = await vault.patch(credentials, where, data, idempotency=idempotency, if_match=if_match)
    return tagged(written, written.revision)


@get("/api/v1/secrets", operation_id="listSecrets", tags=["secrets"])
async def list_secrets(
    credentials: Given[Credentials],
    vault: Given[VaultService],
    page: Given[Page],
    prefix: Annotated[
        str, QueryParameter(max_length=PATH_CHARACTERS_MAX, description="Only paths that begin so.")
    ] = "",
) -> SecretPage:
    """List secrets by path, without what they hold; only those the caller may list."""
    return await vault.list(credentials, prefix=prefix, cursor=page.cursor, limit=page.limit)


@get("/api/v1/secret-names", operation_id="listSecretNames", tags=["secrets"])
async def list_secret_names(
    credentials: Given[Credentials],
    vault: Given[VaultService],
    folder: Annotated[
        str, QueryParameter(max_length=PATH_CHARACTERS_MAX, description="A folder; the environments without it.")
    ] = "",
) -> SecretNames:
    """Name what lies directly below a folder; folders end with `/`."""
    return await vault.names(credentials, folder)


@get("/api/v1/secret-metadata/{path:path}", operation_id="readSecretMetadata", tags=["secrets"])
async def read_secret_metadata(
    path: FromPath[str], request: StrictRequest, credentials: Given[Credentials], vault: Given[VaultService]
) -> Tagged[SecretInfo]:
    """Show a secret and its versions, newest first, without what they hold."""
    found = await vault.show(credentials, path_of(request, path))
    return tagged(found, found.revision)


@patch("/api/v1/secret-metadata/{path:path}", operation_id="describeSecret", tags=["secrets"])
async def describe_secret(
    path: FromPath[str],
    request: StrictRequest,
    data: JSONBody[Describe],
    credentials: Given[Credentials],
    vault: Given[VaultService],
    if_match: Given[int | None],
) -> Tagged[SecretInfo]:
    """Tell about a secret: owner, purpose, provider, dates, how versions are kept, custom metadata."""
    changed = await vault.describe(credentials, path_of(request, path), data, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/secret-delete/{path:path}", operation_id="deleteSecretVersions", tags=["secrets"], status_code=200)
async def delete_versions(
    path: FromPath[str],
    request: StrictRequest,
    credentials: Given[Credentials],
    vault: Given[VaultService],
    data: JSONBody[SelectVersions] = CURRENT,
) -> Tagged[SecretInfo]:
    """Delete versions so that they can be undeleted; the current one unless others are named."""
    changed = await vault.delete(credentials, path_of(request, path), data)
    return tagged(changed, changed.revision)


@post("/api/v1/secret-undelete/{path:path}", operation_id="undeleteSecretVersions", tags=["secrets"], status_code=200)
async def undelete_versions(
    path: FromPath[str],
    request: StrictRequest,
    credentials: Given[Credentials],
    vault: Given[VaultService],
    data: JSONBody[SelectVersions] = CURRENT,
) -> Tagged[SecretInfo]:
    """Take deletions back; that of the current version unless others are named."""
    changed = await vault.undelete(credentials, path_of(request, path), data)
    return tagged(changed, changed.revision)


@post("/api/v1/secret-destroy/{path:path}", operation_id="destroySecretVersions", tags=["secrets"], status_code=200)
async def destroy_versions(
    path: FromPath[str],
    request: StrictRequest,
    data: JSONBody[SelectVersions],
    credentials: Given[Credentials],
    vault: Given[VaultService],
) -> Tagged[SecretInfo]:
    """Forget for good what the named versions hold."""
    changed = await vault.destroy(credentials, path_of(request, path), data)
    return tagged(changed, changed.revision)


@post("/api/v1/secret-rollback/{path:path}", operation_id="rollbackSecret", tags=["secrets"], status_code=200)
async def rollback_secret(
    path: FromPath[str],
    request: StrictRequest,
    data: JSONBody[RollbackSecret],
    credentials: Given[Credentials],
    vault: Given[VaultService],
    idempotency: Given[str | None],
) -> Tagged[SecretWritten]:
    """Write what an earlier version holds as a new one."""
    written = await vault.rollback(credentials, path_of(request, path), data, idempotency=idempotency)
    return tagged(written, written.revision)


@post("/api/v1/secret-promote/{path:path}", operation_id="promoteSecret", tags=["secrets"], status_code=200)
async def promote_secret(
    path: FromPath[str],
    request: StrictRequest,
    credentials: Given[Credentials],
    vault: Given[VaultService],
    idempotency: Given[str | None],
    data: JSONBody[PromoteSecret] = NEWEST,
) -> Tagged[SecretWritten]:
    """Make a pending version current, and the current one previous; the newest pending one unless another is named."""
    written = await vault.promote(credentials, path_of(request, path), data, idempotency=idempotency)
    return tagged(written, written.revision)


@post("/api/v1/secret-remove/{path:path}", operation_id="removeSecret", tags=["secrets"], status_code=200)
async def remove_secret(
    path: FromPath[str],
    request: StrictRequest,
    credentials: Given[Credentials],
    vault: Given[VaultService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> SecretRemoved:
    """Destroy every version of a secret and free its path."""
    text = path_of(request, path)
    await vault.remove(credentials, text)
    return SecretRemoved(path=text)


def path_of(request: StrictRequest, routed: str) -> str:
    """Return the path of a secret exactly as the request gave it; `routed` is what the router made of it.

    The router passes over empty segments; a path that was written with them is refused, not corrected.
    """
    raw: bytes = request.scope.get("raw_path") or b""
    target = unquote_to_bytes(raw).decode(errors="replace")
    _, _, after = target.removeprefix("/api/v1/").partition("/")
    if not target.startswith("/api/v1/") or routed.strip("/") != after:
        raise InputError("the path holds an empty segment", field="path", hint="paths are not resolved")
    return after


ROUTES = (
    put_secret,
    patch_secret,
    list_secrets,
    list_secret_names,
    read_secret_metadata,
    describe_secret,
    delete_versions,
    undelete_versions,
    destroy_versions,
    rollback_secret,
    promote_secret,
    remove_secret,
)

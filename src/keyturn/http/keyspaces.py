"""Routes of keyspaces."""

from __future__ import annotations

from litestar import get, patch, post
from litestar.params import FromPath, JSONBody

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, Page, Tagged, tagged
from keyturn.keys.keyspaces import KeyspaceService
from keyturn.wire.keys import (
    CreateKeyspace,
    Empty,
    KeyspaceDetail,
    KeyspaceEffect,
    KeyspacePage,
    RetirePepper,
    UpdateKeyspace,
)

# What a request without any body asks for.
NOTHING = Empty()
RETIRE = RetirePepper()


@post("/api/v1/keyspaces", operation_id="createKeyspace", tags=["keyspaces"])
async def create_keyspace(
    data: JSONBody[CreateKeyspace],
    credentials: Given[Credentials],
    keyspaces: Given[KeyspaceService],
    idempotency: Given[str | None],
) -> Tagged[KeyspaceDetail]:
    """Create a keyspace: an API whose keys are issued here."""
    made = await keyspaces.create(credentials, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get("/api/v1/keyspaces", operation_id="listKeyspaces", tags=["keyspaces"])
async def list_keyspaces(
    credentials: Given[Credentials], keyspaces: Given[KeyspaceService], page: Given[Page]
) -> KeyspacePage:
    """List keyspaces, oldest first."""
    return await keyspaces.list(credentials, cursor=page.cursor, limit=page.limit)


@get("/api/v1/keyspaces/{name:str}", operation_id="readKeyspace", tags=["keyspaces"])
async def read_keyspace(
    name: FromPath[str], credentials: Given[Credentials], keyspaces: Given[KeyspaceService]
) -> Tagged[KeyspaceDetail]:
    """Show a keyspace, its peppers and how many versions need each."""
    found = await keyspaces.show(credentials, name)
    return tagged(found, found.revision)


@patch("/api/v1/keyspaces/{name:str}", operation_id="updateKeyspace", tags=["keyspaces"])
async def update_keyspace(
    name: FromPath[str],
    data: JSONBody[UpdateKeyspace],
    credentials: Given[Credentials],
    keyspaces: Given[KeyspaceService],
    if_match: Given[int | None],
) -> Tagged[KeyspaceEffect]:
    """Change description, staleness bound, and what holds for all keys of a keyspace."""
    changed = await keyspaces.update(credentials, name, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/keyspaces/{name:str}/disable", operation_id="disableKeyspace", tags=["keyspaces"], status_code=200)
async def disable_keyspace(
    name: FromPath[str],
    credentials: Given[Credentials],
    keyspaces: Given[KeyspaceService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[KeyspaceEffect]:
    """Refuse every key of a keyspace; reversible."""
    changed = await keyspaces.disable(credentials, name, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/keyspaces/{name:str}/enable", operation_id="enableKeyspace", tags=["keyspaces"], status_code=200)
async def enable_keyspace(
    name: FromPath[str],
    credentials: Given[Credentials],
    keyspaces: Given[KeyspaceService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[KeyspaceEffect]:
    """Admit the keys of a disabled keyspace again."""
    changed = await keyspaces.enable(credentials, name, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/keyspaces/{name:str}/rotate-pepper", operation_id="rotatePepper", tags=["keyspaces"], status_code=200)
async def rotate_pepper(
    name: FromPath[str],
    credentials: Given[Credentials],
    keyspaces: Given[KeyspaceService],
    idempotency: Given[str | None],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[KeyspaceEffect]:
    """Make a new pepper.

    New secrets are hashed with it, old ones as they are used.
    """
    changed = await keyspaces.rotate_pepper(credentials, name, if_match=if_match, idempotency=idempotency)
    return tagged(changed, changed.revision)


@post("/api/v1/keyspaces/{name:str}/retire-pepper", operation_id="retirePepper", tags=["keyspaces"], status_code=200)
async def retire_pepper(
    name: FromPath[str],
    credentials: Given[Credentials],
    keyspaces: Given[KeyspaceService],
    if_match: Given[int | None],
    data: JSONBody[RetirePepper] = RETIRE,
) -> Tagged[KeyspaceEffect]:
    """Retire previous peppers that no version needs any more."""
    changed = await keyspaces.retire_pepper(credentials, name, data, if_match=if_match)
    return tagged(changed, changed.revision)


ROUTES = (
    create_keyspace,
    list_keyspaces,
    read_keyspace,
    update_keyspace,
    disable_keyspace,
    enable_keyspace,
    rotate_pepper,
    retire_pepper,
)

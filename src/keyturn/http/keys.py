"""Routes of issued keys; those of keyspaces, plans, owners, tokens and usage are in modules of their own."""

from __future__ import annotations

from typing import Annotated, Literal

from litestar import get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.errors import InputError
from keyturn.http import keyspaces as keyspace_routes
from keyturn.http import owners as owner_routes
from keyturn.http import plans as plan_routes
from keyturn.http import tokens as token_routes
from keyturn.http import usage as usage_routes
from keyturn.http.body import BULK_BYTES_MAX
from keyturn.http.edge import Given, Page, Tagged, tagged
from keyturn.kernel.clock import parse_rfc3339
from keyturn.keys.service import KeyService
from keyturn.wire.keys import (
    Empty,
    ImportedKeys,
    ImportKeys,
    IssuedKey,
    IssuedKeys,
    IssueKey,
    IssueKeys,
    KeyDetail,
    KeyEffect,
    KeyFilter,
    KeyPage,
    RetireKey,
    RevokeKey,
    RotatedKey,
    RotateKey,
    UpdateKey,
)

# What a request without any body asks for.
NOTHING = Empty()
ROTATE = RotateKey()
RETIRE = RetireKey()
REVOKE = RevokeKey()

_TIME = {"format": "date-time"}


@post("/api/v1/keys", operation_id="issueKey", tags=["keys"])
async def issue_key(
    data: JSONBody[IssueKey],
    credentials: Given[Credentials],
    keys: Given[KeyService],
    idempotency: Given[str | None],
) -> Tagged[IssuedKey]:
    """Issue a key.

    `key` in the answer is the secret, shown this once.
    """
    issued = await keys.issue(credentials, data, idempotency=idempotency)
    return tagged(issued, issued.revision)


@post("/api/v1/keys/bulk", operation_id="issueKeys", tags=["keys"], request_max_body_size=BULK_BYTES_MAX)
async def issue_keys(
    data: JSONBody[IssueKeys],
    credentials: Given[Credentials],
    keys: Given[KeyService],
    idempotency: Given[str | None],
) -> IssuedKeys:
    """Issue up to 1000 keys, all of them or none."""
    return await keys.issue_bulk(credentials, data, idempotency=idempotency)


@post("/api/v1/keys/import", operation_id="importKeys", tags=["keys"], request_max_body_size=BULK_BYTES_MAX)
async def import_keys(
    data: JSONBody[ImportKeys],
    credentials: Given[Credentials],
    keys: Given[KeyService],
    idempotency: Given[str | None],
) -> ImportedKeys:
    """Import up to 1000 keys that are in use already, all of them or none.

    As plaintext, SHA-256, bcrypt or argon2.  What is stored is a digest in any case.
    """
    return await keys.import_keys(credentials, data, idempotency=idempotency)


@get("/api/v1/keys", operation_id="listKeys", tags=["keys"])
async def list_keys(  # noqa: PLR0913, PLR0917 -- each is a parameter of the query
    credentials: Given[Credentials],
    keys: Given[KeyService],
    page: Given[Page],
    keyspace: Annotated[str | None, QueryParameter(max_length=64, description="Only keys of this keyspace.")] = None,
    owner: Annotated[str | None, QueryParameter(max_length=256, description="Only keys of this owner.")] = None,
    key_state: Annotated[
        Literal["active", "disabled", "revoked"] | None,
        QueryParameter(name="state", description="Only keys in this state."),
    ] = None,
    environment: Annotated[
        str | None, QueryParameter(max_length=64, description="Only keys of this environment.")
    ] = None,
    plan: Annotated[str | None, QueryParameter(max_length=64, description="Only keys put on this plan.")] = None,
    tag: Annotated[str | None, QueryParameter(max_length=64, description="Only keys with this tag.")] = None,
    name: Annotated[str | None, QueryParameter(max_length=256, description="How the key's name begins.")] = None,
    expiring_before: Annotated[
        str | None,
        QueryParameter(max_length=64, description="Only keys that expire before then.", schema_extra=_TIME),
    ] = None,
    unused_since: Annotated[
        str | None,
        QueryParameter(
            max_length=64, description="Only keys that are older and were not used since then.", schema_extra=_TIME
        ),
    ] = None,
) -> KeyPage:
    """List keys, oldest first."""
    wanted = KeyFilter(
        keyspace=keyspace,
        owner=owner,
        state=key_state,
        environment=environment,
        plan=plan,
        tag=tag,
        name=name,
        expiring_before=_moment(expiring_before, "expiring_before"),
        unused_since=_moment(unused_since, "unused_since"),
    )
    return await keys.list(credentials, wanted, cursor=page.cursor, limit=page.limit)


@get("/api/v1/keys/{key_id:str}", operation_id="readKey", tags=["keys"])
async def read_key(
    key_id: FromPath[str], credentials: Given[Credentials], keys: Given[KeyService]
) -> Tagged[KeyDetail]:
    """Show a key, its secret versions and who uses them."""
    found = await keys.show(credentials, key_id)
    return tagged(found, found.revision)


@patch("/api/v1/keys/{key_id:str}", operation_id="updateKey", tags=["keys"])
async def update_key(
    key_id: FromPath[str],
    data: JSONBody[UpdateKey],
    credentials: Given[Credentials],
    keys: Given[KeyService],
    if_match: Given[int | None],
) -> Tagged[KeyEffect]:
    """Change what a key may do and what is known of it."""
    changed = await keys.update(credentials, key_id, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/keys/{key_id:str}/rotate", operation_id="rotateKey", tags=["keys"], status_code=200)
async def rotate_key(
    key_id: FromPath[str],
    credentials: Given[Credentials],
    keys: Given[KeyService],
    idempotency: Given[str | None],
    if_match: Given[int | None],
    data: JSONBody[RotateKey] = ROTATE,
) -> Tagged[RotatedKey]:
    """Give a key a new secret.

    `key` in the answer is the new secret, shown this once.  The old one stays valid for `overlap_seconds`; `0` cuts it
    at once.
    """
    rotated = await keys.rotate(credentials, key_id, data, if_match=if_match, idempotency=idempotency)
    return tagged(rotated, rotated.revision)


@post("/api/v1/keys/{key_id:str}/retire", operation_id="retireKey", tags=["keys"], status_code=200)
async def retire_key(
    key_id: FromPath[str],
    credentials: Given[Credentials],
    keys: Given[KeyService],
    if_match: Given[int | None],
    data: JSONBody[RetireKey] = RETIRE,
) -> Tagged[KeyEffect]:
    """End the overlap of a rotation early.

    Refused while an old secret was used within `silent_seconds`, unless forced.
    """
    changed = await keys.retire(credentials, key_id, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/keys/{key_id:str}/disable", operation_id="disableKey", tags=["keys"], status_code=200)
async def disable_key(
    key_id: FromPath[str],
    credentials: Given[Credentials],
    keys: Given[KeyService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[KeyEffect]:
    """Refuse every secret of a key; reversible."""
    changed = await keys.disable(credentials, key_id, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/keys/{key_id:str}/enable", operation_id="enableKey", tags=["keys"], status_code=200)
async def enable_key(
    key_id: FromPath[str],
    credentials: Given[Credentials],
    keys: Given[KeyService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[KeyEffect]:
    """Admit the valid secrets of a disabled key again."""
    changed = await keys.enable(credentials, key_id, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/keys/{key_id:str}/revoke", operation_id="revokeKey", tags=["keys"], status_code=200)
async def revoke_key(
    key_id: FromPath[str],
    credentials: Given[Credentials],
    keys: Given[KeyService],
    if_match: Given[int | None],
    data: JSONBody[RevokeKey] = REVOKE,
) -> Tagged[KeyEffect]:
    """Revoke a key for good.

    `effective` says that every node acts on it; by `effective_by` none can admit the key any more.
    """
    changed = await keys.revoke(credentials, key_id, data, if_match=if_match)
    return tagged(changed, changed.revision)


def _moment(text: str | None, field: str) -> float | None:
    """Read a time from the query: litestar would take a bare number for one."""
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise InputError("expected a time like 2026-01-02T03:04:05Z", field=field) from None


ROUTES = (
    *keyspace_routes.ROUTES,
    *plan_routes.ROUTES,
    *owner_routes.ROUTES,
    issue_key,
    issue_keys,
    import_keys,
    list_keys,
    read_key,
    update_key,
    rotate_key,
    retire_key,
    disable_key,
    enable_key,
    revoke_key,
    *usage_routes.ROUTES,
    *token_routes.ROUTES,
)

"""Routes of decoys: keys and secrets whose use is an alarm."""

from __future__ import annotations

from litestar import get, post
from litestar.params import FromPath, JSONBody

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, Page, Tagged, tagged
from keyturn.leaks.decoys import DecoyService
from keyturn.wire.decoys import CreateDecoy, DecoyCreated, DecoyInfo, DecoyPage
from keyturn.wire.keys import Empty

NOTHING = Empty()

_DECOYS = "/api/v1/decoys"
_DECOY = _DECOYS + "/{name:str}"


@post(_DECOYS, operation_id="createDecoy", tags=["leaks"])
async def create_decoy(
    data: JSONBody[CreateDecoy],
    credentials: Given[Credentials],
    decoys: Given[DecoyService],
    idempotency: Given[str | None],
) -> Tagged[DecoyCreated]:
    """Make a key or a secret whose use is an alarm; the answer holds, once, what is to be planted."""
    made = await decoys.create(credentials, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get(_DECOYS, operation_id="listDecoys", tags=["leaks"])
async def list_decoys(credentials: Given[Credentials], decoys: Given[DecoyService], page: Given[Page]) -> DecoyPage:
    """List decoys, oldest first."""
    return await decoys.list(credentials, cursor=page.cursor, limit=page.limit)


@get(_DECOY, operation_id="readDecoy", tags=["leaks"])
async def read_decoy(
    name: FromPath[str], credentials: Given[Credentials], decoys: Given[DecoyService]
) -> Tagged[DecoyInfo]:
    """Show a decoy, how often it was used, and by whom last."""
    found = await decoys.show(credentials, name)
    return tagged(found, found.revision)


@post(_DECOY + "/retire", operation_id="retireDecoy", tags=["leaks"], status_code=200)
async def retire_decoy(
    name: FromPath[str],
    credentials: Given[Credentials],
    decoys: Given[DecoyService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- refuses a body that is not an empty object
) -> DecoyInfo:
    """Be told of a decoy's use no more."""
    return await decoys.retire(credentials, name, if_match=if_match)


ROUTES = (create_decoy, list_decoys, read_decoy, retire_decoy)

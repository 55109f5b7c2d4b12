"""Routes of wrapped answers.  Opening one needs no bearer token: the wrap token, in the body, is the credential."""

from __future__ import annotations

from litestar import post
from litestar.params import FromPath, JSONBody

from keyturn.access.caller import Credentials
from keyturn.http.body import BULK_BYTES_MAX
from keyturn.http.edge import EdgeSettings, Given, StrictRequest, scope_request_id
from keyturn.http.peer import client_ip
from keyturn.http.secrets import path_of
from keyturn.kernel.secret import Secret
from keyturn.vault.sharing import SharingService
from keyturn.vault.wrapping import Bearer, WrapService
from keyturn.wire.wraps import CreateWrap, OpenWrap, ShareSecret, WrapCreated, WrapInfo, WrapOpened

SHARE = ShareSecret()


@post("/api/v1/wraps", operation_id="createWrap", tags=["wraps"], request_max_body_size=BULK_BYTES_MAX)
async def create_wrap(
    data: JSONBody[CreateWrap],
    credentials: Given[Credentials],
    wraps: Given[WrapService],
    idempotency: Given[str | None],
) -> WrapCreated:
    """Wrap a JSON object.

    Whoever first opens it with the token, which is shown this once, gets it; nobody after.
    """
    return await wraps.wrap(credentials, data, idempotency=idempotency)


@post("/api/v1/secret-share/{path:path}", operation_id="shareSecret", tags=["wraps"])
async def share_secret(
    path: FromPath[str],
    request: StrictRequest,
    credentials: Given[Credentials],
    sharing: Given[SharingService],
    data: JSONBody[ShareSecret] = SHARE,
) -> WrapCreated:
    """Wrap what a secret holds now, for somebody without any right here."""
    return await sharing.share(credentials, path_of(request, path), data)


@post("/api/v1/wraps/lookup", operation_id="lookUpWrap", tags=["wraps"], status_code=200)
async def look_up_wrap(request: StrictRequest, data: JSONBody[OpenWrap], wraps: Given[WrapService]) -> WrapInfo:
    """Tell what made a wrap, and when, without opening it."""
    return await wraps.lookup(Secret(data.token), _bearer(request))


@post("/api/v1/wraps/open", operation_id="openWrap", tags=["wraps"], status_code=200)
async def open_wrap(request: StrictRequest, data: JSONBody[OpenWrap], wraps: Given[WrapService]) -> WrapOpened:
    """Open a wrap, once and for all."""
    return await wraps.unwrap(Secret(data.token), _bearer(request))


@post("/api/v1/wraps/rewrap", operation_id="rewrap", tags=["wraps"], status_code=200)
async def rewrap(request: StrictRequest, data: JSONBody[OpenWrap], wraps: Given[WrapService]) -> WrapCreated:
    """Wrap the same anew, for the same time; the old token opens nothing any more."""
    return await wraps.rewrap(Secret(data.token), _bearer(request))


def _bearer(request: StrictRequest) -> Bearer:
    edge: EdgeSettings = request.app.state.edge
    return Bearer(client_ip(request.scope, edge.trusted_proxies), scope_request_id(request.scope))


ROUTES = (create_wrap, share_secret)
OPEN_ROUTES = (look_up_wrap, open_wrap, rewrap)

"""Routes of webhooks: endpoints and deliveries."""

from __future__ import annotations

from typing import Annotated

from litestar import get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.errors import InputError
from keyturn.http.edge import Given, Page, Tagged, tagged
from keyturn.kernel.clock import parse_rfc3339
from keyturn.webhooks.deliveries import DeliveryService
from keyturn.webhooks.service import WebhookService
from keyturn.wire.keys import Empty
from keyturn.wire.webhooks import (
    CreateWebhook,
    DeliveryDetail,
    DeliveryFilter,
    DeliveryInfo,
    DeliveryPage,
    DeliveryState,
    Redelivered,
    RedeliverWebhook,
    RotateWebhookSecret,
    UpdateWebhook,
    WebhookInfo,
    WebhookPage,
    WebhookSecret,
)

# What a request without any body asks for.
NOTHING = Empty()
ROTATE = RotateWebhookSecret()

_TIME = {"format": "date-time"}


@post("/api/v1/webhooks", operation_id="createWebhook", tags=["webhooks"])
async def create_webhook(
    data: JSONBody[CreateWebhook],
    credentials: Given[Credentials],
    webhooks: Given[WebhookService],
    idempotency: Given[str | None],
) -> Tagged[WebhookSecret]:
    """Create an endpoint that events are sent to, and show its secret once."""
    made = await webhooks.create(credentials, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get("/api/v1/webhooks", operation_id="listWebhooks", tags=["webhooks"])
async def list_webhooks(
    credentials: Given[Credentials], webhooks: Given[WebhookService], page: Given[Page]
) -> WebhookPage:
    """List endpoints, oldest first."""
    return await webhooks.list(credentials, cursor=page.cursor, limit=page.limit)


@get("/api/v1/webhooks/{name:str}", operation_id="readWebhook", tags=["webhooks"])
async def read_webhook(
    name: FromPath[str], credentials: Given[Credentials], webhooks: Given[WebhookService]
) -> Tagged[WebhookInfo]:
    """Show an endpoint."""
    found = await webhooks.show(credentials, name)
    return tagged(found, found.revision)


@patch("/api/v1/webhooks/{name:str}", operation_id="updateWebhook", tags=["webhooks"])
async def update_webhook(
    name: FromPath[str],
    data: JSONBody[UpdateWebhook],
    credentials: Given[Credentials],
    webhooks: Given[WebhookService],
    if_match: Given[int | None],
) -> Tagged[WebhookInfo]:
    """Change the address, the event patterns or the description of an endpoint."""
    changed = await webhooks.update(credentials, name, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/webhooks/{name:str}/disable", operation_id="disableWebhook", tags=["webhooks"], status_code=200)
async def disable_webhook(
    name: FromPath[str],
    credentials: Given[Credentials],
    webhooks: Given[WebhookService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[WebhookInfo]:
    """Send nothing to an endpoint; what happens meanwhile becomes dead letters."""
    changed = await webhooks.disable(credentials, name, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/webhooks/{name:str}/enable", operation_id="enableWebhook", tags=["webhooks"], status_code=200)
async def enable_webhook(
    name: FromPath[str],
    credentials: Given[Credentials],
    webhooks: Given[WebhookService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[WebhookInfo]:
    """Send to a disabled endpoint again."""
    changed = await webhooks.enable(credentials, name, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/webhooks/{name:str}/delete", operation_id="deleteWebhook", tags=["webhooks"], status_code=200)
async def delete_webhook(
    name: FromPath[str],
    credentials: Given[Credentials],
    webhooks: Given[WebhookService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[WebhookInfo]:
    """Delete an endpoint for good; what waits for it is cancelled."""
    changed = await webhooks.delete(credentials, name, if_match=if_match)
    return tagged(changed, changed.revision)


@post(
    "/api/v1/webhooks/{name:str}/rotate-secret", operation_id="rotateWebhookSecret", tags=["webhooks"], status_code=200
)
async def rotate_webhook_secret(
    name: FromPath[str],
    credentials: Given[Credentials],
    webhooks: Given[WebhookService],
    idempotency: Given[str | None],
    if_match: Given[int | None],
    data: JSONBody[RotateWebhookSecret] = ROTATE,
) -> Tagged[WebhookSecret]:
    """Make a new secret and show it once; during the overlap messages are signed with both."""
    changed = await webhooks.rotate_secret(credentials, name, data, if_match=if_match, idempotency=idempotency)
    return tagged(changed, changed.revision)


@post("/api/v1/webhooks/{name:str}/test", operation_id="pingWebhook", tags=["webhooks"], status_code=202)
async def ping_webhook(
    name: FromPath[str],
    credentials: Given[Credentials],
    deliveries: Given[DeliveryService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> DeliveryInfo:
    """Send a `webhook.ping` to an endpoint; its delivery tells what came of it."""
    return await deliveries.test(credentials, name)


@post("/api/v1/webhooks/{name:str}/redeliver", operation_id="redeliverWebhook", tags=["webhooks"], status_code=202)
async def redeliver_webhook(
    name: FromPath[str],
    data: JSONBody[RedeliverWebhook],
    credentials: Given[Credentials],
    deliveries: Given[DeliveryService],
) -> Redelivered:
    """Send the dead letters of an endpoint again, those whose event happened since a time."""
    return await deliveries.redeliver_dead(credentials, name, data)


@get("/api/v1/webhooks/{name:str}/deliveries", operation_id="listDeliveries", tags=["webhooks"])
async def list_deliveries(
    name: FromPath[str],
    credentials: Given[Credentials],
    deliveries: Given[DeliveryService],
    page: Given[Page],
    delivery_state: Annotated[
        DeliveryState | None, QueryParameter(name="state", description="Only those that stand so.")
    ] = None,
    type: Annotated[  # noqa: A002 -- the name of the parameter
        str | None, QueryParameter(max_length=128, description="Only this type of event.")
    ] = None,
    since: Annotated[
        str | None, QueryParameter(max_length=64, description="Only events at or after this time.", schema_extra=_TIME)
    ] = None,
    until: Annotated[
        str | None, QueryParameter(max_length=64, description="Only events before this time.", schema_extra=_TIME)
    ] = None,
) -> DeliveryPage:
    """List the deliveries of an endpoint, newest first."""
    wanted = DeliveryFilter(
        state=delivery_state, type=type, since=_moment(since, "since"), until=_moment(until, "until")
    )
    return await deliveries.list(credentials, name, wanted, cursor=page.cursor, limit=page.limit)


@get("/api/v1/webhooks/{name:str}/deliveries/{delivery_id:str}", operation_id="readDelivery", tags=["webhooks"])
async def read_delivery(
    name: FromPath[str],
    delivery_id: FromPath[str],
    credentials: Given[Credentials],
    deliveries: Given[DeliveryService],
) -> DeliveryDetail:
    """Show a delivery, its body and its attempts."""
    return await deliveries.show(credentials, name, delivery_id)


@post(
    "/api/v1/webhooks/{name:str}/deliveries/{delivery_id:str}/redeliver",
    operation_id="redeliver",
    tags=["webhooks"],
    status_code=202,
)
async def redeliver(
    name: FromPath[str],
    delivery_id: FromPath[str],
    credentials: Given[Credentials],
    deliveries: Given[DeliveryService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> DeliveryInfo:
    """Send one delivery again, with the same `webhook-id` and body."""
    return await deliveries.redeliver(credentials, name, delivery_id)


def _moment(text: str | None, field: str) -> float | None:
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise InputError("expected a time like 2026-01-02T03:04:05Z", field=field) from None


ROUTES = (
    create_webhook,
    list_webhooks,
    read_webhook,
    update_webhook,
    disable_webhook,
    enable_webhook,
    delete_webhook,
    rotate_webhook_secret,
    ping_webhook,
    redeliver_webhook,
    list_deliveries,
    read_delivery,
    redeliver,
)

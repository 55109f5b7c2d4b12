"""The delivery log of an endpoint, sending again, and the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.access.moments import epoch_of
from keyturn.access.paging import page
from keyturn.errors import ConflictError, not_found
from keyturn.kernel.ids import new_id
from keyturn.storage.transaction import ChangeKind
from keyturn.webhooks import delivery_store
from keyturn.webhooks.answers import delivery_detail, delivery_info
from keyturn.webhooks.model import ACTIVE, Event
from keyturn.webhooks.outbox import delivery_of
from keyturn.webhooks.service import authorised_endpoint
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.webhooks import (
    PING,
    REDELIVER_MAX,
    DeliveryDetail,
    DeliveryFilter,
    DeliveryInfo,
    DeliveryPage,
    DeliveryState,
    Redelivered,
    RedeliverWebhook,
)

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.webhooks.model import Delivery, Endpoint


EVERYTHING = DeliveryFilter()


class DeliveryService:
    """The operations on deliveries; each is authorised on the endpoint."""

    def __init__(self, door: Door) -> None:
        """Need the door."""
        self._door = door

    async def list(
        self,
        credentials: Credentials,
        name: str,
        wanted: DeliveryFilter = EVERYTHING,
        *,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> DeliveryPage:
        """List the deliveries of an endpoint, newest first."""

        def work(op: Operation) -> DeliveryPage:
            endpoint = authorised_endpoint(op, Action.WEBHOOK_READ, name)
            found, following = page(
                op,
                lambda before, count: delivery_store.list_deliveries(op.connection, endpoint.id, wanted, before, count),
                lambda _: True,
                cursor,
                limit,
            )
            return DeliveryPage(items=tuple(delivery_info(one, name) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def show(self, credentials: Credentials, name: str, delivery_id: str) -> DeliveryDetail:
        """Show a delivery with its body and attempts."""

        def work(op: Operation) -> DeliveryDetail:
            endpoint = authorised_endpoint(op, Action.WEBHOOK_READ, name)
            found = _found(op, endpoint, delivery_id)
            return delivery_detail(found, name, delivery_store.attempts_of(op.connection, found.id))

        return await self._door.read(credentials, work)

    async def redeliver(self, credentials: Credentials, name: str, delivery_id: str) -> DeliveryInfo:
        """Send one delivery again, whatever became of it, with the same `webhook-id` and body."""

        def work(op: Operation) -> DeliveryInfo:
            endpoint = _sendable(op, name)
            found = _found(op, endpoint, delivery_id)
            if found.state == DeliveryState.PENDING and found.claimed_until > op.now:
                raise ConflictError(f"{found.id} is being sent now", hint="look at its attempts in a moment")
            delivery_store.send_again(op.connection, endpoint.id, found.id, op.now)
            op.record(
                Action.WEBHOOK_REDELIVER,
                endpoint.resource,
                kind=ChangeKind.WEBHOOK,
                entity=endpoint.id,
                detail={"delivery": found.id},
            )
            return delivery_info(_found(op, endpoint, delivery_id), name)

        return (await self._door.write(credentials, work)).value

    async def redeliver_dead(self, credentials: Credentials, name: str, request: RedeliverWebhook) -> Redelivered:
        """Send the dead letters since a time again, the oldest first, up to `REDELIVER_MAX` at once."""
        since = epoch_of(request.since, "since") or 0.0

        def work(op: Operation) -> Redelivered:
            endpoint = _sendable(op, name)
            count = delivery_store.send_dead_again(op.connection, endpoint.id, since, op.now, REDELIVER_MAX)
            if not count:
                op.unchanged()
                return Redelivered(count=0, more=False)
            op.record(
                Action.WEBHOOK_REDELIVER,
                endpoint.resource,
                kind=ChangeKind.WEBHOOK,
                entity=endpoint.id,
                detail={"count": count},
            )
            return Redelivered(count=count, more=delivery_store.has_dead(op.connection, endpoint.id, since))

        return (await self._door.write(credentials, work)).value

    async def test(self, credentials: Credentials, name: str) -> DeliveryInfo:
        """Send a `webhook.ping` to the endpoint, whatever its patterns are."""

        def work(op: Operation) -> DeliveryInfo:
            endpoint = _sendable(op, name)
            ping = Event(
                id=new_id("evt", op.now),
                seq=0,
                type=PING,
                at=op.now,
                workspace=op.workspace,
                resource=endpoint.resource,
                actor=op.caller.principal,
                kind=ChangeKind.WEBHOOK,
                entity=endpoint.id,
            )
            made = delivery_of(endpoint, ping, op.now)
            delivery_store.insert_deliveries(op.connection, [made])
            op.record(
                Action.WEBHOOK_REDELIVER,
                endpoint.resource,
                kind=ChangeKind.WEBHOOK,
                entity=endpoint.id,
                detail={"test": made.id},
            )
            return delivery_info(made, name)

        return (await self._door.write(credentials, work)).value


def _sendable(op: Operation, name: str) -> Endpoint:
    endpoint = authorised_endpoint(op, Action.WEBHOOK_REDELIVER, name)
    if endpoint.state != ACTIVE:
        raise ConflictError(f"the webhook {name} is {endpoint.state}", hint="enable it first")
    return endpoint


def _found(op: Operation, endpoint: Endpoint, delivery_id: str) -> Delivery:
    found = delivery_store.load_delivery(op.connection, endpoint.id, delivery_id)
    if found is None:
        raise not_found("delivery", delivery_id)
    return found

"""Webhooks of an application: its services and its dispatcher, wired together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.telemetry.metrics import Family, counter, gauge
from keyturn.webhooks.deliveries import DeliveryService
from keyturn.webhooks.delivery_store import backlog
from keyturn.webhooks.dispatcher import Dispatcher
from keyturn.webhooks.sender import HttpSender
from keyturn.webhooks.service import WebhookService

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from keyturn.access.door import Door
    from keyturn.storage.keyring import Keyring
    from keyturn.webhooks.guard import Network


@dataclass(frozen=True, slots=True)
class WebhookParts:
    """What a worker has for webhooks."""

    webhooks: WebhookService
    deliveries: DeliveryService
    dispatcher: Dispatcher

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {"webhooks": self.webhooks, "deliveries": self.deliveries}

    def families(self) -> Iterator[Family]:
        """What a scrape is told of the dispatcher of this worker."""
        health = self.dispatcher.health
        yield gauge("keyturn_webhook_leader", "Whether this worker sends the webhooks.", int(health.leader))
        yield gauge("keyturn_webhook_sending", "Attempts under way.", health.sending)
        yield counter("keyturn_webhook_delivered", "Deliveries that an endpoint took.", health.delivered)
        yield counter("keyturn_webhook_failed", "Attempts that failed.", health.failed)
        yield counter("keyturn_webhook_dead", "Deliveries given up.", health.dead)
        yield counter("keyturn_webhook_failures", "Rounds of the dispatcher that failed.", health.failures)


def open_webhooks(door: Door, keyring: Keyring, node: str, allowed: Sequence[Network] = ()) -> WebhookParts:
    """Wire the webhooks of a worker together; endpoints may be on the internet and in `allowed` networks."""
    return WebhookParts(
        webhooks=WebhookService(door, keyring, allowed),
        deliveries=DeliveryService(door),
        dispatcher=Dispatcher(door.database, keyring, node, HttpSender(allowed)),
    )


def webhook_families(connection: Connection, now: float) -> Iterator[Family]:
    """What the database tells a scrape of webhooks."""
    pending, oldest = backlog(connection)
    age = 0.0 if oldest is None else max(0.0, now - oldest)
    yield gauge("keyturn_webhook_pending", "Deliveries that wait for active endpoints.", pending)
    yield gauge("keyturn_webhook_pending_age_seconds", "How long ago the event of the oldest of them happened.", age)

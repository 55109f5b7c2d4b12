"""Answers: stored values as the wire types show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyturn.access.moments import shown
from keyturn.kernel.clock import rfc3339
from keyturn.wire.webhooks import AttemptInfo, DeliveryDetail, DeliveryInfo, DeliveryState, WebhookInfo, WebhookSecret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.kernel.secret import Secret
    from keyturn.webhooks.model import Attempt, Delivery, Endpoint


def webhook_info(of: Endpoint) -> WebhookInfo:
    """Show an endpoint."""
    return WebhookInfo(**_endpoint_fields(of))


def webhook_secret(of: Endpoint, secret: Secret | None) -> WebhookSecret:
    """Show an endpoint and its new secret."""
    return WebhookSecret(**_endpoint_fields(of), secret=None if secret is None else secret.reveal())


def delivery_info(of: Delivery, name: str) -> DeliveryInfo:
    """Show a delivery as lists do; `name` is its endpoint's."""
    return DeliveryInfo(**_delivery_fields(of, name))


def delivery_detail(of: Delivery, name: str, attempts: Sequence[Attempt]) -> DeliveryDetail:
    """Show a delivery with its attempts."""
    return DeliveryDetail(
        **_delivery_fields(of, name),
        body=of.body,
        attempt_log=tuple(
            AttemptInfo(
                number=one.number,
                at=rfc3339(one.at),
                duration_ms=one.duration_ms,
                status=one.status,
                error=one.error,
                excerpt=one.excerpt,
            )
            for one in attempts
        ),
    )


def _endpoint_fields(of: Endpoint) -> dict[str, Any]:
    return {
        "id": of.id,
        "name": of.name,
        "url": of.url,
        "events": of.events,
        "description": of.description,
        "state": of.state,
        "state_reason": of.state_reason,
        "failing_since": shown(of.failing_since),
        "overlap_until": shown(of.overlap_until),
        "created_at": rfc3339(of.created_at),
        "created_by": of.created_by,
        "updated_at": rfc3339(of.updated_at),
        "revision": of.revision,
    }


def _delivery_fields(of: Delivery, name: str) -> dict[str, Any]:
    state = DeliveryState(of.state)
    return {
        "id": of.id,
        "webhook": name,
        "type": of.type,
        "event": of.event,
        "seq": of.seq,
        "state": state,
        "attempts": of.attempts,
        "next_attempt_at": rfc3339(of.next_at) if state is DeliveryState.PENDING else None,
        "last_status": of.last_status,
        "last_error": of.last_error,
        "created_at": rfc3339(of.created_at),
        "finished_at": shown(of.finished_at),
    }

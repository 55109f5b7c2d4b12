"""Webhooks: the requests and responses of `/api/v1/webhooks`, and the event types.

An event type is the action that changed something, `noun.verb`.  `webhook.ping` is sent by a test alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keyturn.wire.actions import Action
from keyturn.wire.keys import Description, Moment

ENDPOINTS_MAX: Final = 50
"""Endpoints of one workspace."""
PATTERNS_MAX: Final = 64
OVERLAP_SECONDS_MAX: Final = 604_800
OVERLAP_SECONDS_DEFAULT: Final = 86_400
REDELIVER_MAX: Final = 10_000
PING: Final = "webhook.ping"

_UNTOLD: Final = frozenset(
    {
        Action.AUTH_LOGIN,
        Action.AUTH_LOGOUT,
        Action.AUTH_REFUSED,
        Action.AUTH_RENEW,
        Action.KEYSPACE_REPLICATE,
        Action.LIMIT_TAKE,
        Action.LOGIN_TOKEN_RENEW,
    }
)
_READING: Final = frozenset({"read", "list", "explain", "match", "verify", "export"})
EVENT_TYPES: Final = frozenset(
    action for action in Action if action not in _UNTOLD and action.partition(".")[2] not in _READING
)
"""Every type of event: the actions that change something, and what the system records about itself."""

WebhookName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
Url = Annotated[str, Meta(min_length=8, max_length=2048, pattern=r"^https?://[!-~]+(?!\n)$")]
EventPattern = Annotated[str, Meta(min_length=1, max_length=128)]
EventPatterns = Annotated[tuple[EventPattern, ...], Meta(min_length=1, max_length=PATTERNS_MAX)]


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    CANCELLED = "cancelled"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


class CreateWebhook(_Strict, frozen=True, kw_only=True):
    """Create an endpoint; `events` are patterns over event types, such as `key.*`."""

    name: WebhookName
    url: Url
    events: EventPatterns = ("*",)
    description: Description = ""


class UpdateWebhook(_Strict, frozen=True, kw_only=True):
    """Change an endpoint; what waits for delivery goes to the new address too."""

    url: Url | UnsetType = UNSET
    events: EventPatterns | UnsetType = UNSET
    description: Description | UnsetType = UNSET


class RotateWebhookSecret(_Strict, frozen=True, kw_only=True):
    """Make a new secret; for as long as the overlap, deliveries are signed with both."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=OVERLAP_SECONDS_MAX)] = OVERLAP_SECONDS_DEFAULT


class RedeliverWebhook(_Strict, frozen=True, kw_only=True):
    """Send dead letters again: those whose event happened at or after `since`."""

    since: Moment


class DeliveryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of deliveries is narrowed to; None does not narrow.  Times are epoch seconds."""

    state: DeliveryState | None = None
    type: str | None = None
    since: float | None = None
    until: float | None = None


class WebhookInfo(_Answer, frozen=True, kw_only=True):
    """An endpoint.

    `state_reason` says why it is disabled: `asked`, `gone` (it answered 410) or `failing` (for too long).
    """

    id: str
    name: str
    url: str
    events: tuple[str, ...]
    description: str
    state: str
    state_reason: str | None
    failing_since: str | None
    overlap_until: str | None
    created_at: str
    created_by: str
    updated_at: str
    revision: int


class WebhookSecret(WebhookInfo, frozen=True, kw_only=True):
    """An endpoint and, once, its new secret."""

    secret: str | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class WebhookPage(_Answer, frozen=True, kw_only=True):
    """A page of endpoints."""

    items: tuple[WebhookInfo, ...]
    next_cursor: str | None


class DeliveryInfo(_Answer, frozen=True, kw_only=True):
    """One event for one endpoint; `id` is its `webhook-id`, the same at every attempt."""

    id: str
    webhook: str
    type: str
    event: str
    seq: int
    state: DeliveryState
    attempts: int
    next_attempt_at: str | None
    last_status: int | None
    last_error: str | None
    created_at: str
    finished_at: str | None


class AttemptInfo(_Answer, frozen=True, kw_only=True):
    """One attempt: `status` is null when no answer came, and `error` then says why."""

    number: int
    at: str
    duration_ms: int
    status: int | None
    error: str | None
    excerpt: str | None


class DeliveryDetail(DeliveryInfo, frozen=True, kw_only=True):
    """A delivery with its exact body and its attempts, oldest first."""

    body: str
    attempt_log: tuple[AttemptInfo, ...]


class DeliveryPage(_Answer, frozen=True, kw_only=True):
    """A page of deliveries, newest first."""

    items: tuple[DeliveryInfo, ...]
    next_cursor: str | None


class Redelivered(_Answer, frozen=True, kw_only=True):
    """How many dead letters are sent again; `more` when there are others still."""

    count: int
    more: bool

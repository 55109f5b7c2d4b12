"""Endpoints, deliveries and attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ACTIVE: Final = "active"
DISABLED: Final = "disabled"
DELETED: Final = "deleted"

ASKED: Final = "asked"
GONE: Final = "gone"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place that events are sent to."""

    id: str
    workspace: str
    name: str
    url: str
    description: str
    events: tuple[str, ...]
    state: str
    state_reason: str | None
    failing_since: float | None
    """When the failures began that no success has ended."""
    overlap_until: float | None
    """Until when the secret before the current one counts too."""
    since_seq: int
    """Events numbered above it are for this endpoint."""
    created_at: float
    created_by: str
    updated_at: float
    deleted_at: float
    revision: int

    @property
    def resource(self) -> str:
        """The name that grants match."""
        return f"webhook/{self.name}"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed, as the audit log has it."""

    id: str
    seq: int
    type: str
    at: float
    workspace: str
    resource: str
    actor: str
    kind: str | None = None
    entity: str | None = None
    """What changed; None when the change log no longer says so."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one endpoint."""

    id: str
    workspace: str
    webhook: str
    event: str
    seq: int
    type: str
    body: str
    state: str
    attempts: int
    tries: int
    next_at: float
    claimed_until: float
    created_at: float
    finished_at: float | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a delivery was sent."""

    number: int
    at: float
    duration_ms: int
    status: int | None
    error: str | None
    excerpt: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request."""

    duration_ms: int
    status: int | None = None
    error: str | None = None
    excerpt: str | None = None
    retry_after: str | None = None
    """The header as it came."""

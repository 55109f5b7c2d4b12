"""What is an event, what an answer means, and when to try again.

    attempt   1   2    3    4     5     6     7    8    9     10
    waits     -   5 s  30 s 2 min 10 min 30 min 2 h 6 h  12 h  24 h    each more or less by a fifth; then it is dead

A `Retry-After` that asks for longer is honoured, up to a day.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from keyturn.errors import InputError
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.match import check_pattern, compile_patterns
from keyturn.kernel.redact import scrub
from keyturn.webhooks.model import GONE, Answer, Endpoint, Event
from keyturn.wire.webhooks import EVENT_TYPES, DeliveryState

WAITS_SECONDS: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0, 43200.0, 86400.0)
RETRY_AFTER_SECONDS_MAX: Final = 86_400.0
JITTER: Final = 0.2
PAUSE_AFTER_SECONDS: Final = 5 * 86_400.0
EXCERPT_LENGTH_MAX: Final = 256

_TOLD_OUTCOMES: Final = {"system.alarm": "failed"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of a delivery after an attempt."""

    state: DeliveryState
    next_at: float
    disable: str | None
    """Why the endpoint is to be disabled; None: it is not."""


def check_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns without repetitions; raises InputError for one that no event could match."""
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise InputError(f"{pattern[:64]!r}: {error}", field="events") from None
        matcher = compile_patterns((pattern,))
        if not any(matcher.matches(one) for one in EVENT_TYPES):
            raise InputError(
                f"{pattern[:64]!r} matches no event type", field="events", hint="such as key.revoke, key.* or *"
            )
    return tuple(dict.fromkeys(patterns))


def is_event(action: str, outcome: str) -> bool:
    """Tell whether a leaf is of something that changed."""
    return action in EVENT_TYPES and outcome == _TOLD_OUTCOMES.get(action, "allowed")


def wants(endpoint: Endpoint, event: Event) -> bool:
    """Tell whether an event is for an endpoint."""
    return (
        endpoint.workspace == event.workspace
        and event.seq > endpoint.since_seq
        and compile_patterns(endpoint.events).matches(event.type)
    )


def body_of(event: Event) -> str:
    """Write the event as it is sent: ids alone, and the same bytes each time."""
    content = {
        "type": event.type,
        "timestamp": rfc3339(event.at),
        "data": {
            "event": event.id,
            "seq": event.seq,
            "workspace": event.workspace,
            "resource": event.resource,
            "kind": event.kind,
            "entity": event.entity,
            "actor": event.actor,
        },
    }
    return msgspec.json.encode(content).decode()


def is_success(answer: Answer) -> bool:
    """Tell whether the endpoint took the event."""
    return answer.status is not None and 200 <= answer.status < 300


def judge(answer: Answer, *, tries: int, failing_since: float | None, now: float, chance: float) -> Judgement:
    """Decide after the attempt number `tries`; `chance` is a random number from 0 to 1."""
    if is_success(answer):
        return Judgement(DeliveryState.DELIVERED, now, None)
    if answer.status == 410:
        return Judgement(DeliveryState.DEAD, now, GONE)
    too_long = failing_since is not None and now - failing_since >= PAUSE_AFTER_SECONDS
    disable = "failing" if too_long else None
    if tries > len(WAITS_SECONDS):
        return Judgement(DeliveryState.DEAD, now, disable)
    wait = WAITS_SECONDS[tries - 1] * (1 - JITTER + 2 * JITTER * chance)
    asked = retry_after_seconds(answer.retry_after, now)
    return Judgement(DeliveryState.PENDING, now + max(wait, min(asked, RETRY_AFTER_SECONDS_MAX)), disable)


def retry_after_seconds(value: str | None, now: float) -> float:
    """Return how long a `Retry-After` header asks to wait, in seconds or as a date; 0 when it says nothing."""
    if value is None:
        return 0.0
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - now) if moment.tzinfo is not None else 0.0
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0


def excerpt(body: bytes) -> str | None:
    """Return the beginning of an answer for the log: one line without credentials or control characters."""
    text = scrub(body.decode("utf-8", errors="replace"))
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:EXCERPT_LENGTH_MAX] or None

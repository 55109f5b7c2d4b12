"""Usage of issued keys: `GET /api/v1/keys/{id}/usage`, and who used a secret version last."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Period(StrEnum):
    """The length of a bucket of usage."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class UsageCount(msgspec.Struct, frozen=True):
    """How often a secret version was verified with one outcome in the bucket that begins at `start`."""

    start: str
    version_id: str
    outcome: str
    count: int


class KeyUsage(msgspec.Struct, frozen=True):
    """The usage of a key from `since` until before `until`, oldest bucket first; buckets without any are left out.

    `totals` adds up the outcomes of everything asked for; `truncated` says that `items` ends early.
    """

    key_id: str
    period: str
    since: str
    until: str
    totals: dict[str, int]
    items: tuple[UsageCount, ...]
    truncated: bool


class CallerUse(msgspec.Struct, frozen=True):
    """One distinct caller of a secret version, and when it was seen (epoch seconds).

    What is past the cap of callers is summed up in one that has neither network, user agent nor endpoint, and
    `other` set.
    """

    first_at: float
    at: float
    count: int
    ip_network: str | None
    user_agent: str | None
    endpoint: str | None
    other: bool = False


class VersionUse(msgspec.Struct, frozen=True):
    """Who uses a secret version: when it was last used, how often, and by whom, the latest first; never empty."""

    at: float
    count: int
    callers: tuple[CallerUse, ...]

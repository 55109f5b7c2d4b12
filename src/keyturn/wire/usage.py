"""Usage of issued keys: how often, with what outcome, by whom, from where, and what is not known of it.

GET /api/v1/keys/{id}/usage      one key, by version and outcome
GET /api/v1/usage                a series, filtered and grouped
GET /api/v1/usage/top            the most used keys, endpoints, countries, …
GET /api/v1/usage/last-used      who used each secret version last
GET /api/v1/usage/losses         what nodes had counted when they were killed
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Period(StrEnum):
    """The length of a bucket of usage."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class Dimension(StrEnum):
    """What usage can be grouped by."""

    OUTCOME = "outcome"
    KEY = "key"
    VERSION = "version"
    OWNER = "owner"
    KEYSPACE = "keyspace"
    ENDPOINT = "endpoint"
    COUNTRY = "country"
    IP_NETWORK = "ip_network"
    USER_AGENT = "user_agent"


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


class UsageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What to count; each field that is set narrows it.  At most one of the last four may be set."""

    key: str | None = None
    version: str | None = None
    owner: str | None = None
    keyspace: str | None = None
    outcome: str | None = None
    endpoint: str | None = None
    country: str | None = None
    ip_network: str | None = None
    user_agent: str | None = None


class UsagePoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The verifications of one bucket, or those of one group in it."""

    start: str
    count: int
    group: str | None = None


class UsageSeries(msgspec.Struct, frozen=True):
    """Usage from `since` until before `until`, oldest bucket first; buckets without any are left out.

    `totals` adds up the outcomes of everything asked for, and `shadow` what would have been refused if it were
    enforced; such counts are in `items` only when the series is of such an outcome.  `truncated` says that `items`
    ends early.
    """

    period: str
    since: str
    until: str
    group_by: str | None
    totals: dict[str, int]
    shadow: dict[str, int]
    items: tuple[UsagePoint, ...]
    truncated: bool


class UsageRank(msgspec.Struct, frozen=True):
    """How often one value occurred; `other` sums up what was past the cap of values."""

    value: str
    count: int


class UsageTop(msgspec.Struct, frozen=True):
    """The values with the most verifications from `since` until before `until`; `total` counts the rest too."""

    dimension: str
    since: str
    until: str
    total: int
    items: tuple[UsageRank, ...]


class LastUse(msgspec.Struct, frozen=True):
    """The latest use of a secret version: from where, by what, of which endpoint, as far as it was told."""

    key_id: str
    version_id: str
    keyspace: str
    at: str
    ip_network: str | None
    user_agent: str | None
    endpoint: str | None


class LastUses(msgspec.Struct, frozen=True):
    """Who used each version last, the latest first."""

    items: tuple[LastUse, ...]


class UsageLoss(msgspec.Struct, frozen=True):
    """What a node had counted and not written when it ended; `at` is when that was found."""

    node: str
    at: str
    counted: int
    written: int
    lost: int


class UsageLosses(msgspec.Struct, frozen=True):
    """The losses of every node the caller may see, the latest first, and their sum."""

    items: tuple[UsageLoss, ...]
    lost: int

"""Routes of usage."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.params import FromPath, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.errors import InputError
from keyturn.http.edge import Given
from keyturn.kernel.clock import parse_rfc3339
from keyturn.usage.service import LAST_USES_MAX, TOP_DEFAULT, TOP_MAX, UsageService
from keyturn.wire.usage import (
    Dimension,
    KeyUsage,
    LastUses,
    Period,
    UsageFilter,
    UsageLosses,
    UsageSeries,
    UsageTop,
)

_TIME_CHARS_MAX = 40
_TEXT_CHARS_MAX = 256

_PeriodParameter = Annotated[Period, QueryParameter(description="Length of a bucket.")]
_Since = Annotated[
    str | None, QueryParameter(max_length=_TIME_CHARS_MAX, description="RFC 3339; the first bucket holds it.")
]
_Until = Annotated[
    str | None, QueryParameter(max_length=_TIME_CHARS_MAX, description="RFC 3339; the last bucket holds it.")
]
_Key = Annotated[str | None, QueryParameter(max_length=_TEXT_CHARS_MAX, description="Only this key.")]
_Version = Annotated[str | None, QueryParameter(max_length=_TEXT_CHARS_MAX, description="Only this secret version.")]
_Owner = Annotated[str | None, QueryParameter(max_length=_TEXT_CHARS_MAX, description="Only keys of this owner.")]
_Keyspace = Annotated[str | None, QueryParameter(max_length=_TEXT_CHARS_MAX, description="Only this keyspace.")]
_Outcome = Annotated[
    str | None, QueryParameter(max_length=_TEXT_CHARS_MAX, description="Only this verdict, such as `VALID`.")
]
_Endpoint = Annotated[
    str | None, QueryParameter(max_length=_TEXT_CHARS_MAX, description="Only this endpoint, such as `GET /orders`.")
]
_Country = Annotated[
    str | None, QueryParameter(max_length=_TEXT_CHARS_MAX, description="Only this country, two capital letters.")
]


@get("/api/v1/keys/{key_id:str}/usage", operation_id="readKeyUsage", tags=["keys"])
async def read_key_usage(
    key_id: FromPath[str],
    credentials: Given[Credentials],
    usage: Given[UsageService],
    period: _PeriodParameter = Period.HOUR,
    since: _Since = None,
    until: _Until = None,
) -> KeyUsage:
    """Show how often a key was verified.

    Counted by bucket, secret version and outcome, once the secret was proven.  Minutes are kept for 2 days, hours for
    90 days, days for good.
    """
    return await usage.of_key(
        credentials, key_id, period=period, since=_time(since, "since"), until=_time(until, "until")
    )


@get("/api/v1/usage", operation_id="readUsage", tags=["usage"])
async def read_usage(  # noqa: PLR0913, PLR0917 -- each is a query parameter
    credentials: Given[Credentials],
    usage: Given[UsageService],
    key: _Key = None,
    version: _Version = None,
    owner: _Owner = None,
    keyspace: _Keyspace = None,
    outcome: _Outcome = None,
    endpoint: _Endpoint = None,
    country: _Country = None,
    period: _PeriodParameter = Period.HOUR,
    since: _Since = None,
    until: _Until = None,
    group_by: Annotated[Dimension | None, QueryParameter(description="One point for each of these values.")] = None,
) -> UsageSeries:
    """Show how often keys were verified, as a series.

    The caller sees the keyspaces that it may read the usage of.  At most 5000 points are returned.
    """
    return await usage.series(
        credentials,
        UsageFilter(
            key=key,
            version=version,
            owner=owner,
            keyspace=keyspace,
            outcome=outcome,
            endpoint=endpoint,
            country=country,
        ),
        period=period,
        since=_time(since, "since"),
        until=_time(until, "until"),
        group_by=group_by,
    )


@get("/api/v1/usage/top", operation_id="readTopUsage", tags=["usage"])
async def read_top_usage(  # noqa: PLR0913, PLR0917 -- each is a query parameter
    credentials: Given[Credentials],
    usage: Given[UsageService],
    dimension: Annotated[Dimension, QueryParameter(description="What to rank.")],
    key: _Key = None,
    version: _Version = None,
    owner: _Owner = None,
    keyspace: _Keyspace = None,
    outcome: _Outcome = None,
    endpoint: _Endpoint = None,
    country: _Country = None,
    since: _Since = None,
    until: _Until = None,
    n: Annotated[int, QueryParameter(ge=1, le=TOP_MAX, description="How many.")] = TOP_DEFAULT,
) -> UsageTop:
    """Show which keys, owners, endpoints or the like were verified most, by default within a day.

    `total` counts the rest too.
    """
    return await usage.top(
        credentials,
        dimension,
        UsageFilter(
            key=key,
            version=version,
            owner=owner,
            keyspace=keyspace,
            outcome=outcome,
            endpoint=endpoint,
            country=country,
        ),
        count=n,
        since=_time(since, "since"),
        until=_time(until, "until"),
    )


@get("/api/v1/usage/last-used", operation_id="readLastUses", tags=["usage"])
async def read_last_uses(
    credentials: Given[Credentials],
    usage: Given[UsageService],
    key: _Key = None,
    version: _Version = None,
    owner: _Owner = None,
    keyspace: _Keyspace = None,
    n: Annotated[int, QueryParameter(ge=1, le=LAST_USES_MAX, description="How many.")] = TOP_MAX,
) -> LastUses:
    """Show the latest use of each secret version: when, from which network, by what and of which endpoint."""
    wanted = UsageFilter(key=key, version=version, owner=owner, keyspace=keyspace)
    return await usage.last_uses(credentials, wanted, count=n)


@get("/api/v1/usage/losses", operation_id="readUsageLosses", tags=["usage"])
async def read_usage_losses(credentials: Given[Credentials], usage: Given[UsageService]) -> UsageLosses:
    """Show what nodes had counted and not written when they were killed."""
    return await usage.losses(credentials)


def _time(text: str | None, field: str) -> float | None:
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise InputError(f"{field}: {error}", field=field) from None


ROUTES = (read_key_usage, read_usage, read_top_usage, read_last_uses, read_usage_losses)

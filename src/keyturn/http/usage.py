"""Routes of usage."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.params import FromPath, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.errors import InputError
from keyturn.http.edge import Given
from keyturn.kernel.clock import parse_rfc3339
from keyturn.usage.service import UsageService
from keyturn.wire.usage import KeyUsage, Period

_TIME_CHARS_MAX = 40


@get("/api/v1/keys/{key_id:str}/usage", operation_id="readKeyUsage", tags=["keys"])
async def read_key_usage(
    key_id: FromPath[str],
    credentials: Given[Credentials],
    usage: Given[UsageService],
    period: Annotated[Period, QueryParameter(description="Length of a bucket.")] = Period.HOUR,
    since: Annotated[
        str | None, QueryParameter(max_length=_TIME_CHARS_MAX, description="RFC 3339; the first bucket holds it.")
    ] = None,
    until: Annotated[
        str | None, QueryParameter(max_length=_TIME_CHARS_MAX, description="RFC 3339; the last bucket holds it.")
    ] = None,
) -> KeyUsage:
    """Show how often a key was verified.

    Counted by bucket, secret version and outcome, once the secret was proven.  Minutes are kept for 2 days, hours for
    90 days, days for good.
    """
    return await usage.of_key(
        credentials, key_id, period=period, since=_time(since, "since"), until=_time(until, "until")
    )


def _time(text: str | None, field: str) -> float | None:
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise InputError(f"{field}: {error}", field=field) from None


ROUTES = (read_key_usage,)

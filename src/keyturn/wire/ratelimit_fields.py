"""HTTP fields that tell how limits stand (draft-ietf-httpapi-ratelimit-headers, written as RFC 9651 structured fields).

    RateLimit-Policy: "burst";q=10;w=1, "minute";q=100;w=60      the limits, q units in w seconds
    RateLimit: "burst";r=9;t=1, "minute";r=50;t=30               r units are left, whole again in t seconds
    Retry-After: 30                                              only on a refusal that waiting helps with

Limits in shadow mode are not told: they refuse nothing.  Quotas are not told: what is left of one is known to its
keeper alone.  Seconds are whole and rounded up, so that whoever waits as long as told has waited long enough.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from keyturn.wire.verification import LimitReport, VerifyResponse

POLICY: Final = "RateLimit-Policy"
STANDING: Final = "RateLimit"
RETRY_AFTER: Final = "Retry-After"

_INTEGER_MAX: Final = 999_999_999_999_999
_UNQUOTED: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def fields(response: VerifyResponse) -> list[tuple[str, str]]:
    """Return the names and values to send along with a verdict; empty when there is nothing to tell."""
    found = limit_fields(response.limits or ())
    if not response.valid and response.retry_after_seconds:
        found.append((RETRY_AFTER, str(_whole(response.retry_after_seconds))))
    return found


def limit_fields(reports: tuple[LimitReport, ...]) -> list[tuple[str, str]]:
    """Return the two RateLimit fields of some limits; empty when none of them is enforced."""
    told = [report for report in reports if not report.shadow]
    if not told:
        return []
    policies = [f"{_string(one.name)};q={_integer(one.limit)};w={_integer(one.window_seconds)}" for one in told]
    standings = [f"{_string(one.name)};r={_integer(one.remaining)};t={_whole(one.reset_seconds)}" for one in told]
    return [(POLICY, ", ".join(policies)), (STANDING, ", ".join(standings))]


def _string(text: str) -> str:
    """Write a structured field's String; what it cannot hold is percent-encoded."""
    plain = text if text.isascii() and text.isprintable() else quote(text, safe=_UNQUOTED, errors="replace")
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _integer(number: int) -> int:
    return min(max(number, 0), _INTEGER_MAX)


def _whole(seconds: float) -> int:
    return _integer(math.ceil(seconds)) if math.isfinite(seconds) else _INTEGER_MAX

"""HTTP fields that tell how limits stand (draft-ietf-httpapi-ratelimit-headers, written as RFC 9651 structured fields).

    RateLimit-Policy: "burst";q=10;w=1, "minute";q=100;w=60      the limits, q units in w seconds
    RateLimit: "burst";r=9;t=1, "minute";r=50;t=30               r units are left, whole again in t seconds
    Retry-After: 30                                              only on a refusal that waiting helps with

Limits in shadow mode are not told: they refuse nothing.  Quotas are not told: what is left of one is known to its
keeper alone.  Seconds are whole and rounded up, so that whoever waits as long as told has waited long enough.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, inf
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from keyturn.wire.verification import LimitReport, VerifyResponse

POLICY: Final = "RateLimit-Policy"
STANDING: Final = "RateLimit"
RETRY_AFTER: Final = "Retry-After"

_INTEGER_MAX: Final = 999_999_999_999_999
_POLICIES_MAX: Final = 1024
_UNQUOTED: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def fields(response: VerifyResponse) -> list[tuple[str, str]]:
    """Return the names and values to send along with a verdict; empty when there is nothing to tell."""
    found = limit_fields(response.limits or ())
    if not response.valid and response.retry_after_seconds:
        found.append((RETRY_AFTER, str(_whole(response.retry_after_seconds))))
    return found


def limit_fields(reports: tuple[LimitReport, ...]) -> list[tuple[str, str]]:
    """Return the two RateLimit fields of some limits; empty when none of them is enforced."""
    policies: list[str] = []
    standings: list[str] = []
    for one in reports:
        if one.shadow:
            continue
        name, policy = _policy(one.name, one.limit, one.window_seconds)
        policies.append(policy)
        left, seconds = one.remaining, one.reset_seconds
        # The usual case without a call: this is the hot path of every key that has limits.
        if 0 <= left <= _INTEGER_MAX and 0.0 <= seconds <= _INTEGER_MAX:
            standings.append(f"{name};r={left};t={ceil(seconds)}")
        else:
            standings.append(f"{name};r={_integer(left)};t={_whole(seconds)}")
    return [(POLICY, ", ".join(policies)), (STANDING, ", ".join(standings))] if policies else []


@lru_cache(maxsize=_POLICIES_MAX)
def _policy(name: str, limit: int, window_seconds: int) -> tuple[str, str]:
    """Return the name as a String, and the policy: the same with every answer of a limit."""
    quoted = _string(name)
    return quoted, f"{quoted};q={_integer(limit)};w={_integer(window_seconds)}"


def _string(text: str) -> str:
    """Write a structured field's String; what it cannot hold is percent-encoded."""
    plain = text if text.isascii() and text.isprintable() else quote(text, safe=_UNQUOTED, errors="replace")
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _integer(number: int) -> int:
    if 0 <= number <= _INTEGER_MAX:
        return number
    return _INTEGER_MAX if number > 0 else 0


def _whole(seconds: float) -> int:
    if 0.0 <= seconds <= _INTEGER_MAX:
        return ceil(seconds)
    return 0 if -inf < seconds < 0.0 else _INTEGER_MAX

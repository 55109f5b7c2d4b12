"""What is stored of a call, and under which periods: pure."""

from __future__ import annotations

import hashlib
import ipaddress
from functools import lru_cache
from typing import Final

from keyturn.kernel.redact import scrub
from keyturn.wire.usage import Period

CALLERS_MAX: Final = 32
"""Distinct callers kept of one version; further ones are `OTHER`."""

OTHER: Final = "other"
USER_AGENT_CHARS_MAX: Final = 128
ENDPOINT_CHARS_MAX: Final = 192
SHADOW: Final = "SHADOW_"
_METHOD_CHARS_MAX: Final = 16
_COUNTRY_CHARS: Final = 2
_V4_BITS: Final = 24
_V6_BITS: Final = 48

SECONDS: Final = {Period.MINUTE: 60, Period.HOUR: 3600, Period.DAY: 86_400}
KEPT_SECONDS: Final = {Period.MINUTE: 2 * 86_400, Period.HOUR: 90 * 86_400}
"""How long buckets are kept; those of a day for good."""

TOLD_DAYS_SECONDS: Final = 400 * 86_400
"""How long days by network and user agent are kept, which may concern a person."""

WRITER_SECONDS: Final = 400 * 86_400
LOSS_SECONDS: Final = 400 * 86_400


def start_of(period: Period, at: float) -> int:
    """Return when the bucket that a time falls into begins, epoch seconds, UTC."""
    length = SECONDS[period]
    return int(at // length) * length


def ip_network(ip: str | None) -> str | None:
    """Return the client's network: /24 of an IPv4 address, /48 of an IPv6 one, None for anything else."""
    if ip is None:
        return None
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address), _V6_BITS), strict=False))
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((int(address), _V4_BITS), strict=False))


def user_agent(text: str | None) -> str | None:
    """Return a user agent as it is stored, None for nothing."""
    return _clean(text, USER_AGENT_CHARS_MAX)


def endpoint(method: str | None, path: str | None) -> str | None:
    """Return method and path as they are stored: without query and fragment, None when neither was told."""
    where = None if path is None else _clean(without_query(path), ENDPOINT_CHARS_MAX)
    what = None if method is None else _clean(method.upper(), _METHOD_CHARS_MAX)
    told = [part for part in (what, where) if part is not None]
    return " ".join(told) or None


def country(code: str | None) -> str | None:
    """Return a country as it is stored: two capital letters, None for anything else."""
    if code is None or len(code) != _COUNTRY_CHARS or not code.isascii() or not code.isalpha():
        return None
    return code.upper()


def is_shadow(outcome: str) -> bool:
    """Tell whether an outcome is what would have been, if a rule were enforced; such counts are in no total."""
    return outcome.startswith(SHADOW)


def without_query(path: str) -> str:
    """Return a path without what may hold a secret: query and fragment."""
    return path.partition("?")[0].partition("#")[0]


def caller_id(network: str | None, agent: str | None, called: str | None) -> str:
    """Return the name that a caller of a version is stored under."""
    joined = "\0".join(part or "" for part in (network, agent, called))
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:24]


@lru_cache(maxsize=4096)
def describe(
    ip: str | None, agent: str | None, method: str | None, path: str | None
) -> tuple[str, str | None, str | None, str | None]:
    """Return a caller's id, network, user agent and endpoint, of what a request told."""
    described = (ip_network(ip), user_agent(agent), endpoint(method, path))
    return caller_id(*described), *described


def _clean(text: str | None, characters_max: int) -> str | None:
    if text is None:
        return None
    # Scrubbed before it is cut: the rest of a credential that was cut off would not be recognised.
    shown = "".join(character if character.isprintable() else " " for character in scrub(text[:8192]))
    return " ".join(shown.split())[:characters_max] or None

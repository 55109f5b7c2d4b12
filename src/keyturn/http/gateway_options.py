"""What the configuration of a gateway asks for, in the query string of the URL that it asks.

    keyspace=orders            accept keys of this keyspace only
    scopes=orders:read         a scope query; names with nothing but spaces between them are all needed
    header=X-Orders-Key        where the key stands, instead of `Authorization: Bearer` and `X-API-Key`
    basic=username|password    take the key from Basic credentials too
    cost=5                     what a request charges to limits and quotas

They are the operator's, so a mistake in them is no client's fault: it is answered as the gateway's, and logged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from keyturn.errors import UnavailableError
from keyturn.http.body import printable
from keyturn.wire.verification import COST_MAX

_KNOWN: Final = ("basic", "cost", "header", "keyspace", "scopes")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_OPERATOR: Final = re.compile(r"[()]|(?:^|\s)(?:and|or)(?:\s|$)", re.IGNORECASE)
_OPTIONS_BYTES_MAX: Final = 8192
_PARSED_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The options, checked; `header` is a lower-case name."""

    keyspace: str | None = None
    scopes: str | None = None
    header: bytes | None = None
    basic: str | None = None
    cost: int = 1


@lru_cache(maxsize=_PARSED_MAX)
def parse_options(query: bytes) -> GatewayOptions:
    """Read a query string; raises UnavailableError that says what is wrong with it."""
    if not query:
        return GatewayOptions()
    if len(query) > _OPTIONS_BYTES_MAX:
        raise _wrong(f"they are longer than {_OPTIONS_BYTES_MAX} bytes")
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise _wrong("they are not name=value pairs, percent-encoded as UTF-8") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in _KNOWN:
            raise _wrong(f"{printable(name)} is not one of {', '.join(_KNOWN)}")
        if name in given or not value:
            raise _wrong(f"{name} is given more than once, or empty")
        given[name] = value
    return GatewayOptions(
        given.get("keyspace"), _scopes(given), _header(given), _basic(given), int(given["cost"]) if _cost(given) else 1
    )


def _scopes(given: dict[str, str]) -> str | None:
    text = given.get("scopes")
    if text is None or _OPERATOR.search(text):
        return text
    return " AND ".join(text.split())


def _header(given: dict[str, str]) -> bytes | None:
    name = given.get("header")
    if name is None:
        return None
    if not _HEADER_NAME.fullmatch(name):
        raise _wrong("header is not the name of a header")
    return name.lower().encode("ascii")


def _basic(given: dict[str, str]) -> str | None:
    part = given.get("basic")
    if part not in {None, "username", "password"}:
        raise _wrong("basic is neither username nor password")
    return part


def _cost(given: dict[str, str]) -> bool:
    text = given.get("cost")
    if text is None:
        return False
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= COST_MAX):
        raise _wrong(f"cost is not a whole number from 0 to {COST_MAX}")
    return True


def _wrong(reason: str) -> UnavailableError:
    return UnavailableError(
        f"the gateway asks with options that are not understood: {reason}",
        code="gateway_options",
        hint="correct the URL in the configuration of the gateway",
    )

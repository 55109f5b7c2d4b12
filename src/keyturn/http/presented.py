"""The key that a forwarded request presents: exactly one, in one of the places where it is looked for.

    Authorization: Bearer <key>      unless the gateway names another header
    X-API-Key: <key>                 likewise
    Authorization: Basic <…>         user name or password, only when the gateway asks for it

Two keys are refused even when they are equal: of two programs that each read another one, the first could be shown a
key that the second does not use.  An `Authorization` of another scheme is not a key, and left to the application.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.wire.verification import PRESENTED_MAX

if TYPE_CHECKING:
    from keyturn.http.gateway_options import GatewayOptions

_AUTHORIZATION: Final = b"authorization"
_API_KEY: Final = b"x-api-key"
_NONE: Final[frozenset[bytes]] = frozenset()


@dataclass(frozen=True, slots=True)
class Told:
    """The headers of a request by name; of one that is repeated nobody knows which counts, so it has no value."""

    values: dict[bytes, bytes]
    repeated: frozenset[bytes]


def told_by(headers: list[tuple[bytes, bytes]]) -> Told:
    """Sort the headers of a request by name."""
    values = dict(headers)
    if len(values) == len(headers):
        return Told(values, _NONE)
    names = [name for name, _ in headers]
    repeated = frozenset(name for name in values if names.count(name) > 1)
    return Told({name: value for name, value in values.items() if name not in repeated}, repeated)


def presented_key(told: Told, options: GatewayOptions) -> str | None:
    """Return the key, None when there is none, more than one, or what cannot be one."""
    named = options.header or _API_KEY
    found: list[bytes] = []
    if options.header in {None, _AUTHORIZATION} or options.basic is not None:
        if _AUTHORIZATION in told.repeated:
            return None
        value = told.values.get(_AUTHORIZATION)
        if value is not None:
            found += _of_authorization(value, options)
    if named != _AUTHORIZATION:
        if named in told.repeated:
            return None
        value = told.values.get(named)
        if value is not None:
            found.append(value.strip())
    if len(found) != 1:
        return None
    key = found[0].decode("latin-1")
    return key if 0 < len(key) <= PRESENTED_MAX and key.isascii() and key.isprintable() and " " not in key else None


def _of_authorization(value: bytes, options: GatewayOptions) -> list[bytes]:
    scheme, _, credentials = value.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return [credentials.strip()]
    if options.basic is None or scheme.lower() != b"basic":
        return []
    try:
        user, _, password = base64.b64decode(credentials.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return [b""]
    return [user if options.basic == "username" else password]

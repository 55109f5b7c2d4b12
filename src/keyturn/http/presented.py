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
from typing import TYPE_CHECKING, Final

from keyturn.wire.verification import PRESENTED_MAX

if TYPE_CHECKING:
    from keyturn.http.gateway_options import GatewayOptions
    from keyturn.http.peer import RawHeaders

_AUTHORIZATION: Final = b"authorization"
_API_KEY: Final = b"x-api-key"


def presented_key(headers: RawHeaders, options: GatewayOptions) -> str | None:
    """Return the key, None when there is none, more than one, or what cannot be one."""
    named = options.header
    found: list[bytes] = []
    for name, value in headers:
        if name == _AUTHORIZATION:
            if named is None or named == _AUTHORIZATION or options.basic is not None:
                found += _of_authorization(value, options)
        elif name == (named or _API_KEY):
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

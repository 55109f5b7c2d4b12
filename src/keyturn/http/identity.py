"""Who an admitted key is, as headers for the application behind a gateway.

Values are percent-encoded outside visible ASCII, and so is `%`: decoding once gives back what was stored.
A gateway removes what a client sent under these names, all of them, whatever the answer holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from keyturn.wire.verification import VerifyResponse

IDENTITY_HEADERS: Final = (
    "X-Keyturn-Key-Id",
    "X-Keyturn-Owner",
    "X-Keyturn-Keyspace",
    "X-Keyturn-Environment",
    "X-Keyturn-Scopes",
    "X-Keyturn-Plan",
    "X-Keyturn-Code",
    "X-Consumer-Username",
    "X-Credential-Identifier",
)
"""Every header that says who a key is; `X-Keyturn-Scopes` is separated by spaces."""

_VISIBLE: Final = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_NAMES: Final = tuple(name.lower().encode("ascii") for name in IDENTITY_HEADERS)

Headers = list[tuple[bytes, bytes]]


def identity_headers(answer: VerifyResponse) -> Headers:
    """Return the headers that say who an admitted key is; one that has no value is left out."""
    values = (
        _encoded(answer.key_id),
        _encoded(answer.owner),
        _encoded(answer.keyspace),
        _encoded(answer.environment),
        b" ".join(_encoded(scope) for scope in answer.scopes or ()),
        _encoded(answer.plan),
        _encoded(answer.code),
        _encoded(answer.owner),
        _encoded(answer.key_id),
    )
    return [(name, value) for name, value in zip(_NAMES, values, strict=True) if value]


def _encoded(text: str | None) -> bytes:
    return quote(text, safe=_VISIBLE).encode("ascii") if text else b""

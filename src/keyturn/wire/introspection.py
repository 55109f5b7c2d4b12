"""`POST /oauth/introspect` (RFC 7662): the form, the answer, and the error of RFC 6749."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from keyturn.wire.verification import PRESENTED_MAX, Cost


class IntrospectionForm(msgspec.Struct, frozen=True):
    """The fields of the form; others are ignored, as RFC 6749 asks.

    `token_type_hint` changes nothing.  `cost` is what is charged to limits and quotas; 0 charges nothing.
    """

    token: Annotated[str, Meta(min_length=1, max_length=PRESENTED_MAX)]
    token_type_hint: Annotated[str, Meta(max_length=64)] = ""
    cost: Cost = 1

    def __repr__(self) -> str:
        return "IntrospectionForm([redacted])"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return []


class Introspection(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known about a token: only `active` when it is false.

    `sub` and `username` are the owner of the key, `client_id` its id, `jti` the id of its secret version, `exp`
    seconds since 1970.  The last three are ours.
    """

    active: bool
    scope: str | None = None
    client_id: str | None = None
    username: str | None = None
    token_type: Literal["api_key"] | None = None
    exp: int | None = None
    sub: str | None = None
    jti: str | None = None
    keyspace: str | None = None
    environment: str | None = None
    plan: str | None = None


class OAuthError(msgspec.Struct, frozen=True, omit_defaults=True):
    """The error of RFC 6749, section 5.2."""

    error: str
    error_description: str | None = None

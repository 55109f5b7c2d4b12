"""Wrapped answers: the requests and responses of `/api/v1/wraps`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

TTL_SECONDS_MAX: Final = 2_592_000
BYTES_MAX: Final = 1_048_576

TtlSeconds = Annotated[int, Meta(ge=1, le=TTL_SECONDS_MAX)]
WrapToken = Annotated[str, Meta(min_length=1, max_length=256)]


class CreateWrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Wrap a JSON object so that one holder of the token can open it once."""

    data: dict[str, Any]
    ttl_seconds: TtlSeconds = 300

    def __repr__(self) -> str:
        return "CreateWrap([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("ttl_seconds", self.ttl_seconds)]


class ShareSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Wrap what a secret holds now; `version` shares an earlier one."""

    ttl_seconds: TtlSeconds = 3600
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class OpenWrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Name a wrap by its token."""

    token: WrapToken

    def __repr__(self) -> str:
        return "OpenWrap([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class WrapCreated(msgspec.Struct, frozen=True, kw_only=True):
    """The token, shown once; a replay after 10 minutes has `null` there."""

    id: str
    token: str | None
    creation_path: str
    ttl_seconds: int
    created_at: str
    expires_at: str

    def __repr__(self) -> str:
        return f"WrapCreated(id={self.id!r}, [redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("id", self.id)]


class WrapInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What can be known of a wrap without opening it."""

    id: str
    creation_path: str
    """What answered with it: compare it with what you expect before you open it."""
    ttl_seconds: int
    created_at: str
    created_by: str
    expires_at: str


class WrapOpened(msgspec.Struct, frozen=True, kw_only=True):
    """What was wrapped; there is nothing left of it."""

    id: str
    creation_path: str
    data: dict[str, Any]

    def __repr__(self) -> str:
        return f"WrapOpened(id={self.id!r}, [redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("id", self.id)]

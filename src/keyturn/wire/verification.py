"""`POST /api/v1/verify`: the request, the answer and its codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

PRESENTED_MAX = 512


class Code(StrEnum):
    """The verdict on a presented key; an unknown code means deny."""

    VALID = "VALID"
    NOT_FOUND = "NOT_FOUND"
    FORBIDDEN = "FORBIDDEN"
    INSUFFICIENT_PERMISSIONS = "INSUFFICIENT_PERMISSIONS"
    USAGE_EXCEEDED = "USAGE_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    DISABLED = "DISABLED"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    NOT_YET_VALID = "NOT_YET_VALID"
    UNAVAILABLE = "UNAVAILABLE"


class VerifyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A presented key and what is known about the call it came with."""

    key: str
    scopes: Annotated[str, Meta(max_length=4096)] | None = None
    ip: Annotated[str, Meta(max_length=64)] | None = None
    origin: Annotated[str, Meta(max_length=2048)] | None = None
    method: Annotated[str, Meta(max_length=32)] | None = None
    path: Annotated[str, Meta(max_length=8192)] | None = None
    user_agent: Annotated[str, Meta(max_length=1024)] | None = None
    keyspace: Annotated[str, Meta(max_length=64)] | None = None
    explain: bool = False


class CheckReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check made by verify, in the order it was made."""

    check: str
    verdict: str
    source: str
    detail: str | None = None


class VerifyResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The verdict; `valid` and `code` are always present."""

    valid: bool
    code: str
    key_id: str | None = None
    version_id: str | None = None
    keyspace: str | None = None
    owner: str | None = None
    environment: str | None = None
    name: str | None = None
    scopes: tuple[str, ...] | None = None
    expires_at: str | None = None
    metadata: dict[str, str] | None = None
    checks: tuple[CheckReport, ...] | None = None

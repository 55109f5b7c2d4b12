"""Leak intakes: the requests and responses of `/api/v1/leak-intakes`, and of who shows a key that leaked."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keyturn.wire.keys import Description

INTAKES_MAX: Final = 20
"""Intakes of one workspace."""
KEYS_MAX: Final = 64
GITHUB_KEYS_URL: Final = "https://api.github.com/meta/public_keys/secret_scanning"

_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*(?!\n)$"
IntakeName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
KeysUrl = Annotated[str, Meta(max_length=2048, pattern=r"^(https?://[!-~]+)?(?!\n)$")]
KeyIdentifier = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+(?!\n)$")]
KeyPem = Annotated[str, Meta(min_length=1, max_length=2048, pattern=r"^[\x20-\x7e\n]+$")]
Presented = Annotated[str, Meta(min_length=1, max_length=4096)]
Where = Annotated[str, Meta(max_length=2048, pattern=_PRINTABLE)]


class IntakeKind(StrEnum):
    """The protocol of a reporter."""

    GITHUB = "github"
    """GitHub's secret-scanning partner program, and whoever speaks it."""


class IntakeState(StrEnum):
    """Whether reports are taken."""

    ACTIVE = "active"
    DISABLED = "disabled"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


class IntakeKey(_Strict, frozen=True, kw_only=True):
    """A key that reports are signed with: P-256, in PEM, under the name that a report has for it."""

    key_identifier: KeyIdentifier
    key: KeyPem


IntakeKeys = Annotated[tuple[IntakeKey, ...], Meta(max_length=KEYS_MAX)]


class CreateLeakIntake(_Strict, frozen=True, kw_only=True):
    """Let somebody outside report leaks.

    `keys` are pinned.  With none, they are read from `keys_url`, by default where GitHub publishes its own.
    """

    name: IntakeName
    kind: IntakeKind = IntakeKind.GITHUB
    keys: IntakeKeys = ()
    keys_url: KeysUrl = ""
    description: Description = ""


class UpdateLeakIntake(_Strict, frozen=True, kw_only=True):
    """Change the keys of an intake, or switch it off and on."""

    keys: IntakeKeys | UnsetType = UNSET
    keys_url: KeysUrl | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    state: IntakeState | UnsetType = UNSET


class LeakIntakeInfo(_Answer, frozen=True, kw_only=True):
    """An intake; `path` is where its reports are posted to."""

    id: str
    name: str
    kind: IntakeKind
    state: IntakeState
    path: str
    keys: tuple[IntakeKey, ...]
    keys_url: str
    description: str
    created_at: str
    created_by: str
    updated_at: str
    revision: int


class LeakIntakePage(_Answer, frozen=True, kw_only=True):
    """A page of intakes, oldest first."""

    items: tuple[LeakIntakeInfo, ...]
    next_cursor: str | None


class PartnerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One token of a partner's report; fields that a partner may add are passed over."""

    token: Annotated[str, Meta(min_length=1, max_length=4096)]
    type: Annotated[str, Meta(max_length=256)] = ""
    url: Annotated[str, Meta(max_length=4096)] = ""
    source: Annotated[str, Meta(max_length=256)] = ""

    def __repr__(self) -> str:
        return "PartnerReport([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class ShowKey(_Strict, frozen=True, kw_only=True):
    """A key that somebody has come upon; `where` says where, if they like."""

    key: Presented
    where: Where = ""

    def __repr__(self) -> str:
        return "ShowKey([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class PatternFormat(StrEnum):
    """A scanner that rules can be written for."""

    GITHUB = "github"
    GITLEAKS = "gitleaks"
    TRUFFLEHOG = "trufflehog"
    KINGFISHER = "kingfisher"


class KeyspacePattern(_Answer, frozen=True, kw_only=True):
    """How another scanner finds the keys of a keyspace: the text of its rule file, or the fields of its form."""

    keyspace: str
    format: PatternFormat
    text: str


class ShownKey(_Answer, frozen=True, kw_only=True):
    """What whoever holds a key is told of it; `id` is its public version id, which logs and support name it by."""

    ours: bool
    works: bool = False
    id: str = ""
    reported: bool = False
    revoked: bool = False

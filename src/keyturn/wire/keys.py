"""Keyspaces and issued keys: the requests and responses of `/api/v1/keyspaces` and `/api/v1/keys`.

Times in a response are RFC 3339 in UTC, times in a request are RFC 3339 with an offset.  Durations are whole seconds.
In an update a field that is left out stays as it is, and `null` clears it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keyturn.wire.policy import LimitRule, QuotaRule, Restrictions
from keyturn.wire.rules import Limits, PlanName, Quotas

DURATION_SECONDS_MAX = 315_360_000
"""Ten years."""
BULK_MAX = 1000
PAGE_MAX = 200
PAGE_DEFAULT = 50
STALE_AFTER_SECONDS_MAX = 3600
STALE_AFTER_SECONDS_DEFAULT = 60
OVERLAP_SECONDS_DEFAULT = 86_400
SILENT_SECONDS_DEFAULT = 3600
LOOKUP_LENGTH_MIN = 4
LOOKUP_LENGTH_MAX = 32
SCOPES_MAX = 256

# No control characters, no line separators and nothing that reorders text; `(?!\n)$` because a bare `$` also matches
# before a trailing newline.
_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
_BLACK = r"[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
_TEXT = rf"^{_PRINTABLE}*(?!\n)$"
_LINE = rf"^{_BLACK}{_PRINTABLE}*(?!\n)$"

KeyspaceName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
EnvironmentName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
KeyPrefix = Annotated[str, Meta(min_length=2, max_length=16, pattern=r"^[a-z][a-z0-9]{1,15}(?!\n)$")]
EnvironmentTag = Annotated[str, Meta(min_length=2, max_length=16, pattern=r"^[a-z0-9]{2,16}(?!\n)$")]
Line = Annotated[str, Meta(min_length=1, max_length=256, pattern=_LINE)]
Description = Annotated[str, Meta(max_length=1024, pattern=_TEXT)]
Scope = Annotated[str, Meta(min_length=1, max_length=512)]
Scopes = Annotated[tuple[Scope, ...], Meta(max_length=SCOPES_MAX)]
Tag = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/=@+-]*(?!\n)$")]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=50)]
MetadataName = Annotated[str, Meta(min_length=1, max_length=64, pattern=_LINE)]
MetadataValue = Annotated[str, Meta(max_length=1024, pattern=r"^[^\x00]*$")]
Metadata = Annotated[dict[MetadataName, MetadataValue], Meta(max_length=50)]
Moment = Annotated[datetime, Meta(tz=True)]
Duration = Annotated[int, Meta(ge=0, le=DURATION_SECONDS_MAX)]
Lifetime = Annotated[int, Meta(ge=1, le=DURATION_SECONDS_MAX)]
StaleAfter = Annotated[int, Meta(ge=1, le=STALE_AFTER_SECONDS_MAX)]


class RevokeReason(StrEnum):
    """Why a key was revoked, in the words of RFC 5280 (CRLReason)."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key_compromise"
    AFFILIATION_CHANGED = "affiliation_changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation_of_operation"
    PRIVILEGE_WITHDRAWN = "privilege_withdrawn"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


class _Shown(_Answer, frozen=True, kw_only=True):
    """A response that may hold a secret; its repr shows none."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Empty(_Strict, frozen=True, kw_only=True):
    """A request that says nothing more than its address."""


# --- keyspaces ---------------------------------------------------------------------------------------------------


class CreateKeyspace(_Strict, frozen=True, kw_only=True):
    """Create an API for which keys can be issued.

    `tag` stands in every key and says its environment; it is `live`, `test` or `dev` for `production`, `staging` or
    `development`, and the environment's own name if that fits.
    """

    name: KeyspaceName
    prefix: KeyPrefix
    environment: EnvironmentName
    tag: EnvironmentTag | None = None
    description: Description = ""
    stale_after_seconds: StaleAfter = STALE_AFTER_SECONDS_DEFAULT
    restrictions: Restrictions | None = None
    shadow_restrictions: Restrictions | None = None
    default_plan: PlanName | None = None
    limits: Limits = ()
    quotas: Quotas = ()


class UpdateKeyspace(_Strict, frozen=True, kw_only=True):
    """Change a keyspace; prefix, tag and environment stand in its keys and never change."""

    description: Description | UnsetType = UNSET
    stale_after_seconds: StaleAfter | UnsetType = UNSET
    restrictions: Restrictions | UnsetType | None = UNSET
    shadow_restrictions: Restrictions | UnsetType | None = UNSET
    default_plan: PlanName | UnsetType | None = UNSET
    limits: Limits | UnsetType = UNSET
    quotas: Quotas | UnsetType = UNSET


class RetirePepper(_Strict, frozen=True, kw_only=True):
    """Retire a pepper that no version needs any more; without a number, every such pepper."""

    number: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class PepperInfo(_Answer, frozen=True, kw_only=True):
    """One pepper: whether it hashes new versions, and how many versions still need it."""

    number: int
    state: str
    created_at: str
    versions: int


class KeyspaceInfo(_Answer, frozen=True, kw_only=True):
    """A keyspace."""

    id: str
    name: str
    prefix: str
    tag: str
    environment: str
    state: str
    description: str
    stale_after_seconds: int
    restrictions: Restrictions | None
    accepts_foreign: bool
    created_at: str
    created_by: str
    revision: int
    shadow_restrictions: Restrictions | None = None
    default_plan: str | None = None
    limits: tuple[LimitRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()


class KeyspaceDetail(KeyspaceInfo, frozen=True, kw_only=True):
    """A keyspace with its peppers, newest first."""

    peppers: tuple[PepperInfo, ...]


class KeyspaceEffect(KeyspaceDetail, frozen=True, kw_only=True):
    """A changed keyspace, and how far the change has spread; see KeyEffect."""

    effective: bool
    lag_ms: float
    effective_by: str
    laggards: tuple[str, ...]


class KeyspacePage(_Answer, frozen=True, kw_only=True):
    """A page of keyspaces."""

    items: tuple[KeyspaceInfo, ...]
    next_cursor: str | None


# --- keys --------------------------------------------------------------------------------------------------------


class IssueKey(_Strict, frozen=True, kw_only=True):
    """Issue a key in a keyspace.  `expires_at` and `expires_in_seconds` exclude each other."""

    keyspace: KeyspaceName
    owner: Line
    purpose: Line
    scopes: Scopes = ()
    name: Line | None = None
    restrictions: Restrictions | None = None
    shadow_restrictions: Restrictions | None = None
    plan: PlanName | None = None
    limits: Limits = ()
    quotas: Quotas = ()
    metadata: Metadata = {}
    tags: Tags = ()
    not_before: Moment | None = None
    expires_at: Moment | None = None
    expires_in_seconds: Lifetime | None = None


class IssueKeys(_Strict, frozen=True, kw_only=True):
    """Issue several keys, all of them or none."""

    keys: Annotated[tuple[IssueKey, ...], Meta(min_length=1, max_length=BULK_MAX)]


ForeignFormat = Literal["plaintext", "sha256_hex", "sha256_base64", "bcrypt", "argon2"]


class ImportedKey(_Strict, frozen=True, kw_only=True):
    """A key that somebody else issued, as plaintext or as a digest of it.

    `lookup` is how the plaintext begins, at least 4 characters; `bcrypt` and `argon2` need it, the others ignore it.
    """

    format: ForeignFormat
    value: Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[!-~]+(?!\n)$")]
    owner: Line
    purpose: Line
    lookup: (
        Annotated[str, Meta(min_length=LOOKUP_LENGTH_MIN, max_length=LOOKUP_LENGTH_MAX, pattern=r"^[!-~]+(?!\n)$")]
        | None
    ) = None
    scopes: Scopes = ()
    name: Line | None = None
    restrictions: Restrictions | None = None
    shadow_restrictions: Restrictions | None = None
    plan: PlanName | None = None
    limits: Limits = ()
    quotas: Quotas = ()
    metadata: Metadata = {}
    tags: Tags = ()
    not_before: Moment | None = None
    expires_at: Moment | None = None

    def __repr__(self) -> str:
        return "ImportedKey([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class ImportKeys(_Strict, frozen=True, kw_only=True):
    """Import keys into a keyspace, all of them or none; the keyspace accepts foreign shapes from then on."""

    keyspace: KeyspaceName
    keys: Annotated[tuple[ImportedKey, ...], Meta(min_length=1, max_length=BULK_MAX)]


class UpdateKey(_Strict, frozen=True, kw_only=True):
    """Change what a key may do and what is known about it."""

    name: Line | UnsetType | None = UNSET
    owner: Line | UnsetType = UNSET
    purpose: Line | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    restrictions: Restrictions | UnsetType | None = UNSET
    shadow_restrictions: Restrictions | UnsetType | None = UNSET
    plan: PlanName | UnsetType | None = UNSET
    limits: Limits | UnsetType = UNSET
    quotas: Quotas | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    not_before: Moment | UnsetType | None = UNSET
    expires_at: Moment | UnsetType | None = UNSET


class RotateKey(_Strict, frozen=True, kw_only=True):
    """Give a key a new secret; the old one stays valid for `overlap_seconds`, and `0` cuts it at once."""

    overlap_seconds: Duration = OVERLAP_SECONDS_DEFAULT


class RetireKey(_Strict, frozen=True, kw_only=True):
    """End the overlap early, if every old secret has been silent for `silent_seconds`; `force` does not ask."""

    silent_seconds: Duration = SILENT_SECONDS_DEFAULT
    force: bool = False


class RevokeKey(_Strict, frozen=True, kw_only=True):
    """Revoke a key for good; `key_compromise` marks its secrets compromised."""

    reason: RevokeReason = RevokeReason.UNSPECIFIED


class LastUse(_Answer, frozen=True, kw_only=True):
    """When and from where a version was last used."""

    at: str
    ip_network: str | None
    user_agent: str | None
    endpoint: str | None


class CallerInfo(_Answer, frozen=True, kw_only=True):
    """One caller of a version: where it calls from, what it calls, how often; `other` sums up those past the cap."""

    first_at: str
    at: str
    ip_network: str | None
    user_agent: str | None
    endpoint: str | None
    uses: int
    other: bool


class VersionInfo(_Answer, frozen=True, kw_only=True):
    """A secret version: who still uses it, most recent callers first."""

    id: str
    number: int
    state: str
    created_at: str
    created_by: str
    valid_until: str | None
    retired_at: str | None
    foreign: bool
    digest_kind: str
    last_used: LastUse | None
    callers: tuple[CallerInfo, ...]
    uses: int


class KeyInfo(_Answer, frozen=True, kw_only=True):
    """An issued key without its versions."""

    id: str
    keyspace: str
    environment: str
    name: str | None
    owner: str
    purpose: str
    state: str
    scopes: tuple[str, ...]
    restrictions: Restrictions | None
    metadata: dict[str, str]
    tags: tuple[str, ...]
    not_before: str | None
    expires_at: str | None
    created_at: str
    created_by: str
    updated_at: str
    disabled_at: str | None
    revoked_at: str | None
    revoke_reason: str | None
    last_used_at: str | None
    revision: int
    shadow_restrictions: Restrictions | None = None
    plan: str | None = None
    limits: tuple[LimitRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()


class KeyDetail(KeyInfo, frozen=True, kw_only=True):
    """An issued key with its secret versions, newest first."""

    versions: tuple[VersionInfo, ...]


class KeyEffect(KeyDetail, frozen=True, kw_only=True):
    """A changed key, and how far the change has spread.

    `effective` says that every live node has applied it, `lag_ms` how long that took after the commit.  No
    verification received after `effective: true`, or after `effective_by`, acts on the state before.  `laggards`
    names the nodes that had not confirmed when the answer was given.
    """

    effective: bool
    lag_ms: float
    effective_by: str
    laggards: tuple[str, ...]


class IssuedKey(_Shown, KeyDetail, frozen=True, kw_only=True):
    """A new key.  `key` is shown this once; a replay of the request after 10 minutes has `null` there."""

    version_id: str
    key: str | None


class RotatedKey(_Shown, KeyEffect, frozen=True, kw_only=True):
    """A key with a new secret.  `key` is shown this once; a replay after 10 minutes has `null` there."""

    version_id: str
    key: str | None


class IssuedKeys(_Shown, frozen=True, kw_only=True):
    """New keys, in the order they were asked for."""

    items: tuple[IssuedKey, ...]


class ImportedKeys(_Answer, frozen=True, kw_only=True):
    """Imported keys, in the order they were given."""

    items: tuple[KeyInfo, ...]


class KeyPage(_Answer, frozen=True, kw_only=True):
    """A page of keys, oldest first."""

    items: tuple[KeyInfo, ...]
    next_cursor: str | None


class KeyFilter(_Strict, frozen=True, kw_only=True):
    """Which keys to list; every filter given must hold.

    `name` is how the name begins.  `unused_since` takes in keys that were never used and are older than that.
    Times are epoch seconds.
    """

    keyspace: str | None = None
    owner: str | None = None
    state: Literal["active", "disabled", "revoked"] | None = None
    environment: str | None = None
    plan: str | None = None
    tag: str | None = None
    name: str | None = None
    expiring_before: float | None = None
    unused_since: float | None = None


# --- management tokens -------------------------------------------------------------------------------------------


class IssueToken(_Strict, frozen=True, kw_only=True):
    """Issue a management token to a principal.

    Its rights are the principal's grants, narrowed to `scopes` (patterns over actions) and `resources` (patterns over
    resource names); empty does not narrow.
    """

    name: Line
    scopes: Annotated[tuple[Scope, ...], Meta(max_length=64)] = ()
    resources: Annotated[tuple[Scope, ...], Meta(max_length=64)] = ()
    expires_at: Moment | None = None
    expires_in_seconds: Lifetime | None = None


class TokenInfo(_Answer, frozen=True, kw_only=True):
    """A management token; never its secret."""

    id: str
    principal: str
    name: str | None
    state: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    expires_at: str | None
    created_at: str
    created_by: str
    revoked_at: str | None
    revoke_reason: str | None


class IssuedToken(_Shown, TokenInfo, frozen=True, kw_only=True):
    """A new management token.  `token` is shown this once."""

    token: str | None


class TokenEffect(TokenInfo, frozen=True, kw_only=True):
    """A revoked token, and how far that has spread; management calls ask the database and refuse it at once."""

    effective: bool
    lag_ms: float
    effective_by: str
    laggards: tuple[str, ...]


class TokenPage(_Answer, frozen=True, kw_only=True):
    """A page of tokens."""

    items: tuple[TokenInfo, ...]
    next_cursor: str | None

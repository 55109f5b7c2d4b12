"""Held secrets: the requests and responses of `/api/v1/secrets` and its kin.

A path is the environment and one or more segments, `production/payments/stripe`.  What a secret holds is a JSON object,
its fields; a version is one such object and never changes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keyturn.wire.keys import Moment

VALUE_BYTES_MAX: Final = 1_048_576
"""Bound of one version's fields, as JSON."""
FIELDS_MAX: Final = 512
DEPTH_MAX: Final = 32
SEGMENTS_MAX: Final = 16
PATH_CHARACTERS_MAX: Final = 400
VERSIONS_MAX_DEFAULT: Final = 100
"""How many versions are kept unless the secret says otherwise; older ones are destroyed, and the audit log says so."""

SecretPath = Annotated[str, Meta(min_length=3, max_length=PATH_CHARACTERS_MAX)]
"""Checked in full by `keyturn.vault.paths`, whose errors name the place."""
FieldName = Annotated[str, Meta(min_length=1, max_length=256)]
Fields = Annotated[dict[FieldName, Any], Meta(max_length=FIELDS_MAX)]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Numbers = Annotated[tuple[Number, ...], Meta(min_length=1, max_length=1000)]
Text = Annotated[str, Meta(max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*(?!\n)$")]
CustomMetadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=128)], Annotated[str, Meta(max_length=512)]], Meta(max_length=64)
]


class SecretState(StrEnum):
    """State of a version, in the words of NIST SP 800-57; soft deletion is apart from it (`deleted_at`)."""

    PENDING = "pending"
    CURRENT = "current"
    PREVIOUS = "previous"
    SUPERSEDED = "superseded"
    """Neither current nor the one before; still readable by its number."""
    DESTROYED = "destroyed"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


class Describe(_Strict, frozen=True, kw_only=True):
    """What is told about a secret and is none itself; a field left out stays as it is, null takes it away."""

    owner: Text | UnsetType = UNSET
    purpose: Text | UnsetType = UNSET
    provider: Text | UnsetType = UNSET
    revocation_path: Text | UnsetType = UNSET
    """Where it is revoked: an address, or what to do."""
    metadata: CustomMetadata | UnsetType = UNSET
    next_rotation_at: Moment | UnsetType | None = UNSET
    expires_at: Moment | UnsetType | None = UNSET
    versions_max: Annotated[int, Meta(ge=1, le=1000)] | UnsetType = UNSET
    cas_required: bool | UnsetType = UNSET
    delete_after_seconds: Annotated[int, Meta(ge=1, le=315360000)] | UnsetType | None = UNSET
    """New versions are deleted (softly) so long after they were written."""


class PutSecret(_Strict, frozen=True, kw_only=True):
    """Write a new version, and the secret if there is none; it is current at once unless `pending`."""

    fields: Fields
    cas: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    """Check and set: the number that has to be current, 0 for a secret that has no version yet; 409 otherwise."""
    pending: bool = False
    describe: Describe | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class PatchSecret(_Strict, frozen=True, kw_only=True):
    """Write a new version that is the current one merged with these fields (RFC 7396: null takes a field away)."""

    fields: Fields
    cas: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class SelectVersions(_Strict, frozen=True, kw_only=True):
    """Name versions by number, or by sequence, as pending ones are; none means the current one where that is said."""

    versions: Numbers | None = None
    sequences: Numbers | None = None


class RollbackSecret(_Strict, frozen=True, kw_only=True):
    """Write the fields of an earlier version as a new one."""

    version: Number
    cas: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class PromoteSecret(_Strict, frozen=True, kw_only=True):
    """Make a pending version current; without `sequence`, the newest pending one."""

    sequence: Number | None = None


class SecretVersionInfo(_Answer, frozen=True, kw_only=True):
    """A version without what it holds."""

    number: int | None
    """Given on promotion; a pending version has none."""
    sequence: int
    state: SecretState
    fields: tuple[str, ...]
    """The names of its fields."""
    size_bytes: int
    created_at: str
    created_by: str
    promoted_at: str | None
    delete_at: str | None
    deleted_at: str | None
    destroyed_at: str | None


class SecretInfo(_Answer, frozen=True, kw_only=True):
    """A secret without what it holds."""

    id: str
    path: str
    environment: str
    owner: str
    purpose: str
    provider: str
    revocation_path: str
    metadata: dict[str, str]
    next_rotation_at: str | None
    expires_at: str | None
    current_version: int
    """0 when there is none."""
    oldest_version: int
    versions_max: int
    cas_required: bool
    delete_after_seconds: int | None
    created_at: str
    created_by: str
    updated_at: str
    revision: int
    versions: tuple[SecretVersionInfo, ...] = ()
    """Newest first; in lists left out."""


class SecretValue(_Answer, frozen=True, kw_only=True):
    """What a version holds, for a caller whose read is on record."""

    id: str
    path: str
    environment: str
    version: int | None
    sequence: int
    state: SecretState
    fields: dict[str, Any]
    created_at: str
    metadata: dict[str, str]
    expires_at: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class SecretWritten(_Answer, frozen=True, kw_only=True):
    """What a write made or changed; never the fields."""

    id: str
    path: str
    version: int | None
    sequence: int
    state: SecretState
    created_at: str
    metadata: dict[str, str]
    delete_at: str | None
    revision: int


class SecretRemoved(_Answer, frozen=True, kw_only=True):
    """A secret that is no more; its path is free."""

    path: str


class SecretPage(_Answer, frozen=True, kw_only=True):
    """A page of a list, by path."""

    items: tuple[SecretInfo, ...]
    next_cursor: str | None


class SecretNames(_Answer, frozen=True, kw_only=True):
    """What lies directly below a folder: names of secrets, and of folders with a `/` at the end, in order."""

    names: tuple[str, ...]


class SecretReader(_Answer, frozen=True, kw_only=True):
    """One consumer's reads of one version."""

    consumer: str
    principal: str
    principal_name: str
    subject: str
    version: int | None
    sequence: int
    state: SecretState
    first_at: str
    last_at: str
    reads: int
    ip_network: str
    user_agent: str


class SecretReaders(_Answer, frozen=True, kw_only=True):
    """Who has read a secret, and which version last."""

    path: str
    current_version: int
    items: tuple[SecretReader, ...]
    laggards: tuple[str, ...]
    """Consumers whose newest version read is not the current one."""


class ReusePlace(_Answer, frozen=True, kw_only=True):
    """One place where a value is held."""

    path: str
    version: int | None
    sequence: int
    field: str
    owner: str


class ReuseGroup(_Answer, frozen=True, kw_only=True):
    """Places that hold the same value; the value is not shown, and `group` means nothing elsewhere."""

    group: str
    places: tuple[ReusePlace, ...]


class ReuseReport(_Answer, frozen=True, kw_only=True):
    """Values that are held more than once, among the secrets that the caller may list."""

    items: tuple[ReuseGroup, ...]


class SecretNews(_Answer, frozen=True, kw_only=True):
    """Which of the watched paths may hold another version than at the cursor."""

    cursor: str
    """Give it with the next call."""
    changed: tuple[str, ...]
    """Paths to read again; all of them when the cursor is not known any more."""

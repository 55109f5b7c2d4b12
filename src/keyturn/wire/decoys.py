"""Decoys: the requests and responses of `/api/v1/decoys`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from keyturn.wire.keys import KeyspaceName, Line

DECOYS_MAX: Final = 1000
"""Decoys of one workspace."""

_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*(?!\n)$"
DecoyName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
RuleName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[a-z0-9-]+(?!\n)$")]
SecretPathText = Annotated[str, Meta(min_length=1, max_length=512)]
FieldName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]+(?!\n)$")]
Planted = Annotated[str, Meta(max_length=512, pattern=_PRINTABLE)]


class DecoyKind(StrEnum):
    """What is made."""

    ISSUED = "issued"
    """A key of a keyspace, which is refused whoever presents it."""
    HELD = "held"
    """A secret at a path, with a value that opens nothing."""


class DecoyState(StrEnum):
    """Whether its use is an alarm."""

    WATCHED = "watched"
    TRIPPED = "tripped"
    """It was used, and is watched on."""
    RETIRED = "retired"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


class CreateDecoy(_Strict, frozen=True, kw_only=True):
    """Make a decoy; `planted_at` says where it is put, for whoever is told of its use.

    An issued one needs a `keyspace`.  A held one needs a `path`; its value looks like a key that the scanner's rule
    `like` finds, and stands in `field`.
    """

    name: DecoyName
    kind: DecoyKind
    keyspace: KeyspaceName | None = None
    owner: Line = "security"
    path: SecretPathText | None = None
    like: RuleName | None = None
    field: FieldName = "api_key"
    planted_at: Planted = ""


class DecoyTrip(_Answer, frozen=True, kw_only=True):
    """The last use of a decoy; what is not known is empty.  `actor` is the principal that read a held one."""

    at: str
    ip_network: str = ""
    user_agent: str = ""
    endpoint: str = ""
    actor: str = ""
    outcome: str = ""


class DecoyInfo(_Answer, frozen=True, kw_only=True):
    """A decoy, and how often it was used."""

    id: str
    name: str
    kind: DecoyKind
    state: DecoyState
    planted_at: str
    keyspace_key: str | None
    secret_path: str | None
    tripped_count: int
    first_tripped_at: str | None
    last_tripped_at: str | None
    last_trip: DecoyTrip | None
    created_at: str
    created_by: str
    revision: int


class DecoyCreated(DecoyInfo, frozen=True, kw_only=True):
    """A new decoy with, once, the value that is to be planted."""

    value: str | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class DecoyPage(_Answer, frozen=True, kw_only=True):
    """A page of decoys, oldest first."""

    items: tuple[DecoyInfo, ...]
    next_cursor: str | None

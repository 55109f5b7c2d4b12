"""Audit: leaves, checkpoints and proofs as they are asked for and answered.

Hashes are lower-case hexadecimal, times RFC 3339 in UTC.  The lines of an export are described in
`keyturn.audit.export_lines`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

ERASE_MAX = 100

Outcome = Literal["allowed", "denied", "failed"]
LeafId = Annotated[str, Meta(pattern=r"^evt_[0-9A-Za-z]{22}(?!\n)$")]
Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*(?!\n)$")]


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which leaves to list; what is absent does not narrow.  Times are epoch seconds."""

    action: str | None = None
    """A pattern over action names, such as `key.*`."""
    actor: str | None = None
    """The id of a principal, or the network of refused callers."""
    resource: str | None = None
    """A pattern over resource names, such as `key/orders/*`."""
    resource_prefix: str | None = None
    outcome: Outcome | None = None
    since: float | None = None
    """At or after this time."""
    until: float | None = None
    """Before this time."""


class AuditActor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acted; `token` is the id of the management token's version."""

    id: str
    kind: str | None = None
    name: str | None = None
    token: str | None = None


class AuditLeaf(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done, or refused; after an erasure only what the log is ordered and searched by is left."""

    id: str
    seq: int
    at: str
    action: str
    outcome: str
    actor: AuditActor
    resource: str
    detail: dict[str, Any]
    request_id: str | None
    ip: str | None
    erased: bool


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Leaves, newest first.  A page may be short and still have a next one."""

    items: tuple[AuditLeaf, ...]
    next_cursor: str | None


class AuditLeafDetail(AuditLeaf, frozen=True, kw_only=True):
    """A leaf with its place in the tree; `index` and `hash` are null until it is built in, within about a second.

    `body` is the exact text that `hash` is computed from: SHA-256 over a zero byte and its UTF-8 bytes.
    """

    index: int | None
    hash: str | None
    body: str | None


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A signed state of the log; `note` is the C2SP signed note to keep."""

    number: int
    size: int
    root: str
    signed_at: str
    note: str


class CheckpointPage(msgspec.Struct, frozen=True, kw_only=True):
    """Checkpoints, newest first."""

    items: tuple[CheckpointInfo, ...]
    next_cursor: str | None


class LatestCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The newest checkpoint; `note` is null while nothing was signed yet.  `unbuilt` leaves wait for the next."""

    number: int
    size: int
    root: str
    signed_at: str | None
    note: str | None
    unbuilt: int


class InclusionProof(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that a leaf is in the tree of `size` leaves (RFC 9162 §2.1.3); `note` is the checkpoint of that size."""

    leaf: str
    index: int
    hash: str
    size: int
    root: str
    proof: tuple[str, ...]
    note: str | None


class ConsistencyProof(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that the tree of `second_size` leaves begins with that of `first_size` (RFC 9162 §2.1.4)."""

    first_size: int
    first_root: str
    second_size: int
    second_root: str
    proof: tuple[str, ...]


class AuditKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that signs (`current`), signed before (`previous`), or did and is destroyed (`retired`)."""

    number: int
    state: str
    created_at: str


class AuditPublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """What checkpoints are verified with; keep it where who runs the server cannot change it.

    `verifier_key` belongs to the key that signed the newest checkpoint.  `handovers` are the checkpoints at which a
    new key took over, the oldest first, each signed by the key before and the key after.
    """

    origin: str
    verifier_key: str
    keys: tuple[AuditKey, ...]
    handovers: tuple[str, ...]


class EraseLeaves(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Erase the content of leaves for good, for example at the request of the person they are about."""

    ids: Annotated[tuple[LeafId, ...], Meta(min_length=1, max_length=ERASE_MAX)]
    reason: Reason


class LeavesErased(msgspec.Struct, frozen=True, kw_only=True):
    """Whose content is gone now; `already` was so before."""

    erased: tuple[str, ...]
    already: tuple[str, ...]

"""The feeds of a verifier that runs in somebody else's process.

    POST /api/v1/replica/nodes                 register: from now on a revocation waits for this node
    GET  /api/v1/replica/snapshot              everything, in pages; `seq` of the first is where to follow on
    GET  /api/v1/replica/changes               long poll: what has a new current state after `after`
    POST /api/v1/replica/confirm               store how far the node has applied the log; what that proves
    POST /api/v1/replica/nodes/{id}/deregister
    POST /api/v1/usage/batches                 usage back, once for each batch id

Bytes (digests and peppers) are base64.  `keyspaces` names what is wanted; without it, all that the token may
replicate.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from keyturn.wire.keys import KeyspaceName, Line
from keyturn.wire.policy import KeyRecord, KeyspaceRecord, OwnerRecord, PlanRecord

WAIT_SECONDS_MAX = 10
KEYSPACES_MAX = 64
BATCH_ITEMS_MAX = 5000
SEQ_MAX = 2**53
TIME_MAX = 2**40
_Id = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_]*(?!\n)$")]


class RegisterVerifier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verifier that wants to replicate; `label` is what a revocation calls it when it lags."""

    label: Line
    keyspaces: Annotated[tuple[KeyspaceName, ...], Meta(max_length=KEYSPACES_MAX)] = ()


class RegisteredVerifier(msgspec.Struct, frozen=True):
    """The node that was registered; load a snapshot now, not before."""

    node: str
    log_id: str


class DeregisteredVerifier(msgspec.Struct, frozen=True):
    """Whether it was known, and the caller's own."""

    known: bool


class ReplicaSnapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of a snapshot.

    `allowed` are the ids of all keyspaces that are replicated.  Follow from the `log_id` and `seq` of the first page.
    """

    log_id: str
    seq: int
    allowed: tuple[str, ...]
    keyspaces: tuple[KeyspaceRecord, ...] = ()
    plans: tuple[PlanRecord, ...] = ()
    owners: tuple[OwnerRecord, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    next_cursor: str | None = None


class RemovedRecord(msgspec.Struct, frozen=True):
    """Something that is no longer there; `kind` is `keyspace`, `key`, `plan` or `owner`."""

    kind: str
    id: str


class ReplicaChanges(msgspec.Struct, frozen=True, omit_defaults=True):
    """The current state of what has changed up to `seq`; somebody waits for `awaited`.

    A keyspace that is no longer in `allowed` is to be dropped before `seq` counts as applied.
    """

    log_id: str
    seq: int
    awaited: int
    allowed: tuple[str, ...]
    keyspaces: tuple[KeyspaceRecord, ...] = ()
    plans: tuple[PlanRecord, ...] = ()
    owners: tuple[OwnerRecord, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    removed: tuple[RemovedRecord, ...] = ()


class ConfirmReplica(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a node has applied the log; `applied` is -1 and `log_id` empty before it has loaded anything."""

    node: _Id
    log_id: _Id
    applied: Annotated[int, Meta(ge=-1, le=SEQ_MAX)]
    keyspaces: Annotated[tuple[KeyspaceName, ...], Meta(max_length=KEYSPACES_MAX)] = ()


class ConfirmedReplica(msgspec.Struct, frozen=True):
    """What a confirm proves: see `keyturn.verify.freshness`.

    `known` is false when the registry has lost the node: register again and reload.  `database_time` is epoch seconds.
    """

    known: bool
    log_id: str
    head: int
    database_time: float
    fresh_for: float
    allowed: tuple[str, ...]


class UsageItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How often a secret version was verified with one outcome within a minute, by one caller.

    `minute` is epoch seconds of its begin.  `path` comes without its query.
    """

    version_id: Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[0-9A-Za-z_]+(?!\n)$")]
    outcome: Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[A-Z_]+(?!\n)$")]
    minute: Annotated[int, Meta(ge=0, le=SEQ_MAX)]
    count: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    first_at: Annotated[float, Meta(ge=0, le=TIME_MAX)]
    at: Annotated[float, Meta(ge=0, le=TIME_MAX)]
    ip: Annotated[str, Meta(max_length=64)] | None = None
    user_agent: Annotated[str, Meta(max_length=1024)] | None = None
    method: Annotated[str, Meta(max_length=32)] | None = None
    path: Annotated[str, Meta(max_length=8192)] | None = None
    country: Annotated[str, Meta(pattern=r"^[A-Za-z]{2}(?!\n)$")] | None = None


class UsageBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a verifier has counted; `lost` is what it had to drop since its batch before."""

    batch_id: Annotated[str, Meta(min_length=8, max_length=64, pattern=r"^[0-9A-Za-z_]+(?!\n)$")]
    items: Annotated[tuple[UsageItem, ...], Meta(max_length=BATCH_ITEMS_MAX)]
    lost: Annotated[int, Meta(ge=0, le=SEQ_MAX)] = 0


class UsageAccepted(msgspec.Struct, frozen=True):
    """What became of a batch: counted now, `repeated` when it was counted before.

    `refused` counts what belongs to versions that are not known, or not the caller's to report.
    """

    counted: int
    refused: int
    repeated: bool

"""Routes of the feeds for verifiers in other processes."""

from __future__ import annotations

import re
from typing import Annotated

from litestar import get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.errors import InputError
from keyturn.http.body import BULK_BYTES_MAX
from keyturn.http.edge import Given
from keyturn.keys.feeds import ReplicaService
from keyturn.usage.batches import UsageBatches
from keyturn.wire.keys import Empty
from keyturn.wire.replication import (
    KEYSPACES_MAX,
    SEQ_MAX,
    WAIT_SECONDS_MAX,
    ConfirmedReplica,
    ConfirmReplica,
    DeregisteredVerifier,
    RegisteredVerifier,
    RegisterVerifier,
    ReplicaChanges,
    ReplicaSnapshot,
    UsageAccepted,
    UsageBatch,
)

NOTHING = Empty()
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

KeyspaceNames = Annotated[
    str | None,
    QueryParameter(
        name="keyspaces",
        max_length=65 * KEYSPACES_MAX,
        schema_extra={"pattern": "^[a-z0-9_,-]+$"},
        description="Only these keyspaces, names separated by commas; by default all that the token may replicate.",
    ),
]


@post("/api/v1/replica/nodes", operation_id="registerVerifier", tags=["replica"])
async def register_verifier(
    data: JSONBody[RegisterVerifier], credentials: Given[Credentials], replica: Given[ReplicaService]
) -> RegisteredVerifier:
    """Register a verifier.

    From now on a change of a key is effective only once this node has applied it, or can no longer be fresh.
    """
    return await replica.register(credentials, data)


@post(
    "/api/v1/replica/nodes/{node:str}/deregister", operation_id="deregisterVerifier", tags=["replica"], status_code=200
)
async def deregister_verifier(
    node: FromPath[str],
    credentials: Given[Credentials],
    replica: Given[ReplicaService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> DeregisteredVerifier:
    """Forget a verifier of one's own that has stopped answering.

    One that is not known, or not one's own, is left alone.
    """
    return DeregisteredVerifier(await replica.deregister(credentials, node))


@get("/api/v1/replica/snapshot", operation_id="readReplicaSnapshot", tags=["replica"])
async def read_snapshot(
    credentials: Given[Credentials],
    replica: Given[ReplicaService],
    names: KeyspaceNames = None,
    cursor: Annotated[
        str | None, QueryParameter(max_length=256, description="`next_cursor` of the page before.")
    ] = None,
) -> ReplicaSnapshot:
    """Read keyspaces, plans, owners and keys, page by page.

    It holds digests and the peppers of the keyspaces.
    """
    return await replica.snapshot(credentials, _names(names), cursor)


@get("/api/v1/replica/changes", operation_id="readReplicaChanges", tags=["replica"])
async def read_changes(
    credentials: Given[Credentials],
    replica: Given[ReplicaService],
    log_id: Annotated[str, QueryParameter(min_length=1, max_length=64, description="The log that is followed.")],
    after: Annotated[int, QueryParameter(ge=0, le=SEQ_MAX, description="The number up to which it is applied.")],
    wait_seconds: Annotated[
        int, QueryParameter(ge=0, le=WAIT_SECONDS_MAX, description="How long to wait for news.")
    ] = WAIT_SECONDS_MAX,
    names: KeyspaceNames = None,
) -> ReplicaChanges:
    """Wait for changes, and read what changed as it is now.

    410 when the log is another one, or no longer reaches back to `after`: load a snapshot.
    """
    return await replica.changes(
        credentials, log_id=log_id, after=after, wait_seconds=wait_seconds, keyspaces=_names(names)
    )


@post("/api/v1/replica/confirm", operation_id="confirmReplica", tags=["replica"], status_code=200)
async def confirm_replica(
    data: JSONBody[ConfirmReplica], credentials: Given[Credentials], replica: Given[ReplicaService]
) -> ConfirmedReplica:
    """Store how far a verifier has applied the log.

    Once it has applied `head`, it is fresh until `fresh_for` after it sent this request, and for each keyspace until
    its `stale_after_seconds` after that.
    """
    return await replica.confirm(credentials, data)


@post(
    "/api/v1/usage/batches",
    operation_id="reportUsage",
    tags=["replica"],
    status_code=200,
    request_max_body_size=BULK_BYTES_MAX,
)
async def report_usage(
    data: JSONBody[UsageBatch], credentials: Given[Credentials], usage_batches: Given[UsageBatches]
) -> UsageAccepted:
    """Report what a verifier has counted.

    A batch counts once, however often it is sent.  Versions that are not known, or not the caller's to report, are
    left out and counted as refused.
    """
    return await usage_batches.accept(credentials, data)


def _names(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(dict.fromkeys(text.split(",")))
    if len(names) > KEYSPACES_MAX or not all(map(_NAME.fullmatch, names)):
        raise InputError(f"expected 1 to {KEYSPACES_MAX} names of keyspaces separated by commas", field="keyspaces")
    return names


ROUTES = (register_verifier, deregister_verifier, read_snapshot, read_changes, confirm_replica, report_usage)

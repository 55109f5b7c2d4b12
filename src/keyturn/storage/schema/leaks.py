"""Tables of leaks: findings with their places and history, policies, intakes, scans that were reported, and decoys."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    Named,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
)

from keyturn.storage.schema.metadata import metadata


class _Finding(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    fingerprint: Named[bytes] = Column(LargeBinary)
    certainty: Named[str] = Column(Text)
    rule: Named[str] = Column(Text)
    provider: Named[str] = Column(Text)
    title: Named[str] = Column(Text)
    masked: Named[str] = Column(Text)
    origin: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    environment: Named[str] = Column(Text)
    owner: Named[str] = Column(Text)
    keyspace: Named[str] = Column(Text)
    key: Named[str] = Column(Text)
    version: Named[str] = Column(Text)
    secret: Named[str] = Column(Text)
    secret_path: Named[str] = Column(Text)
    sequence: Named[int] = Column(Integer)
    field: Named[str] = Column(Text)
    verdict: Named[str] = Column(Text)
    places_count: Named[int] = Column(Integer)
    first_seen_at: Named[float] = Column(Double)
    last_seen_at: Named[float] = Column(Double)
    accepted_until: Named[float | None] = Column(Double)
    closed_at: Named[float | None] = Column(Double)
    due_at: Named[float | None] = Column(Double)
    attempts: Named[int] = Column(Integer)
    last_error: Named[str | None] = Column(Text)
    action: Named[str] = Column(Text)
    action_state: Named[str] = Column(Text)
    policy: Named[str] = Column(Text)
    revision: Named[int] = Column(Integer)


finding = Table(
    "finding",
    metadata,
    _Finding,
    UniqueConstraint("workspace", "fingerprint"),
    Index(None, "workspace", "state", "last_seen_at"),
    Index(None, "certainty", "state"),
    Index(None, "key"),
    Index(None, "secret"),
    Index(None, "due_at"),
    Index(None, "accepted_until"),
)
"""One leaked value of a workspace, whatever the number of its places.

`fingerprint` is keyed, so that the value cannot be guessed from it.
`due_at` is when an automatic action is to be done or tried again; None when there is none to do.
Text columns that name nothing are empty.
"""


class _FindingPlace(TypedColumns):
    finding = Column(Text, primary_key=True)
    place = Column(LargeBinary, primary_key=True)
    workspace: Named[str] = Column(Text)
    source: Named[str] = Column(Text)
    place_json: Named[str] = Column(Text)
    first_seen_at: Named[float] = Column(Double)
    last_seen_at: Named[float] = Column(Double)


finding_place = Table("finding_place", metadata, _FindingPlace)
"""Where a value was seen; `place` is a digest of what `place_json` says of source, path, line and commit."""


class _FindingEvent(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    finding: Named[str] = Column(Text)
    at: Named[float] = Column(Double)
    actor: Named[str] = Column(Text)
    event: Named[str] = Column(Text)
    detail_json: Named[str] = Column(Text)


finding_event = Table("finding_event", metadata, _FindingEvent, Index(None, "finding", "id"))
"""What became of a finding, and who decided it."""


class _LeakPolicy(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    position: Named[int] = Column(Integer)
    config_json: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    updated_at: Named[float] = Column(Double)
    deleted_at: Named[float] = Column(Double)
    revision: Named[int] = Column(Integer)


leak_policy = Table("leak_policy", metadata, _LeakPolicy, UniqueConstraint("workspace", "name", "deleted_at"))
"""What is done about a leaked key or secret; the first that applies, by `position`, counts."""


class _LeakIntake(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    kind: Named[str] = Column(Text)
    config_json: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    updated_at: Named[float] = Column(Double)
    deleted_at: Named[float] = Column(Double)
    revision: Named[int] = Column(Integer)


leak_intake = Table("leak_intake", metadata, _LeakIntake, UniqueConstraint("workspace", "name", "deleted_at"))
"""Who may report leaks from outside, and with which keys they sign."""


class _LeakScan(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    source: Named[str] = Column(Text)
    kind: Named[str] = Column(Text)
    principal: Named[str] = Column(Text)
    started_at: Named[float] = Column(Double)
    reported_at: Named[float] = Column(Double)
    next_due_at: Named[float | None] = Column(Double)
    summary_json: Named[str] = Column(Text)


leak_scan = Table("leak_scan", metadata, _LeakScan, Index(None, "workspace", "source", "reported_at"))
"""A scan that was reported: a watch that has fallen silent can be told from one that found nothing."""


class _Decoy(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    kind: Named[str] = Column(Text)
    key: Named[str] = Column(Text)
    secret: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    planted_at: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    tripped_count: Named[int] = Column(Integer)
    first_tripped_at: Named[float | None] = Column(Double)
    last_tripped_at: Named[float | None] = Column(Double)
    last_trip_json: Named[str] = Column(Text)
    seen_seq: Named[int] = Column(BigInteger)
    revision: Named[int] = Column(Integer)


decoy = Table(
    "decoy",
    metadata,
    _Decoy,
    UniqueConstraint("workspace", "name"),
    Index(None, "workspace", "key"),
    Index(None, "workspace", "secret"),
)
"""A key or secret that nothing uses, so that any use of it is an alarm; `seen_seq` is the last leaf looked at."""

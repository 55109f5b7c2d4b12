"""Findings, what is known of a leaked value, and policies, as rows have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keyturn.wire.certainty import Certainty
from keyturn.wire.leaks import ActionState, FindingState, LeakAction, Origin

if TYPE_CHECKING:
    from keyturn.wire.leaks import PolicyScope, ScanKind

OPEN_STATES = frozenset({FindingState.OPEN, FindingState.CONFIRMED})
"""States in which something is done by itself."""
KNOWN = frozenset({Certainty.OWN, Certainty.HELD})
"""Values that the server knows, so that it can tell whether they still work."""
POSSESSION_POLICY = "possession"
"""Stands for a policy's id where the holder of a key revoked it and no policy said otherwise."""


def finding_resource(finding_id: str) -> str:
    """Name a finding as grants do."""
    return f"finding/{finding_id}"


def policy_resource(name: str) -> str:
    """Name a policy as grants do."""
    return f"leak_policy/{name}"


@dataclass(frozen=True, slots=True)
class Known:
    """Whose a value is; what does not apply is empty."""

    certainty: Certainty
    works: bool
    state: str
    environment: str
    owner: str
    keyspace: str = ""
    key: str = ""
    version: str = ""
    system: bool = False
    """Whether it is a management token; its owner is a principal then."""
    secret: str = ""
    secret_path: str = ""
    sequence: int = 0
    field: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, as somebody told."""

    path: str
    line: int = 0
    commit: str = ""
    members: tuple[str, ...] = ()
    encodings: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """One value at one place, before it is known whose it is."""

    sha256: bytes = field(repr=False)
    version: str | None
    length: int
    place: Place
    rule: str
    provider: str = ""
    title: str = ""
    masked: str = ""
    certainty: Certainty = Certainty.GENERIC
    environment: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class SeenPlace:
    """A place of a finding, as it is kept."""

    source: str
    place: Place
    first_seen_at: float
    last_seen_at: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something that became of a finding."""

    at: float
    actor: str
    event: str
    detail: dict[str, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One leaked value of a workspace."""

    id: str
    workspace: str
    fingerprint: bytes = field(repr=False)
    certainty: Certainty
    rule: str
    provider: str
    title: str
    masked: str
    origin: Origin
    state: FindingState
    environment: str
    owner: str
    keyspace: str
    key: str
    version: str
    secret: str
    secret_path: str
    sequence: int
    field: str
    verdict: str
    places_count: int
    first_seen_at: float
    last_seen_at: float
    accepted_until: float | None
    closed_at: float | None
    due_at: float | None
    attempts: int
    last_error: str | None
    action: str
    action_state: ActionState
    policy: str
    revision: int

    @property
    def resource(self) -> str:
        """Its name in grants."""
        return finding_resource(self.id)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is done about a leak, and on whose rights."""

    id: str
    workspace: str
    name: str
    position: int
    action: LeakAction
    applies: PolicyScope
    overlap_seconds: int
    after_seconds: int
    author: str
    created_at: float
    created_by: str
    updated_at: float
    deleted_at: float
    revision: int

    @property
    def resource(self) -> str:
        """Its name in grants."""
        return policy_resource(self.name)


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan that was reported."""

    id: str
    workspace: str
    source: str
    kind: ScanKind
    principal: str
    started_at: float
    reported_at: float
    next_due_at: float | None
    summary: dict[str, int | str]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a sighting."""

    finding: Finding
    new: bool


@dataclass(frozen=True, slots=True)
class ReportedOutside:
    """What became of a value that somebody outside showed; all empty when it is nobody's here."""

    matched: bool
    finding: str = ""
    certainty: Certainty | None = None
    state: FindingState | None = None
    works: bool = False
    keyspace: str = ""
    key: str = ""
    owner: str = ""
    environment: str = ""
    action: str = ""
    action_state: ActionState = ActionState.NONE
    is_ending: bool = False
    """Whether an action that lets it in no more is due at this moment."""

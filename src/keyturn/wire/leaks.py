"""Leaks: the requests and responses of `/api/v1/leaks`, `/api/v1/findings` and `/api/v1/leak-policies`.

A value is never sent: `digest` is the SHA-256, in hexadecimal, of its UTF-8 without the space around it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keyturn.wire.certainty import Certainty
from keyturn.wire.keys import EnvironmentName, Line, Moment

CANDIDATES_MAX: Final = 10_000
"""How many candidates one request may ask about."""
FINDINGS_MAX: Final = 1000
"""How many findings one report may hold."""
HELD_LENGTH_MIN: Final = 20
"""How many characters a value has at least that is compared with held secrets."""
POLICIES_MAX: Final = 200
"""Policies of one workspace."""
OVERLAP_SECONDS_MAX: Final = 2_592_000
AFTER_SECONDS_MAX: Final = 604_800
OVERLAP_SECONDS_DEFAULT: Final = 86_400
NEXT_DUE_SECONDS_MAX: Final = 31_536_000
PLACES_SHOWN_MAX: Final = 100
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of a match or a report, which are larger than other requests."""

_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*(?!\n)$"
Digest = Annotated[str, Meta(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}(?!\n)$")]
VersionName = Annotated[str, Meta(min_length=12, max_length=12, pattern=r"^[0-9A-Za-z]{12}(?!\n)$")]
ValueLength = Annotated[int, Meta(ge=1, le=16_777_216)]
Word = Annotated[str, Meta(max_length=128, pattern=_PRINTABLE)]
Text = Annotated[str, Meta(max_length=512, pattern=_PRINTABLE)]
PathText = Annotated[str, Meta(max_length=4096, pattern=_PRINTABLE)]
Words = Annotated[tuple[Word, ...], Meta(max_length=32)]
PolicyName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
NamePattern = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[!-~]+(?!\n)$")]
NamePatterns = Annotated[tuple[NamePattern, ...], Meta(max_length=32)]
PathPattern = Annotated[str, Meta(min_length=1, max_length=256, pattern=_PRINTABLE)]
PathPatterns = Annotated[tuple[PathPattern, ...], Meta(max_length=32)]
Position = Annotated[int, Meta(ge=0, le=1_000_000)]
OverlapSeconds = Annotated[int, Meta(ge=0, le=OVERLAP_SECONDS_MAX)]
AfterSeconds = Annotated[int, Meta(ge=0, le=AFTER_SECONDS_MAX)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Origin(StrEnum):
    """Who told of a leak."""

    SCAN = "scan"
    PARTNER = "partner"
    POSSESSION = "possession"
    """Somebody who showed the key itself."""


class FindingState(StrEnum):
    """Where a finding stands."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    ROTATED = "rotated"
    """What leaked works no more; of an own or held value this follows what is stored, both ways."""
    FALSE_POSITIVE = "false_positive"
    ACCEPTED = "accepted"
    """Left as it is, until a date if one was given."""


class LeakAction(StrEnum):
    """What is done about a leaked key."""

    NOTIFY = "notify"
    ROTATE = "rotate"
    """The leaked version ends after the overlap; its owner fetches the next one with `keyturn keys rotate`."""
    DISABLE = "disable"
    REVOKE = "revoke"


class ActionState(StrEnum):
    """How far the action of a finding is."""

    NONE = ""
    NOTIFIED = "notified"
    DUE = "due"
    DONE = "done"
    REFUSED = "refused"
    """Whoever wrote the policy may not do it any more: a person has to act."""
    FAILED = "failed"
    """It was tried until it was given up: a person has to act."""


class Decision(StrEnum):
    """What a person says of a finding."""

    CONFIRM = "confirm"
    DISMISS = "dismiss"
    ACCEPT = "accept"
    REOPEN = "reopen"
    CLOSE = "close"


class ScanKind(StrEnum):
    """What was scanned."""

    FOLDER = "folder"
    HISTORY = "history"
    WORKTREE = "worktree"
    STAGED = "staged"
    RANGE = "range"
    PUSH = "push"
    IMAGE = "image"
    LOG = "log"
    STREAM = "stream"
    WATCH = "watch"
    OTHER = "other"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


# --- match -------------------------------------------------------------------------------------------------------


class Candidate(_Strict, frozen=True, kw_only=True):
    """A value that was found; `version` is what stands in a key of our own format, `length` counts characters."""

    digest: Digest
    version: VersionName | None = None
    length: ValueLength


class MatchLeaks(_Strict, frozen=True, kw_only=True):
    """Ask which of these values are issued keys or held secrets."""

    candidates: Annotated[tuple[Candidate, ...], Meta(min_length=1, max_length=CANDIDATES_MAX)]


class LeakMatch(_Answer, frozen=True, kw_only=True):
    """Whose a candidate is; fields that the caller may not know, or that do not apply, are null."""

    index: int
    certainty: Certainty
    works: bool
    """Whether it would be let in now, or for a held value whether a current version holds it."""
    state: str
    environment: str
    owner: str
    finding: str | None
    keyspace: str | None = None
    key: str | None = None
    version: str | None = None
    secret_path: str | None = None
    field: str | None = None
    sequence: int | None = None
    next_command: str | None = None


class LeakMatches(_Answer, frozen=True, kw_only=True):
    """The candidates that are known; what is not named is not known, or is nobody's."""

    matches: tuple[LeakMatch, ...]


# --- findings ----------------------------------------------------------------------------------------------------


class ReportedPlace(_Strict, frozen=True, kw_only=True):
    """Where a value stands; lines count from 1, 0 is a whole file."""

    path: PathText
    line: Count = 0
    commit: Word = ""
    members: Annotated[tuple[PathText, ...], Meta(max_length=16)] = ()
    encodings: Words = ()


class ReportedFinding(_Strict, frozen=True, kw_only=True):
    """One value at one place; `certainty` is what the scanner thinks of a value that the server does not know."""

    rule: Word
    provider: Word = ""
    title: Text = ""
    certainty: Certainty = Certainty.GENERIC
    masked: Text = ""
    digest: Digest
    version: VersionName | None = None
    length: ValueLength
    place: ReportedPlace
    contexts: Words = ()
    environment: Word = ""
    verdict: Word = ""


class ReportFindings(_Strict, frozen=True, kw_only=True):
    """Report what a scan found, also when that is nothing; `next_due_seconds` is when the next report is expected."""

    source: Line
    kind: ScanKind
    started_at: Moment
    next_due_seconds: Annotated[int, Meta(ge=1, le=NEXT_DUE_SECONDS_MAX)] | None = None
    summary: Annotated[dict[Word, Count | Text], Meta(max_length=32)] = {}
    findings: Annotated[tuple[ReportedFinding, ...], Meta(max_length=FINDINGS_MAX)] = ()


class FindingReported(_Answer, frozen=True, kw_only=True):
    """What became of one reported finding."""

    index: int
    id: str
    new: bool
    certainty: Certainty
    state: FindingState
    owner: str
    environment: str
    keyspace: str | None
    key: str | None
    secret_path: str | None
    action: str
    action_state: ActionState


class ScanReported(_Answer, frozen=True, kw_only=True):
    """A report that was taken, with its findings in the order given."""

    id: str
    findings: tuple[FindingReported, ...]


class FindingPlace(_Answer, frozen=True, kw_only=True):
    """A place that a value was seen at."""

    source: str
    path: str
    line: int
    commit: str
    members: tuple[str, ...]
    encodings: tuple[str, ...]
    contexts: tuple[str, ...]
    first_seen_at: str
    last_seen_at: str


class FindingEvent(_Answer, frozen=True, kw_only=True):
    """Something that became of a finding, and who did it."""

    at: str
    actor: str
    event: str
    detail: dict[str, str]


class FindingInfo(_Answer, frozen=True, kw_only=True):
    """A leaked value, whatever the number of its places."""

    id: str
    state: FindingState
    certainty: Certainty
    origin: Origin
    rule: str
    provider: str
    title: str
    masked: str
    environment: str
    owner: str
    keyspace: str | None
    key: str | None
    version: str | None
    secret_path: str | None
    """Null for who may not list the secret."""
    field: str | None
    sequence: int | None
    verdict: str
    places_count: int
    first_seen_at: str
    last_seen_at: str
    accepted_until: str | None
    closed_at: str | None
    action: str
    action_state: ActionState
    action_due_at: str | None
    attempts: int
    last_error: str | None
    policy: str | None
    next_command: str | None
    revision: int


class FindingDetail(_Answer, frozen=True, kw_only=True):
    """A finding with the places it was seen at last, and its history, oldest first."""

    finding: FindingInfo
    places: tuple[FindingPlace, ...]
    history: tuple[FindingEvent, ...]


class FindingPage(_Answer, frozen=True, kw_only=True):
    """A page of findings, oldest first."""

    items: tuple[FindingInfo, ...]
    next_cursor: str | None


class FindingFilter(_Strict, frozen=True, kw_only=True):
    """Which findings; what is left out does not narrow."""

    state: FindingState | None = None
    certainty: Certainty | None = None
    key: str | None = None
    secret: str | None = None
    owner: str | None = None
    source: str | None = None
    keyspace: str | None = None


class DecideFinding(_Strict, frozen=True, kw_only=True):
    """Decide about a finding; `until` is for `accept` alone."""

    decision: Decision
    until: Moment | None = None
    note: Annotated[str, Meta(max_length=512, pattern=_PRINTABLE)] = ""


class LeakScanInfo(_Answer, frozen=True, kw_only=True):
    """A scan that was reported; `overdue` when the next report of its source should have come."""

    id: str
    source: str
    kind: ScanKind
    principal: str
    started_at: str
    reported_at: str
    next_due_at: str | None
    overdue: bool
    summary: dict[str, int | str]


class LeakScanPage(_Answer, frozen=True, kw_only=True):
    """A page of reported scans, oldest first."""

    items: tuple[LeakScanInfo, ...]
    next_cursor: str | None


# --- policies ----------------------------------------------------------------------------------------------------


class PolicyScope(_Strict, frozen=True, kw_only=True):
    """What a policy is for; what is left empty does not narrow.

    `keyspaces` are patterns of keyspace names as in grants.  `secrets` are patterns of the paths of held secrets, and
    `paths` of the places that a value was found at; in both `*` stands for any characters.
    """

    origins: Annotated[tuple[Origin, ...], Meta(max_length=8)] = ()
    certainties: Annotated[tuple[Certainty, ...], Meta(max_length=8)] = ()
    keyspaces: NamePatterns = ()
    secrets: NamePatterns = ()
    contexts: Words = ()
    environments: Annotated[tuple[EnvironmentName, ...], Meta(max_length=32)] = ()
    paths: PathPatterns = ()


class CreateLeakPolicy(_Strict, frozen=True, kw_only=True):
    """Say what is done about a leak; of all policies that apply, the one with the lowest position counts.

    `overlap_seconds` is for `rotate`, `after_seconds` is how long a person has to step in first.
    """

    name: PolicyName
    position: Position
    action: LeakAction
    applies: PolicyScope = PolicyScope()
    overlap_seconds: OverlapSeconds = OVERLAP_SECONDS_DEFAULT
    after_seconds: AfterSeconds = 0


class UpdateLeakPolicy(_Strict, frozen=True, kw_only=True):
    """Change a policy; from then on it is the policy of whoever changed it."""

    position: Position | UnsetType = UNSET
    action: LeakAction | UnsetType = UNSET
    applies: PolicyScope | UnsetType = UNSET
    overlap_seconds: OverlapSeconds | UnsetType = UNSET
    after_seconds: AfterSeconds | UnsetType = UNSET


class LeakPolicyInfo(_Answer, frozen=True, kw_only=True):
    """A policy; `author` is whose rights its action needs."""

    id: str
    name: str
    position: int
    action: LeakAction
    applies: PolicyScope
    overlap_seconds: int
    after_seconds: int
    author: str
    created_at: str
    created_by: str
    updated_at: str
    revision: int


class LeakPolicyPage(_Answer, frozen=True, kw_only=True):
    """A page of policies, oldest first."""

    items: tuple[LeakPolicyInfo, ...]
    next_cursor: str | None

"""Guards and approvals: the requests and responses of `/api/v1/guards` and `/api/v1/approvals`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from keyturn.wire.actions import Action
from keyturn.wire.secrets import PATH_CHARACTERS_MAX, SecretPath, Text

VALID_SECONDS_MAX: Final = 604_800
ACTIONS_MAX: Final = 16

GUARDED_BY_DEFAULT: Final = (
    Action.SECRET_REVEAL,
    Action.SECRET_PUT,
    Action.SECRET_ROLLBACK,
    Action.SECRET_PROMOTE,
    Action.SECRET_DESTROY,
    Action.SECRET_REMOVE,
)

PathPattern = Annotated[str, Meta(min_length=1, max_length=PATH_CHARACTERS_MAX)]
"""A path in which `*` may stand for a segment, at the end for one or more; checked by `keyturn.vault.guards`."""
Reason = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]*(?!\n)$")]
ApprovalState = Literal["pending", "approved", "denied", "expired"]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


class CreateGuard(_Strict, frozen=True, kw_only=True):
    """Demand the approval of a second principal for actions on paths."""

    pattern: PathPattern
    actions: Annotated[tuple[Action, ...], Meta(min_length=1, max_length=ACTIONS_MAX)] = GUARDED_BY_DEFAULT
    description: Text = ""
    valid_seconds: Annotated[int, Meta(ge=60, le=VALID_SECONDS_MAX)] = 3600
    """How long an approval holds."""


class GuardInfo(_Answer, frozen=True, kw_only=True):
    """A guard."""

    id: str
    pattern: str
    actions: tuple[str, ...]
    description: str
    valid_seconds: int
    created_at: str
    created_by: str
    revoked_at: str | None


class GuardPage(_Answer, frozen=True, kw_only=True):
    """A page of guards, oldest first."""

    items: tuple[GuardInfo, ...]
    next_cursor: str | None


class RequestApproval(_Strict, frozen=True, kw_only=True):
    """Ask for approval of an action on a path, or of `guard.revoke` on a guard: one of the two."""

    action: Action
    reason: Reason
    path: SecretPath | None = None
    guard: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class DecideApproval(_Strict, frozen=True, kw_only=True):
    """Approve or deny; what was approved may be denied later, and ends with that."""

    approve: bool
    reason: Reason


class ApprovalInfo(_Answer, frozen=True, kw_only=True):
    """A request for approval and what became of it."""

    id: str
    requester: str
    """The principal that asked; nobody of that principal can decide."""
    subject: str
    """Whom it had logged in as, where it was more than the principal."""
    action: str
    resource: str
    path: str | None
    reason: str
    state: ApprovalState
    created_at: str
    expires_at: str
    """Until when it can be decided."""
    decided_by: str | None
    decided_at: str | None
    decision_reason: str
    valid_until: str | None
    uses: int
    revision: int


class ApprovalPage(_Answer, frozen=True, kw_only=True):
    """A page of approvals, oldest first."""

    items: tuple[ApprovalInfo, ...]
    next_cursor: str | None

"""Who may make a management token for whom: nobody makes one that can do more than they can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.access import rules, store
from keyturn.access.model import Principal, principal_resource
from keyturn.access.moments import shown
from keyturn.access.principals import authorised
from keyturn.errors import ConflictError, ForbiddenError
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.door import Operation


def token_owner(op: Operation, action: Action, principal_id: str) -> Principal:
    """Return a principal whose tokens an action is about, having authorised it on that principal."""
    return authorised(op, action, principal_id)


def require_issuable(
    op: Operation, owner: Principal, scopes: Sequence[str], resources: Sequence[str], expires_at: float | None
) -> None:
    """Raise unless the caller may make a token with these bounds for the principal.

    InputError for bounds that match nothing, ConflictError for a principal that is disabled, and a recorded
    ForbiddenError when the token could do what the caller cannot.
    """
    rules.check_scopes(scopes, resources)
    if owner.state != "active":
        message = f"principal {owner.id} is {owner.state}"
        raise ConflictError(message, code="principal_disabled", hint="enable the principal first")
    grants = store.load_grants(op.connection, op.workspace, owner.id)
    if not rules.may_issue_token(op.caller, owner.id, grants, scopes, resources, op.now, expires_at=expires_at):
        message = f"a token of {owner.id} with these bounds could do more than {op.caller.principal} can"
        hint = "narrow the token by scopes and resources to what you hold yourself"
        if rules.outlasts(op.caller, expires_at):
            message = "the new token would outlast the one it is issued with"
            hint = f"let it expire by {shown(op.caller.token_expires_at)}"
        public = ForbiddenError(message, code="exceeds_own_rights", hint=hint)
        raise op.refusal(Action.TOKEN_ISSUE, principal_resource(owner.id), public)

"""Who may change what lets others in: nobody makes a way to get tokens that can do more than they can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.access import rules
from keyturn.access.moments import shown
from keyturn.access.principals import grants_of
from keyturn.errors import ForbiddenError, not_found
from keyturn.logins import store
from keyturn.logins.model import LoginRole, Method, method_resource, role_resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.caller import Resource
    from keyturn.access.door import Operation
    from keyturn.wire.actions import Action


def authorised_method(op: Operation, action: Action, name: str) -> Method:
    """Load a method for an action; one that the caller may not know of answers as if there were none."""
    found = store.method_by_name(op.connection, op.workspace, name)
    resource = None if found is None else found.resource
    op.authorise(action, resource, kind="login method", name=name[:64], absent=method_resource(name))
    if found is None:
        raise not_found("login method", name[:64])
    return found


def authorised_role(op: Operation, action: Action, method: str, name: str) -> tuple[Method, LoginRole]:
    """Load a role for an action likewise, with its method."""
    held = store.method_by_name(op.connection, op.workspace, method)
    found = None if held is None else store.role_by_name(op.connection, held.id, name)
    place, shown_name = role_resource(method, name), f"{method[:64]}/{name[:64]}"
    op.authorise(action, None if found is None else place, kind="login role", name=shown_name, absent=place)
    if held is None or found is None:
        raise not_found("login role", shown_name)
    return held, found


def require_may_let_in(
    op: Operation,
    action: Action,
    resource: Resource,
    principal: str,
    scopes: Sequence[str],
    resources: Sequence[str],
) -> None:
    """Raise a recorded ForbiddenError when tokens with these bounds could do, now or later, what the caller cannot."""
    grants = grants_of(op, principal)
    if rules.may_issue_token(op.caller, principal, grants, scopes, resources, op.now, expires_at=None):
        return
    message = f"tokens of {principal} with these bounds could do more than {op.caller.principal} can"
    hint = "narrow the role by scopes and resources to what you hold yourself"
    if rules.outlasts(op.caller, None):
        message = "what a login role gives has no end, and the caller's token ends"
        hint = f"use a token without an end; this one ends at {shown(op.caller.token_expires_at)}"
    raise op.refusal(action, resource, ForbiddenError(message, code="exceeds_own_rights", hint=hint))

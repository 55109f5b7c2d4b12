"""Putting keys, owners and keyspaces on a plan: who may name one, and how long a node may not know of it.

Whoever assigns a plan needs the right to change what goes on it, and `plan.read` on the plan: a plan may give scopes,
and nobody assigns what they may not see.  Nothing is put on a retired plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyturn.access.caller import Resource
from keyturn.errors import ConflictError, not_found
from keyturn.keys import plan_store, rules
from keyturn.keys.model import ACTIVE
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.access.door import Operation
    from keyturn.keys.model import Plan

BOUND_SECONDS: Final = 60.0
"""How long is waited for nodes that have no key which the change concerns."""


class Assignable:
    """The plans that a unit of work puts things on, each loaded and authorised once."""

    def __init__(self, op: Operation) -> None:
        """Load within `op`."""
        self._op = op
        self._found: dict[str, Plan] = {}

    def named(self, name: str, field: str = "plan") -> Plan:
        """Return the plan of that name.

        Raises NotFoundError for a plan that the caller may not know of, ConflictError for one that is retired.
        """
        if name not in self._found:
            self._found[name] = authorised_plan(self._op, Action.PLAN_READ, name, share=True)
        found = self._found[name]
        require_active(found, field)
        return found

    def id_and_name(self, name: str | None, field: str = "plan") -> tuple[str | None, str | None]:
        """Return how the plan is stored and how it is shown, both None for no name; raises as `named` does."""
        if name is None:
            return None, None
        found = self.named(name, field)
        return found.id, found.name


def authorised_plan(op: Operation, action: Action, name: str, *, lock: bool = False, share: bool = False) -> Plan:
    """Load a plan for an action; one that the caller may not know of answers as if there were none."""
    found = plan_store.load_plan(op.connection, op.workspace, name, lock=lock, share=share)
    resource = None if found is None else Resource(found.resource)
    op.authorise(action, resource, kind="plan", name=name[:64], absent=Resource(f"plan/{name[:64]}"))
    if found is None:
        raise not_found("plan", name[:64])
    return found


def require_active(found: Plan, field: str | None = None) -> None:
    """Raise ConflictError for a plan that is retired."""
    if found.state != ACTIVE:
        raise ConflictError(
            f"plan {found.name} is retired", code="plan_retired", field=field, hint="that is final; use another plan"
        )


def bound_of(op: Operation, staleness: Iterable[Any]) -> float:
    """Return how long a node may go on with what a plan or an owner was before, at most.

    `staleness` are the rows of the keyspaces concerned, from `plan_store`.
    """
    bounds = [
        rules.stale_bound(row.stale_after_seconds, row.stale_after_was, row.stale_after_changed_at, op.now)
        for row in staleness
    ]
    return max(bounds, default=BOUND_SECONDS)

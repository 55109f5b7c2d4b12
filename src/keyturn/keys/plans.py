"""Plans: creating and changing them, and retiring them with whatever is on them moved to another.

A plan's name never changes, so that what was put on it can be shown by name; its id is what is stored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.owners import owner_resource
from keyturn.access.paging import page
from keyturn.errors import ConflictError, InputError, duplicate, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import new_id
from keyturn.keys import keyspace_store, limit_rules, plan_store, policy, rules
from keyturn.keys.answers import effect_of, fields_of
from keyturn.keys.assignment import Assignable, authorised_plan, bound_of, require_active
from keyturn.keys.model import ACTIVE, RETIRED, Plan
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.plans import CreatePlan, PlanDetail, PlanEffect, PlanInfo, PlanPage, RetirePlan, UpdatePlan

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail

MOVED_KEYS_MAX: Final = 5000
"""How many keys retiring a plan may move: they all change in one unit of work."""


class PlanService:
    """The operations on plans."""

    def __init__(self, door: Door) -> None:
        """Need the door."""
        self._door = door

    async def create(
        self, credentials: Credentials, request: CreatePlan, *, idempotency: str | None = None
    ) -> PlanDetail:
        """Create a plan; raises ConflictError when the name is taken, by a retired plan too."""
        attempt = Attempt.of(credentials, Action.PLAN_CREATE, idempotency, request)

        def again(op: Operation, name: str) -> PlanDetail:
            found = plan_store.load_plan(op.connection, op.workspace, name)
            if found is None:
                raise not_found("plan", name)
            return _shown(op, found)

        def work(op: Operation) -> PlanDetail:
            op.authorise(Action.PLAN_CREATE, Resource(f"plan/{request.name}"))
            replay = Replay(PlanDetail, lambda made: made.name, lambda name: again(op, name))
            return idempotent(op, attempt, replay, lambda: _create(op, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def show(self, credentials: Credentials, name: str) -> PlanDetail:
        """Show a plan, and how much was put on it."""
        return await self._door.read(credentials, lambda op: _shown(op, authorised_plan(op, Action.PLAN_READ, name)))

    async def list(
        self,
        credentials: Credentials,
        *,
        state: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> PlanPage:
        """List the plans that the caller may read, oldest first."""

        def work(op: Operation) -> PlanPage:
            found, following = page(
                op,
                lambda after, count: plan_store.list_plans(op.connection, op.workspace, state, after, count),
                lambda one: op.allows(Action.PLAN_READ, Resource(one.resource)),
                cursor,
                limit,
                reading=Action.PLAN_READ,
            )
            return PlanPage(items=tuple(PlanInfo(**_fields(one)) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def update(
        self, credentials: Credentials, name: str, request: UpdatePlan, *, if_match: int | None = None
    ) -> PlanEffect:
        """Change a plan for every key on it, at once; raises ConflictError for one that is retired."""

        def work(op: Operation) -> tuple[PlanDetail, float]:
            found = authorised_plan(op, Action.PLAN_UPDATE, name, lock=True)
            require_revision(if_match, found.revision)
            require_active(found)
            changed = _updated(found, request)
            if changed == found:
                op.unchanged()
                op.announce(ChangeKind.PLAN, found.id, awaited=True)
            else:
                changed = _save(op, Action.PLAN_UPDATE, changed, _difference(found, changed))
            return _shown(op, changed), _bound(op, found)

        committed = await self._door.write(credentials, work)
        detail, bound = committed.value
        return PlanEffect(**fields_of(detail), **await effect_of(self._door.database, committed, bound))

    async def retire(
        self, credentials: Credentials, name: str, request: RetirePlan, *, if_match: int | None = None
    ) -> PlanEffect:
        """Retire a plan for good; what is on it goes to `move_to`, in the same unit of work.

        Moving needs `plan.update` on the plan, since it changes what holds for the keys on it, and `plan.read` on the
        other.  Raises ConflictError when something is on the plan and no other is named.
        """

        def work(op: Operation) -> tuple[PlanDetail, float]:
            found = authorised_plan(op, Action.PLAN_RETIRE, name, lock=True)
            require_revision(if_match, found.revision)
            if found.state == RETIRED:
                op.unchanged()
                op.announce(ChangeKind.PLAN, found.id, awaited=True)
                # What was moved off it may be in any keyspace.
                return _shown(op, found), bound_of(op, plan_store.bounds_of_all(op.connection, op.workspace))
            bound = _bound(op, found)
            detail = _emptied(op, found, request)
            retired = _save(op, Action.PLAN_RETIRE, replace(found, state=RETIRED), detail)
            return _shown(op, retired), bound

        committed = await self._door.write(credentials, work)
        detail, bound = committed.value
        return PlanEffect(**fields_of(detail), **await effect_of(self._door.database, committed, bound))


def _create(op: Operation, request: CreatePlan) -> PlanDetail:
    if plan_store.load_plan(op.connection, op.workspace, request.name) is not None:
        raise duplicate("plan", request.name)
    made = Plan(
        id=new_id("pln", op.now),
        workspace=op.workspace,
        name=request.name,
        state=ACTIVE,
        description=request.description,
        scopes=rules.check_scopes(request.scopes),
        limits=limit_rules.check_limits(request.limits),
        quotas=limit_rules.check_quotas(request.quotas),
        restrictions=rules.check_written_restrictions(request.restrictions),
        shadow_restrictions=rules.check_written_restrictions(request.shadow_restrictions, "shadow_restrictions"),
        created_at=op.now,
        created_by=op.caller.principal,
        updated_at=op.now,
        revision=1,
    )
    plan_store.insert_plan(op.connection, made)
    op.record(
        Action.PLAN_CREATE,
        made.resource,
        kind=ChangeKind.PLAN,
        entity=made.id,
        detail={"scopes": list(made.scopes), **policy.policy_detail(made)},
    )
    return _shown(op, made)


def _updated(found: Plan, request: UpdatePlan) -> Plan:
    given: dict[str, Any] = {}
    if request.description is not UNSET:
        given["description"] = request.description
    if request.scopes is not UNSET:
        given["scopes"] = rules.check_scopes(request.scopes)
    return replace(found, **given, **policy.given_policy(request))


def _emptied(op: Operation, found: Plan, request: RetirePlan) -> dict[str, Detail]:
    """Move everything off a plan; raises ConflictError when there is something and nowhere to go."""
    keys, owners, keyspaces = plan_store.count_on(op.connection, op.workspace, found.id)
    if request.move_to is None:
        if keys or owners or keyspaces:
            raise ConflictError(
                f"plan {found.name} is in use: by {keys} keys, {owners} owners and {keyspaces} keyspaces",
                code="plan_in_use",
                hint="name the plan they move to in move_to, or move them first",
            )
        return {}
    if request.move_to == found.name:
        raise InputError("expected another plan than the one that is retired", field="move_to")
    authorised_plan(op, Action.PLAN_UPDATE, found.name)
    to = Assignable(op).named(request.move_to, "move_to")
    if keys > MOVED_KEYS_MAX:
        raise ConflictError(
            f"plan {found.name} has {keys} keys, and {MOVED_KEYS_MAX} can be moved at once",
            code="plan_in_use",
            hint="move keys first, then retire the plan",
        )
    _move(op, found, to)
    return {"move_to": to.name, "keys": keys, "owners": owners, "keyspaces": keyspaces}


def _move(op: Operation, found: Plan, to: Plan) -> None:
    connection, workspace = op.connection, op.workspace
    moved = {"plan": to.name}
    keys = plan_store.keys_on(connection, workspace, found.id)
    plan_store.move_keys(connection, workspace, found.id, to.id, op.now)
    for key_id, keyspace_name in keys:
        name = f"key/{keyspace_name}/{key_id}"
        op.record(Action.KEY_UPDATE, name, kind=ChangeKind.KEY, entity=key_id, detail=dict(moved), awaited=True)
    for owner in plan_store.owners_on(connection, workspace, found.id):
        changed = replace(
            owner, plan=to.id, updated_at=op.now, updated_by=op.caller.principal, revision=owner.revision + 1
        )
        plan_store.update_owner(connection, changed)
        name = owner_resource(owner.name).name
        op.record(Action.OWNER_UPDATE, name, kind=ChangeKind.OWNER, entity=owner.id, detail=dict(moved), awaited=True)
    for name in plan_store.keyspaces_defaulting_to(connection, workspace, found.id):
        keyspace = keyspace_store.load_keyspace(connection, workspace, name, lock=True)
        if keyspace is not None:
            keyspace_store.update_keyspace(
                connection, replace(keyspace, default_plan=to.id, revision=keyspace.revision + 1)
            )
            op.record(
                Action.KEYSPACE_UPDATE,
                keyspace.resource,
                kind=ChangeKind.KEYSPACE,
                entity=keyspace.id,
                detail={"default_plan": to.name},
                awaited=True,
            )


def _save(op: Operation, action: Action, changed: Plan, detail: dict[str, Detail]) -> Plan:
    saved = replace(changed, revision=changed.revision + 1, updated_at=op.now)
    plan_store.update_plan(op.connection, saved)
    op.record(action, saved.resource, kind=ChangeKind.PLAN, entity=saved.id, detail=detail, awaited=True)
    return saved


def _bound(op: Operation, found: Plan) -> float:
    return bound_of(op, plan_store.bounds_of_plan(op.connection, op.workspace, found.id))


def _difference(was: Plan, now: Plan) -> dict[str, Detail]:
    found: dict[str, Detail] = {}
    if was.description != now.description:
        found["description"] = now.description
    if was.scopes != now.scopes:
        found["scopes"] = list(now.scopes)
    return found | policy.policy_difference(was, now)


def _shown(op: Operation, of: Plan) -> PlanDetail:
    keys, owners, keyspaces = plan_store.count_on(op.connection, op.workspace, of.id)
    return PlanDetail(**_fields(of), keys=keys, owners=owners, keyspaces=keyspaces)


def _fields(of: Plan) -> dict[str, Any]:
    return {
        "id": of.id,
        "name": of.name,
        "state": of.state,
        "description": of.description,
        "scopes": of.scopes,
        "limits": of.limits,
        "quotas": of.quotas,
        "restrictions": of.restrictions,
        "shadow_restrictions": of.shadow_restrictions,
        "created_at": rfc3339(of.created_at),
        "created_by": of.created_by,
        "updated_at": rfc3339(of.updated_at),
        "revision": of.revision,
    }

"""Owners: what holds for all keys whose owner has a name.

An owner is a name that keys carry; there is nothing to create.  The first change puts it on record.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from keyturn.access.moments import require_revision, shown
from keyturn.access.owners import owner_resource
from keyturn.access.paging import page
from keyturn.errors import BrokenInvariantError, InputError, not_found
from keyturn.kernel.ids import new_id
from keyturn.keys import limit_rules, plan_store
from keyturn.keys.answers import effect_of, fields_of
from keyturn.keys.assignment import Assignable, bound_of
from keyturn.keys.model import Owner
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT, Line
from keyturn.wire.plans import OwnerDetail, OwnerEffect, OwnerInfo, OwnerPage, UpdateOwner

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail


class OwnerService:
    """The operations on owners."""

    def __init__(self, door: Door) -> None:
        """Need the door."""
        self._door = door

    async def show(self, credentials: Credentials, name: str) -> OwnerDetail:
        """Show what was set for an owner; NotFoundError for one that nothing was set for and that has no key."""
        _check_name(name)

        def work(op: Operation) -> OwnerDetail:
            found = plan_store.load_owner(op.connection, op.workspace, name)
            resource = owner_resource(name)
            known = found is not None or plan_store.has_keys(op.connection, op.workspace, name)
            op.authorise(Action.OWNER_READ, resource if known else None, kind="owner", name=name[:64], absent=resource)
            if not known:
                raise not_found("owner", name[:64])
            return _shown(op, found or _new(op, name))

        return await self._door.read(credentials, work)

    async def list(
        self,
        credentials: Credentials,
        *,
        plan: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> OwnerPage:
        """List the owners that something was set for and that the caller may read, perhaps only those on a plan."""

        def work(op: Operation) -> OwnerPage:
            wanted = None if plan is None else plan_store.load_plan(op.connection, op.workspace, plan)
            plan_id = None if plan is None else "" if wanted is None else wanted.id
            found, following = page(
                op,
                lambda after, count: plan_store.list_owners(op.connection, op.workspace, plan_id, after, count),
                lambda one: op.allows(Action.OWNER_READ, owner_resource(one.name)),
                cursor,
                limit,
                reading=Action.OWNER_READ,
            )
            return OwnerPage(items=tuple(OwnerInfo(**_fields(one)) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def update(
        self, credentials: Credentials, name: str, request: UpdateOwner, *, if_match: int | None = None
    ) -> OwnerEffect:
        """Change what holds for all keys of an owner, at once; a plan that is named needs `plan.read` too."""
        _check_name(name)

        def work(op: Operation) -> tuple[OwnerDetail, float]:
            op.authorise(Action.OWNER_UPDATE, owner_resource(name), kind="owner", name=name[:64])
            # Again when another node was first to put the owner on record.
            changed = _changed(op, name, request, if_match) or _changed(op, name, request, if_match)
            if changed is None:
                raise BrokenInvariantError(f"owner {name!r} is on record and cannot be found")
            bound = bound_of(op, plan_store.bounds_of_owner(op.connection, op.workspace, name))
            return _shown(op, changed), bound

        committed = await self._door.write(credentials, work)
        detail, bound = committed.value
        return OwnerEffect(**fields_of(detail), **await effect_of(self._door.database, committed, bound))


def _check_name(name: str) -> None:
    """Raise InputError for what no key's owner can be named."""
    try:
        msgspec.convert(name, type=Line)
        name.encode()
    except (msgspec.ValidationError, UnicodeEncodeError):
        raise InputError("expected the name of an owner: 1-256 printable characters", field="name") from None


def _new(op: Operation, name: str) -> Owner:
    return Owner(
        id=new_id("own", op.now),
        workspace=op.workspace,
        name=name,
        plan=None,
        plan_name=None,
        limits=(),
        quotas=(),
        created_at=op.now,
        updated_at=op.now,
        updated_by=op.caller.principal,
        revision=0,
    )


def _changed(op: Operation, name: str, request: UpdateOwner, if_match: int | None) -> Owner | None:
    found = plan_store.load_owner(op.connection, op.workspace, name, lock=True) or _new(op, name)
    require_revision(if_match, found.revision)
    changed = _updated(op, found, request)
    if changed == found:
        op.unchanged()
        op.announce(ChangeKind.OWNER, found.id, awaited=True)
        return found
    return _save(op, found, changed)


def _updated(op: Operation, found: Owner, request: UpdateOwner) -> Owner:
    given: dict[str, Any] = {}
    if request.plan is not UNSET:
        plan_id, plan_name = Assignable(op).id_and_name(request.plan)
        given |= {"plan": plan_id, "plan_name": plan_name}
    if request.limits is not UNSET:
        given["limits"] = limit_rules.check_limits(request.limits)
    if request.quotas is not UNSET:
        given["quotas"] = limit_rules.check_quotas(request.quotas)
    return replace(found, **given)


def _save(op: Operation, was: Owner, changed: Owner) -> Owner | None:
    """Store and record the change; None when somebody else put the owner on record meanwhile."""
    saved = replace(changed, revision=was.revision + 1, updated_at=op.now, updated_by=op.caller.principal)
    if was.revision:
        plan_store.update_owner(op.connection, saved)
    elif not plan_store.insert_owner(op.connection, saved):
        return None
    op.record(
        Action.OWNER_UPDATE,
        owner_resource(saved.name).name,
        kind=ChangeKind.OWNER,
        entity=saved.id,
        detail=_difference(was, saved),
        awaited=True,
    )
    return saved


def _difference(was: Owner, now: Owner) -> dict[str, Detail]:
    found: dict[str, Detail] = {}
    if was.plan != now.plan:
        found["plan"] = now.plan_name
    if was.limits != now.limits:
        found["limits"] = limit_rules.limits_detail(now.limits)
    if was.quotas != now.quotas:
        found["quotas"] = limit_rules.quotas_detail(now.quotas)
    return found


def _shown(op: Operation, of: Owner) -> OwnerDetail:
    return OwnerDetail(**_fields(of), keys=plan_store.count_owned(op.connection, op.workspace, of.name))


def _fields(of: Owner) -> dict[str, Any]:
    return {
        "name": of.name,
        "resource": owner_resource(of.name).name,
        "plan": of.plan_name,
        "limits": of.limits,
        "quotas": of.quotas,
        "updated_at": shown(of.updated_at) if of.revision else None,
        "updated_by": of.updated_by if of.revision else None,
        "revision": of.revision,
    }

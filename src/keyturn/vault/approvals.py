"""Four eyes: guards mark paths, and what they hold back needs the approval of a second principal.

An approval adds no right: who asks already may do the action, and who decides holds `approval.decide` on the same
secret.  It is for one requester, one action and one path, and ends by itself.  A guard is revoked in the same way, so
that taking it away is no way around it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.access import rules
from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import shown
from keyturn.access.paging import page
from keyturn.errors import CapError, ConflictError, ForbiddenError, InputError, NotFoundError, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import new_id
from keyturn.storage.transaction import ChangeKind
from keyturn.vault import approval_store as store
from keyturn.vault.guards import (
    GUARDS_MAX,
    PENDING_MAX,
    PENDING_SECONDS,
    Approval,
    Guard,
    check_actions,
    covering,
    pattern_resource,
    valid_seconds,
)
from keyturn.vault.paths import Path, parse_path
from keyturn.wire.actions import Action
from keyturn.wire.approvals import (
    ApprovalInfo,
    ApprovalPage,
    ApprovalState,
    CreateGuard,
    DecideApproval,
    GuardInfo,
    GuardPage,
    RequestApproval,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail


class ApprovalService:
    """Guards, requests for approval, and the question whether something needs one."""

    def __init__(self, door: Door) -> None:
        """Need the door."""
        self._door = door

    def guards_of(self, connection: Connection, workspace: str) -> tuple[Guard, ...]:
        """Return the guards in force; what is kept of them is good until the next change of kind `guard`."""
        return store.guards_of(connection, workspace)

    def require(
        self, op: Operation, action: Action, path: Path, *, guards: Sequence[Guard] | None = None
    ) -> str | None:
        """Return if nothing holds the action back, else raise the refusal `approval_required`.

        Call it once the action is authorised.  Returns the id of the approval it rests on, None where no guard covers
        the path; a use is counted in a unit that writes, and left to `count_uses` in a read.
        `guards` are those of `guards_of`, where the caller keeps them.
        """
        known = store.guards_of(op.connection, op.workspace) if guards is None else guards
        held_back_by = covering(known, action, path) if known else []
        if not held_back_by:
            return None
        since = max(one.created_at for one in held_back_by)
        return _approved(op, action, path.resource, f"{path.text} --action {action}", since)

    def holds_back(self, op: Operation, action: Action, path: Path) -> bool:
        """Tell whether a guard holds the action on the path back, approved or not."""
        return bool(covering(store.guards_of(op.connection, op.workspace), action, path))

    def count_uses(self, connection: Connection, approvals: Sequence[str]) -> None:
        """Count one use of each approval that `require` returned in a read."""
        store.count_uses(connection, approvals)

    async def create_guard(
        self, credentials: Credentials, request: CreateGuard, *, idempotency: str | None = None
    ) -> GuardInfo:
        """Hold actions back on the paths of a pattern, at once."""
        attempt = Attempt.of(credentials, Action.GUARD_CREATE, idempotency, request)

        def work(op: Operation) -> GuardInfo:
            made = Guard(
                id=new_id("grd", op.now),
                workspace=op.workspace,
                pattern=request.pattern,
                resource=pattern_resource(request.pattern),
                actions=check_actions(request.actions),
                description=request.description,
                valid_seconds=request.valid_seconds,
                created_at=op.now,
                created_by=op.caller.principal,
                revoked_at=None,
            )
            op.authorise(Action.GUARD_CREATE, _guard_resource(made.id))
            replay = Replay(GuardInfo, lambda info: info.id, lambda one: _guard_info(_existing_guard(op, one)))
            return idempotent(op, attempt, replay, lambda: _create_guard(op, made))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def show_guard(self, credentials: Credentials, guard_id: str) -> GuardInfo:
        """Show a guard."""
        return await self._door.read(
            credentials, lambda op: _guard_info(_authorised_guard(op, Action.GUARD_READ, guard_id))
        )

    async def list_guards(self, credentials: Credentials, *, cursor: str | None = None, limit: int = 50) -> GuardPage:
        """List the guards that the caller may read, revoked ones too."""

        def work(op: Operation) -> GuardPage:
            found, following = page(
                op,
                lambda after, count: store.guards_after(op.connection, op.workspace, after, count),
                lambda one: op.allows(Action.GUARD_READ, _guard_resource(one.id)),
                cursor,
                limit,
                reading=Action.GUARD_READ,
            )
            return GuardPage(items=tuple(map(_guard_info, found)), next_cursor=following)

        return await self._door.read(credentials, work)

    async def revoke_guard(self, credentials: Credentials, guard_id: str) -> GuardInfo:
        """End a guard; needs the approval of a second principal like what it holds back."""

        def work(op: Operation) -> GuardInfo:
            found = _authorised_guard(op, Action.GUARD_REVOKE, guard_id)
            if found.revoked_at is not None:
                op.unchanged()
                return _guard_info(found)
            approval = _approved(op, Action.GUARD_REVOKE, _guard_resource(found.id), f"--guard {found.id}", 0.0)
            store.revoke_guard(op.connection, found.id, op.now)
            detail: dict[str, Detail] = {"pattern": found.pattern, "approval": approval}
            _record_guard(op, Action.GUARD_REVOKE, found, detail)
            return _guard_info(replace(found, revoked_at=op.now))

        return (await self._door.write(credentials, work)).value

    async def request(self, credentials: Credentials, request: RequestApproval) -> ApprovalInfo:
        """Ask for approval; asking again while it waits returns the same request.

        Raises ConflictError `not_guarded` when nothing holds the action back.
        """

        def work(op: Operation) -> ApprovalInfo:
            resource = _asked_for(op, request)
            waiting = store.pending_of(op.connection, op.workspace, op.caller.consumer, op.now)
            for one in waiting:
                if (one.action, one.resource) == (request.action, resource.name):
                    op.unchanged()
                    return _info(one, op.now)
            if len(waiting) >= PENDING_MAX:
                raise CapError(f"{PENDING_MAX} requests wait for a decision already", hint="have some decided first")
            made = _made(op, request, resource)
            store.insert_approval(op.connection, made)
            _record(op, Action.APPROVAL_REQUEST, made, {"reason": made.reason})
            return _info(made, op.now)

        return (await self._door.write(credentials, work)).value

    async def decide(self, credentials: Credentials, approval_id: str, request: DecideApproval) -> ApprovalInfo:
        """Approve or deny a request of somebody else; an approval that is in force can still be denied."""

        def work(op: Operation) -> ApprovalInfo:
            found = _authorised(op, approval_id)
            standing = found.standing(op.now)
            if standing != "pending" and (request.approve or standing != "approved"):
                raise ConflictError(
                    f"expected a request that is pending, found one that is {standing}",
                    code="not_pending",
                    hint="the requester can ask again",
                )
            decided = replace(
                found,
                state="approved" if request.approve else "denied",
                decided_by=op.caller.principal,
                decided_at=op.now,
                decision_reason=request.reason,
                valid_until=op.now + _validity(op, found) if request.approve else None,
                revision=found.revision + 1,
            )
            store.decide(op.connection, decided)
            detail: dict[str, Detail] = {"decision": decided.state, "reason": request.reason}
            _record(op, Action.APPROVAL_DECIDE, decided, detail)
            return _info(decided, op.now)

        return (await self._door.write(credentials, work)).value

    async def show(self, credentials: Credentials, approval_id: str) -> ApprovalInfo:
        """Show a request: to its requester, to who may decide it, and to who may read it."""

        def work(op: Operation) -> ApprovalInfo:
            found = store.load_approval(op.connection, op.workspace, approval_id)
            if found is None or not _visible(op, found):
                resource = None if found is None else _resource(found)
                op.authorise(Action.APPROVAL_READ, resource, kind="approval", name=approval_id)
                raise not_found("approval", approval_id)
            return _info(found, op.now)

        return await self._door.read(credentials, work)

    async def list(
        self,
        credentials: Credentials,
        *,
        state: ApprovalState | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> ApprovalPage:
        """List the requests that the caller may see, oldest first."""

        def work(op: Operation) -> ApprovalPage:
            found, following = page(
                op,
                lambda after, count: store.approvals_after(op.connection, op.workspace, after, count),
                lambda one: (state is None or one.standing(op.now) == state) and _visible(op, one),
                cursor,
                limit,
            )
            return ApprovalPage(items=tuple(_info(one, op.now) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)


def _approved(op: Operation, action: Action, resource: Resource, asking: str, since: float) -> str:
    """Return an approval that was given since a time: one given before a guard was made says nothing of that guard."""
    found = store.usable(op.connection, op.workspace, op.caller.consumer, action, resource.name, op.now, since)
    if found is None:
        public = ForbiddenError(
            f"{action} on {resource.name} needs the approval of a second principal",
            code="approval_required",
            hint=f"keyturn approvals request {asking} --reason …",
        )
        raise op.refusal(action, resource, public)
    if op.writing is not None:
        store.count_uses(op.connection, [found])
    return found


def _asked_for(op: Operation, request: RequestApproval) -> Resource:
    """Return what approval is asked for, having made sure that the caller may do it and that it is held back."""
    if (request.path is None) == (request.guard is None):
        raise InputError("expected one of `path` and `guard`", field="path")
    if request.guard is not None:
        if request.action != Action.GUARD_REVOKE:
            raise InputError("expected guard.revoke, the one action on a guard that is approved", field="action")
        found = store.load_guard(op.connection, op.workspace, request.guard)
        resource = None if found is None else _guard_resource(found.id)
        _require_may(op, request.action, resource, not_found("guard", request.guard))
        held_back = found is not None and found.revoked_at is None
    else:
        path = parse_path(request.path or "")
        resource = path.resource
        _require_may(op, request.action, resource, not_found("secret", path.text))
        held_back = bool(covering(store.guards_of(op.connection, op.workspace), request.action, path))
    if resource is None or not held_back:
        raise ConflictError(
            f"no guard holds {request.action} back here", code="not_guarded", hint="do it without an approval"
        )
    return resource


def _require_may(op: Operation, action: Action, resource: Resource | None, absent: NotFoundError) -> None:
    """Refuse to take a request of somebody who may not do the action even when it is approved."""
    if resource is None:
        raise absent
    if op.allows(action, resource):
        return
    if rules.may_know(op.caller, action, resource, op.now):
        public = ForbiddenError(
            f"{op.caller.principal} may not {action} on {resource.name}",
            hint="an approval gives no right; ask a workspace administrator for a grant",
        )
        raise op.refusal(Action.APPROVAL_REQUEST, resource, public)
    raise op.refusal(Action.APPROVAL_REQUEST, resource, absent)


def _made(op: Operation, request: RequestApproval, resource: Resource) -> Approval:
    return Approval(
        id=new_id("apr", op.now),
        workspace=op.workspace,
        requester=op.caller.consumer,
        action=request.action,
        resource=resource.name,
        reason=request.reason,
        state="pending",
        created_at=op.now,
        expires_at=op.now + PENDING_SECONDS,
        decided_by=None,
        decided_at=None,
        decision_reason="",
        valid_until=None,
        uses=0,
        revision=1,
    )


def _authorised(op: Operation, approval_id: str) -> Approval:
    """Return a request that the caller may decide: with the right to, and not its own."""
    found = store.load_approval(op.connection, op.workspace, approval_id)
    if found is None:
        raise not_found("approval", approval_id)
    if found.principal == op.caller.principal:
        public = ForbiddenError(
            "nobody decides their own request", code="own_request", hint="ask another principal to decide it"
        )
        raise op.refusal(Action.APPROVAL_DECIDE, _resource(found), public)
    op.authorise(Action.APPROVAL_DECIDE, _resource(found), kind="approval", name=approval_id)
    return found


def _validity(op: Operation, found: Approval) -> int:
    if found.path is None:
        guard = store.load_guard(op.connection, op.workspace, found.resource.partition("/")[2])
        guards = [] if guard is None or guard.revoked_at is not None else [guard]
    else:
        guards = covering(store.guards_of(op.connection, op.workspace), Action(found.action), parse_path(found.path))
    seconds = valid_seconds(guards)
    if seconds is None:
        raise ConflictError(f"no guard holds {found.action} back any more", code="not_guarded", hint="deny it instead")
    return seconds


def _visible(op: Operation, found: Approval) -> bool:
    resource = _resource(found)
    return found.principal == op.caller.principal or any(
        op.allows(action, resource) for action in (Action.APPROVAL_READ, Action.APPROVAL_DECIDE)
    )


def _create_guard(op: Operation, made: Guard) -> GuardInfo:
    if store.count_guards(op.connection, op.workspace) >= GUARDS_MAX:
        raise CapError(f"a workspace has at most {GUARDS_MAX} guards", hint="one pattern can cover many paths")
    store.insert_guard(op.connection, made)
    detail: dict[str, Detail] = {
        "pattern": made.pattern,
        "actions": list(made.actions),
        "valid_seconds": made.valid_seconds,
    }
    _record_guard(op, Action.GUARD_CREATE, made, detail)
    return _guard_info(made)


def _authorised_guard(op: Operation, action: Action, guard_id: str) -> Guard:
    found = store.load_guard(op.connection, op.workspace, guard_id)
    resource = None if found is None else _guard_resource(found.id)
    op.authorise(action, resource, kind="guard", name=guard_id, absent=_guard_resource(guard_id))
    return _existing_guard(op, guard_id) if found is None else found


def _existing_guard(op: Operation, guard_id: str) -> Guard:
    found = store.load_guard(op.connection, op.workspace, guard_id)
    if found is None:
        raise not_found("guard", guard_id)
    return found


def _record_guard(op: Operation, action: Action, of: Guard, detail: dict[str, Detail]) -> None:
    op.record(action, _guard_resource(of.id).name, kind=ChangeKind.GUARD, entity=of.id, detail=detail)


def _record(op: Operation, action: Action, of: Approval, detail: dict[str, Detail]) -> None:
    told: dict[str, Detail] = {"approval": of.id, "action": of.action, "requester": of.requester, **detail}
    op.record(action, of.resource, kind=ChangeKind.GUARD, entity=of.id, detail=told)


def _guard_resource(guard_id: str) -> Resource:
    return Resource(f"guard/{guard_id}")


def _resource(of: Approval) -> Resource:
    return Resource(of.resource, of.environment)


def _guard_info(of: Guard) -> GuardInfo:
    return GuardInfo(
        id=of.id,
        pattern=of.pattern,
        actions=of.actions,
        description=of.description,
        valid_seconds=of.valid_seconds,
        created_at=rfc3339(of.created_at),
        created_by=of.created_by,
        revoked_at=shown(of.revoked_at),
    )


def _info(of: Approval, now: float) -> ApprovalInfo:
    return ApprovalInfo(
        id=of.id,
        requester=of.principal,
        subject=of.subject,
        action=of.action,
        resource=of.resource,
        path=of.path,
        reason=of.reason,
        state=of.standing(now),
        created_at=rfc3339(of.created_at),
        expires_at=rfc3339(of.expires_at),
        decided_by=of.decided_by,
        decided_at=shown(of.decided_at),
        decision_reason=of.decision_reason,
        valid_until=shown(of.valid_until),
        uses=of.uses,
        revision=of.revision,
    )

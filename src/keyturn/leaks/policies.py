"""Policies: what is done by itself about a leaked key, and on whose rights.

Whoever writes a policy has to hold the right that its action takes, on every key that the policy covers, as if it were
granted.  The action is done later by the system, and only if the author still holds that right on the key: a policy
lends nobody's rights to anybody else, and outlives none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import UNSET

from keyturn.access import rules as access_rules
from keyturn.access.caller import Conditions, Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.errors import CapError, ForbiddenError, duplicate, not_found
from keyturn.kernel.ids import new_id
from keyturn.leaks import policy_store
from keyturn.leaks.answers import policy_info
from keyturn.leaks.model import Policy, policy_resource
from keyturn.leaks.rules import RIGHTS, SYSTEM_KEYSPACE, check_scope
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.leaks import POLICIES_MAX, CreateLeakPolicy, LeakPolicyInfo, LeakPolicyPage, UpdateLeakPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.access.caller import Caller, Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.leaks.model import Finding
    from keyturn.wire.leaks import LeakAction, PolicyScope


class LeakPolicyService:
    """The operations on policies."""

    def __init__(self, door: Door) -> None:
        """Need the door."""
        self._door = door

    async def create(
        self, credentials: Credentials, request: CreateLeakPolicy, *, idempotency: str | None = None
    ) -> LeakPolicyInfo:
        """Create a policy; raises ForbiddenError when the caller may not do itself what it says."""
        attempt = Attempt.of(credentials, Action.LEAK_POLICY_CREATE, idempotency, request)
        check_scope(request.applies, request.action)

        def work(op: Operation) -> LeakPolicyInfo:
            op.authorise(Action.LEAK_POLICY_CREATE, Resource(policy_resource(request.name)))
            replay = Replay(LeakPolicyInfo, lambda made: made.id, lambda made: policy_info(_existing(op, made)))
            return idempotent(op, attempt, replay, lambda: policy_info(_create(op, request)))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def show(self, credentials: Credentials, name: str) -> LeakPolicyInfo:
        """Show a policy."""
        return await self._door.read(
            credentials, lambda op: policy_info(_authorised(op, Action.LEAK_POLICY_READ, name))
        )

    async def list(
        self, credentials: Credentials, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> LeakPolicyPage:
        """List policies, oldest first; which one counts is said by their positions."""

        def work(op: Operation) -> LeakPolicyPage:
            found, following = page(
                op,
                lambda after, count: policy_store.list_policies(op.connection, op.workspace, after, count),
                lambda one: op.allows(Action.LEAK_POLICY_READ, Resource(one.resource)),
                cursor,
                limit,
                reading=Action.LEAK_POLICY_READ,
            )
            return LeakPolicyPage(items=tuple(policy_info(one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def update(
        self, credentials: Credentials, name: str, request: UpdateLeakPolicy, *, if_match: int | None = None
    ) -> LeakPolicyInfo:
        """Change a policy, which is the caller's from then on; what is due by it already follows the change."""

        def work(op: Operation) -> LeakPolicyInfo:
            found = _authorised(op, Action.LEAK_POLICY_UPDATE, name)
            require_revision(if_match, found.revision)
            given = {
                name: value
                for name in ("position", "action", "applies", "overlap_seconds", "after_seconds")
                if (value := getattr(request, name)) is not UNSET
            }
            changed = replace(found, **given)
            if changed == found:
                op.unchanged()
                return policy_info(found)
            check_scope(changed.applies, changed.action)
            _require_rights(op, Action.LEAK_POLICY_UPDATE, changed)
            return policy_info(_save(op, Action.LEAK_POLICY_UPDATE, replace(changed, author=op.caller.principal)))

        return (await self._door.write(credentials, work)).value

    async def delete(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> LeakPolicyInfo:
        """Delete a policy; an action that is due by it is left to a person, and its name is free again."""

        def work(op: Operation) -> LeakPolicyInfo:
            found = _authorised(op, Action.LEAK_POLICY_DELETE, name)
            require_revision(if_match, found.revision)
            return policy_info(_save(op, Action.LEAK_POLICY_DELETE, replace(found, deleted_at=op.now)))

        return (await self._door.write(credentials, work)).value


def may_respond(author: Caller, action: LeakAction, found: Finding, now: float) -> bool:
    """Tell whether the author of a policy may do its action to the key of a finding now."""
    if found.keyspace == SYSTEM_KEYSPACE:
        return access_rules.may(author, Action.TOKEN_REVOKE, Resource(f"principal/{found.owner}"), now)
    resource = Resource(f"key/{found.keyspace}/{found.key}", found.environment)
    return access_rules.may(author, RIGHTS[action], resource, now)


def _create(op: Operation, request: CreateLeakPolicy) -> Policy:
    if policy_store.load_policy(op.connection, op.workspace, request.name) is not None:
        raise duplicate("leak policy", request.name)
    if len(policy_store.list_policies(op.connection, op.workspace)) >= POLICIES_MAX:
        raise CapError(f"a workspace has at most {POLICIES_MAX} leak policies", hint="delete one that is not needed")
    made = Policy(
        id=new_id("lkp", op.now),
        workspace=op.workspace,
        name=request.name,
        position=request.position,
        action=request.action,
        applies=request.applies,
        overlap_seconds=request.overlap_seconds,
        after_seconds=request.after_seconds,
        author=op.caller.principal,
        created_at=op.now,
        created_by=op.caller.principal,
        updated_at=op.now,
        deleted_at=0.0,
        revision=1,
    )
    _require_rights(op, Action.LEAK_POLICY_CREATE, made)
    policy_store.insert_policy(op.connection, made)
    _record(op, Action.LEAK_POLICY_CREATE, made)
    return made


def _require_rights(op: Operation, writing: Action, policy: Policy) -> None:
    """Refuse a policy that does what the caller may not do itself on all that it covers."""
    conditions = Conditions(environments=policy.applies.environments)
    for action, resource in _takes(policy.action, policy.applies):
        if not access_rules.uncovered(op.caller, (action,), resource, conditions, op.now):
            continue
        public = ForbiddenError(
            f"{op.caller.principal} may not {action} on {resource}",
            hint="a policy does only what its author may do on every key that it covers; narrow it",
        )
        raise op.refusal(writing, Resource(policy.resource), public)


def _takes(action: LeakAction, scope: PolicyScope) -> Iterator[tuple[Action, str]]:
    right = RIGHTS.get(action)
    if right is None:
        return
    for pattern in scope.keyspaces or ("*",):
        if pattern == SYSTEM_KEYSPACE:
            yield Action.TOKEN_REVOKE, "principal/*"
        else:
            yield right, "key/*" if pattern == "*" else f"key/{pattern}/*"


def _authorised(op: Operation, action: Action, name: str) -> Policy:
    found = policy_store.load_policy(op.connection, op.workspace, name)
    resource = None if found is None else Resource(found.resource)
    op.authorise(action, resource, kind="leak policy", name=name, absent=Resource(policy_resource(name)))
    if found is None:
        raise not_found("leak policy", name)
    return found


def _existing(op: Operation, policy_id: str) -> Policy:
    found = policy_store.load_policy_by_id(op.connection, op.workspace, policy_id)
    if found is None:
        raise not_found("leak policy", policy_id)
    return found


def _save(op: Operation, action: Action, changed: Policy) -> Policy:
    saved = replace(changed, revision=changed.revision + 1, updated_at=op.now)
    policy_store.update_policy(op.connection, saved)
    _record(op, action, saved)
    return saved


def _record(op: Operation, action: Action, policy: Policy) -> None:
    detail: dict[str, Detail] = {
        "position": policy.position,
        "action": str(policy.action),
        "keyspaces": list(policy.applies.keyspaces),
        "overlap_seconds": policy.overlap_seconds,
        "after_seconds": policy.after_seconds,
        "author": policy.author,
    }
    op.record(action, policy.resource, kind=ChangeKind.LEAK_POLICY, entity=policy.id, detail=detail)

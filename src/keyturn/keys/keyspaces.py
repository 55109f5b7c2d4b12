"""Keyspaces: creating them, changing their policy, switching them off, and rotating their peppers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import UNSET

from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.errors import duplicate, not_found
from keyturn.kernel.ids import new_id
from keyturn.keys import keyspace_store, limit_rules, policy, rules, store
from keyturn.keys.answers import effect_of, fields_of, keyspace_detail, keyspace_info
from keyturn.keys.assignment import Assignable
from keyturn.keys.model import ACTIVE, DISABLED, Keyspace
from keyturn.keys.records import PEPPER
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import (
    PAGE_DEFAULT,
    CreateKeyspace,
    KeyspaceDetail,
    KeyspaceEffect,
    KeyspacePage,
    RetirePepper,
    UpdateKeyspace,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.storage.keyring import Keyring


class KeyspaceService:
    """The operations on keyspaces; system keyspaces do not exist for them."""

    def __init__(self, door: Door, keyring: Keyring) -> None:
        """Need the door, and the keyring that holds peppers."""
        self._door = door
        self._keyring = keyring

    async def create(
        self, credentials: Credentials, request: CreateKeyspace, *, idempotency: str | None = None
    ) -> KeyspaceDetail:
        """Create a keyspace with its first pepper; raises ConflictError when the name is taken."""
        attempt = Attempt.of(credentials, Action.KEYSPACE_CREATE, idempotency, request)

        def work(op: Operation) -> KeyspaceDetail:
            op.authorise(Action.KEYSPACE_CREATE, Resource(f"keyspace/{request.name}", request.environment))
            replay = Replay(KeyspaceDetail, lambda made: made.name, lambda name: _shown(op, _found(op, name)))
            return idempotent(op, attempt, replay, lambda: self._create(op, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def show(self, credentials: Credentials, name: str) -> KeyspaceDetail:
        """Show a keyspace with its peppers and the census of each."""

        def work(op: Operation) -> KeyspaceDetail:
            return _shown(op, authorised_keyspace(op, Action.KEYSPACE_READ, name))

        return await self._door.read(credentials, work)

    async def list(
        self, credentials: Credentials, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> KeyspacePage:
        """List the keyspaces that the caller may read, oldest first."""

        def work(op: Operation) -> KeyspacePage:
            found, following = page(
                op,
                lambda after, count: keyspace_store.list_keyspaces(op.connection, op.workspace, after, count),
                lambda one: op.allows(Action.KEYSPACE_READ, resource_of(one)),
                cursor,
                limit,
                reading=Action.KEYSPACE_READ,
            )
            return KeyspacePage(items=tuple(keyspace_info(one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def update(
        self, credentials: Credentials, name: str, request: UpdateKeyspace, *, if_match: int | None = None
    ) -> KeyspaceEffect:
        """Change description, staleness bound, and what holds for all keys of the keyspace.

        Naming a default plan needs `plan.read` on it.  While a lowered `stale_after_seconds` may not be known to every
        node, the value before still counts in `effective_by`.
        """

        def change(found: Keyspace, op: Operation) -> Keyspace:
            changed = found
            if request.description is not UNSET:
                changed = replace(changed, description=request.description)
            changed = _with_policy(op, changed, request)
            if request.stale_after_seconds is not UNSET:
                changed = rules.with_stale_after(changed, float(request.stale_after_seconds), op.now)
            return changed

        return await self._change(credentials, name, Action.KEYSPACE_UPDATE, change, if_match)

    async def disable(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> KeyspaceEffect:
        """Refuse every key of the keyspace until it is enabled again."""
        return await self._change(
            credentials, name, Action.KEYSPACE_DISABLE, lambda found, _: replace(found, state=DISABLED), if_match
        )

    async def enable(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> KeyspaceEffect:
        """Admit the keys of the keyspace again."""
        return await self._change(
            credentials, name, Action.KEYSPACE_ENABLE, lambda found, _: replace(found, state=ACTIVE), if_match
        )

    async def rotate_pepper(
        self, credentials: Credentials, name: str, *, if_match: int | None = None, idempotency: str | None = None
    ) -> KeyspaceEffect:
        """Make a new pepper: new versions are hashed with it, and old ones as they are used."""
        attempt = Attempt.of(credentials, Action.PEPPER_ROTATE, idempotency, name)

        def work(op: Operation) -> tuple[KeyspaceDetail, float]:
            found = authorised_keyspace(op, Action.PEPPER_ROTATE, name, lock=True)
            ran = False

            def rotate() -> KeyspaceDetail:
                nonlocal ran
                ran = True
                require_revision(if_match, found.revision)
                pepper = self._keyring.create(op.connection, op.workspace, PEPPER, found.id, op.now)
                return _shown(op, _save(op, Action.PEPPER_ROTATE, found, {"pepper": pepper.number}))

            replay = Replay(KeyspaceDetail, lambda made: made.id, lambda _: _shown(op, found))
            detail = idempotent(op, attempt, replay, rotate)
            if not ran:
                op.announce(ChangeKind.KEYSPACE, found.id, awaited=True)
            return detail, rules.bound_seconds(found, op.now)

        committed = await self._door.write(credentials, work, attempt=attempt)
        detail, bound = committed.value
        return KeyspaceEffect(**fields_of(detail), **await effect_of(self._door.database, committed, bound))

    async def retire_pepper(
        self, credentials: Credentials, name: str, request: RetirePepper, *, if_match: int | None = None
    ) -> KeyspaceEffect:
        """Retire previous peppers that no version needs any more.

        Raises ConflictError when the one asked for, or every previous one, is still needed.
        """

        def work(op: Operation) -> tuple[KeyspaceDetail, float]:
            found = authorised_keyspace(op, Action.PEPPER_RETIRE, name, lock=True)
            require_revision(if_match, found.revision)
            previous = [
                number
                for number, state, _ in keyspace_store.peppers(op.connection, op.workspace, found.id)
                if state == "previous"
            ]
            census = store.census(op.connection, found.id, op.now)
            retiring = rules.retire_peppers(previous, census, request.number)
            for number in retiring:
                self._keyring.retire(op.connection, op.workspace, PEPPER, found.id, number)
            saved = _save(op, Action.PEPPER_RETIRE, found, {"peppers": list(retiring)})
            return _shown(op, saved), rules.bound_seconds(found, op.now)

        committed = await self._door.write(credentials, work)
        detail, bound = committed.value
        return KeyspaceEffect(**fields_of(detail), **await effect_of(self._door.database, committed, bound))

    def _create(self, op: Operation, request: CreateKeyspace) -> KeyspaceDetail:
        tag = rules.tag_for(request.environment, request.tag)
        restrictions = rules.check_written_restrictions(request.restrictions)
        shadowed = rules.check_written_restrictions(request.shadow_restrictions, "shadow_restrictions")
        limits, quotas = limit_rules.check_limits(request.limits), limit_rules.check_quotas(request.quotas)
        if keyspace_store.load_keyspace(op.connection, op.workspace, request.name) is not None:
            raise duplicate("keyspace", request.name)
        plan_id, plan_name = Assignable(op).id_and_name(request.default_plan, "default_plan")
        made = Keyspace(
            id=new_id("ksp", op.now),
            workspace=op.workspace,
            name=request.name,
            prefix=request.prefix,
            tag=tag,
            environment=request.environment,
            state=ACTIVE,
            system=False,
            stale_after_seconds=float(request.stale_after_seconds),
            stale_after_was=None,
            stale_after_changed_at=None,
            restrictions=restrictions,
            accepts_foreign=False,
            description=request.description,
            created_at=op.now,
            created_by=op.caller.principal,
            revision=1,
            shadow_restrictions=shadowed,
            default_plan=plan_id,
            default_plan_name=plan_name,
            limits=limits,
            quotas=quotas,
        )
        keyspace_store.insert_keyspace(op.connection, made)
        self._keyring.create(op.connection, op.workspace, PEPPER, made.id, op.now)
        op.record(
            Action.KEYSPACE_CREATE,
            made.resource,
            kind=ChangeKind.KEYSPACE,
            entity=made.id,
            detail={
                "prefix": made.prefix,
                "tag": made.tag,
                "environment": made.environment,
                **policy.policy_detail(made),
                **({} if plan_name is None else {"default_plan": plan_name}),
            },
        )
        return _shown(op, made)

    async def _change(
        self,
        credentials: Credentials,
        name: str,
        action: Action,
        change: Callable[[Keyspace, Operation], Keyspace],
        if_match: int | None,
    ) -> KeyspaceEffect:
        def work(op: Operation) -> tuple[KeyspaceDetail, float]:
            found = authorised_keyspace(op, action, name, lock=True)
            require_revision(if_match, found.revision)
            changed = change(found, op)
            bound = max(rules.bound_seconds(found, op.now), rules.bound_seconds(changed, op.now))
            if changed == found:
                op.unchanged()
                op.announce(ChangeKind.KEYSPACE, found.id, awaited=True)
                return _shown(op, found), bound
            return _shown(op, _save(op, action, changed, _difference(found, changed))), bound

        committed = await self._door.write(credentials, work)
        detail, bound = committed.value
        return KeyspaceEffect(**fields_of(detail), **await effect_of(self._door.database, committed, bound))


def resource_of(of: Keyspace) -> Resource:
    """Return the keyspace as the resource of a decision."""
    return Resource(of.resource, of.environment)


def authorised_keyspace(op: Operation, action: Action, name: str, *, lock: bool = False) -> Keyspace:
    """Load a keyspace for an action; one that the caller may not know of answers as if there were none."""
    found = keyspace_store.load_keyspace(op.connection, op.workspace, name, lock=lock)
    resource = None if found is None else resource_of(found)
    op.authorise(action, resource, kind="keyspace", name=name, absent=Resource(f"keyspace/{name}"))
    if found is None:
        raise not_found("keyspace", name)
    return found


def _found(op: Operation, name: str) -> Keyspace:
    found = keyspace_store.load_keyspace(op.connection, op.workspace, name)
    if found is None:
        raise not_found("keyspace", name)
    return found


def _shown(op: Operation, of: Keyspace) -> KeyspaceDetail:
    peppers = keyspace_store.peppers(op.connection, op.workspace, of.id)
    return keyspace_detail(of, peppers, store.census(op.connection, of.id, op.now))


def _with_policy(op: Operation, found: Keyspace, request: UpdateKeyspace) -> Keyspace:
    given = policy.given_policy(request)
    if request.default_plan is not UNSET:
        plan_id, plan_name = Assignable(op).id_and_name(request.default_plan, "default_plan")
        given |= {"default_plan": plan_id, "default_plan_name": plan_name}
    return replace(found, **given)


def _save(op: Operation, action: Action, changed: Keyspace, detail: dict[str, Detail]) -> Keyspace:
    saved = replace(changed, revision=changed.revision + 1)
    keyspace_store.update_keyspace(op.connection, saved)
    op.record(action, saved.resource, kind=ChangeKind.KEYSPACE, entity=saved.id, detail=detail, awaited=True)
    return saved


def _difference(was: Keyspace, now: Keyspace) -> dict[str, Detail]:
    found: dict[str, Detail] = {}
    if was.state != now.state:
        found["state"] = now.state
    if was.description != now.description:
        found["description"] = now.description
    if was.stale_after_seconds != now.stale_after_seconds:
        found["stale_after_seconds"] = int(now.stale_after_seconds)
    if was.default_plan != now.default_plan:
        found["default_plan"] = now.default_plan_name
    return found | policy.policy_difference(was, now)

"""Intakes: who may report leaks from outside, and with which keys they sign."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import UNSET

from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.errors import CapError, InputError, duplicate, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import new_id
from keyturn.leaks import intake_store as store
from keyturn.leaks import partner
from keyturn.leaks.intake_store import Intake, IntakeConfig
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.leak_intakes import (
    GITHUB_KEYS_URL,
    INTAKES_MAX,
    CreateLeakIntake,
    IntakeState,
    LeakIntakeInfo,
    LeakIntakePage,
    UpdateLeakIntake,
)

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.logins.ports import Fetcher

REPORTS_PATH = "/api/v1/leak-reports"
"""Below it, an intake's address is `/<workspace>/<intake>`."""


class IntakeService:
    """The operations on intakes."""

    def __init__(self, door: Door, fetcher: Fetcher) -> None:
        """Need the door, and what looks whether the address of a list of keys may be asked."""
        self._door = door
        self._fetcher = fetcher

    async def create(
        self, credentials: Credentials, request: CreateLeakIntake, *, idempotency: str | None = None
    ) -> LeakIntakeInfo:
        """Create an intake; raises ConflictError when the name is taken, InputError for keys that verify nothing."""
        attempt = Attempt.of(credentials, Action.LEAK_INTAKE_CREATE, idempotency, request)

        def work(op: Operation) -> LeakIntakeInfo:
            op.authorise(Action.LEAK_INTAKE_CREATE, Resource(f"leak_intake/{request.name}"))
            replay = Replay(LeakIntakeInfo, lambda made: made.id, lambda made: _again(op, made))
            return idempotent(op, attempt, replay, lambda: self._create(op, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def show(self, credentials: Credentials, name: str) -> LeakIntakeInfo:
        """Show an intake."""
        return await self._door.read(credentials, lambda op: _info(op, _authorised(op, Action.LEAK_INTAKE_READ, name)))

    async def list(
        self, credentials: Credentials, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> LeakIntakePage:
        """List the intakes that the caller may read, oldest first."""

        def work(op: Operation) -> LeakIntakePage:
            found, following = page(
                op,
                lambda after, count: store.list_intakes(op.connection, op.workspace, after, count),
                lambda one: op.allows(Action.LEAK_INTAKE_READ, Resource(one.resource)),
                cursor,
                limit,
                reading=Action.LEAK_INTAKE_READ,
            )
            return LeakIntakePage(items=tuple(_info(op, one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def update(
        self, credentials: Credentials, name: str, request: UpdateLeakIntake, *, if_match: int | None = None
    ) -> LeakIntakeInfo:
        """Change the keys of an intake or its description, or switch it off and on."""

        def work(op: Operation) -> LeakIntakeInfo:
            found = _authorised(op, Action.LEAK_INTAKE_UPDATE, name)
            require_revision(if_match, found.revision)
            given = {
                field: value
                for field in ("keys", "keys_url", "description")
                if (value := getattr(request, field)) is not UNSET
            }
            state = found.state if request.state is UNSET else request.state
            config = IntakeConfig(
                keys=given.get("keys", found.config.keys),
                keys_url=given.get("keys_url", found.config.keys_url),
                description=given.get("description", found.config.description),
            )
            changed = replace(found, state=state, config=self._checked(config))
            if changed == found:
                op.unchanged()
                return _info(op, found)
            return _info(op, _save(op, Action.LEAK_INTAKE_UPDATE, changed))

        return (await self._door.write(credentials, work)).value

    async def delete(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> LeakIntakeInfo:
        """End an intake for good; its name is free again."""

        def work(op: Operation) -> LeakIntakeInfo:
            found = _authorised(op, Action.LEAK_INTAKE_DELETE, name)
            require_revision(if_match, found.revision)
            changed = replace(found, state=IntakeState.DISABLED, deleted_at=op.now)
            return _info(op, _save(op, Action.LEAK_INTAKE_DELETE, changed))

        return (await self._door.write(credentials, work)).value

    def _create(self, op: Operation, request: CreateLeakIntake) -> LeakIntakeInfo:
        config = IntakeConfig(keys=request.keys, keys_url=request.keys_url, description=request.description)
        config = self._checked(config)
        if store.load_intake(op.connection, op.workspace, request.name) is not None:
            raise duplicate("leak intake", request.name)
        if store.count_intakes(op.connection, op.workspace) >= INTAKES_MAX:
            raise CapError(f"a workspace has at most {INTAKES_MAX} intakes", hint="delete one that is not needed")
        made = Intake(
            id=new_id("lki", op.now),
            workspace=op.workspace,
            name=request.name,
            kind=request.kind,
            state=IntakeState.ACTIVE,
            config=config,
            created_at=op.now,
            created_by=op.caller.principal,
            updated_at=op.now,
            deleted_at=0.0,
            revision=1,
        )
        store.insert_intake(op.connection, made)
        _record(op, Action.LEAK_INTAKE_CREATE, made)
        return _info(op, made)

    def _checked(self, config: IntakeConfig) -> IntakeConfig:
        """Return what is stored; keys that verify nothing, or an address that is never asked, are refused."""
        if config.keys:
            partner.check_keys(
                tuple(partner.PublicKey(key_identifier=one.key_identifier, key=one.key) for one in config.keys)
            )
            if len({one.key_identifier for one in config.keys}) < len(config.keys):
                raise InputError("two keys have the same identifier", field="keys")
            if not config.keys_url:
                return config
        url = config.keys_url or GITHUB_KEYS_URL
        self._fetcher.check(url)
        return IntakeConfig(keys=config.keys, keys_url=url, description=config.description)


def _authorised(op: Operation, action: Action, name: str) -> Intake:
    found = store.load_intake(op.connection, op.workspace, name)
    resource = None if found is None else Resource(found.resource)
    op.authorise(action, resource, kind="leak_intake", name=name, absent=Resource(f"leak_intake/{name}"))
    if found is None:
        raise not_found("leak_intake", name)
    return found


def _save(op: Operation, action: Action, changed: Intake) -> Intake:
    saved = replace(changed, updated_at=op.now, revision=changed.revision + 1)
    store.update_intake(op.connection, saved)
    _record(op, action, saved)
    return saved


def _record(op: Operation, action: Action, one: Intake) -> None:
    detail: dict[str, Detail] = {
        "state": one.state.value,
        "keys": [key.key_identifier for key in one.config.keys],
        "keys_url": one.config.keys_url,
    }
    op.record(action, one.resource, kind=ChangeKind.LEAK_INTAKE, entity=one.id, detail=detail)


def _again(op: Operation, intake_id: str) -> LeakIntakeInfo:
    found = store.load_by_id(op.connection, intake_id)
    if found is None:
        raise not_found("leak_intake", intake_id)
    return _info(op, found)


def _info(op: Operation, one: Intake) -> LeakIntakeInfo:
    return LeakIntakeInfo(
        id=one.id,
        name=one.name,
        kind=one.kind,
        state=one.state,
        path=f"{REPORTS_PATH}/{store.workspace_name(op.connection, one.workspace)}/{one.name}",
        keys=one.config.keys,
        keys_url=one.config.keys_url,
        description=one.config.description,
        created_at=rfc3339(one.created_at),
        created_by=one.created_by,
        updated_at=rfc3339(one.updated_at),
        revision=one.revision,
    )

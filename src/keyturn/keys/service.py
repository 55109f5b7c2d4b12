"""The operations on issued keys: each is one unit of work behind the door, and changes tell their effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.kernel.ids import new_id
from keyturn.keys import imports, issuing, keyspace_store, lifecycle, plan_store, rules, store
from keyturn.keys.answers import effect_of, fields_of, key_detail, key_info
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import (
    PAGE_DEFAULT,
    ImportedKeys,
    ImportKeys,
    IssuedKey,
    IssuedKeys,
    IssueKey,
    IssueKeys,
    KeyDetail,
    KeyEffect,
    KeyFilter,
    KeyPage,
    RetireKey,
    RevokeKey,
    RotatedKey,
    RotateKey,
    UpdateKey,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.keys.model import Key
    from keyturn.keys.ports import LastUsedReader
    from keyturn.storage.keyring import Keyring
    from keyturn.wire.usage import VersionUse


class KeyService:
    """Issue, show, change and end keys; management tokens do not exist for it."""

    def __init__(self, door: Door, keyring: Keyring, usage: LastUsedReader) -> None:
        """Need the door, the keyring that holds peppers, and who knows what was used when."""
        self._door = door
        self._keyring = keyring
        self._usage = usage

    # --- new keys ------------------------------------------------------------------------------------------------

    async def issue(self, credentials: Credentials, request: IssueKey, *, idempotency: str | None = None) -> IssuedKey:
        """Issue a key; its secret is in the answer and nowhere else.

        Raises NotFoundError for a keyspace that is not visible, ConflictError for one that is disabled, CapError.
        """
        attempt = Attempt.of(credentials, Action.KEY_ISSUE, idempotency, request)

        def run(op: Operation, targets: issuing.Keyspaces, key_id: str) -> IssuedKey:
            return issuing.issue_all(op, self._keyring, targets, [request], [key_id])[0]

        def work(op: Operation) -> IssuedKey:
            key_id = new_id("key", op.now)
            targets = issuing.Keyspaces(op)
            targets.authorise(Action.KEY_ISSUE, request.keyspace, key_id)
            replay = Replay(IssuedKey, issuing.entity_of, lambda entity: issuing.issued_again(op, entity))
            return idempotent(
                op, attempt, replay, lambda: issuing.issue_all(op, self._keyring, targets, [request], [key_id])[0]
            )

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def issue_bulk(
        self, credentials: Credentials, request: IssueKeys, *, idempotency: str | None = None
    ) -> IssuedKeys:
        """Issue up to 1000 keys, all of them or none."""
        attempt = Attempt.of(credentials, Action.KEY_ISSUE, idempotency, request)

        def again(op: Operation, entities: str) -> IssuedKeys:
            return IssuedKeys(items=tuple(issuing.issued_again(op, entity) for entity in entities.split(",")))

        def run(op: Operation, targets: issuing.Keyspaces, ids: list[str]) -> IssuedKeys:
            return IssuedKeys(items=tuple(issuing.issue_all(op, self._keyring, targets, request.keys, ids)))

        def work(op: Operation) -> IssuedKeys:
            ids = [new_id("key", op.now) for _ in request.keys]
            targets = issuing.Keyspaces(op)
            for one, key_id in zip(request.keys, ids, strict=True):
                targets.authorise(Action.KEY_ISSUE, one.keyspace, key_id)
            replay = Replay(
                IssuedKeys,
                lambda issued: ",".join(issuing.entity_of(one) for one in issued.items),
                lambda entities: again(op, entities),
            )
            return idempotent(op, attempt, replay, lambda: run(op, targets, ids))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def import_keys(
        self, credentials: Credentials, request: ImportKeys, *, idempotency: str | None = None
    ) -> ImportedKeys:
        """Take over up to 1000 keys that somebody else issued, all of them or none; see `imports`.

        Raises ConflictError for a key that the keyspace has already.
        """
        attempt = Attempt.of(credentials, Action.KEY_IMPORT, idempotency, request)

        def again(op: Operation, ids: str) -> ImportedKeys:
            found = (store.load_key(op.connection, op.workspace, key_id) for key_id in ids.split(","))
            return ImportedKeys(items=tuple(key_info(key, None) for key in found if key is not None))

        def run(op: Operation, targets: issuing.Keyspaces, ids: list[str]) -> ImportedKeys:
            keys = imports.import_all(op, self._keyring, targets, request, ids)
            return ImportedKeys(items=tuple(key_info(key, None) for key in keys))

        def work(op: Operation) -> ImportedKeys:
            ids = [new_id("key", op.now) for _ in request.keys]
            targets = issuing.Keyspaces(op, lock=True)
            for key_id in ids:
                targets.authorise(Action.KEY_IMPORT, request.keyspace, key_id)
            replay = Replay(
                ImportedKeys, lambda done: ",".join(one.id for one in done.items), lambda entity: again(op, entity)
            )
            return idempotent(op, attempt, replay, lambda: run(op, targets, ids))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    # --- reading -------------------------------------------------------------------------------------------------

    async def show(self, credentials: Credentials, key_id: str) -> KeyDetail:
        """Show a key with its versions and who uses them; never a secret."""
        return await self._door.read(
            credentials, lambda op: self._shown(op, lifecycle.authorised_key(op, Action.KEY_READ, key_id))
        )

    async def list(
        self,
        credentials: Credentials,
        wanted: KeyFilter | None = None,
        *,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> KeyPage:
        """List the keys that meet every filter and that the caller may read, oldest first."""
        wanted = wanted or KeyFilter()
        rules.check_filter(wanted)

        def work(op: Operation) -> KeyPage:
            keyspace_id = _keyspace_id(op, wanted.keyspace)
            plan_id = _plan_id(op, wanted.plan)
            conditions = store.conditions_of(
                keyspace_id=keyspace_id,
                owner=wanted.owner,
                state=wanted.state,
                environment=wanted.environment,
                plan=plan_id,
                tag=wanted.tag,
                name=wanted.name,
                expiring_before=wanted.expiring_before,
                unused_since=wanted.unused_since,
                within=op.reach(Action.KEY_READ, "key"),
            )
            found, following = page(
                op,
                lambda after, count: store.list_keys(op.connection, op.workspace, conditions, after, count),
                lambda key: op.allows(Action.KEY_READ, lifecycle.resource_of(key)),
                cursor,
                limit,
                reading=Action.KEY_READ,
            )
            used = store.last_used_at(op.connection, [key.id for key in found])
            return KeyPage(items=tuple(key_info(key, used.get(key.id)) for key in found), next_cursor=following)

        return await self._door.read(credentials, work)

    # --- changes -------------------------------------------------------------------------------------------------

    async def update(
        self, credentials: Credentials, key_id: str, request: UpdateKey, *, if_match: int | None = None
    ) -> KeyEffect:
        """Change what a key may do and what is known of it; ConflictError once it is revoked."""

        def change(op: Operation, key: Key) -> Key:
            return lifecycle.update(op, key, request)

        return await self._change(credentials, Action.KEY_UPDATE, key_id, change, if_match)

    async def rotate(
        self,
        credentials: Credentials,
        key_id: str,
        request: RotateKey,
        *,
        if_match: int | None = None,
        idempotency: str | None = None,
    ) -> RotatedKey:
        """Give a key a new secret; the old one stays valid for `overlap_seconds`, `0` cuts it at once."""
        attempt = Attempt.of(credentials, Action.KEY_ROTATE, idempotency, key_id, request)

        def work(op: Operation) -> tuple[IssuedKey, float]:
            key = lifecycle.authorised_key(op, Action.KEY_ROTATE, key_id, lock=True)
            ran = False

            def run() -> IssuedKey:
                nonlocal ran
                ran = True
                require_revision(if_match, key.revision)
                saved, new = lifecycle.rotate(op, self._keyring, key, request.overlap_seconds)
                shown = fields_of(self._shown(op, saved))
                return IssuedKey(**shown, version_id=new.version.id, key=new.secret.reveal())

            replay = Replay(IssuedKey, issuing.entity_of, lambda entity: issuing.issued_again(op, entity))
            issued = idempotent(op, attempt, replay, run)
            if not ran:
                op.announce(ChangeKind.KEY, key.id, awaited=True)
            return issued, _bound(op, key)

        committed = await self._door.write(credentials, work, attempt=attempt)
        issued, bound = committed.value
        return RotatedKey(**fields_of(issued), **await effect_of(self._door.database, committed, bound))

    async def retire(
        self, credentials: Credentials, key_id: str, request: RetireKey, *, if_match: int | None = None
    ) -> KeyEffect:
        """End the overlap early; ConflictError names the last caller of an old secret that is not silent yet."""

        def change(op: Operation, key: Key) -> Key:
            return lifecycle.retire(op, key, request, self._uses(op, key))

        return await self._change(credentials, Action.KEY_RETIRE, key_id, change, if_match)

    async def disable(self, credentials: Credentials, key_id: str, *, if_match: int | None = None) -> KeyEffect:
        """Refuse every secret of a key until it is enabled again."""
        return await self._change(credentials, Action.KEY_DISABLE, key_id, lifecycle.disable, if_match)

    async def enable(self, credentials: Credentials, key_id: str, *, if_match: int | None = None) -> KeyEffect:
        """Admit the valid secrets of a disabled key again."""
        return await self._change(credentials, Action.KEY_ENABLE, key_id, lifecycle.enable, if_match)

    async def revoke(
        self, credentials: Credentials, key_id: str, request: RevokeKey, *, if_match: int | None = None
    ) -> KeyEffect:
        """Revoke a key for good; `key_compromise` marks its secrets compromised."""

        def change(op: Operation, key: Key) -> Key:
            return lifecycle.revoke(op, key, request)

        return await self._change(credentials, Action.KEY_REVOKE, key_id, change, if_match)

    async def _change(
        self,
        credentials: Credentials,
        action: Action,
        key_id: str,
        change: Callable[[Operation, Key], Key],
        if_match: int | None,
    ) -> KeyEffect:
        def work(op: Operation) -> tuple[KeyDetail, float]:
            key = lifecycle.authorised_key(op, action, key_id, lock=True)
            require_revision(if_match, key.revision)
            return self._shown(op, change(op, key)), _bound(op, key)

        committed = await self._door.write(credentials, work)
        detail, bound = committed.value
        return KeyEffect(**fields_of(detail), **await effect_of(self._door.database, committed, bound))

    def _shown(self, op: Operation, key: Key) -> KeyDetail:
        versions = store.load_versions(op.connection, [key.id])[key.id]
        return key_detail(key, versions, self._usage.last_used(op.connection, [version.id for version in versions]))

    def _uses(self, op: Operation, key: Key) -> Mapping[str, VersionUse]:
        versions = store.load_versions(op.connection, [key.id])[key.id]
        return self._usage.last_used(op.connection, [version.id for version in versions])


def _bound(op: Operation, key: Key) -> float:
    return rules.bound_seconds(lifecycle.keyspace_of(op, key), op.now)


def _keyspace_id(op: Operation, name: str | None) -> str | None:
    """Return the id of a keyspace to filter by; one that does not exist matches nothing."""
    if name is None:
        return None
    found = keyspace_store.load_keyspace(op.connection, op.workspace, name)
    return "" if found is None else found.id


def _plan_id(op: Operation, name: str | None) -> str | None:
    """Return the id of a plan to filter by; one that does not exist matches nothing."""
    if name is None:
        return None
    found = plan_store.load_plan(op.connection, op.workspace, name)
    return "" if found is None else found.id

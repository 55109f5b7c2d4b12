"""The life of a key after it was issued: update, rotate, retire, disable, enable, revoke, inside a unit of work.

Every change is recorded as awaited, so that the answer can say when all nodes act on it.  A request for what already
holds changes nothing, leaves no leaf, and is announced again: whoever repeats it learns how far it has spread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from keyturn.access.caller import Resource
from keyturn.access.caps import check_caps
from keyturn.access.moments import epoch_of
from keyturn.errors import BrokenInvariantError, ConflictError, not_found
from keyturn.kernel.ids import is_id
from keyturn.keys import issuing, keyspace_store, policy, rules, store
from keyturn.keys.assignment import Assignable
from keyturn.keys.model import ACTIVE, DISABLED, REVOKED, Key, Keyspace
from keyturn.keys.records import PEPPER
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn.access.door import Operation
    from keyturn.audit.leaf import Detail
    from keyturn.keys.issuing import NewVersion
    from keyturn.keys.model import Version, VersionChange
    from keyturn.storage.keyring import Keyring
    from keyturn.wire.keys import RetireKey, RevokeKey, UpdateKey
    from keyturn.wire.usage import VersionUse


def resource_of(key: Key) -> Resource:
    """Return the key as the resource of a decision."""
    return Resource(key.resource, key.environment)


def authorised_key(op: Operation, action: Action, key_id: str, *, lock: bool = False) -> Key:
    """Load a key for an action; one that the caller may not know of answers as if there were none."""
    found = store.load_key(op.connection, op.workspace, key_id, lock=lock) if is_id("key", key_id) else None
    shown = key_id[:64]
    resource = None if found is None else resource_of(found)
    # No keyspace is named so: whoever may not act on keys of every keyspace cannot tell where this one would be.
    op.authorise(action, resource, kind="key", name=shown, absent=Resource(f"key/NONE/{shown}"))
    if found is None:
        raise not_found("key", shown)
    return found


def keyspace_of(op: Operation, key: Key, *, share: bool = False) -> Keyspace:
    """Return the keyspace of a key."""
    found = keyspace_store.load_keyspace(op.connection, op.workspace, key.keyspace_name, share=share)
    if found is None:
        message = f"key {key.id} has no keyspace"
        raise BrokenInvariantError(message)
    return found


def update(op: Operation, key: Key, request: UpdateKey) -> Key:
    """Change what a key may do and what is known of it; a revoked key keeps what it had."""
    if key.state == REVOKED:
        rules.require_key_transition(key, key.state)
    changed = _updated(op, key, request)
    if changed == key:
        unchanged(op, key)
        return key
    if changed.owner != key.owner:
        check_caps(op.connection, op.workspace, changed.owner, 1)
    saved = save(op, Action.KEY_UPDATE, changed, _difference(key, changed))
    if saved.tags != key.tags:
        store.replace_tags(op.connection, saved)
    return saved


def rotate(op: Operation, keyring: Keyring, key: Key, overlap_seconds: int) -> tuple[Key, NewVersion]:
    """Give the key a new current version; the one before stays valid for the overlap, or ends now."""
    keyspace = keyspace_of(op, key, share=True)
    rules.require_usable(keyspace)
    versions = store.load_versions(op.connection, [key.id])[key.id]
    changes = rules.rotate(key, versions, overlap_seconds, op.now)
    pepper = keyring.current(op.connection, op.workspace, PEPPER, keyspace.id)
    number = max((version.number for version in versions), default=0) + 1
    new = issuing.new_version(op, keyspace, pepper, key.id, number)
    store.change_versions(op.connection, key.id, changes)
    store.insert_versions(op.connection, [new.version])
    detail: dict[str, Detail] = {
        "version": new.version.id,
        "overlap_seconds": overlap_seconds,
        "before": _states(changes),
    }
    return save(op, Action.KEY_ROTATE, key, detail), new


def retire(op: Operation, key: Key, request: RetireKey, uses: Mapping[str, VersionUse]) -> Key:
    """End the overlap of the key's old versions now, if they have been silent for long enough."""
    versions = store.load_versions(op.connection, [key.id])[key.id]
    changes = rules.retire(versions, uses, request.silent_seconds, op.now, force=request.force)
    if not changes:
        unchanged(op, key)
        return key
    store.change_versions(op.connection, key.id, changes)
    detail: dict[str, Detail] = {
        "before": _states(changes),
        "silent_seconds": request.silent_seconds,
        "force": request.force,
    }
    return save(op, Action.KEY_RETIRE, key, detail)


def disable(op: Operation, key: Key) -> Key:
    """Refuse every secret of the key until it is enabled again."""
    if key.state == DISABLED:
        unchanged(op, key)
        return key
    rules.require_key_transition(key, DISABLED)
    return save(op, Action.KEY_DISABLE, replace(key, state=DISABLED, disabled_at=op.now), {})


def enable(op: Operation, key: Key) -> Key:
    """Admit the valid secrets of the key again; raises ConflictError for a decoy, which nobody is to use."""
    if key.state == ACTIVE:
        unchanged(op, key)
        return key
    if store.is_decoy(op.connection, key):
        raise ConflictError(
            f"key {key.id} is a decoy, which has been planted where others may find it",
            code="is_decoy",
            hint="retire the decoy first, and better issue another key",
        )
    rules.require_key_transition(key, ACTIVE)
    return save(op, Action.KEY_ENABLE, replace(key, state=ACTIVE, disabled_at=None), {})


def revoke(op: Operation, key: Key, request: RevokeKey) -> Key:
    """Revoke the key for good."""
    versions: Sequence[Version] = store.load_versions(op.connection, [key.id])[key.id]
    changes = rules.revoke(key, versions, request.reason, op.now)
    if changes is None:
        unchanged(op, key)
        return key
    store.change_versions(op.connection, key.id, changes)
    revoked_at = op.now if key.revoked_at is None else key.revoked_at
    changed = replace(key, state=REVOKED, revoked_at=revoked_at, revoke_reason=str(request.reason))
    return save(op, Action.KEY_REVOKE, changed, {"reason": str(request.reason), "versions": _states(changes)})


def unchanged(op: Operation, key: Key) -> None:
    """Leave no leaf, but announce the key again."""
    op.unchanged()
    op.announce(ChangeKind.KEY, key.id, awaited=True)


def save(op: Operation, action: Action, changed: Key, detail: dict[str, Detail]) -> Key:
    """Store a key under its next revision, on record and awaited."""
    saved = replace(changed, revision=changed.revision + 1, updated_at=op.now)
    store.update_key(op.connection, saved)
    op.record(action, saved.resource, kind=ChangeKind.KEY, entity=saved.id, detail=detail, awaited=True)
    return saved


def _updated(op: Operation, key: Key, request: UpdateKey) -> Key:
    given: dict[str, Any] = {
        name: getattr(request, name) for name in ("name", "owner", "purpose") if getattr(request, name) is not UNSET
    }
    if request.scopes is not UNSET:
        given["scopes"] = rules.check_scopes(request.scopes)
    given |= policy.given_policy(request)
    if request.plan is not UNSET:
        plan_id, plan_name = Assignable(op).id_and_name(request.plan)
        given |= {"plan": plan_id, "plan_name": plan_name}
    if request.metadata is not UNSET:
        given["metadata"] = dict(request.metadata)
    if request.tags is not UNSET:
        given["tags"] = tuple(dict.fromkeys(request.tags))
    if request.not_before is not UNSET:
        given["not_before"] = epoch_of(request.not_before, "not_before")
    if request.expires_at is not UNSET:
        given["expires_at"] = epoch_of(request.expires_at, "expires_at")
    changed = replace(key, **given)
    rules.check_window(changed.not_before, changed.expires_at)
    return changed


def _difference(was: Key, now: Key) -> dict[str, Detail]:
    """Say what changed, as an audit leaf shows it; of metadata only the names, which may be told."""
    found: dict[str, Detail] = {
        name: getattr(now, name) for name in ("name", "owner", "purpose") if getattr(was, name) != getattr(now, name)
    }
    if was.scopes != now.scopes:
        found["scopes"] = list(now.scopes)
    if was.tags != now.tags:
        found["tags"] = list(now.tags)
    if was.plan != now.plan:
        found["plan"] = now.plan_name
    found |= policy.policy_difference(was, now)
    if was.metadata != now.metadata:
        found["metadata"] = [*sorted(now.metadata)]
    for name in ("not_before", "expires_at"):
        if getattr(was, name) != getattr(now, name):
            found[name] = rules.moment_detail(getattr(now, name))
    return found


def _states(changes: Sequence[VersionChange]) -> dict[str, Detail]:
    return {change.id: change.state for change in changes}

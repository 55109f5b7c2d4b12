"""What an audit export says was taken away after a backup, and taking it away again.

leaf after the backup's number                     what becomes of it
key.revoke, token.revoke, grant.revoke             done again
key.disable, keyspace.disable, principal.disable   done again, unless enabled again later
key.rotate, key.retire                             the ends of the old versions are done again; the new secret is lost
held secrets, wraps, logins and leases             see `held_reapplication`
key.update, plan.update, secret.put, ...           named, for a person to look at
everything else (what was created, enabled)        lost with the time between; counted
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.access import store as access_store
from keyturn.audit import export_lines
from keyturn.audit.leaf import SYSTEM, Leaf
from keyturn.bootstrap.held_reapplication import REAPPLIED
from keyturn.errors import ConflictError
from keyturn.kernel.clock import parse_rfc3339
from keyturn.keys import keyspace_store, rules
from keyturn.keys import store as key_store
from keyturn.keys.model import ACTIVE, DISABLED, LIVE_VERSION_STATES, PREVIOUS, REVOKED, VersionChange
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.wire.actions import Action
from keyturn.wire.keys import RevokeReason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from keyturn.keys.model import Key

_FINAL: Final = frozenset({Action.KEY_REVOKE, Action.TOKEN_REVOKE, Action.GRANT_REVOKE})
_REVERSIBLE: Final = {
    Action.KEY_DISABLE: Action.KEY_ENABLE,
    Action.KEYSPACE_DISABLE: Action.KEYSPACE_ENABLE,
    Action.PRINCIPAL_DISABLE: Action.PRINCIPAL_ENABLE,
}
_ENABLING: Final = {enable: disable for disable, enable in _REVERSIBLE.items()}
_VERSIONS: Final = frozenset({Action.KEY_ROTATE, Action.KEY_RETIRE})
_DONE_AGAIN: Final = frozenset({*_FINAL, *_REVERSIBLE, *_VERSIONS, *REAPPLIED})
_FOR_A_PERSON: Final = frozenset(
    {
        Action.KEY_UPDATE,
        Action.KEYSPACE_UPDATE,
        Action.OWNER_UPDATE,
        Action.PLAN_RETIRE,
        Action.PLAN_UPDATE,
        Action.PRINCIPAL_UPDATE,
        Action.ROLE_UNASSIGN,
        Action.WORKSPACE_UPDATE,
        Action.PEPPER_ROTATE,
        Action.PEPPER_RETIRE,
        Action.AUDIT_ERASE,
        Action.SECRET_PUT,
        Action.SECRET_PROMOTE,
        Action.SECRET_ROLLBACK,
        Action.SECRET_UPDATE,
        Action.GUARD_CREATE,
        Action.FINDING_DECIDE,
        Action.LEAK_POLICY_UPDATE,
        Action.LEAK_POLICY_DELETE,
        Action.LOGIN_METHOD_UPDATE,
        Action.LOGIN_ROLE_UPDATE,
        Action.CREDENTIAL_SOURCE_UPDATE,
        Action.CREDENTIAL_SOURCE_DELETE,
        Action.CREDENTIAL_ROLE_UPDATE,
        Action.CREDENTIAL_ROLE_DELETE,
        Action.WORKSPACE_KEY_DESTROY,
    }
)


@dataclass(frozen=True, slots=True)
class Taken:
    """One thing that was taken away after the backup."""

    action: Action
    resource: str
    leaf: str
    by: str
    at: float
    detail: dict[str, Any]


@dataclass(slots=True)
class Plan:
    """What an export asks for, in the order in which it was done."""

    taken: list[Taken] = field(default_factory=list)
    for_a_person: list[str] = field(default_factory=list)
    lost: int = 0
    """Other operations since the backup that no longer exist."""
    until: str = ""
    """When the last leaf of the export was written."""


class _Content(msgspec.Struct, frozen=True):
    action: str
    actor: dict[str, Any]
    at: str
    detail: dict[str, Any]
    id: str
    outcome: str
    resource: str


def plan(lines: Iterable[bytes], after_seq: int) -> Plan:
    """Read a verified export, and return what was taken away above the number `after_seq`."""
    made = Plan()
    for text in lines:
        line = export_lines.decode(text) if text.strip() else export_lines.Line()
        if line.hash is None or (line.seq or 0) <= after_seq:
            continue
        content = line.content()
        if content is None:
            made.for_a_person.append(f"leaf {line.id}: its content was erased, so what it did is not known")
            continue
        _take(made, msgspec.json.decode(content, type=_Content))
    return made


def _take(made: Plan, leaf: _Content) -> None:
    made.until = leaf.at
    if leaf.outcome != "allowed":
        return
    taken = Taken(
        Action(leaf.action) if leaf.action in set(Action) else Action.SYSTEM_ALARM,
        leaf.resource,
        leaf.id,
        str(leaf.actor.get("id", "")),
        parse_rfc3339(leaf.at),
        leaf.detail,
    )
    if taken.action in _DONE_AGAIN:
        made.taken.append(taken)
    elif taken.action is Action.SECRET_UNDELETE:
        made.taken = [_undeleted(other, taken) for other in made.taken]
        made.lost += 1
    elif taken.action in _FOR_A_PERSON:
        made.for_a_person.append(f"{leaf.action} on {leaf.resource} at {leaf.at} by {taken.by} (leaf {leaf.id})")
    elif taken.action in _ENABLING:
        undone = _ENABLING[taken.action]
        made.taken = [other for other in made.taken if (other.action, other.resource) != (undone, taken.resource)]
        made.lost += 1
    else:
        made.lost += 1


def reapply(connection: Connection, workspace: str, taken: Taken, now: float) -> Entry | None:
    """Take it away again; None when it is gone already, or did not exist at the time of the backup."""
    held = REAPPLIED.get(taken.action)
    if held is not None:
        found = held(connection, workspace, taken.resource, taken.detail, now)
    elif taken.action is Action.GRANT_REVOKE:
        found = _grant(connection, workspace, taken, now)
    elif taken.action is Action.PRINCIPAL_DISABLE:
        found = _principal(connection, workspace, taken)
    elif taken.action is Action.KEYSPACE_DISABLE:
        found = _keyspace(connection, workspace, taken)
    else:
        found = _key(connection, workspace, taken, now)
    if found is None:
        return None
    kind, entity = found
    leaf = Leaf(
        workspace=workspace,
        action=taken.action,
        outcome="allowed",
        actor=SYSTEM,
        resource=taken.resource,
        at=now,
        detail={"reapplied": taken.leaf, "by": taken.by},
    )
    return Entry(workspace, kind, entity, leaf.row(), awaited=True)


def _undeleted(earlier: Taken, undelete: Taken) -> Taken:
    """Leave out of an earlier deletion what was undeleted after it."""
    if earlier.action is not Action.SECRET_DELETE or earlier.resource != undelete.resource:
        return earlier
    back = undelete.detail.get("sequences") or []
    kept = [one for one in earlier.detail.get("sequences") or [] if one not in back]
    return replace(earlier, detail={**earlier.detail, "sequences": kept})


def _last(taken: Taken) -> str:
    return taken.resource.rpartition("/")[2]


def _grant(connection: Connection, workspace: str, taken: Taken, now: float) -> tuple[ChangeKind, str] | None:
    found = access_store.grant_by_id(connection, workspace, _last(taken))
    if found is None or found.state == "revoked":
        return None
    access_store.revoke_grant(connection, workspace, found.id, now)
    return ChangeKind.GRANT, found.id


def _principal(connection: Connection, workspace: str, taken: Taken) -> tuple[ChangeKind, str] | None:
    found = access_store.principal_by_id(connection, workspace, _last(taken))
    if found is None or found.state == "disabled":
        return None
    access_store.update_principal(connection, replace(found, state="disabled", revision=found.revision + 1))
    return ChangeKind.PRINCIPAL, found.id


def _keyspace(connection: Connection, workspace: str, taken: Taken) -> tuple[ChangeKind, str] | None:
    found = keyspace_store.load_keyspace(connection, workspace, _last(taken), lock=True)
    if found is None or found.state != ACTIVE:
        return None
    keyspace_store.update_keyspace(connection, replace(found, state=DISABLED, revision=found.revision + 1))
    return ChangeKind.KEYSPACE, found.id


def _key(connection: Connection, workspace: str, taken: Taken, now: float) -> tuple[ChangeKind, str] | None:
    is_token = taken.action is Action.TOKEN_REVOKE
    key_id = str(taken.detail.get("token", "")) if is_token else _last(taken)
    found = key_store.load_key(connection, workspace, key_id, system=is_token, lock=True)
    if found is None or found.state == REVOKED:
        return None
    if taken.action is Action.KEY_DISABLE:
        if found.state == DISABLED:
            return None
        changed: Key | None = replace(found, state=DISABLED, disabled_at=now)
    elif taken.action in _VERSIONS:
        changed = _end_versions(connection, found, taken, now)
    else:
        changed = _revoked(connection, found, taken, now)
    if changed is None:
        return None
    key_store.update_key(connection, replace(changed, revision=found.revision + 1, updated_at=now))
    return ChangeKind.KEY, found.id


def _revoked(connection: Connection, found: Key, taken: Taken, now: float) -> Key | None:
    reason = str(taken.detail.get("reason", RevokeReason.UNSPECIFIED))
    versions = key_store.load_versions(connection, [found.id])[found.id]
    try:
        changes = rules.revoke(found, versions, reason, now)
    except ConflictError:
        return None
    key_store.change_versions(connection, found.id, changes or ())
    return replace(found, state=REVOKED, revoked_at=now, revoke_reason=reason)


def _end_versions(connection: Connection, found: Key, taken: Taken, now: float) -> Key | None:
    """End the versions that a rotation or retirement ended; their successor was made after the backup and is lost."""
    before = taken.detail.get("before")
    ended = before if isinstance(before, dict) else {}
    overlap = taken.detail.get("overlap_seconds")
    changes = []
    for version in key_store.load_versions(connection, [found.id])[found.id]:
        to = ended.get(version.id)
        if to is None or version.state not in LIVE_VERSION_STATES:
            continue
        until = taken.at + overlap if to == PREVIOUS and isinstance(overlap, int) else now
        if version.state == PREVIOUS and version.valid_until is not None:
            until = min(until, version.valid_until)
        changes.append(VersionChange(version.id, str(to), until, None if to == PREVIOUS else now))
    if not changes:
        return None
    key_store.change_versions(connection, found.id, changes)
    return found

"""Issuing: new keys, and new secrets for keys, inside a unit of work.

A secret is minted here, digested here, and leaves in the answer alone; what is stored and recorded is its digest and
the public id of its version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.access.caller import Resource
from keyturn.access.caps import check_caps
from keyturn.access.moments import epoch_of
from keyturn.errors import InputError, NotFoundError, not_found
from keyturn.kernel import tokenformat
from keyturn.keys import keyspace_store, limit_rules, policy, rules, store
from keyturn.keys.answers import fields_of, key_detail
from keyturn.keys.assignment import Assignable
from keyturn.keys.model import ACTIVE, CURRENT, Key, Keyspace, Version
from keyturn.keys.records import PEPPER
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import ImportedKey, IssuedKey, IssueKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.door import Operation
    from keyturn.kernel.secret import Secret
    from keyturn.storage.keyring import Keyring, OpenedKey


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to be stored, and its secret to be shown once."""

    version: Version
    secret: Secret


class Keyspaces:
    """The keyspaces that new keys go to, and the plans they are put on, each loaded once in a unit of work."""

    def __init__(self, op: Operation, *, lock: bool = False) -> None:
        """Load within `op`; with `lock`, nobody else uses them until the unit ends."""
        self._op = op
        self._lock = lock
        self._found: dict[str, Keyspace | None] = {}
        self.plans = Assignable(op)

    def authorise(self, action: Action, name: str, key_id: str) -> None:
        """Authorise an action on a new key of a keyspace.

        A keyspace that the caller may not know of answers as if there were none.
        """
        found = self._load(name)
        resource = None if found is None else Resource(f"key/{found.name}/{key_id}", found.environment)
        self._op.authorise(action, resource, kind="keyspace", name=name, absent=Resource(f"key/{name}/{key_id}"))

    def usable(self, name: str) -> Keyspace:
        """Return a keyspace that was authorised; raises ConflictError unless it takes new keys."""
        found = self._load(name)
        if found is None:
            raise not_found("keyspace", name)
        rules.require_usable(found)
        return found

    def _load(self, name: str) -> Keyspace | None:
        if name not in self._found:
            connection, workspace = self._op.connection, self._op.workspace
            self._found[name] = keyspace_store.load_keyspace(
                connection, workspace, name, lock=self._lock, share=not self._lock
            )
        return self._found[name]


def issue_all(
    op: Operation, keyring: Keyring, targets: Keyspaces, requests: Sequence[IssueKey], ids: Sequence[str]
) -> list[IssuedKey]:
    """Store the keys asked for, record each, and return them with their secrets, in order.

    Whoever calls it has authorised each.  Raises CapError when a cap would be passed, InputError naming the field.
    """
    peppers: dict[str, OpenedKey] = {}
    made: list[tuple[Key, NewVersion]] = []
    for place, (request, key_id) in enumerate(zip(requests, ids, strict=True)):
        keyspace = targets.usable(request.keyspace)
        if keyspace.id not in peppers:
            peppers[keyspace.id] = keyring.current(op.connection, op.workspace, PEPPER, keyspace.id)
        try:
            expires_at = rules.expiry(request.expires_at, request.expires_in_seconds, op.now)
            key = new_key(op, targets, keyspace, request, key_id, expires_at)
        except InputError as error:
            raise _placed(error, place, len(requests)) from None
        made.append((key, new_version(op, keyspace, peppers[keyspace.id], key.id, 1)))
    insert_within_caps(op, [key for key, _ in made])
    store.insert_versions(op.connection, [new.version for _, new in made])
    for key, new in made:
        record_new(op, Action.KEY_ISSUE, key, new.version)
    return [
        IssuedKey(**fields_of(key_detail(key, [new.version], {})), version_id=new.version.id, key=new.secret.reveal())
        for key, new in made
    ]


def new_key(
    op: Operation,
    targets: Keyspaces,
    keyspace: Keyspace,
    request: IssueKey | ImportedKey,
    key_id: str,
    expires_at: float | None,
) -> Key:
    """Build a key from a request; raises InputError naming the field, and what `Assignable` raises for its plan."""
    plan_id, plan_name = targets.plans.id_and_name(request.plan)
    not_before = epoch_of(request.not_before, "not_before")
    rules.check_window(not_before, expires_at)
    return Key(
        id=key_id,
        workspace=op.workspace,
        keyspace=keyspace.id,
        keyspace_name=keyspace.name,
        environment=keyspace.environment,
        name=request.name,
        owner=request.owner,
        purpose=request.purpose,
        state=ACTIVE,
        scopes=rules.check_scopes(request.scopes),
        restrictions=rules.check_written_restrictions(request.restrictions),
        metadata=dict(request.metadata),
        tags=tuple(dict.fromkeys(request.tags)),
        not_before=not_before,
        expires_at=expires_at,
        created_at=op.now,
        created_by=op.caller.principal,
        updated_at=op.now,
        disabled_at=None,
        revoked_at=None,
        revoke_reason=None,
        revision=1,
        shadow_restrictions=rules.check_written_restrictions(request.shadow_restrictions, "shadow_restrictions"),
        plan=plan_id,
        plan_name=plan_name,
        limits=limit_rules.check_limits(request.limits),
        quotas=limit_rules.check_quotas(request.quotas),
    )


def new_version(op: Operation, keyspace: Keyspace, pepper: OpenedKey, key_id: str, number: int) -> NewVersion:
    """Mint a secret for a key."""
    minted = tokenformat.mint(keyspace.prefix, keyspace.tag)
    digest = tokenformat.digest(pepper.value, tokenformat.sha256(minted.key.reveal()))
    version = Version(
        id=minted.version_id,
        key=key_id,
        keyspace=keyspace.id,
        number=number,
        state=CURRENT,
        digest_kind="blake2b",
        digest=digest,
        pepper=pepper.number,
        foreign=False,
        lookup=None,
        created_at=op.now,
        created_by=op.caller.principal,
        valid_until=None,
        retired_at=None,
    )
    return NewVersion(version, minted.key)


def insert_within_caps(op: Operation, keys: Sequence[Key]) -> None:
    """Store new keys, owner by owner, so that each owner's cap counts those just stored."""
    by_owner: dict[str, list[Key]] = {}
    for key in keys:
        by_owner.setdefault(key.owner, []).append(key)
    for owner, owned in by_owner.items():
        check_caps(op.connection, op.workspace, owner, len(owned))
        store.insert_keys(op.connection, owned)


def record_new(op: Operation, action: Action, key: Key, version: Version) -> None:
    """Record a new key."""
    op.record(
        action,
        key.resource,
        kind=ChangeKind.KEY,
        entity=key.id,
        detail={
            "version": version.id,
            "owner": key.owner,
            "purpose": key.purpose,
            "scopes": list(key.scopes),
            "environment": key.environment,
            **({} if key.plan_name is None else {"plan": key.plan_name}),
            **policy.policy_detail(key),
        },
    )


def issued_again(op: Operation, entity: str) -> IssuedKey:
    """Answer a replay without the secret, from `key id` and `version id` as `entity_of` wrote them."""
    key_id, _, version_id = entity.partition(" ")
    key = store.load_key(op.connection, op.workspace, key_id)
    if key is None:
        raise NotFoundError(f"key {key_id} is not in this workspace")
    versions = store.load_versions(op.connection, [key_id])[key_id]
    return IssuedKey(**fields_of(key_detail(key, versions, {})), version_id=version_id, key=None)


def entity_of(issued: IssuedKey) -> str:
    """Name a new secret for as long as its idempotency record is kept."""
    return f"{issued.id} {issued.version_id}"


def _placed(error: InputError, place: int, count: int) -> InputError:
    """Name the key of a bulk request that the error is about."""
    if count == 1:
        return error
    field = f"keys[{place}].{error.field}" if error.field else f"keys[{place}]"
    return InputError(error.message, field=field, hint=error.hint, code=error.code)

"""New versions: put, patch, rollback and promote, each inside the unit of work that its caller has authorised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from keyturn.access.moments import require_revision
from keyturn.errors import not_found
from keyturn.kernel.ids import new_id
from keyturn.storage.transaction import ChangeKind
from keyturn.vault import rules, store
from keyturn.vault.answers import secret_written
from keyturn.vault.fields import decode_fields, encode_fields, merge_fields
from keyturn.vault.model import Secret, Version
from keyturn.vault.paths import parse_path
from keyturn.vault.references import found as references_of
from keyturn.vault.sealing import open_version, seal_fields
from keyturn.wire.actions import Action
from keyturn.wire.secrets import VERSIONS_MAX_DEFAULT, SecretState, SecretWritten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn.access.door import Operation
    from keyturn.audit.leaf import Detail
    from keyturn.storage.keyring import Keyring
    from keyturn.vault.paths import Path
    from keyturn.vault.ports import Approvals, Fingerprints
    from keyturn.vault.references import Reference
    from keyturn.wire.secrets import PatchSecret, PromoteSecret, PutSecret, RollbackSecret

NAMES_SHOWN: Final = 64
"""How many names of fields, and numbers of versions, a leaf holds at most."""


@dataclass(frozen=True, slots=True)
class Writing:
    """What writing a version takes."""

    keyring: Keyring
    fingerprints: Fingerprints
    approvals: Approvals

    def put(self, op: Operation, path: Path, request: PutSecret, if_match: int | None = None) -> SecretWritten:
        """Write a version, and the secret if there is none; the caller may `secret.put`."""
        held = store.load_secret(op.connection, op.workspace, path.text)
        require_revision(if_match, 0 if held is None else held.revision)
        rules.check_set(request.cas, held)
        secret = new_secret(op, path) if held is None else held
        if request.describe is not None:
            secret = rules.described(secret, request.describe)
        if request.pending and held is not None:
            rules.check_pending(store.count_pending(op.connection, held))
        detail: dict[str, Detail] = {}
        if told := rules.differences(secret if held is None else held, secret):
            op.authorise(Action.SECRET_UPDATE, path.resource, kind="secret", name=path.text)
            self.approvals.require(op, Action.SECRET_UPDATE, path)
            detail["described"] = list(told)
        return self._write(
            op, Action.SECRET_PUT, secret, request.fields, detail, is_new=held is None, pending=request.pending
        )

    def patch(self, op: Operation, path: Path, request: PatchSecret, if_match: int | None = None) -> SecretWritten:
        """Write the current version, merged, as a new one."""
        secret = existing(op, path)
        require_revision(if_match, secret.revision)
        rules.check_set(request.cas, secret)
        current = rules.require_readable(_version(op, secret, secret.current), "current version", op.now)
        held = decode_fields(open_version(self.keyring, op.connection, secret, current))
        merged = merge_fields(held, request.fields)
        return self._write(op, Action.SECRET_PUT, secret, merged, {"patched": current.number})

    def rollback(self, op: Operation, path: Path, request: RollbackSecret) -> SecretWritten:
        """Write what an earlier version holds as a new one."""
        secret = existing(op, path)
        rules.check_set(request.cas, secret)
        earlier = rules.require_readable(_version(op, secret, request.version), f"version {request.version}", op.now)
        fields = decode_fields(open_version(self.keyring, op.connection, secret, earlier))
        return self._write(op, Action.SECRET_ROLLBACK, secret, fields, {"from_version": earlier.number})

    def promote(self, op: Operation, path: Path, request: PromoteSecret) -> SecretWritten:
        """Make a pending version current, and the current one previous."""
        secret = existing(op, path)
        if request.sequence is None:
            version = store.newest_pending(op.connection, secret)
        else:
            version = store.load_version(op.connection, secret, sequence=request.sequence)
        if version is not None and version.state is SecretState.CURRENT:
            op.unchanged()
            return secret_written(secret, version)
        pending = rules.require_pending(version, request.sequence, op.now)
        number = secret.last_number + 1
        store.shift_labels(op.connection, secret)
        current = rules.promoted(pending, number, op.now)
        store.update_version(op.connection, current)
        changed = replace(secret, current=number, last_number=number)
        return self._saved(op, Action.SECRET_PROMOTE, changed, current, {})

    def _write(
        self,
        op: Operation,
        action: Action,
        secret: Secret,
        fields: Mapping[str, Any],
        detail: dict[str, Detail],
        *,
        is_new: bool = False,
        pending: bool = False,
    ) -> SecretWritten:
        encoded = encode_fields(fields)
        references = references_of(fields)
        self._require_readable(op, secret, references)
        sequence = secret.last_sequence + 1
        version = Version(
            id=new_id("sve", op.now),
            workspace=op.workspace,
            secret=secret.id,
            sequence=sequence,
            number=None,
            state=SecretState.PENDING,
            sealed=seal_fields(
                self.keyring, op.connection, op.workspace, secret.id, secret.path, sequence, encoded, now=op.now
            ),
            fields=tuple(fields),
            size_bytes=len(encoded),
            created_at=op.now,
            created_by=op.caller.principal,
            promoted_at=None,
            delete_at=None if secret.delete_after_seconds is None else op.now + secret.delete_after_seconds,
            deleted_at=None,
            destroyed_at=None,
        )
        if pending:
            changed = replace(secret, last_sequence=sequence)
        else:
            number = secret.last_number + 1
            if secret.current:
                store.shift_labels(op.connection, secret)
            version = rules.promoted(version, number, op.now)
            changed = replace(secret, last_sequence=sequence, current=number, last_number=number)
        store.insert_version(op.connection, version)
        self.fingerprints.store(op, changed, sequence, fields)
        store.insert_references(op.connection, changed, sequence, references)
        return self._saved(op, action, changed, version, detail, is_new=is_new)

    def _require_readable(self, op: Operation, secret: Secret, references: Sequence[Reference]) -> None:
        """Let nobody have others read for them: who writes a new reference holds the right to read its target."""
        if not references:
            return
        known = store.targets_of(op.connection, secret)
        for target in sorted({one.path for one in references} - known):
            op.authorise(rules.reading_action(op.caller.kind), parse_path(target).resource, kind="secret", name=target)

    def _saved(
        self,
        op: Operation,
        action: Action,
        changed: Secret,
        version: Version,
        detail: dict[str, Detail],
        *,
        is_new: bool = False,
    ) -> SecretWritten:
        pruned = self._prune(op, changed)
        if is_new:
            # Made in this unit, so it was updated when it was created.
            saved = changed
            store.insert_secret(op.connection, saved)
        else:
            saved = save(op, changed)
        told: dict[str, Detail] = {
            "version": version.number,
            "sequence": version.sequence,
            "state": str(version.state),
            "fields": list(version.fields[:NAMES_SHOWN]),
            "fields_count": len(version.fields),
            "size_bytes": version.size_bytes,
        }
        if pruned:
            told["destroyed"] = list(pruned[:NAMES_SHOWN])
            told["destroyed_count"] = len(pruned)
        record(op, action, saved, told | detail)
        return secret_written(saved, version)

    def _prune(self, op: Operation, secret: Secret) -> list[int]:
        """Destroy the versions beyond what the secret keeps; return their numbers.

        Where destroying needs four eyes, writing is no way around it: they are kept.
        """
        below = secret.last_number - secret.versions_max + 1
        if below <= 1 or self.approvals.holds_back(op, Action.SECRET_DESTROY, parse_path(secret.path)):
            return []
        return store.destroy_below(op.connection, secret, below, op.now)


def new_secret(op: Operation, path: Path) -> Secret:
    """Return the secret that a path is to hold, not stored yet."""
    return Secret(
        id=new_id("sec", op.now),
        workspace=op.workspace,
        path=path.text,
        environment=path.environment,
        owner="",
        purpose="",
        provider="",
        revocation_path="",
        metadata={},
        next_rotation_at=None,
        expires_at=None,
        current=0,
        last_number=0,
        last_sequence=0,
        versions_max=VERSIONS_MAX_DEFAULT,
        cas_required=False,
        delete_after_seconds=None,
        created_at=op.now,
        created_by=op.caller.principal,
        updated_at=op.now,
        deleted_at=0.0,
        revision=1,
    )


def existing(op: Operation, path: Path) -> Secret:
    """Return the secret at a path for a caller who was authorised there; raises the one NotFoundError."""
    secret = store.load_secret(op.connection, op.workspace, path.text)
    if secret is None:
        raise not_found("secret", path.text)
    return secret


def save(op: Operation, changed: Secret) -> Secret:
    """Store a changed secret under its next revision."""
    saved = replace(changed, revision=changed.revision + 1, updated_at=op.now)
    store.update_secret(op.connection, saved)
    return saved


def record(op: Operation, action: Action, secret: Secret, detail: dict[str, Detail]) -> None:
    """Leave the leaf of what was done to a secret; `detail` holds names, numbers and sizes, never a value."""
    told: dict[str, Detail] = {"path": secret.path}
    op.record(action, secret.resource.name, kind=ChangeKind.SECRET, entity=secret.id, detail=told | detail)


def _version(op: Operation, secret: Secret, number: int) -> Version | None:
    return store.load_version(op.connection, secret, number)

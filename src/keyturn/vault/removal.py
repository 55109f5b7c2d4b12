"""Versions that go: delete and undelete (soft), destroy, and the removal of a whole secret."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.errors import InputError, NotFoundError
from keyturn.vault import rules, store
from keyturn.vault.writing import NAMES_SHOWN, existing, record, save
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.door import Operation
    from keyturn.audit.leaf import Detail
    from keyturn.vault.model import Secret, Version
    from keyturn.vault.paths import Path
    from keyturn.wire.secrets import SelectVersions


def delete(op: Operation, path: Path, wanted: SelectVersions, *, missing_ok: bool) -> Secret:
    """Delete versions softly, the current one unless others are named; what is deleted already stays so."""
    secret = existing(op, path)
    chosen = [
        one
        for one in _selected(op, secret, wanted, missing_ok=missing_ok)
        if not (one.is_destroyed or one.is_deleted(op.now))
    ]
    for version in chosen:
        store.update_version(op.connection, replace(version, deleted_at=op.now))
    return _changed(op, Action.SECRET_DELETE, secret, chosen)


def undelete(op: Operation, path: Path, wanted: SelectVersions, *, missing_ok: bool) -> Secret:
    """Take soft deletions back; raises NotFoundError for a version that was destroyed, whose value is gone."""
    secret = existing(op, path)
    selected = _selected(op, secret, wanted, missing_ok=missing_ok)
    for version in selected:
        if version.is_destroyed and not missing_ok:
            raise NotFoundError(f"version {version.number} was destroyed", code="version_destroyed", field="versions")
    chosen = [one for one in selected if not one.is_destroyed and one.is_deleted(op.now)]
    for version in chosen:
        store.update_version(op.connection, rules.undeleted(version, op.now))
    return _changed(op, Action.SECRET_UNDELETE, secret, chosen)


def destroy(op: Operation, path: Path, wanted: SelectVersions, *, missing_ok: bool) -> Secret:
    """Forget for good what the named versions hold."""
    if wanted.versions is None and wanted.sequences is None:
        raise InputError("expected the versions to destroy", field="versions", hint="nothing is destroyed by default")
    secret = existing(op, path)
    chosen = [one for one in _selected(op, secret, wanted, missing_ok=missing_ok) if not one.is_destroyed]
    if chosen:
        store.destroy_versions(op.connection, secret, [one.sequence for one in chosen], op.now)
    return _changed(op, Action.SECRET_DESTROY, secret, chosen)


def remove(op: Operation, path: Path) -> None:
    """Destroy every version and free the path; what the record says of the secret stays."""
    secret = existing(op, path)
    held = store.holding_values(op.connection, secret)
    store.destroy_versions(op.connection, secret, [one.sequence for one in held], op.now)
    gone = replace(secret, deleted_at=store.removal_moment(op.connection, secret, op.now))
    record(op, Action.SECRET_REMOVE, save(op, gone), _named(held))


def _selected(op: Operation, secret: Secret, wanted: SelectVersions, *, missing_ok: bool) -> list[Version]:
    """Return the versions that are named, or the current one; raises NotFoundError for a name of none."""
    numbers = set(wanted.versions or ())
    sequences = set(wanted.sequences or ())
    if wanted.versions is None and wanted.sequences is None:
        numbers = {secret.current}
    selected = [
        *store.versions_by_number(op.connection, secret, numbers),
        *store.versions_by_sequence(op.connection, secret, sequences),
    ]
    missing = sorted(numbers - {one.number for one in selected}) + sorted(
        sequences - {one.sequence for one in selected}
    )
    if missing and not missing_ok:
        what = "no version yet" if missing == [0] else f"no version {missing[0]}"
        raise NotFoundError(f"this secret has {what}", code="version_not_found", field="versions")
    return list({one.sequence: one for one in selected}.values())


def _changed(op: Operation, action: Action, secret: Secret, chosen: Sequence[Version]) -> Secret:
    if not chosen:
        op.unchanged()
        return secret
    saved = save(op, secret)
    record(op, action, saved, _named(chosen))
    return saved


def _named(versions: Sequence[Version]) -> dict[str, Detail]:
    return {
        "versions": [one.number for one in versions[:NAMES_SHOWN]],
        "sequences": [one.sequence for one in versions[:NAMES_SHOWN]],
        "count": len(versions),
    }

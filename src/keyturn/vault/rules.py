"""What is decided about secrets and versions; values and the time in, decisions out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from keyturn.access.moments import epoch_of
from keyturn.errors import ConflictError, InputError, NotFoundError
from keyturn.wire.actions import Action
from keyturn.wire.secrets import SecretState

if TYPE_CHECKING:
    from keyturn.vault.model import Secret, Version
    from keyturn.wire.secrets import Describe

PENDING_MAX: Final = 10
"""Bound of versions of one secret that wait for their promotion."""


def reading_action(kind: str) -> Action:
    """Return what reading a value is for a principal of this kind: a person reveals, everybody else reads."""
    return Action.SECRET_REVEAL if kind == "user" else Action.SECRET_READ


def check_set(cas: int | None, secret: Secret | None) -> None:
    """Refuse a write whose `cas` is not the number that is current; 0 is that of a secret without a version."""
    current = 0 if secret is None else secret.current
    if cas is None:
        if secret is not None and secret.cas_required:
            raise InputError(
                f"this secret is written with check-and-set only; its current version is {current}",
                code="cas_required",
                field="cas",
                hint="give the number of the version that the write is to follow",
            )
    elif cas != current:
        raise ConflictError(
            f"expected version {cas} to be current, found {current}",
            code="cas_mismatch",
            field="cas",
            hint="read it again and repeat the change",
        )


def check_pending(waiting: int) -> None:
    """Refuse one more pending version past the bound."""
    if waiting >= PENDING_MAX:
        raise ConflictError(
            f"{waiting} versions of this secret are pending already",
            code="too_many_pending",
            hint="promote or destroy one of them first",
        )


def require_readable(version: Version | None, wanted: str, now: float) -> Version:
    """Return a version that still holds what it held; raises NotFoundError with the reason in its code."""
    if version is None:
        raise NotFoundError(f"this secret has no {wanted}", code="version_not_found", field="version")
    if version.is_destroyed:
        raise NotFoundError(f"{wanted} was destroyed", code="version_destroyed", field="version")
    if version.is_deleted(now):
        raise NotFoundError(f"{wanted} was deleted", code="version_deleted", field="version", hint="undelete it first")
    return version


def require_pending(version: Version | None, sequence: int | None, now: float) -> Version:
    """Return a version that can be promoted; raises NotFoundError or ConflictError that says why not."""
    if version is None and sequence is None:
        raise NotFoundError("this secret has no pending version", code="version_not_found")
    found = require_readable(version, f"version with sequence {sequence}", now)
    if found.state is not SecretState.PENDING:
        raise ConflictError(
            f"the version with sequence {found.sequence} is {found.state}, not pending", code="version_state"
        )
    return found


def promoted(version: Version, number: int, now: float) -> Version:
    """Return a version as the current one."""
    return replace(version, number=number, state=SecretState.CURRENT, promoted_at=now)


def undeleted(version: Version, now: float) -> Version:
    """Return a version with its soft deletion taken back, whoever or whatever deleted it."""
    kept = version.delete_at if version.delete_at is not None and version.delete_at > now else None
    return replace(version, deleted_at=None, delete_at=kept)


def described(secret: Secret, given: Describe) -> Secret:
    """Return a secret as it is told now; what is left out stays."""
    texts = {
        name: value
        for name in ("owner", "purpose", "provider", "revocation_path", "versions_max", "cas_required")
        if (value := getattr(given, name)) is not UNSET
    }
    changed = replace(secret, **texts)
    if given.metadata is not UNSET:
        changed = replace(changed, metadata=dict(given.metadata))
    if given.delete_after_seconds is not UNSET:
        changed = replace(changed, delete_after_seconds=given.delete_after_seconds)
    if given.next_rotation_at is not UNSET:
        changed = replace(changed, next_rotation_at=epoch_of(given.next_rotation_at, "next_rotation_at"))
    if given.expires_at is not UNSET:
        changed = replace(changed, expires_at=epoch_of(given.expires_at, "expires_at"))
    return changed


def differences(was: Secret, now: Secret) -> list[str]:
    """Name what was told anew; custom metadata may hold anything, so the record has names only."""
    told = (
        "owner",
        "purpose",
        "provider",
        "revocation_path",
        "metadata",
        "next_rotation_at",
        "expires_at",
        "versions_max",
        "cas_required",
        "delete_after_seconds",
    )
    return [name for name in told if getattr(was, name) != getattr(now, name)]

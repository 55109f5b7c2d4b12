"""Secrets and versions as responses show them; never what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.access.moments import shown
from keyturn.kernel.clock import rfc3339
from keyturn.wire.secrets import SecretInfo, SecretVersionInfo, SecretWritten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.vault.model import Secret, Version


def version_info(version: Version, now: float) -> SecretVersionInfo:
    """Show a version; one past its time is shown as deleted then."""
    return SecretVersionInfo(
        number=version.number,
        sequence=version.sequence,
        state=version.state,
        fields=version.fields,
        size_bytes=version.size_bytes,
        created_at=rfc3339(version.created_at),
        created_by=version.created_by,
        promoted_at=shown(version.promoted_at),
        delete_at=shown(version.delete_at),
        deleted_at=shown(version.deleted_since(now)),
        destroyed_at=shown(version.destroyed_at),
    )


def secret_info(secret: Secret, oldest: int, versions: Sequence[Version] = (), *, now: float = 0.0) -> SecretInfo:
    """Show a secret, with the versions given."""
    return SecretInfo(
        id=secret.id,
        path=secret.path,
        environment=secret.environment,
        owner=secret.owner,
        purpose=secret.purpose,
        provider=secret.provider,
        revocation_path=secret.revocation_path,
        metadata=secret.metadata,
        next_rotation_at=shown(secret.next_rotation_at),
        expires_at=shown(secret.expires_at),
        current_version=secret.current,
        oldest_version=oldest,
        versions_max=secret.versions_max,
        cas_required=secret.cas_required,
        delete_after_seconds=secret.delete_after_seconds,
        created_at=rfc3339(secret.created_at),
        created_by=secret.created_by,
        updated_at=rfc3339(secret.updated_at),
        revision=secret.revision,
        versions=tuple(version_info(one, now) for one in versions),
    )


def secret_written(secret: Secret, version: Version) -> SecretWritten:
    """Answer a write."""
    return SecretWritten(
        id=secret.id,
        path=secret.path,
        version=version.number,
        sequence=version.sequence,
        state=version.state,
        created_at=rfc3339(version.created_at),
        metadata=secret.metadata,
        delete_at=shown(version.delete_at),
        revision=secret.revision,
    )

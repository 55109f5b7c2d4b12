"""Secrets and their versions, as rows have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keyturn.vault.paths import Path
from keyturn.wire.secrets import SecretState

if TYPE_CHECKING:
    from keyturn.access.caller import Resource


@dataclass(frozen=True, slots=True)
class Secret:
    """What is known of a secret apart from what it holds."""

    id: str
    workspace: str
    path: str
    environment: str
    owner: str
    purpose: str
    provider: str
    revocation_path: str
    metadata: dict[str, str]
    next_rotation_at: float | None
    expires_at: float | None
    """When its provider ends it, as somebody has told; it is shown and stops no read."""
    current: int
    """Number of the current version, 0 when there is none; also when that version was deleted or destroyed."""
    last_number: int
    last_sequence: int
    versions_max: int
    cas_required: bool
    delete_after_seconds: int | None
    created_at: float
    created_by: str
    updated_at: float
    deleted_at: float
    """When it was removed; 0 while it exists."""
    revision: int

    @property
    def resource(self) -> Resource:
        """The name and environment that grants match."""
        return Path(self.path).resource


@dataclass(frozen=True, slots=True)
class Version:
    """One version; `sealed` opens only with `keyturn.vault.sealing`, for its own place."""

    id: str
    workspace: str
    secret: str
    sequence: int
    number: int | None
    state: SecretState
    sealed: bytes | None = field(repr=False)
    """None when it was destroyed."""
    fields: tuple[str, ...]
    """The names of its fields."""
    size_bytes: int
    created_at: float
    created_by: str
    promoted_at: float | None
    delete_at: float | None
    """When it counts as deleted without anybody's doing."""
    deleted_at: float | None
    destroyed_at: float | None

    @property
    def is_destroyed(self) -> bool:
        """Tell whether what it held is gone."""
        return self.state is SecretState.DESTROYED

    def deleted_since(self, now: float) -> float | None:
        """Return since when it counts as deleted (softly), None when it does not."""
        if self.deleted_at is not None:
            return self.deleted_at
        return self.delete_at if self.delete_at is not None and now >= self.delete_at else None

    def is_deleted(self, now: float) -> bool:
        """Tell whether it counts as deleted (softly): by somebody, or because its time is over."""
        return self.deleted_since(now) is not None

"""The refusal of a version that was there: it says what is still known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.errors import NotFoundError

if TYPE_CHECKING:
    from keyturn.wire.secrets import SecretVersionInfo


class VersionGoneError(NotFoundError):
    """The version was deleted or destroyed; raised only for a caller who may read it.

    `info` and `metadata` are what a response may show of the version and of its secret.
    """

    def __init__(self, path: str, info: SecretVersionInfo, metadata: dict[str, str]) -> None:
        """Name what has happened to a version."""
        destroyed = info.destroyed_at is not None
        which = "the pending version" if info.number is None else f"version {info.number}"
        super().__init__(
            f"{which} of {path!r} was {'destroyed' if destroyed else 'deleted'}",
            code="version_destroyed" if destroyed else "version_deleted",
            hint="its value is gone for good" if destroyed else "it can be undeleted",
        )
        self.info = info
        self.metadata = metadata

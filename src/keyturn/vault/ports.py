"""What the vault needs of others, as it needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn.access.door import Operation
    from keyturn.vault.model import Secret
    from keyturn.vault.paths import Path
    from keyturn.wire.actions import Action


class Fingerprints(Protocol):
    """Remembers keyed hashes of field values, so that equal ones are found; implemented by `fingerprints`."""

    def store(self, op: Operation, secret: Secret, sequence: int, fields: Mapping[str, Any]) -> None:
        """Remember what a new version holds, in the unit of work that writes it."""
        ...


class Approvals(Protocol):
    """Knows which paths need the approval of a second person; implemented by `approvals`."""

    def require(self, op: Operation, action: Action, path: Path) -> str | None:
        """Return the approval that the action rests on, None where no guard is; else raise a refusal for the record."""
        ...

    def holds_back(self, op: Operation, action: Action, path: Path) -> bool:
        """Tell whether a guard holds the action on the path back, approved or not."""
        ...

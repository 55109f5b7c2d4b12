"""What wires the vault together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keyturn.vault.approvals import ApprovalService
from keyturn.vault.service import VaultService
from keyturn.vault.wrapping import WrapService

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn.access.door import Door, Operation, UnauthenticatedSink
    from keyturn.storage.keyring import Keyring
    from keyturn.vault.model import Secret


class _NoFingerprints:
    def store(self, op: Operation, secret: Secret, sequence: int, fields: Mapping[str, Any]) -> None:
        """Remember nothing."""


@dataclass(frozen=True, slots=True)
class VaultParts:
    """The services of the vault, by name."""

    vault: VaultService
    approvals: ApprovalService
    wraps: WrapService

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {"vault": self.vault, "approvals": self.approvals, "wraps": self.wraps}


def open_vault(door: Door, keyring: Keyring, unauthenticated: UnauthenticatedSink) -> VaultParts:
    """Wire the vault's services."""
    approvals = ApprovalService(door)
    return VaultParts(
        vault=VaultService(door, keyring, _NoFingerprints(), approvals),
        approvals=approvals,
        wraps=WrapService(door, keyring, unauthenticated),
    )

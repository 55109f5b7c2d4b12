"""What wires the vault together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.telemetry.metrics import Family, Sample, counter
from keyturn.vault.approvals import ApprovalService
from keyturn.vault.fingerprints import Fingerprints
from keyturn.vault.reading import SecretReader
from keyturn.vault.service import VaultService
from keyturn.vault.sharing import SharingService
from keyturn.vault.wrapping import WrapService

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from keyturn.access.door import Door, UnauthenticatedSink
    from keyturn.storage.keyring import Keyring
    from keyturn.vault.batch import ReadMeter
    from keyturn.vault.reading_ports import ChangeNews


@dataclass(frozen=True, slots=True)
class VaultParts:
    """The services of the vault, by name."""

    vault: VaultService
    approvals: ApprovalService
    wraps: WrapService
    sharing: SharingService
    reader: SecretReader
    fingerprints: Fingerprints

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {
            "vault": self.vault,
            "approvals": self.approvals,
            "wraps": self.wraps,
            "sharing": self.sharing,
            "secret_reader": self.reader,
        }

    def families(self) -> Iterator[Family]:
        """What a scrape is told of reads."""
        meter = self.reader.meter
        outcomes = [Sample("_total", {"outcome": outcome}, count) for outcome, count in sorted(meter.outcomes.items())]
        yield Family("keyturn_secret_reads", "Reads of secrets, by outcome.", "counter", outcomes)
        yield counter("keyturn_secret_read_stalls", "Reads refused because they could not be recorded.", meter.stalls)
        yield Family("keyturn_secret_read_batch", "Reads that shared a commit.", "histogram", _sizes(meter))


def open_vault(
    door: Door,
    keyring: Keyring,
    unauthenticated: UnauthenticatedSink,
    news: ChangeNews,
    draining: asyncio.Event,
) -> VaultParts:
    """Wire the vault's services."""
    approvals, fingerprints = ApprovalService(door), Fingerprints(keyring)
    reader = SecretReader(door, keyring, approvals, fingerprints, news, draining)
    wraps = WrapService(door, keyring, unauthenticated)
    return VaultParts(
        vault=VaultService(door, keyring, fingerprints, approvals),
        approvals=approvals,
        wraps=wraps,
        sharing=SharingService(door, reader, wraps, approvals),
        reader=reader,
        fingerprints=fingerprints,
    )


def _sizes(meter: ReadMeter) -> list[Sample]:
    samples = [
        Sample("_bucket", {"le": repr(float(bound))}, sum(n for size, n in meter.sizes.items() if size <= bound))
        for bound in (1, 2, 4, 8, 16, 32)
    ]
    samples.append(Sample("_bucket", {"le": "+Inf"}, meter.batches))
    samples.append(Sample("_count", {}, meter.batches))
    samples.append(Sample("_sum", {}, sum(size * n for size, n in meter.sizes.items())))
    return samples

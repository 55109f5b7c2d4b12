"""Leases of an application: its services and its dispatcher, wired together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.bootstrap.source_guard import GuardedConnectors
from keyturn.leases import lease_store
from keyturn.leases.connectors.installed import InstalledConnectors
from keyturn.leases.dispatcher import LeaseDispatcher
from keyturn.leases.endings import Endings
from keyturn.leases.rules import Timing
from keyturn.leases.service import LeaseService
from keyturn.leases.sources import SourceService
from keyturn.telemetry.metrics import Family, Sample, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from keyturn.access.door import Door
    from keyturn.storage.keyring import Keyring
    from keyturn.webhooks.guard import Network


@dataclass(frozen=True, slots=True)
class LeaseParts:
    """What a worker has for credentials made on demand."""

    sources: SourceService
    leases: LeaseService
    dispatcher: LeaseDispatcher

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {"credential_sources": self.sources, "leases": self.leases}

    def families(self) -> Iterator[Family]:
        """What a scrape is told of the dispatcher of this worker."""
        health = self.dispatcher.health
        yield gauge("keyturn_lease_leader", "Whether this worker ends leases.", int(health.leader))
        yield gauge("keyturn_lease_lanes", "Batches of leases that are being ended.", health.lanes)
        yield counter("keyturn_lease_dropped", "Accounts dropped when their time was over.", health.dropped)
        yield counter("keyturn_lease_drop_failed", "Attempts to drop an account that failed.", health.failed)
        yield counter("keyturn_lease_failures", "Rounds of the dispatcher that failed.", health.failures)


def open_leases(door: Door, keyring: Keyring, node: str, allowed: Sequence[Network] = ()) -> LeaseParts:
    """Wire the leases of a worker together; sources may be on the internet and in `allowed` networks."""
    connectors = GuardedConnectors(InstalledConnectors(), allowed)
    endings = Endings(door.database, keyring, connectors, Timing())
    return LeaseParts(
        sources=SourceService(door, keyring, connectors),
        leases=LeaseService(door, keyring, connectors, endings),
        dispatcher=LeaseDispatcher(door.database, endings, node),
    )


def lease_families(connection: Connection, now: float) -> Iterator[Family]:
    """What the database tells a scrape of leases."""
    states, lag = lease_store.backlog(connection, now)
    samples = [Sample("", {"state": state}, count) for state, count in sorted(states.items())]
    yield Family("keyturn_leases", "Leases whose account exists or may exist, by state.", "gauge", samples)
    yield gauge("keyturn_lease_due_age_seconds", "How long ago the oldest due lease became due.", lag)

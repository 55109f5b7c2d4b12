"""Leaks of an application: findings, policies and the responder, wired together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.bootstrap.logins import GuardedFetcher
from keyturn.leaks import store
from keyturn.leaks.decoy_watch import DecoyWatch
from keyturn.leaks.decoys import DecoyService
from keyturn.leaks.intakes import IntakeService
from keyturn.leaks.matching import Matching
from keyturn.leaks.policies import LeakPolicyService
from keyturn.leaks.possession import PossessionService
from keyturn.leaks.reporters import Reporters
from keyturn.leaks.responding import Responder
from keyturn.leaks.service import LeakService
from keyturn.telemetry.metrics import Family, Sample, counter, gauge
from keyturn.vault.writing import Writing
from keyturn.webhooks.guard import SETTING as WEBHOOK_SETTING
from keyturn.wire.certainty import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from keyturn.access.door import Door, UnauthenticatedSink
    from keyturn.bootstrap.vault import VaultParts
    from keyturn.config import Settings
    from keyturn.storage.keyring import Keyring


@dataclass(frozen=True, slots=True)
class LeakParts:
    """What a worker has for leaks."""

    leaks: LeakService
    policies: LeakPolicyService
    responder: Responder
    intakes: IntakeService
    reporters: Reporters
    possession: PossessionService
    decoys: DecoyService
    decoy_watch: DecoyWatch

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {
            "leaks": self.leaks,
            "leak_policies": self.policies,
            "leak_intakes": self.intakes,
            "leak_reporters": self.reporters,
            "possession": self.possession,
            "decoys": self.decoys,
        }

    def families(self) -> Iterator[Family]:
        """What a scrape is told of the responder of this worker."""
        health = self.responder.health
        yield gauge("keyturn_leak_leader", "Whether this worker responds to leaks.", int(health.leader))
        yield counter("keyturn_leak_actions_done", "Actions about leaked keys that were done.", health.done)
        yield counter(
            "keyturn_leak_actions_refused", "Actions that their policy's author may not do any more.", health.refused
        )
        yield counter("keyturn_leak_actions_failed", "Tries of an action that failed.", health.failed)
        yield counter("keyturn_leak_findings_moved", "Findings that closed or opened by themselves.", health.moved)
        yield counter("keyturn_leak_failures", "Rounds of the responder that failed.", health.failures)
        watch = self.decoy_watch.health
        yield gauge("keyturn_decoy_leader", "Whether this worker looks after decoys.", int(watch.leader))
        yield counter("keyturn_decoy_tripped", "Uses of decoys that were put on record.", watch.tripped)
        yield counter("keyturn_decoy_failures", "Rounds of looking after decoys that failed.", watch.failures)


def open_leaks(
    settings: Settings,
    door: Door,
    keyring: Keyring,
    node: str,
    unauthenticated: UnauthenticatedSink,
    vault: VaultParts,
) -> LeakParts:
    """Wire what a worker has for leaks together; decoys are secrets of the vault."""
    database, boottime = door.database, door.database.clock.boottime
    matching = Matching(keyring, vault.fingerprints)
    writing = Writing(keyring, vault.fingerprints, vault.approvals)
    service = LeakService(door, matching)
    fetcher = GuardedFetcher(settings.webhook_allow, setting=WEBHOOK_SETTING)
    return LeakParts(
        leaks=service,
        policies=LeakPolicyService(door),
        responder=Responder(database, node),
        intakes=IntakeService(door, fetcher),
        reporters=Reporters(database, service, fetcher, unauthenticated, boottime),
        possession=PossessionService(database, matching, service, boottime, is_open=settings.leaked_keys == "open"),
        decoys=DecoyService(door, keyring, writing, vault.approvals),
        decoy_watch=DecoyWatch(database, node),
    )


def leak_families(connection: Connection, now: float) -> Iterator[Family]:
    """What the database tells a scrape of leaks."""
    counts = store.open_counts(connection)
    samples = [Sample("", {"certainty": str(one)}, counts.get(one, 0)) for one in Certainty]
    yield Family("keyturn_leak_findings_open", "Findings that are open or confirmed, by certainty.", "gauge", samples)
    age, waiting = store.action_backlog(connection, now)
    yield gauge("keyturn_leak_action_due_age_seconds", "How long ago the longest due action became due.", age)
    yield gauge("keyturn_leak_actions_waiting", "Open findings whose action a person has to do.", waiting)
    silent = store.silent_sources(connection, now)
    yield gauge("keyturn_leak_sources_silent", "Sources whose next report should have come.", silent)

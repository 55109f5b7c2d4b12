"""Leaks of an application: findings, policies and the responder, wired together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.leaks import store
from keyturn.leaks.matching import Matching
from keyturn.leaks.policies import LeakPolicyService
from keyturn.leaks.responding import Responder
from keyturn.leaks.service import LeakService
from keyturn.leaks.throttle import Throttle
from keyturn.telemetry.metrics import Family, Sample, counter, gauge
from keyturn.vault.fingerprints import Fingerprints
from keyturn.wire.leaks import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from keyturn.access.door import Door
    from keyturn.storage.keyring import Keyring


@dataclass(frozen=True, slots=True)
class LeakParts:
    """What a worker has for leaks."""

    leaks: LeakService
    policies: LeakPolicyService
    responder: Responder

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {"leaks": self.leaks, "leak_policies": self.policies}

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


def open_leaks(door: Door, keyring: Keyring, node: str) -> LeakParts:
    """Wire what a worker has for leaks together."""
    matching = Matching(keyring, Fingerprints(keyring))
    return LeakParts(
        leaks=LeakService(door, matching, Throttle(door.database.clock.boottime)),
        policies=LeakPolicyService(door),
        responder=Responder(door.database, node),
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

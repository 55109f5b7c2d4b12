"""What a worker verifies with, wired together: a replica that follows the change log, and what stands behind it.

follower -> replication, quotas, keyring, ... (consumers)      what the worker knows
confirmer -> replication                                       for how long it may say so
lookup, callers' proofs                                        what it asks the database instead
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.bootstrap.balances import quota_families
from keyturn.bootstrap.limiting import limiter_families, make_limiter
from keyturn.bootstrap.registration import Registration
from keyturn.keys.callers import STALE_AFTER_SECONDS, CallerProofs, ProvenCallers
from keyturn.keys.lookup import Lookup
from keyturn.keys.news import News
from keyturn.keys.rehash import Rehasher
from keyturn.keys.replication import Replication, StoredRecords
from keyturn.keys.slow_proofs import SlowProofs
from keyturn.keys.verification import VerifyService
from keyturn.quotas.keeper import QuotaKeeper
from keyturn.quotas.news import QuotaNews
from keyturn.storage.confirmer import Confirmer
from keyturn.storage.follower import Follower
from keyturn.storage.keyring_news import KeyringNews
from keyturn.telemetry.metrics import Family, Sample, counter, gauge
from keyturn.usage.collector import UsageCollector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyturn.access.door import Door
    from keyturn.audit.unauthenticated import Unauthenticated
    from keyturn.config import Settings
    from keyturn.kernel.clock import Clock
    from keyturn.storage.follower import Consumer
    from keyturn.storage.keyring import Keyring
    from keyturn.verify.spending import Limiter


@dataclass(frozen=True, slots=True)
class VerificationParts:
    """What a worker verifies with, by name."""

    service: VerifyService
    clock: Clock
    replication: Replication
    news: News
    follower: Follower
    confirmer: Confirmer
    registration: Registration
    lookup: Lookup
    slow_proofs: SlowProofs
    rehasher: Rehasher
    limiter: Limiter
    quotas: QuotaKeeper
    usage: UsageCollector

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {"verification": self.service}

    def families(self) -> Iterator[Family]:
        """What a scrape is told of verification."""
        yield from self._knowledge()
        yield from self._counts()
        yield from quota_families(self.quotas)
        yield from limiter_families(self.limiter)

    def _knowledge(self) -> Iterator[Family]:
        freshness, replica = self.replication.freshness, self.replication.replica.counts()
        remaining = freshness.remaining(self.clock.boottime(), STALE_AFTER_SECONDS)
        text = "For how long this node may answer from memory if nothing more is confirmed."
        yield gauge("keyturn_follower_applied", "The last change this node has applied.", freshness.applied)
        yield gauge("keyturn_freshness_seconds", text, remaining)
        yield counter(
            "keyturn_follower_failures", "Polls of the change log that failed.", self.follower.trouble.failures
        )
        yield counter("keyturn_confirm_failures", "Confirms that failed.", self.confirmer.trouble.failures)
        jumps = self.replication.time_jumps
        yield counter("keyturn_time_jumps", "Times the clock moved by over two seconds.", jumps)
        yield gauge("keyturn_replica_keys", "Keys held in memory.", replica.keys)
        yield gauge("keyturn_replica_versions", "Secret versions held in memory.", replica.versions)
        lookup = self.lookup
        yield counter("keyturn_lookups", "Unknown ids looked up in the database.", lookup.lookups)
        yield counter("keyturn_lookups_throttled", "Look-ups put off because too many came.", lookup.throttled)
        yield counter("keyturn_read_throughs", "Verifications answered from the database.", lookup.read_throughs)

    def _counts(self) -> Iterator[Family]:
        usage = self.usage
        lost = "Verifications whose usage was lost, here or by a process that this one found killed."
        yield counter("keyturn_usage_counted", "Verifications counted as usage.", usage.counted)
        yield gauge("keyturn_usage_waiting", "Usage entries not yet written.", usage.waiting)
        yield counter("keyturn_usage_written", "Verifications whose usage is in the database.", usage.written)
        yield gauge("keyturn_usage_in_doubt", "Verifications in a write whose outcome is unknown.", usage.in_doubt)
        yield counter("keyturn_usage_lost", lost, usage.lost + usage.recovered)
        yield counter("keyturn_usage_failures", "Usage writes that failed and are tried again.", usage.failures)
        yield counter("keyturn_rehashed", "Digests moved to the newest pepper.", self.rehasher.rehashed)
        refusals = [
            Sample("_total", {"keyspace": keyspace, "check": check}, count)
            for (keyspace, check), count in sorted(self.service.charging.shadow_refusals.items())
        ]
        text = "Verifications that a rule in shadow would have refused."
        yield Family("keyturn_shadow_refusals", text, "counter", refusals)


def open_verification(
    settings: Settings,
    door: Door,
    keyring: Keyring,
    node: str,
    unauthenticated: Unauthenticated,
    *consumers: Consumer,
) -> VerificationParts:
    """Wire what a worker verifies with, for the running event loop; `consumers` follow the change log too."""
    database, clock = door.database, door.database.clock
    callers, source, news = ProvenCallers(clock), StoredRecords(keyring), News()
    replication = Replication(source, callers, clock, learns_time=database.dialect != "sqlite")
    loop = asyncio.get_running_loop()
    confirmer = Confirmer(
        database, node, clock, confirmed=replication.confirmed, forgotten=lambda: _on(loop, registration.forgotten)
    )
    quotas = QuotaKeeper(database, clock, node, settings.data / "quotas")
    follower = Follower(
        database,
        [replication, QuotaNews(quotas), KeyringNews(keyring), *consumers, news],
        [replication, confirmer, news],
    )
    replication.resync = follower.resync
    registration = Registration(database, node, follower.resync)
    proofs = CallerProofs(door, source, replication.replica, callers, follower, unauthenticated, clock)
    lookup = Lookup(database, door, source, proofs, follower, clock)
    slow_proofs, rehasher = SlowProofs(clock.boottime), Rehasher(database)
    limiter, usage = make_limiter(settings), UsageCollector(database, node, settings.data)
    return VerificationParts(
        service=VerifyService(
            replication,
            callers,
            proofs,
            lookup,
            slow_proofs,
            rehasher,
            usage,
            clock,
            limiter=limiter,
            quotas=quotas,
        ),
        clock=clock,
        replication=replication,
        news=news,
        follower=follower,
        confirmer=confirmer,
        registration=registration,
        lookup=lookup,
        slow_proofs=slow_proofs,
        rehasher=rehasher,
        limiter=limiter,
        quotas=quotas,
        usage=usage,
    )


def _on(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
        loop.call_soon_threadsafe(call)

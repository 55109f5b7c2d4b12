"""What a worker says about itself: readiness checks and the metrics that are read at each scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.audit.store import oldest_unbuilt, unbuilt_leaves
from keyturn.bootstrap.balances import quota_families
from keyturn.bootstrap.leaks import leak_families
from keyturn.bootstrap.leases import backlog_families
from keyturn.bootstrap.limiting import limiter_checks, limiter_families
from keyturn.bootstrap.preparation import is_refused
from keyturn.errors import KeyturnError
from keyturn.http.health import HealthCheck, Monitor
from keyturn.keys.callers import STALE_AFTER_SECONDS
from keyturn.telemetry.metrics import Family, Sample, counter, gauge
from keyturn.webhooks.dispatcher import backlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from keyturn.bootstrap.application import Application

UNBUILT_SECONDS_MAX: Final = 30.0
ANSWER_SECONDS: Final = 2.0


class Observation:
    """Asks an application how it is."""

    def __init__(self, application: Application) -> None:
        """Observe one worker."""
        self._application = application
        application.metrics.add(self._families)

    def monitor(self) -> Monitor:
        """What the health routes ask."""
        return Monitor(self.checks, self.scrape)

    async def checks(self) -> list[HealthCheck]:
        """Tell, check by check, whether traffic may come here.

        An unreachable database alone does not make a node unready: while it is fresh it verifies from memory, and a
        failover of the database must not take every node out of the balancer at once.  The audit tree is behind the
        write path and does not count either; both are named all the same.
        """
        application = self._application
        found = [_check("serving", passed=not application.draining.is_set(), detail="the server is stopping")]
        follower, freshness = application.follower, application.replication.freshness
        loaded = follower.applied >= 0 and not freshness.resync_needed
        found.append(_check("replica", passed=loaded, detail="the replica is being loaded"))
        fresh = freshness.fresh(application.clock.boottime(), STALE_AFTER_SECONDS)
        found.append(_check("freshness", passed=fresh, detail="this node could not confirm lately"))
        found.extend(limiter_checks(application.limiter))
        try:
            refused, behind = await application.database.read(self._stored_state, within_seconds=ANSWER_SECONDS)
        except KeyturnError as error:
            return [*found, HealthCheck("database", ok=False, required=False, detail=error.message)]
        found.append(HealthCheck("database", ok=True, required=False))
        found.append(_check("restore", passed=not refused, detail="a restore waits to be confirmed"))
        broken = application.audit_builder.health.broken
        audit = (
            "the audit tree of a workspace does not fit together" if broken else "the audit trees are not being built"
        )
        found.append(_check("audit", passed=not broken and not behind, detail=audit, required=False))
        return found

    def _stored_state(self, connection: Connection) -> tuple[bool, bool]:
        oldest = oldest_unbuilt(connection)
        behind = oldest is not None and oldest < self._application.clock.now() - UNBUILT_SECONDS_MAX
        return is_refused(connection), behind

    async def scrape(self) -> bytes:
        """Answer a scrape; what the database would have to tell is left out when it does not answer."""
        application = self._application
        extra: list[Family] = []
        try:
            head = await application.database.head()
            unbuilt = await application.database.read(unbuilt_leaves, within_seconds=ANSWER_SECONDS)
            pending, oldest = await application.database.read(backlog, within_seconds=ANSWER_SECONDS)
            now = application.clock.now()
            stored = await application.database.read(
                lambda connection: [*backlog_families(connection, now), *leak_families(connection, now)],
                within_seconds=ANSWER_SECONDS,
            )
        except KeyturnError:
            extra.append(gauge("keyturn_database_up", "Whether the database answered this scrape.", 0))
        else:
            lag = max(0, head.seq - application.follower.applied) if application.follower.applied >= 0 else head.seq
            extra += [
                *stored,
                gauge("keyturn_database_up", "Whether the database answered this scrape.", 1),
                gauge("keyturn_change_head", "The last number of the change log.", head.seq),
                gauge("keyturn_follower_lag", "Changes this node has not applied yet.", lag),
                gauge("keyturn_audit_unbuilt_leaves", "Audit leaves not yet in a tree.", unbuilt),
                gauge("keyturn_webhook_pending", "Deliveries that wait for active endpoints.", pending),
                gauge(
                    "keyturn_webhook_pending_age_seconds",
                    "How long ago the event of the oldest of them happened.",
                    0 if oldest is None else max(0.0, application.clock.now() - oldest),
                ),
            ]
        return application.metrics.render(extra)

    def _families(self) -> Iterable[Family]:
        application = self._application
        freshness = application.replication.freshness
        counts = application.replication.replica.counts()
        builder = application.audit_builder.health
        usage = application.usage_collector
        lookup = application.lookup
        yield gauge("keyturn_follower_applied", "The last change this node has applied.", freshness.applied)
        yield gauge(
            "keyturn_freshness_seconds",
            "For how long this node may answer from memory if nothing more is confirmed.",
            freshness.remaining(application.clock.boottime(), STALE_AFTER_SECONDS),
        )
        yield counter(
            "keyturn_follower_failures", "Polls of the change log that failed.", application.follower.failures
        )
        yield counter("keyturn_confirm_failures", "Confirms that failed.", application.confirmer.failures)
        yield counter(
            "keyturn_time_jumps", "Times the clock moved by over two seconds.", application.replication.time_jumps
        )
        yield counter("keyturn_commits", "Numbered commits of this worker.", application.commits)
        yield gauge("keyturn_replica_keys", "Keys held in memory.", counts.keys)
        yield gauge("keyturn_replica_versions", "Secret versions held in memory.", counts.versions)
        yield counter("keyturn_lookups", "Unknown ids looked up in the database.", lookup.lookups)
        yield counter("keyturn_lookups_throttled", "Look-ups put off because too many came.", lookup.throttled)
        yield counter("keyturn_read_throughs", "Verifications answered from the database.", lookup.read_throughs)
        yield counter("keyturn_usage_counted", "Verifications counted as usage.", usage.counted)
        yield gauge("keyturn_usage_waiting", "Usage entries not yet written.", usage.waiting)
        yield counter("keyturn_usage_written", "Verifications whose usage is in the database.", usage.written)
        yield gauge("keyturn_usage_in_doubt", "Verifications in a write whose outcome is unknown.", usage.in_doubt)
        yield counter(
            "keyturn_usage_lost",
            "Verifications whose usage was lost, here or by a process that this one found killed.",
            usage.lost + usage.recovered,
        )
        yield counter("keyturn_usage_failures", "Usage writes that failed and are tried again.", usage.failures)
        yield from quota_families(application.quota_keeper)
        shadow = application.verification.charging.shadow_refusals
        yield Family(
            "keyturn_shadow_refusals",
            "Verifications that a rule in shadow would have refused.",
            "counter",
            [
                Sample("_total", {"keyspace": keyspace, "check": check}, count)
                for (keyspace, check), count in sorted(shadow.items())
            ],
        )
        yield counter("keyturn_rehashed", "Digests moved to the newest pepper.", application.rehasher.rehashed)
        yield counter("keyturn_unauthenticated", "Requests without a valid token.", application.unauthenticated.total)
        yield gauge("keyturn_audit_leader", "Whether this worker builds the audit trees.", int(builder.leader))
        yield counter("keyturn_audit_built", "Audit leaves this worker has added to trees.", builder.built)
        yield counter("keyturn_audit_failures", "Failures to build.", builder.failures)
        yield gauge("keyturn_audit_broken", "Workspaces whose audit tree does not fit together.", len(builder.broken))
        webhooks = application.webhook_dispatcher.health
        yield gauge("keyturn_webhook_leader", "Whether this worker sends the webhooks.", int(webhooks.leader))
        yield gauge("keyturn_webhook_sending", "Attempts under way.", webhooks.sending)
        yield counter("keyturn_webhook_delivered", "Deliveries that an endpoint took.", webhooks.delivered)
        yield counter("keyturn_webhook_failed", "Attempts that failed.", webhooks.failed)
        yield counter("keyturn_webhook_dead", "Deliveries given up.", webhooks.dead)
        yield counter("keyturn_webhook_failures", "Rounds of the dispatcher that failed.", webhooks.failures)
        yield from limiter_families(application.limiter)
        yield from application.vault.families()
        yield from application.lease_parts.families()
        yield from application.leak_parts.families()
        waiting = sum(sink.waiting for sink in builder.sinks)
        yield gauge("keyturn_checkpoints_waiting", "Checkpoints not yet delivered to the sink.", waiting)


def _check(name: str, *, passed: bool, detail: str, required: bool = True) -> HealthCheck:
    return HealthCheck(name, ok=passed, required=required, detail=None if passed else detail)

"""What a worker says about itself: readiness checks and the metrics that are read at each scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.audit.store import oldest_unbuilt, unbuilt_leaves
from keyturn.bootstrap.leaks import leak_families
from keyturn.bootstrap.leases import lease_families
from keyturn.bootstrap.limiting import limiter_checks
from keyturn.bootstrap.preparation import is_refused
from keyturn.bootstrap.webhooks import webhook_families
from keyturn.errors import KeyturnError
from keyturn.http.health import HealthCheck, Monitor
from keyturn.keys.callers import STALE_AFTER_SECONDS
from keyturn.telemetry.metrics import Family, counter, gauge

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
        for families in (
            self._families,
            application.verification.families,
            application.webhooks.families,
            application.vault.families,
            application.leases.families,
            application.leaks.families,
        ):
            application.metrics.add(families)

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
        verification = application.verification
        follower, freshness = verification.follower, verification.replication.freshness
        loaded = follower.applied >= 0 and not freshness.resync_needed
        found.append(_check("replica", passed=loaded, detail="the replica is being loaded"))
        fresh = freshness.fresh(application.clock.boottime(), STALE_AFTER_SECONDS)
        found.append(_check("freshness", passed=fresh, detail="this node could not confirm lately"))
        found.extend(limiter_checks(verification.limiter))
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
        try:
            head = await application.database.head()
            stored = await application.database.read(self._stored_families, within_seconds=ANSWER_SECONDS)
        except KeyturnError:
            return application.metrics.render([_up(answered=False)])
        lag = max(0, head.seq - max(0, application.verification.follower.applied))
        return application.metrics.render(
            [
                *stored,
                _up(answered=True),
                gauge("keyturn_change_head", "The last number of the change log.", head.seq),
                gauge("keyturn_follower_lag", "Changes this node has not applied yet.", lag),
            ]
        )

    def _stored_families(self, connection: Connection) -> list[Family]:
        now = self._application.clock.now()
        return [
            *lease_families(connection, now),
            *leak_families(connection, now),
            *webhook_families(connection, now),
            gauge("keyturn_audit_unbuilt_leaves", "Audit leaves not yet in a tree.", unbuilt_leaves(connection)),
        ]

    def _families(self) -> Iterable[Family]:
        application, builder = self._application, self._application.audit_builder.health
        waiting = sum(sink.waiting for sink in builder.sinks)
        yield counter("keyturn_commits", "Numbered commits of this worker.", application.commits)
        yield counter("keyturn_unauthenticated", "Requests without a valid token.", application.unauthenticated.total)
        yield gauge("keyturn_audit_leader", "Whether this worker builds the audit trees.", int(builder.leader))
        yield counter("keyturn_audit_built", "Audit leaves this worker has added to trees.", builder.built)
        yield counter("keyturn_audit_failures", "Failures to build.", builder.failures)
        yield gauge("keyturn_audit_broken", "Workspaces whose audit tree does not fit together.", len(builder.broken))
        yield gauge("keyturn_checkpoints_waiting", "Checkpoints not yet delivered to the sink.", waiting)


def _up(*, answered: bool) -> Family:
    return gauge("keyturn_database_up", "Whether the database answered this scrape.", int(answered))


def _check(name: str, *, passed: bool, detail: str, required: bool = True) -> HealthCheck:
    return HealthCheck(name, ok=passed, required=required, detail=None if passed else detail)

"""Everything one worker has, wired together, with its start and its stop.

    start   open database -> register node -> load snapshot -> confirm -> follow, build, count
    stop    unready -> end of streams -> usage flushed, quotas given back -> node deregistered -> database closed

A node registers before it loads: a revocation either finds it in the registry, or is in what it loads.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import select

from keyturn.access.caller import Resource
from keyturn.access.door import Door
from keyturn.access.known_workspaces import KnownWorkspaces
from keyturn.access.service import AccessService
from keyturn.audit.builder import Builder
from keyturn.audit.leaf import SYSTEM, Leaf
from keyturn.audit.service import AuditService
from keyturn.audit.sinks import open_sink
from keyturn.audit.unauthenticated import Unauthenticated
from keyturn.bootstrap.leaks import LeakParts, open_leaks
from keyturn.bootstrap.leases import LeaseParts, open_leases
from keyturn.bootstrap.limiting import start_limiter, stop_limiter
from keyturn.bootstrap.logins import LoginParts, all_tokens, open_logins
from keyturn.bootstrap.preparation import open_database, require_servable
from keyturn.bootstrap.root_keys import LOOK_EVERY_SECONDS, RootKeyParts, open_root_keys, rotate_aged
from keyturn.bootstrap.vault import VaultParts, open_vault
from keyturn.bootstrap.verification import VerificationParts, open_verification
from keyturn.bootstrap.webhooks import WebhookParts, open_webhooks
from keyturn.kernel.clock import Clock
from keyturn.kernel.ids import new_id
from keyturn.keys.authority import SystemTokens
from keyturn.keys.feeds import ReplicaService
from keyturn.keys.keyspaces import KeyspaceService
from keyturn.keys.named_limits import NamedLimitService
from keyturn.keys.owners import OwnerService
from keyturn.keys.plans import PlanService
from keyturn.keys.service import KeyService
from keyturn.keys.tokens import TokenService
from keyturn.quotas.service import QuotaService
from keyturn.storage.kek import load_provider
from keyturn.storage.keyring import Keyring
from keyturn.storage.migrate import require_current
from keyturn.storage.retention import run_retention
from keyturn.storage.rounds import quietly
from keyturn.storage.schema import workspace
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.telemetry.metrics import Metrics
from keyturn.usage.batches import UsageBatches
from keyturn.usage.service import UsageService
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Connection

    from keyturn.config import Settings
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

LOOK_AROUND_SECONDS: Final = 1.0
RETENTION_EVERY_SECONDS: Final = 300.0

_log = structlog.get_logger("keyturn")


@dataclass(slots=True)
class Application:
    """What a worker has, by name."""

    settings: Settings
    clock: Clock
    node: str
    database: Database
    keyring: Keyring
    unauthenticated: Unauthenticated
    door: Door
    access: AccessService
    known_workspaces: KnownWorkspaces
    tokens: TokenService
    keyspaces: KeyspaceService
    keys: KeyService
    plans: PlanService
    owners: OwnerService
    usage: UsageService
    usage_batches: UsageBatches
    quotas: QuotaService
    named_limits: NamedLimitService
    replica: ReplicaService
    audit: AuditService
    audit_builder: Builder
    verification: VerificationParts
    webhooks: WebhookParts
    vault: VaultParts
    leases: LeaseParts
    leaks: LeakParts
    logins: LoginParts
    root_keys: RootKeyParts
    metrics: Metrics
    draining: asyncio.Event
    commits: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _graceful: list[asyncio.Task[None]] = field(default_factory=list)
    """Those of the tasks that end by themselves once they are told to stop."""
    _jumps_seen: int = 0

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {
            "door": self.door,
            "access": self.access,
            "tokens": self.tokens,
            "keyspaces": self.keyspaces,
            "keys": self.keys,
            "plans": self.plans,
            "owners": self.owners,
            "replica": self.replica,
            "usage_batches": self.usage_batches,
            "usage": self.usage,
            "quotas": self.quotas,
            "limits": self.named_limits,
            "audit": self.audit,
            **self.verification.services(),
            **self.webhooks.services(),
            **self.vault.services(),
            **self.leases.services(),
            **self.leaks.services(),
            **self.logins.services(),
            **self.root_keys.services(),
            "draining": self.draining,
        }

    async def start(self) -> None:
        """Start to follow and to prove freshness; returns when the snapshot is loaded.

        Raises ConfigError or KekError when the database may not be served with these settings.
        """
        await self.database.open()
        for check in (require_current, require_servable, self.keyring.check):
            await self.database.read(check)
        verification = self.verification
        await verification.registration.register()
        await start_limiter(verification.limiter)
        await verification.follower.load()
        verification.confirmer.start()
        verification.usage.start()
        self._run("usage-recovery", lambda: quietly("usage could not be recovered", verification.usage.recover))
        await verification.quotas.start()
        verification.rehasher.start()
        self._run("follower", verification.follower.run)
        for name, run in {
            "unauthenticated": self.unauthenticated.run,
            "audit-builder": self.audit_builder.run,
            "webhooks": self.webhooks.dispatcher.run,
            "leaks": self.leaks.responder.run,
            "decoys": self.leaks.decoy_watch.run,
            "leases": self.leases.dispatcher.run,
        }.items():
            self._graceful.append(self._run(name, partial(run, self._stop)))
        self._run("look-around", self._look_around)
        self._run("retention", self._retain)
        self._run("workspace-keys", self._rotate_aged)
        _log.info("node started", node=self.node, database=self.database.dialect)

    def drain(self) -> None:
        """Stop being ready and end every stream and long poll; the first step of a stop.

        What was counted is flushed at once: should a request stall until this process is killed, little is lost.
        """
        if not self.draining.is_set():
            self.draining.set()
            self.verification.news.wake()
            self._run("flush", lambda: quietly("usage could not be flushed", self.verification.usage.flush))

    async def stop(self) -> None:
        """Flush what is counted, leave the registry and close the database; harmless when `start` failed."""
        self.drain()
        self._stop.set()
        verification = self.verification
        stops: dict[str, Callable[[], Awaitable[object]]] = {
            "usage": verification.usage.stop,
            "secret reads": self.vault.reader.stop,
            "quotas": verification.quotas.stop,
            "rehasher": verification.rehasher.stop,
            "limiter": partial(stop_limiter, verification.limiter),
        }
        for what, stop in stops.items():
            await quietly(f"{what} could not be stopped", stop)
        verification.slow_proofs.close()
        for task in self._tasks:
            if task not in self._graceful:
                task.cancel()
        if self._graceful:
            await asyncio.wait(self._graceful, timeout=self.settings.shutdown_seconds / 2)
        await asyncio.to_thread(verification.confirmer.stop)
        await quietly("this node could not deregister", verification.registration.deregister)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.metrics.forget_snapshot()
        await quietly("the database could not be closed", self.database.close)
        _log.info("node stopped", node=self.node)

    def _run(self, name: str, work: Callable[[], Awaitable[object]]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                _log.critical("a background task ended", task=name, exc_info=error)
                raise

        task = asyncio.create_task(guarded(), name=name)
        self._tasks.append(task)
        return task

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AROUND_SECONDS)
            jumps = self.verification.replication.time_jumps
            if jumps > self._jumps_seen:
                self._jumps_seen = jumps
                await quietly("a jump of time could not be put on record", self._alarm_time_jump)
            with contextlib.suppress(OSError):
                self.metrics.leave_snapshot()

    async def _alarm_time_jump(self) -> None:
        _log.error("time has jumped by more than two seconds", node=self.node)
        await self.database.write(lambda transaction: _record_time_jump(transaction, self.node))

    async def _retain(self) -> None:
        while True:
            await quietly("what is past its time could not be removed", lambda: run_retention(self.database, self.node))
            await asyncio.sleep(RETENTION_EVERY_SECONDS)

    async def _rotate_aged(self) -> None:
        rotate = partial(rotate_aged, self.database, self.keyring, self.node, self.settings.workspace_key_days)
        while True:
            await quietly("workspace keys could not be rotated", rotate)
            await asyncio.sleep(LOOK_EVERY_SECONDS)


def open_application(settings: Settings) -> Application:
    """Wire one worker together for the running event loop; nothing is opened before `start`."""
    clock = Clock()
    node = new_id("nod", clock.now())
    database = open_database(settings, clock)
    keyring = Keyring(load_provider(settings, create=False))
    draining = asyncio.Event()

    authority = SystemTokens(keyring)
    unauthenticated = Unauthenticated(database)
    door = Door(database, all_tokens(keyring, authority), unauthenticated)
    known_workspaces = KnownWorkspaces()
    verification = open_verification(settings, door, keyring, node, unauthenticated, known_workspaces)
    usage = UsageService(door)
    sink = open_sink(settings.checkpoint_sink)
    vault = open_vault(door, keyring, unauthenticated, verification.news, draining)
    application = Application(
        settings=settings,
        clock=clock,
        node=node,
        database=database,
        keyring=keyring,
        unauthenticated=unauthenticated,
        door=door,
        access=AccessService(door, authority, authority),
        known_workspaces=known_workspaces,
        tokens=TokenService(door, authority),
        keyspaces=KeyspaceService(door, keyring),
        keys=KeyService(door, keyring, usage),
        plans=PlanService(door),
        owners=OwnerService(door),
        usage=usage,
        usage_batches=UsageBatches(door),
        quotas=QuotaService(door, verification.quotas),
        named_limits=NamedLimitService(door, verification.limiter, clock),
        replica=ReplicaService(door, keyring, verification.news, draining),
        audit=AuditService(door, keyring, Resource),
        audit_builder=Builder(database, keyring, node, [] if sink is None else [sink]),
        verification=verification,
        webhooks=open_webhooks(door, keyring, node, settings.webhook_allow),
        vault=vault,
        leases=open_leases(door, keyring, node, settings.source_allow),
        leaks=open_leaks(settings, door, keyring, node, unauthenticated, vault),
        logins=open_logins(settings, door, keyring, unauthenticated),
        root_keys=open_root_keys(door, keyring),
        metrics=Metrics(node, settings.data if settings.workers > 1 else None),
        draining=draining,
    )
    database.on_commit(lambda _seq: _count_commit(application))
    return application


def _count_commit(application: Application) -> None:
    application.commits += 1


def _record_time_jump(transaction: Transaction, node: str) -> None:
    first = _first_workspace(transaction.connection)
    if first is None:
        return
    leaf = Leaf(
        workspace=first,
        action=Action.SYSTEM_ALARM,
        outcome="failed",
        actor=SYSTEM,
        resource=f"node/{node}",
        at=transaction.now,
        detail={"alarm": "time_jump"},
    )
    transaction.append(Entry(first, ChangeKind.AUDIT, "", leaf.row()))


def _first_workspace(connection: Connection) -> str | None:
    row = connection.execute(select(workspace.c.id).order_by(workspace.c.created_at, workspace.c.id).limit(1)).first()
    return None if row is None else row.id

"""Everything one worker has, wired together, with its start and its stop.

    start   open database -> register node -> load snapshot -> confirm -> follow, build, count
    stop    unready -> end of streams -> usage flushed, quotas given back -> node deregistered -> database closed

A node registers before it loads: a revocation either finds it in the registry, or is in what it loads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, field
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
from keyturn.bootstrap.leases import Leases, open_leases
from keyturn.bootstrap.limiting import make_limiter, start_limiter, stop_limiter
from keyturn.bootstrap.logins import LoginParts, all_tokens, open_logins
from keyturn.bootstrap.preparation import open_database, require_servable
from keyturn.bootstrap.root_keys import LOOK_EVERY_SECONDS, RootKeyParts, open_root_keys, rotate_aged
from keyturn.bootstrap.vault import VaultParts, open_vault
from keyturn.errors import KeyturnError
from keyturn.kernel.clock import Clock
from keyturn.kernel.ids import new_id
from keyturn.keys.authority import SystemTokens
from keyturn.keys.callers import CallerProofs, ProvenCallers
from keyturn.keys.feeds import ReplicaService
from keyturn.keys.keyspaces import KeyspaceService
from keyturn.keys.lookup import Lookup
from keyturn.keys.named_limits import NamedLimitService
from keyturn.keys.news import News
from keyturn.keys.owners import OwnerService
from keyturn.keys.plans import PlanService
from keyturn.keys.rehash import Rehasher
from keyturn.keys.replication import Replication, StoredRecords
from keyturn.keys.service import KeyService
from keyturn.keys.slow_proofs import SlowProofs
from keyturn.keys.tokens import TokenService
from keyturn.keys.verification import VerifyService
from keyturn.quotas.keeper import QuotaKeeper
from keyturn.quotas.news import QuotaNews
from keyturn.quotas.service import QuotaService
from keyturn.storage import nodes
from keyturn.storage.confirmer import Confirmer
from keyturn.storage.follower import Follower
from keyturn.storage.kek import load_provider
from keyturn.storage.keyring import Keyring
from keyturn.storage.keyring_news import KeyringNews
from keyturn.storage.migrate import require_current
from keyturn.storage.retention import run_retention
from keyturn.storage.schema import workspace
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.telemetry.metrics import Metrics
from keyturn.usage.batches import UsageBatches
from keyturn.usage.collector import UsageCollector
from keyturn.usage.service import UsageService
from keyturn.webhooks.deliveries import DeliveryService
from keyturn.webhooks.dispatcher import Dispatcher
from keyturn.webhooks.sender import HttpSender
from keyturn.webhooks.service import WebhookService
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Connection

    from keyturn.config import Settings
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction
    from keyturn.verify.spending import Limiter

GRACEFUL: Final = frozenset({"unauthenticated", "audit-builder", "webhooks", "leases", "leaks", "decoys"})
LOOK_AROUND_SECONDS: Final = 1.0
RETENTION_EVERY_SECONDS: Final = 300.0
DEREGISTER_SECONDS: Final = 3.0

_log = structlog.get_logger("keyturn")


@dataclass(slots=True)
class Application:
    """What a worker has, by name."""

    settings: Settings
    clock: Clock
    node: str
    database: Database
    keyring: Keyring
    root_keys: RootKeyParts
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
    usage_collector: UsageCollector
    usage_batches: UsageBatches
    quota_keeper: QuotaKeeper
    quotas: QuotaService
    verification: VerifyService
    limiter: Limiter
    named_limits: NamedLimitService
    lookup: Lookup
    slow_proofs: SlowProofs
    rehasher: Rehasher
    replication: Replication
    news: News
    replica: ReplicaService
    follower: Follower
    confirmer: Confirmer
    audit: AuditService
    audit_builder: Builder
    webhooks: WebhookService
    deliveries: DeliveryService
    vault: VaultParts
    lease_parts: Leases
    leak_parts: LeakParts
    logins: LoginParts
    webhook_dispatcher: Dispatcher
    metrics: Metrics
    draining: asyncio.Event
    commits: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _registering: asyncio.Task[None] | None = None
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
            "verification": self.verification,
            "audit": self.audit,
            "webhooks": self.webhooks,
            "deliveries": self.deliveries,
            **self.vault.services(),
            **self.lease_parts.services(),
            **self.leak_parts.services(),
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
        await self._register()
        await start_limiter(self.limiter)
        await self.follower.load()
        self.confirmer.start()
        self.usage_collector.start()
        self._run("usage-recovery", lambda: _quietly("usage", self.usage_collector.recover))
        await self.quota_keeper.start()
        self.rehasher.start()
        self._run("follower", self.follower.run)
        self._run("unauthenticated", lambda: self.unauthenticated.run(self._stop))
        self._run("audit-builder", lambda: self.audit_builder.run(self._stop))
        self._run("webhooks", lambda: self.webhook_dispatcher.run(self._stop))
        self._run("leaks", lambda: self.leak_parts.responder.run(self._stop))
        self._run("decoys", lambda: self.leak_parts.decoy_watch.run(self._stop))
        self._run("leases", lambda: self.lease_parts.dispatcher.run(self._stop))
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
            self.news.wake()
            self._run("flush", lambda: _quietly("usage", self.usage_collector.flush))

    async def stop(self) -> None:
        """Flush what is counted, leave the registry and close the database; harmless when `start` failed."""
        self.drain()
        self._stop.set()
        await _quietly("usage", self.usage_collector.stop)
        await _quietly("secret reads", self.vault.reader.stop)
        await _quietly("quotas", self.quota_keeper.stop)
        await _quietly("rehasher", self.rehasher.stop)
        await _quietly("limiter", lambda: stop_limiter(self.limiter))
        self.slow_proofs.close()
        graceful = [task for task in self._tasks if task.get_name() in GRACEFUL]
        for task in self._tasks:
            if task not in graceful:
                task.cancel()
        if graceful:
            await asyncio.wait(graceful, timeout=self.settings.shutdown_seconds / 2)
        await asyncio.to_thread(self.confirmer.stop)
        await _quietly("registry", self._deregister)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.metrics.forget_snapshot()
        await _quietly("database", self.database.close)
        _log.info("node stopped", node=self.node)

    def forgotten(self) -> None:
        """Register again and reload: the registry has lost this node; called on the event loop."""
        if self._registering is None or self._registering.done():
            self.follower.resync()
            self._registering = asyncio.create_task(self._register_again(), name="register")

    def _run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                _log.critical("a background task ended", task=name, exc_info=error)
                raise

        self._tasks.append(asyncio.create_task(guarded(), name=name))

    async def _register(self) -> None:
        label = f"{socket.gethostname()}/{os.getpid()}"[:128]
        await self.database.write(lambda t: nodes.register(t.connection, self.node, "server", label, t.now))

    async def _register_again(self) -> None:
        _log.warning("the registry has forgotten this node", node=self.node)
        await _quietly("registry", self._register)
        # Again: what was loaded before the registration does not count.
        self.follower.resync()

    async def _deregister(self) -> None:
        async with asyncio.timeout(DEREGISTER_SECONDS):
            await self.database.write(lambda t: nodes.deregister(t.connection, self.node))

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AROUND_SECONDS)
            jumps = self.replication.time_jumps
            if jumps > self._jumps_seen:
                self._jumps_seen = jumps
                await _quietly("alarm", self._alarm_time_jump)
            with contextlib.suppress(OSError):
                self.metrics.leave_snapshot()

    async def _alarm_time_jump(self) -> None:
        _log.error("time has jumped by more than two seconds", node=self.node)
        await self.database.write(lambda transaction: _record_time_jump(transaction, self.node))

    async def _retain(self) -> None:
        while True:
            await _quietly("retention", lambda: run_retention(self.database, self.node))
            await asyncio.sleep(RETENTION_EVERY_SECONDS)

    async def _rotate_aged(self) -> None:
        days = self.settings.workspace_key_days
        while True:
            await _quietly("workspace keys", lambda: rotate_aged(self.database, self.keyring, self.node, days))
            await asyncio.sleep(LOOK_EVERY_SECONDS)


def open_application(settings: Settings) -> Application:
    """Wire one worker together for the running event loop; nothing is opened before `start`."""
    clock = Clock()
    node = new_id("nod", clock.now())
    database = open_database(settings, clock)
    keyring = Keyring(load_provider(settings, create=False))
    draining = asyncio.Event()
    loop = asyncio.get_running_loop()

    authority = SystemTokens(keyring)
    unauthenticated = Unauthenticated(database)
    door = Door(database, all_tokens(keyring, authority), unauthenticated)
    usage = UsageService(door)

    callers = ProvenCallers(clock)
    source = StoredRecords(keyring)
    replication = Replication(source, callers, clock, learns_time=database.dialect != "sqlite")
    wired: list[Application] = []
    confirmer = Confirmer(
        database,
        node,
        clock,
        confirmed=replication.confirmed,
        forgotten=lambda: _on(loop, wired[0].forgotten),
    )
    news = News()
    quota_keeper = QuotaKeeper(database, clock, node, settings.data / "quotas")
    known_workspaces = KnownWorkspaces()
    follower = Follower(
        database,
        [replication, QuotaNews(quota_keeper), KeyringNews(keyring), known_workspaces, news],
        [replication, confirmer, news],
    )
    replication.resync = follower.resync
    proofs = CallerProofs(door, source, replication.replica, callers, follower, unauthenticated, clock)
    lookup = Lookup(database, door, source, proofs, follower, clock)
    slow_proofs = SlowProofs(clock.boottime)
    limiter = make_limiter(settings, clock)
    rehasher = Rehasher(database)
    collector = UsageCollector(database, node, settings.data)
    sink = open_sink(settings.checkpoint_sink)
    application = Application(
        settings=settings,
        clock=clock,
        node=node,
        database=database,
        keyring=keyring,
        root_keys=open_root_keys(door, keyring),
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
        usage_collector=collector,
        usage_batches=UsageBatches(door),
        quota_keeper=quota_keeper,
        quotas=QuotaService(door, quota_keeper),
        named_limits=NamedLimitService(door, limiter, clock),
        verification=VerifyService(
            replication,
            callers,
            proofs,
            lookup,
            slow_proofs,
            rehasher,
            collector,
            clock,
            limiter=limiter,
            quotas=quota_keeper,
        ),
        limiter=limiter,
        lookup=lookup,
        slow_proofs=slow_proofs,
        rehasher=rehasher,
        replication=replication,
        news=news,
        replica=ReplicaService(door, keyring, news, draining),
        follower=follower,
        confirmer=confirmer,
        audit=AuditService(door, keyring, Resource),
        audit_builder=Builder(database, keyring, node, [] if sink is None else [sink]),
        webhooks=WebhookService(door, keyring, settings.webhook_allow),
        deliveries=DeliveryService(door),
        logins=open_logins(settings, door, keyring, unauthenticated),
        lease_parts=open_leases(door, keyring, node, settings.source_allow),
        leak_parts=open_leaks(settings, door, keyring, node, unauthenticated),
        vault=open_vault(door, keyring, unauthenticated, news, draining),
        webhook_dispatcher=Dispatcher(database, keyring, node, HttpSender(settings.webhook_allow)),
        metrics=Metrics(node, settings.data if settings.workers > 1 else None),
        draining=draining,
    )
    wired.append(application)
    database.on_commit(lambda _seq: _count_commit(application))
    return application


def _count_commit(application: Application) -> None:
    application.commits += 1


def _on(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
        loop.call_soon_threadsafe(call)


async def _quietly(what: str, work: Callable[[], Awaitable[object]]) -> None:
    try:
        await work()
    except (KeyturnError, TimeoutError) as error:
        _log.warning("background work failed", what=what, reason=str(error))
    except Exception as error:  # noqa: BLE001 -- a stop goes on, and a loop does not end, for one failure
        _log.error("background work failed", what=what, exc_info=error)


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

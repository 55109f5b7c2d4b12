"""One node on a real database: everything that verification consists of, moved step by step by the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from sqlalchemy import update

from keyturn.access.caller import Conditions, Credentials, Grant
from keyturn.access.door import Door
from keyturn.access.founding import Founded, found_workspace
from keyturn.access.model import StoredGrant
from keyturn.access.store import insert_grant, revoke_grant
from keyturn.audit.leaf import Actor, Leaf
from keyturn.config import Settings
from keyturn.errors import StorageError
from keyturn.kernel.clock import wall
from keyturn.kernel.ids import new_id
from keyturn.kernel.secret import Secret
from keyturn.kernel.tokenformat import digest, mint, sha256
from keyturn.keys import keyspace_store, plan_store, store
from keyturn.keys.authority import SystemTokens
from keyturn.keys.callers import CallerProofs, ProvenCallers
from keyturn.keys.lookup import Lookup
from keyturn.keys.model import Key, Keyspace, Owner, Plan, Version
from keyturn.keys.records import PEPPER
from keyturn.keys.rehash import Rehasher
from keyturn.keys.replication import Replication, StoredRecords
from keyturn.keys.slow_proofs import SlowProofs
from keyturn.keys.verification import VerifyService
from keyturn.storage import nodes
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.follower import Follower
from keyturn.storage.kek_file import FileKek
from keyturn.storage.keyring import Keyring
from keyturn.storage.migrate import migrate_async
from keyturn.storage.schema import issued_key, key_version, keyspace, plan
from keyturn.storage.transaction import ChangeKind, Entry, Transaction
from keyturn.testing.clock import ManualClock
from keyturn.usage.collector import UsageCollector
from keyturn.verify.limits import LocalLimiter
from keyturn.verify.model import Request, VersionPolicy
from keyturn.verify.spending import Limiter, Quotas
from keyturn.wire.policy import Restrictions
from keyturn.wire.verification import VerifyRequest, VerifyResponse
from tests.verify.keepers import Balances

NODE = "node-under-test"


@dataclass
class Sink:
    """Remembers what was counted."""

    used: list[tuple[str, str]] = field(default_factory=list)
    refused: int = 0

    def count(self, *event: Any) -> None:
        """Serve as usage sink and as sink of unauthenticated failures."""
        if len(event) == 2:
            self.refused += 1
            return
        version, outcome, request, at = event
        assert isinstance(version, VersionPolicy)
        assert isinstance(request, Request)
        assert at > 0
        self.used.append((version.id, outcome))


@dataclass(frozen=True)
class Issued:
    """A key as its holder has it."""

    id: str
    version_id: str
    key: str


class World:
    """See the module."""

    database: Database
    service: VerifyService
    replication: Replication
    callers: ProvenCallers
    lookup: Lookup
    slow: SlowProofs
    rehasher: Rehasher
    follower: Follower
    door: Door
    admin: Founded

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self.clock = ManualClock(wall())
        self.keyring = Keyring(FileKek.from_settings(Settings(data=folder), create=True))
        self.tokens = SystemTokens(self.keyring)
        self.sink = Sink()
        self.limiter: Limiter = LocalLimiter()
        self.quotas: Quotas | None = Balances()

    @classmethod
    async def open(
        cls,
        url: str,
        folder: Path,
        *,
        admin: Founded | None = None,
        limiter: Limiter | None = None,
        quotas: Quotas | None = None,
    ) -> Self:
        """Found a workspace (unless another node did) and load the replica; the node is fresh."""
        world = cls(url, folder)
        world.limiter = limiter or world.limiter
        world.quotas = quotas or world.quotas
        await migrate_async(url)
        world.database = make_database(url, world.clock)
        await world.database.open()
        world.door = Door(world.database, world.tokens, world.sink)
        world._wire()
        world.admin = admin or await world.write(
            lambda t: found_workspace(t, world.tokens, world.tokens, name="default", created_by="test")
        )
        await world.write(lambda t: nodes.register(t.connection, NODE + str(id(world)), "server", "test", t.now))
        await world.follow()
        return world

    def _wire(self) -> None:
        clock, source = self.clock, StoredRecords(self.keyring)
        self.callers = ProvenCallers(clock)
        self.replication = Replication(source, self.callers, clock, learns_time=self.database.dialect != "sqlite")
        self.follower = Follower(self.database, [self.replication], [self.replication])
        self.replication.resync = self.follower.resync
        proofs = CallerProofs(
            self.door, source, self.replication.replica, self.callers, self.follower, self.sink, clock
        )
        self.lookup = Lookup(self.database, self.door, source, proofs, self.follower, clock)
        self.slow = SlowProofs(clock.boottime)
        self.rehasher = Rehasher(self.database)
        self.service = VerifyService(
            self.replication,
            self.callers,
            proofs,
            self.lookup,
            self.slow,
            self.rehasher,
            self.sink,
            clock,
            limiter=self.limiter,
            quotas=self.quotas,
        )

    def count_usage(self, collector: UsageCollector) -> None:
        """Count usage for real instead of in `sink`."""
        self.collector = collector
        self.service._usage = collector  # noqa: SLF001 -- wired after the database is open

    async def close(self) -> None:
        """Stop everything."""
        await self.rehasher.stop()
        self.slow.close()
        await self.database.close()

    async def write(self, work: Any) -> Any:
        """Run a unit of work that leaves a leaf behind when it has changes."""

        def unit(transaction: Transaction) -> Any:
            return work(transaction)

        return (await self.database.write(unit)).value

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the log in the background, as a server does."""
        task = asyncio.create_task(self.follower.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def follow(self) -> None:
        """Apply every change and confirm."""
        await self.follower.tick()
        await self.confirm()

    async def confirm(self) -> None:
        """Confirm as the confirming thread does."""
        sent = self.clock.boottime()
        found = await asyncio.to_thread(self._confirm, self.follower.log_id, self.follower.applied)
        self.replication.confirmed(sent, self.clock.boottime(), found)
        await asyncio.sleep(0)

    def _confirm(self, log_id: str, applied: int) -> nodes.Confirmation:
        try:
            return self.database.confirm(NODE + str(id(self)), log_id, applied)
        finally:
            self.database.close_confirm()

    def go_stale(self, seconds: float = 61.0) -> None:
        """Let time pass without a confirm."""
        self.clock.advance(seconds)

    def take_database_away(self) -> None:
        """Make every read and write of this node fail."""

        async def fail(*_: Any) -> Any:
            raise StorageError("the database did not answer")

        self.database.read = fail  # type: ignore[assignment,method-assign]
        self.database.write = fail  # type: ignore[assignment,method-assign]
        self.database.head = fail  # type: ignore[method-assign]

    # --- changing -------------------------------------------------------------------------------------------------

    async def create_keyspace(self, name: str = "orders", *, foreign: bool = False, **changes: Any) -> Keyspace:
        """Create a keyspace with a pepper."""
        made = Keyspace(
            id=new_id("ksp", self.clock.now()),
            workspace=self.admin.workspace.id,
            name=name,
            prefix="acme",
            tag="live",
            environment="production",
            state="active",
            system=False,
            stale_after_seconds=60.0,
            stale_after_was=None,
            stale_after_changed_at=None,
            restrictions=None,
            accepts_foreign=foreign,
            description="",
            created_at=self.clock.now(),
            created_by="test",
            revision=1,
        )
        made = replace(made, **changes)

        def work(transaction: Transaction) -> None:
            keyspace_store.insert_keyspace(transaction.connection, made)
            self.keyring.create(transaction.connection, made.workspace, PEPPER, made.id, transaction.now)
            transaction.append(Entry(made.workspace, ChangeKind.KEYSPACE, made.id))

        await self.write(work)
        return made

    async def rotate_pepper(self, of: Keyspace) -> None:
        """Give a keyspace a newer pepper."""

        def work(transaction: Transaction) -> None:
            self.keyring.create(transaction.connection, of.workspace, PEPPER, of.id, transaction.now)
            transaction.append(Entry(of.workspace, ChangeKind.KEYSPACE, of.id))

        await self.write(work)

    async def issue(
        self,
        of: Keyspace,
        *,
        scopes: tuple[str, ...] = (),
        restrictions: Restrictions | None = None,
        expires_at: float | None = None,
        presented: str | None = None,
        slow: tuple[str, bytes, str] | None = None,
        **policy: Any,
    ) -> Issued:
        """Issue a key, or import the one `presented`: computed, or `slow` as (kind, digest, look-up prefix)."""
        minted = mint(of.prefix, of.tag)
        text = presented or minted.key.reveal()
        kind, stored, lookup = slow or ("blake2b", b"", None)

        def work(transaction: Transaction) -> Issued:
            now = transaction.now
            pepper = self.keyring.current(transaction.connection, of.workspace, PEPPER, of.id)
            key = Key(
                id=new_id("key", now),
                workspace=of.workspace,
                keyspace=of.id,
                keyspace_name=of.name,
                environment=of.environment,
                name=None,
                owner="team-a",
                purpose="test",
                state="active",
                scopes=scopes,
                restrictions=restrictions,
                metadata={"plan": "gold"},
                tags=(),
                not_before=None,
                expires_at=expires_at,
                created_at=now,
                created_by="test",
                updated_at=now,
                disabled_at=None,
                revoked_at=None,
                revoke_reason=None,
                revision=1,
                **policy,
            )
            version = Version(
                id=minted.version_id,
                key=key.id,
                keyspace=of.id,
                number=1,
                state="current",
                digest_kind=kind,
                digest=stored or digest(pepper.value, sha256(text)),
                pepper=0 if slow else pepper.number,
                foreign=presented is not None,
                lookup=lookup,
                created_at=now,
                created_by="test",
                valid_until=None,
                retired_at=None,
            )
            store.insert_keys(transaction.connection, [key])
            store.insert_versions(transaction.connection, [version])
            transaction.append(Entry(of.workspace, ChangeKind.KEY, key.id))
            return Issued(key.id, version.id, text)

        issued: Issued = await self.write(work)
        return issued

    async def create_plan(self, name: str = "gold", **says: Any) -> str:
        """Create a plan, and return its id."""
        plan_id = new_id("pln", self.clock.now())

        def work(transaction: Transaction) -> None:
            fields: dict[str, Any] = {
                "scopes": (),
                "limits": (),
                "quotas": (),
                "restrictions": None,
                "shadow_restrictions": None,
            }
            made = Plan(
                id=plan_id,
                workspace=self.admin.workspace.id,
                name=name,
                state="active",
                description="",
                created_at=transaction.now,
                created_by="test",
                updated_at=transaction.now,
                revision=1,
                **{**fields, **says},
            )
            plan_store.insert_plan(transaction.connection, made)
            transaction.append(Entry(self.admin.workspace.id, ChangeKind.PLAN, plan_id, awaited=True))

        await self.write(work)
        return plan_id

    async def change_plan(self, plan_id: str, **columns: Any) -> None:
        """Change columns of a plan."""

        def work(transaction: Transaction) -> None:
            transaction.connection.execute(update(plan).where(plan.c.id == plan_id).values(columns))
            transaction.append(Entry(self.admin.workspace.id, ChangeKind.PLAN, plan_id, awaited=True))

        await self.write(work)

    async def set_owner(self, name: str, **says: Any) -> str:
        """Say what holds for an owner, for the first time; return the record's id."""
        owner_id = new_id("own", self.clock.now())

        def work(transaction: Transaction) -> None:
            fields: dict[str, Any] = {"plan": None, "plan_name": None, "limits": (), "quotas": ()}
            made = Owner(
                id=owner_id,
                workspace=self.admin.workspace.id,
                name=name,
                created_at=transaction.now,
                updated_at=transaction.now,
                updated_by="test",
                revision=1,
                **{**fields, **says},
            )
            plan_store.insert_owner(transaction.connection, made)
            transaction.append(Entry(self.admin.workspace.id, ChangeKind.OWNER, owner_id, awaited=True))

        await self.write(work)
        return owner_id

    async def set_key_state(self, issued: Issued, state: str) -> None:
        """Disable, enable or revoke a key."""

        def work(transaction: Transaction) -> None:
            transaction.connection.execute(update(issued_key).where(issued_key.c.id == issued.id).values(state=state))
            transaction.append(Entry(self.admin.workspace.id, ChangeKind.KEY, issued.id, awaited=True))

        await self.write(work)

    async def set_keyspace_state(self, of: Keyspace, state: str) -> None:
        """Disable or enable a keyspace."""

        def work(transaction: Transaction) -> None:
            transaction.connection.execute(update(keyspace).where(keyspace.c.id == of.id).values(state=state))
            transaction.append(Entry(of.workspace, ChangeKind.KEYSPACE, of.id, awaited=True))

        await self.write(work)

    async def revoke_admin_token(self) -> None:
        """Revoke the administrator's token."""
        token_id = self.admin.token.token_id

        def work(transaction: Transaction) -> None:
            transaction.connection.execute(
                update(issued_key).where(issued_key.c.id == token_id).values(state="revoked")
            )
            transaction.append(Entry(self.admin.workspace.id, ChangeKind.KEY, token_id, awaited=True))

        await self.write(work)

    async def stored_version(self, version_id: str) -> Any:
        """Return the row of a version."""
        return await self.database.read(
            lambda c: c.execute(key_version.select().where(key_version.c.id == version_id)).one()
        )

    async def tenant(
        self, name: str, *, resource: str | None = None, conditions: Conditions | None = None
    ) -> tuple[Founded, Credentials]:
        """Found another workspace, or, with `resource`, add a grant of key.verify to a principal without others."""
        founded: Founded = await self.write(
            lambda t: found_workspace(t, self.tokens, self.tokens, name=name, created_by="test")
        )
        if resource is None:
            return founded, credentials(founded.token.token)
        return founded, await self.restricted(resource, conditions=conditions)

    async def restricted(self, resource: str, *, conditions: Conditions | None = None) -> Credentials:
        """Make a principal in the first workspace that may only verify `resource`, and a token for it."""
        workspace = self.admin.workspace.id

        def work(transaction: Transaction) -> Credentials:
            from keyturn.access.model import Principal
            from keyturn.access.store import insert_principal

            now = transaction.now
            principal = Principal(
                new_id("prn", now), workspace, "service", new_id("svc", now), "active", {}, now, "t", 1
            )
            insert_principal(transaction.connection, principal)
            transaction.append(Entry(workspace, ChangeKind.PRINCIPAL, principal.id))
            grant = Grant(new_id("grt", now), principal.id, ("key.verify",), resource, conditions or Conditions())
            insert_grant(transaction.connection, workspace, StoredGrant(grant, "active", now, "test", None, None))
            transaction.append(Entry(workspace, ChangeKind.GRANT, grant.id))
            token = self.tokens.issue(
                transaction,
                workspace=workspace,
                principal=principal.id,
                name="verifier",
                scopes=(),
                resources=(),
                expires_at=None,
                created_by="test",
                now=now,
            )
            self.last_grant = grant.id
            return credentials(token.token)

        made: Credentials = await self.write(work)
        return made

    async def revoke_last_grant(self) -> None:
        """Take back what `restricted` granted last."""

        def work(transaction: Transaction) -> None:
            revoke_grant(transaction.connection, self.admin.workspace.id, self.last_grant, transaction.now)
            transaction.append(Entry(self.admin.workspace.id, ChangeKind.GRANT, self.last_grant, awaited=True))

        await self.write(work)

    # --- asking ---------------------------------------------------------------------------------------------------

    @property
    def credentials(self) -> Credentials:
        """Those of the first workspace's administrator."""
        return credentials(self.admin.token.token)

    async def verify(self, key: str, *, by: Credentials | None = None, **asked: Any) -> VerifyResponse:
        """Ask as the lane does."""
        caller, request = by or self.credentials, VerifyRequest(key=key, **asked)
        answer = self.service.verify_now(caller.token.reveal_bytes(), caller.ip, request)
        return answer or await self.service.verify(caller, request)

    def verify_now(self, key: str, *, by: Credentials | None = None, **asked: Any) -> VerifyResponse | None:
        """Ask memory only."""
        caller = by or self.credentials
        return self.service.verify_now(caller.token.reveal_bytes(), caller.ip, VerifyRequest(key=key, **asked))


def credentials(token: Secret, ip: str | None = None) -> Credentials:
    """Present a token."""
    return Credentials(token, ip, "req_test")


__all__ = ["Actor", "Issued", "Leaf", "World", "credentials"]

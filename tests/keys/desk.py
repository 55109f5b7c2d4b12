"""A founded installation with real management tokens, to issue keys at: services over one real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, select

from keyturn.access.caller import Credentials
from keyturn.access.door import Door
from keyturn.access.founding import DEFAULT_WORKSPACE, Founded, found_workspace
from keyturn.access.service import AccessService
from keyturn.kernel import envelope
from keyturn.kernel.secret import Secret
from keyturn.keys import plan_records, records
from keyturn.keys.authority import SystemTokens
from keyturn.keys.keyspaces import KeyspaceService
from keyturn.keys.owners import OwnerService
from keyturn.keys.plans import PlanService
from keyturn.keys.service import KeyService
from keyturn.keys.tokens import TokenService
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.kek_held import HeldKeks
from keyturn.storage.keyring import Keyring
from keyturn.storage.migrate import migrate_async
from keyturn.storage.schema import audit_leaf, change
from keyturn.testing.access import CountedFailures
from keyturn.testing.clock import ManualClock
from keyturn.verify.model import Request
from keyturn.verify.replica import Replica
from keyturn.verify.rules import verify
from keyturn.wire.access import CreateGrant, CreatePrincipal, CreateWorkspace
from keyturn.wire.keys import CreateKeyspace, IssuedKey, IssueKey, IssueToken, KeyspaceDetail
from keyturn.wire.plans import CreatePlan, PlanDetail
from keyturn.wire.usage import CallerUse, VersionUse

OFFICE = "192.0.2.7"


@dataclass
class FakeUsage:
    """A `LastUsedReader` that answers what a test has noted."""

    uses: dict[str, VersionUse] = field(default_factory=dict)

    def last_used(self, connection: Connection, version_ids: Sequence[str]) -> Mapping[str, VersionUse]:  # noqa: ARG002
        return {version: self.uses[version] for version in version_ids if version in self.uses}

    def note(self, version: str, at: float) -> None:
        """Say that a version was last used then, by a caller that can be named."""
        caller = CallerUse(at, at, 1, "198.51.100.0/24", "curl/8", "GET /orders")
        self.uses[version] = VersionUse(at, 1, (caller,))


@dataclass
class Desk:
    """Everything a test of keys needs."""

    database: Database
    clock: ManualClock
    keyring: Keyring
    system: SystemTokens
    door: Door
    access: AccessService
    keyspaces: KeyspaceService
    keys: KeyService
    plans: PlanService
    owners: OwnerService
    tokens: TokenService
    usage: FakeUsage
    failures: CountedFailures
    founded: Founded
    admin: Credentials

    async def keyspace(self, name: str = "orders", **given: Any) -> KeyspaceDetail:
        """Create a keyspace."""
        request = msgspec.convert(
            {"name": name, "prefix": "acme", "environment": "production"} | given, type=CreateKeyspace
        )
        return await self.keyspaces.create(self.admin, request)

    async def key(self, keyspace: str = "orders", **given: Any) -> IssuedKey:
        """Issue a key in a keyspace that exists."""
        return await self.keys.issue(self.admin, wanted(keyspace=keyspace, **given))

    async def plan(self, name: str = "basic", **given: Any) -> PlanDetail:
        """Create a plan."""
        return await self.plans.create(self.admin, msgspec.convert({"name": name} | given, type=CreatePlan))

    async def hire(self, name: str, *grants: tuple[str, str]) -> tuple[str, Credentials]:
        """Create a service with the grants, as (action, resource); return its id and what its requests bring."""
        made = await self.access.principals.create(self.admin, CreatePrincipal(kind="service", name=name))
        for action, resource in grants:
            request = CreateGrant(principal=made.id, actions=(action,), resource=resource)
            await self.access.grants.create(self.admin, request)
        issued = await self.tokens.issue(self.admin, made.id, IssueToken(name=name))
        assert issued.token is not None
        return made.id, Credentials(Secret(issued.token), ip=OFFICE)

    async def tenant(self, name: str) -> Credentials:
        """Create a workspace; return what requests of its administrator bring."""
        made = await self.access.workspaces.create(self.admin, CreateWorkspace(name=name))
        assert made.token is not None
        return Credentials(Secret(made.token), ip=OFFICE)

    async def leaf_bytes(self) -> list[bytes]:
        """Return the exact bytes of every leaf, oldest first."""

        def read(connection: Connection) -> list[bytes]:
            rows = connection.execute(select(audit_leaf.c.body).order_by(audit_leaf.c.seq)).scalars()
            return [cast("bytes", body) for body in rows]

        return await self.database.read(read)

    async def leaves(self, action: str) -> list[dict[str, Any]]:
        """Return the leaves of one action, oldest first."""
        return [leaf for body in await self.leaf_bytes() if (leaf := msgspec.json.decode(body))["action"] == action]

    async def news(self) -> list[tuple[str, str]]:
        """Return every change row as kind and entity."""

        def read(connection: Connection) -> list[tuple[str, str]]:
            rows = connection.execute(select(change.c.kind, change.c.entity).order_by(change.c.seq)).all()
            return [(row.kind, row.entity) for row in rows]

        return await self.database.read(read)

    async def verdict(self, presented: str | None, **given: Any) -> str:
        """Return the code of a verification against a replica loaded from the database now."""
        assert presented is not None
        replica = Replica()

        def load(connection: Connection) -> None:
            keyspaces, keys = records.load_all(connection, self.keyring)
            plans, owners = plan_records.load_plans(connection), records.load_owners(connection)
            replica.replace_all(keyspaces, keys, plans, owners)

        await self.database.read(load)
        return verify(replica, Request(presented, **given), self.clock.now()).code


def wanted(**given: Any) -> IssueKey:
    """Return a request for a key."""
    return msgspec.convert({"keyspace": "orders", "owner": "billing", "purpose": "tests"} | given, type=IssueKey)


def new_keyring() -> Keyring:
    """Return a keyring under a root key of its own."""
    return Keyring(HeldKeks(("kek_test", Secret(envelope.new_key()))))


@asynccontextmanager
async def opened_desk(url: str) -> AsyncIterator[Desk]:
    """Migrate and open the database, and found its default workspace."""
    await migrate_async(url)
    clock = ManualClock()
    database = make_database(url, clock)
    await database.open()
    try:
        keyring, failures, usage = new_keyring(), CountedFailures(), FakeUsage()
        system = SystemTokens(keyring)
        founded = (
            await database.write(
                lambda transaction: found_workspace(
                    transaction, system, system, name=DEFAULT_WORKSPACE, created_by="system"
                )
            )
        ).value
        door = Door(database, system, failures)
        yield Desk(
            database=database,
            clock=clock,
            keyring=keyring,
            system=system,
            door=door,
            access=AccessService(door, system, system),
            keyspaces=KeyspaceService(door, keyring),
            keys=KeyService(door, keyring, usage),
            plans=PlanService(door),
            owners=OwnerService(door),
            tokens=TokenService(door, system),
            usage=usage,
            failures=failures,
            founded=founded,
            admin=Credentials(founded.token.token, ip=OFFICE, request_id="req_admin"),
        )
    finally:
        await database.close()

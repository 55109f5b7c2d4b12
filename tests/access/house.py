"""A founded installation to try access on: the default workspace, its administrator, and whoever a test adds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, select

from keyturn.access.caller import Credentials, TokenOwner
from keyturn.access.door import Door
from keyturn.access.founding import DEFAULT_WORKSPACE, Founded, found_workspace
from keyturn.access.service import AccessService
from keyturn.kernel.secret import Secret
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.migrate import migrate_async
from keyturn.storage.schema import audit_leaf, change
from keyturn.testing.access import CountedFailures, FakeSystemKeyspace, FakeTokenAuthority
from keyturn.testing.clock import ManualClock
from keyturn.wire.access import CreateGrant, CreatePrincipal, CreateWorkspace, GrantConditions

OFFICE = "192.0.2.7"


@dataclass
class House:
    """Everything a test of access needs."""

    database: Database
    clock: ManualClock
    tokens: FakeTokenAuthority
    failures: CountedFailures
    door: Door
    access: AccessService
    founded: Founded
    admin: Credentials

    async def hire(
        self,
        name: str,
        *grants: tuple[str | Sequence[str], str],
        by: Credentials | None = None,
        conditions: GrantConditions | None = None,
        scopes: Sequence[str] = (),
        resources: Sequence[str] = (),
        ip: str | None = OFFICE,
    ) -> tuple[str, Credentials]:
        """Create a service with the grants, as (actions, resource); return its id and what its requests bring."""
        by = by or self.admin
        made = await self.access.principals.create(by, CreatePrincipal(kind="service", name=name))
        for actions, resource in grants:
            request = CreateGrant(
                principal=made.id,
                actions=(actions,) if isinstance(actions, str) else tuple(actions),
                resource=resource,
                conditions=conditions or GrantConditions(),
            )
            await self.access.grants.create(by, request)
        workspace = self.tokens.owners[by.token.reveal()][0].workspace
        return made.id, self.tokens.credentials(workspace, made.id, scopes=scopes, resources=resources, ip=ip)

    async def hire_into(self, by: Credentials, principal: str, action: str, resource: str = "*") -> str:
        """Grant one action to a principal that exists; return the grant's id."""
        request = CreateGrant(principal=principal, actions=(action,), resource=resource)
        return (await self.access.grants.create(by, request)).id

    async def new_tenant(self, name: str, *, by: Credentials | None = None) -> Credentials:
        """Create a workspace; return what requests of its administrator bring."""
        made = await self.access.workspaces.create(by or self.admin, CreateWorkspace(name=name))
        assert made.token is not None
        return Credentials(Secret(made.token), ip=OFFICE)

    async def leaves(self) -> list[dict[str, Any]]:
        """Return every leaf, oldest first."""

        def read(connection: Connection) -> list[dict[str, Any]]:
            rows = connection.execute(select(audit_leaf.c.body).order_by(audit_leaf.c.seq)).scalars()
            return [msgspec.json.decode(cast("bytes", body)) for body in rows]

        return await self.database.read(read)

    async def news(self) -> list[tuple[str, str, str]]:
        """Return every change row as workspace, kind and entity."""

        def read(connection: Connection) -> list[tuple[str, str, str]]:
            rows = connection.execute(select(change).order_by(change.c.seq)).all()
            return [(row.workspace, row.kind, row.entity) for row in rows]

        return await self.database.read(read)


@asynccontextmanager
async def opened_house(url: str) -> AsyncIterator[House]:
    """Migrate and open the database, and found its default workspace."""
    await migrate_async(url)
    clock = ManualClock()
    database = make_database(url, clock)
    await database.open()
    try:
        tokens, failures, keyspaces = FakeTokenAuthority(), CountedFailures(), FakeSystemKeyspace()
        founded = (
            await database.write(
                lambda transaction: found_workspace(
                    transaction, tokens, keyspaces, name=DEFAULT_WORKSPACE, created_by="system"
                )
            )
        ).value
        door = Door(database, tokens, failures)
        access = AccessService(door, tokens, keyspaces)
        admin = Credentials(founded.token.token, ip=OFFICE, request_id="req_admin")
        yield House(database, clock, tokens, failures, door, access, founded, admin)
    finally:
        await database.close()


def with_token(credentials: Credentials, token: Secret) -> Credentials:
    """Return the same request with another token."""
    return replace(credentials, token=token)


def owner_of(house: House, credentials: Credentials) -> TokenOwner:
    """Return whose token it is."""
    return house.tokens.owners[credentials.token.reveal()][0]

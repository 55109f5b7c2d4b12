"""A founded installation with leases: services, a dispatcher with a manual clock, and a system in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from keyturn.kernel.secret import Secret
from keyturn.leases.connectors.installed import InstalledConnectors
from keyturn.leases.dispatcher import LeaseDispatcher
from keyturn.leases.endings import Endings
from keyturn.leases.ports import Connector, Deadline, NewAccount, ProviderError
from keyturn.leases.rules import Timing
from keyturn.leases.service import LeaseService
from keyturn.leases.sources import SourceService
from keyturn.storage.schema import lease
from keyturn.wire.leases import CreateCredentialRole, CreateSource, LeaseCreated
from tests.keys.desk import Desk, opened_desk


@dataclass
class Town:
    """A `Connector` of a system in memory, which fails and stands still as it is told."""

    renewable = True
    revocable = True
    seconds_min = 1
    secret_settings = frozenset({"password"})

    accounts: dict[str, float] = field(default_factory=dict)
    passwords: list[Secret] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    """What fails: `open`, `create`, `extend`, `drop`, `check`."""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """What waits until its gate is open."""
    opened: int = 0

    def read_connection(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"host": "town.internal", "password": "", **given}

    def borrows(self, connection: Mapping[str, Any]) -> bool:
        return connection.get("as") == "machine"

    def destination(self, connection: Mapping[str, Any]) -> None:
        del connection

    def read_role(self, given: Mapping[str, Any], ttl_seconds: int, max_ttl_seconds: int) -> dict[str, Any]:
        assert ttl_seconds <= max_ttl_seconds
        return dict(given)

    @asynccontextmanager
    async def open(self, connection: Mapping[str, Any]) -> AsyncIterator[Town]:
        self.opened += 1
        await self._step("open", str(connection["host"]))
        yield self

    async def create(self, role: Mapping[str, Any], account: NewAccount, deadline: Deadline) -> dict[str, str]:  # noqa: ARG002 -- the port
        await self._step("create", account.name)
        deadline.check()
        self.accounts[account.name] = account.expires_at
        self.passwords.append(account.password)
        await self._step("created", account.name)
        return {}

    async def extend(self, role: Mapping[str, Any], name: str, expires_at: float) -> None:  # noqa: ARG002 -- the port
        await self._step("extend", name)
        if name not in self.accounts:
            raise ProviderError("there is no such account")
        self.accounts[name] = expires_at

    async def drop(self, role: Mapping[str, Any], name: str) -> None:  # noqa: ARG002 -- the port
        await self._step("drop", name)
        self.accounts.pop(name, None)

    async def exists(self, name: str) -> bool:
        return name in self.accounts

    async def check(self) -> None:
        await self._step("check", "")

    async def _step(self, what: str, name: str) -> None:
        self.calls.append((what, name))
        if what in self.gates:
            await self.gates[what].wait()
        if what in self.down:
            raise ProviderError(f"the town is closed for {what}")


class River(Town):
    """A system whose credentials nothing takes back."""

    renewable = False
    revocable = False


@dataclass
class Kinds:
    """`Connectors` of a test, on top of those that are installed."""

    found: dict[str, Connector]
    installed: InstalledConnectors = field(default_factory=InstalledConnectors)

    def get(self, kind: str) -> Connector | None:
        return self.found.get(kind) or self.installed.get(kind)

    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted({*self.found, *self.installed.kinds()}))


@dataclass
class Bench:
    """Everything a test of leases needs."""

    desk: Desk
    town: Town
    other: Town
    river: River
    kinds: Kinds
    sources: SourceService
    leases: LeaseService
    endings: Endings
    dispatcher: LeaseDispatcher

    async def source(self, name: str = "app", kind: str = "town", **connection: Any) -> None:
        """Create a source with a role `reader`."""
        await self.sources.create(self.desk.admin, CreateSource(name=name, kind=kind, connection=connection))
        await self.role("reader", source=name)

    async def role(self, name: str, source: str = "app", **given: Any) -> None:
        """Create a role."""
        await self.sources.create_role(
            self.desk.admin, source, CreateCredentialRole(name=name, **({"config": {}} | given))
        )

    async def lease(self, source: str = "app", role: str = "reader", ttl: int | None = None) -> LeaseCreated:
        """Make a lease."""
        return await self.leases.create(self.desk.admin, source, role, ttl_seconds=ttl)

    async def round(self, dispatcher: LeaseDispatcher | None = None) -> None:
        """Dispatch until nothing is due any more."""
        one = dispatcher or self.dispatcher
        while await one.dispatch_once():
            await one.settled()

    async def until(self, what: str) -> None:
        """Return when the town was asked for this."""
        while not any(asked == what for asked, _ in self.town.calls):  # noqa: ASYNC110 -- it is a list
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and dispatch."""
        self.desk.clock.advance(seconds)
        await self.round()

    async def rows(self) -> list[Any]:
        """Return every lease as it is stored, oldest first."""

        def read(connection: Connection) -> list[Any]:
            return list(connection.execute(select(*lease.c).order_by(lease.c.created_at, lease.c.id)).all())

        return await self.desk.database.read(read)

    async def states(self) -> list[str]:
        """Return the state of every lease."""
        return [row.state for row in await self.rows()]

    def another(self, holder: str) -> LeaseDispatcher:
        """Return the dispatcher of another worker."""
        return LeaseDispatcher(self.desk.database, self.endings, holder)


@asynccontextmanager
async def opened_bench(url: str, timing: Timing | None = None) -> AsyncIterator[Bench]:
    """Open a desk and add leases to it."""
    async with opened_desk(url) as desk:
        town, other, river = Town(), Town(), River()
        kinds = Kinds({"town": town, "other": other, "river": river})
        endings = Endings(desk.database, desk.keyring, kinds, timing or Timing(), chance=lambda: 0.5)
        yield Bench(
            desk=desk,
            town=town,
            other=other,
            river=river,
            kinds=kinds,
            sources=SourceService(desk.door, desk.keyring, kinds),
            leases=LeaseService(desk.door, desk.keyring, kinds, endings),
            endings=endings,
            dispatcher=LeaseDispatcher(desk.database, endings, "nod_first"),
        )

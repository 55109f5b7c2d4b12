"""Leases that expire: how far behind their time they are ended, and what that costs.

    python -m benchmarks.leases [--short] [--json FILE]

    minute     100 000 leases of ten sources whose time is over within one minute, evenly spread
    at once    100 000 leases whose time is over already: how fast they drain
    real       leases at a real PostgreSQL, over already: each account is dropped there with all that it holds

The dispatcher runs as in a server, in this process, on SQLite and on PostgreSQL, with everything a lease's end takes:
claims, states, audit leaves and change rows.  In the first two the source is in memory and answers at once, so that
what is measured is Keyturn.  `behind` is from a lease's time to the moment its end was written down, over all leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, func, insert, select

from benchmarks.report import arguments, finish
from keyturn.access.caller import Credentials
from keyturn.access.door import Door
from keyturn.access.founding import DEFAULT_WORKSPACE, found_workspace
from keyturn.kernel import envelope
from keyturn.kernel.clock import Clock
from keyturn.kernel.ids import new_id
from keyturn.kernel.secret import Secret, random_base62
from keyturn.keys.authority import SystemTokens
from keyturn.leases.connectors.installed import InstalledConnectors
from keyturn.leases.dispatcher import LeaseDispatcher
from keyturn.leases.endings import Endings
from keyturn.leases.model import Lease
from keyturn.leases.ports import Connector
from keyturn.leases.rules import Timing
from keyturn.leases.sources import SourceService
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.kek_held import HeldKeks
from keyturn.storage.keyring import Keyring
from keyturn.storage.migrate import migrate_async
from keyturn.storage.schema import audit_leaf, lease, workspace
from keyturn.testing.access import CountedFailures
from keyturn.testing.postgres import PostgresServer
from keyturn.wire.leases import CreateCredentialRole, CreateSource, LeaseState

SOURCES = 10
MINUTE_SECONDS = 60.0
LEAD_SECONDS = 3.0


class Quick:
    """A connector whose system is in memory and answers at once."""

    renewable = revocable = True
    seconds_min = 1
    secret_settings = frozenset[str]()
    dropped = 0

    def borrows(self, connection: Mapping[str, Any]) -> bool:  # noqa: ARG002 -- the port
        """Use nothing of the machine's."""
        return False

    def read_connection(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take any."""
        return dict(given)

    def read_role(self, given: Mapping[str, Any], _ttl_seconds: int, _max_ttl_seconds: int) -> dict[str, Any]:
        """Take any."""
        return dict(given)

    @contextlib.asynccontextmanager
    async def open(self, _connection: Mapping[str, Any]) -> AsyncIterator[Any]:
        """Connect to nothing."""
        yield self

    async def drop(self, _role: Mapping[str, Any], _name: str) -> None:
        """Count."""
        await asyncio.sleep(0)
        self.dropped += 1

    async def check(self) -> None:
        """Answer."""
        return


class Kinds(InstalledConnectors):
    """What is installed, and the quick one."""

    def __init__(self) -> None:
        """Have a quick one."""
        super().__init__()
        self.quick: Any = Quick()

    def get(self, kind: str) -> Connector | None:
        """Return the connector of a kind."""
        return self.quick if kind == "quick" else super().get(kind)


@dataclass
class House:
    """A founded installation with sources."""

    database: Database
    keyring: Keyring
    kinds: Kinds
    workspace: str
    admin: Credentials
    sources: SourceService
    places: list[tuple[str, str, str]]
    """Id of a source, of its role, and its name."""


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[House]:
    """Open and found an installation."""
    await migrate_async(url)
    clock = Clock()
    database = make_database(url, clock)
    await database.open()
    try:
        keyring = Keyring(HeldKeks((new_id("kek", 0.0), Secret(envelope.new_key()))))
        system = SystemTokens(keyring)
        founded = (
            await database.write(lambda t: found_workspace(t, system, system, name=DEFAULT_WORKSPACE, created_by="x"))
        ).value
        kinds = Kinds()
        door = Door(database, system, CountedFailures())
        sources = SourceService(door, keyring, kinds)
        admin = Credentials(founded.token.token)
        house = House(database, keyring, kinds, "", admin, sources, [])
        house.workspace = await database.read(workspace_of)
        yield house
    finally:
        await database.close()


def workspace_of(connection: Connection) -> str:
    """Return the id of the only workspace."""
    return str(connection.execute(select(workspace.c.id)).scalar_one())


async def add_source(house: House, name: str, kind: str, connection: dict[str, Any]) -> None:
    """Create a source with a role."""
    made = await house.sources.create(house.admin, CreateSource(name=name, kind=kind, connection=connection))
    role = await house.sources.create_role(
        house.admin, name, CreateCredentialRole(name="reader", config={}, leases_max=1_000_000)
    )
    house.places.append((made.id, role.id, name))


async def fill(house: House, count: int, first: float, spread: float) -> list[str]:
    """Store leases as if they had been created, whose time is over from `first` on; return their accounts."""
    accounts = []
    names = [field.name for field in fields(Lease)]
    rows = []
    for number in range(count):
        source, role, name = house.places[number % len(house.places)]
        lease_id = new_id("lea", first - 3600)
        account = f"kt_reader_{random_base62(14)}"
        at = first + spread * number / count
        accounts.append(account)
        values = (
            lease_id,
            house.workspace,
            f"{name}/creds/reader/{lease_id}",
            source,
            role,
            account,
            LeaseState.ACTIVE.value,
            "prn_bench",
            "",
            None,
            3600,
            first - 3600,
            at,
            at + 3600,
            at,
            0.0,
            0,
            None,
            None,
            None,
            1,
        )
        rows.append(dict(zip(names, values, strict=True)))
    for start in range(0, count, 5000):
        part = rows[start : start + 5000]
        await house.database.write(lambda t, part=part: t.connection.execute(insert(lease), part))  # type: ignore[misc]
    return accounts


async def drain(house: House, count: int) -> dict[str, float]:
    """Run a dispatcher until every lease is over."""
    endings = Endings(house.database, house.keyring, house.kinds, Timing())
    dispatcher = LeaseDispatcher(house.database, endings, "nod_bench")
    stop = asyncio.Event()
    leaves = await house.database.read(count_leaves)
    began, cpu = time.perf_counter(), time.process_time()
    running = asyncio.create_task(dispatcher.run(stop))
    while dispatcher.health.dropped < count:  # noqa: ASYNC110 -- it is a count
        await asyncio.sleep(0.1)
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    stop.set()
    await running
    behind = sorted(await house.database.read(lags))
    assert len(behind) == count
    return {
        "seconds": took,
        "per_second": count / took,
        "cpu_seconds": spent,
        "behind_p50": statistics.median(behind),
        "behind_p99": behind[int(count * 0.99)],
        "behind_max": behind[-1],
        "leaves": (await house.database.read(count_leaves)) - leaves,
        "failed": dispatcher.health.failed,
    }


def lags(connection: Connection) -> list[float]:
    """Return how late each lease was ended."""
    query = select(lease.c.revoked_at - lease.c.expires_at).where(lease.c.state == LeaseState.REVOKED.value)
    return [one for one in connection.execute(query).scalars() if one is not None]


def count_leaves(connection: Connection) -> int:
    """Return how many audit leaves there are."""
    return int(connection.execute(select(func.count()).select_from(audit_leaf)).scalar_one())


async def quick(url: str, count: int, spread: float) -> dict[str, float]:
    """Measure sources in memory."""
    async with opened(url) as house:
        for number in range(SOURCES):
            await add_source(house, f"source-{number}", "quick", {})
        lead = LEAD_SECONDS + count / 20_000 if spread else -1.0
        await fill(house, count, house.database.clock.now() + lead, spread)
        return await drain(house, count)


async def real(url: str, count: int, server: PostgresServer) -> dict[str, float]:
    """Measure a real PostgreSQL."""
    parts = urlsplit(server.url())
    connection = {
        "host": "127.0.0.1",
        "port": server.port,
        "username": parts.username,
        "password": parts.password,
        "tls": "disable",
    }
    async with opened(url) as house:
        await add_source(house, "real", "postgresql", connection)
        accounts = await fill(house, count, house.database.clock.now() - 1.0, 0.0)
        for start in range(0, count, 200):
            part = ";".join(f'CREATE ROLE "{account}" LOGIN' for account in accounts[start : start + 200])
            await asyncio.to_thread(server.query, part)
        found = await drain(house, count)
        assert server.query(r"SELECT count(*) FROM pg_roles WHERE rolname LIKE 'kt\_%'") == "0"
        return found


def measure(*, short: bool) -> dict[str, Any]:
    """Measure everything."""
    count, some = (2_000, 100) if short else (100_000, 2_000)
    found: dict[str, Any] = {"leases": count, "real_leases": some}
    with tempfile.TemporaryDirectory() as folder, PostgresServer.start() as server, PostgresServer.start() as other:
        for engine in ("sqlite", "postgresql"):
            for name, spread in (("minute", MINUTE_SECONDS / (12 if short else 1)), ("at_once", 0.0)):
                sqlite = f"sqlite:///{Path(folder) / f'{name}.db'}"
                url = sqlite if engine == "sqlite" else server.create_database()
                found[f"{engine}_{name}"] = asyncio.run(quick(url, count, spread))
            url = f"sqlite:///{Path(folder) / 'real.db'}" if engine == "sqlite" else server.create_database()
            found[f"{engine}_real"] = asyncio.run(real(url, some, other))
    return found


def show(found: dict[str, Any]) -> None:
    """Print the result."""
    print(f"{found['leases']} leases at sources in memory, {found['real_leases']} at a real PostgreSQL")
    print(f"{'':22}{'seconds':>9}{'per s':>9}{'CPU s':>8}{'behind p50':>12}{'p99':>8}{'max':>8}{'leaves':>8}")
    for name, one in found.items():
        if isinstance(one, dict):
            print(
                f"{name.replace('_', ' '):22}{one['seconds']:9.1f}{one['per_second']:9.0f}{one['cpu_seconds']:8.1f}"
                f"{one['behind_p50']:12.2f}{one['behind_p99']:8.2f}{one['behind_max']:8.2f}{one['leaves']:8.0f}"
            )


if __name__ == "__main__":
    _given = arguments(__doc__)
    finish("leases", measure(short=_given.short), show, _given)

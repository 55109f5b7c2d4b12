"""An audit log on a real database, as the tests write it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Executable, insert, select

from keyturn.audit.builder import Builder
from keyturn.audit.leaf import Actor, Detail, Leaf
from keyturn.audit.service import AuditService
from keyturn.audit.tree import StoredCheckpoint, read_checkpoint
from keyturn.errors import ForbiddenError
from keyturn.kernel import envelope
from keyturn.kernel.clock import Clock
from keyturn.kernel.secret import Secret
from keyturn.storage.database import Database
from keyturn.storage.kek_held import HeldKeks
from keyturn.storage.keyring import Keyring
from keyturn.storage.postgresql import PostgresqlDatabase
from keyturn.storage.schema import audit_leaf, workspace
from keyturn.storage.sqlite import SqliteDatabase
from keyturn.storage.transaction import ChangeKind, Committed, Entry, Transaction
from keyturn.wire.actions import Action

WORKSPACE = "wsp_0VPfh4Qa7mKx2LwZ9Yb3Rt"
ALL = frozenset({"audit.read", "audit.export", "audit.erase"})
T = TypeVar("T")
OTHER_WORKSPACE = "wsp_1VPfh4Qa7mKx2LwZ9Yb3Rt"


def new_keyring() -> Keyring:
    return Keyring(HeldKeks(("kek_test", Secret(envelope.new_key()))))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A connection to a database that has been migrated; two of them are as independent as two servers."""
    database: Database
    if url.startswith("sqlite"):
        database = SqliteDatabase(Path(url.removeprefix("sqlite:///")), Clock())
    else:
        database = PostgresqlDatabase(url, Clock())
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@dataclass
class Log:
    """Leaves go in, checkpoints come out."""

    database: Database
    keyring: Keyring
    workspace: str = WORKSPACE
    builder: Builder = field(init=False)

    def __post_init__(self) -> None:
        self.builder = Builder(self.database, self.keyring, "nod_test")

    async def append(
        self, count: int = 1, *, action: str = "key.issue", workspace: str | None = None, outcome: str = "allowed"
    ) -> list[str]:
        """Add leaves in one transaction; return their ids."""
        home = workspace or self.workspace

        def work(transaction: Transaction) -> list[str]:
            ids = []
            for number in range(count):
                detail: dict[str, Detail] = {"number": number}
                row = Leaf(
                    workspace=home,
                    action=action,
                    outcome="allowed" if outcome == "allowed" else "denied",
                    actor=Actor("prn_admin", "user", "admin"),
                    resource=f"key/orders/key_{number}",
                    at=transaction.now,
                    detail=detail,
                ).row()
                transaction.append(Entry(home, ChangeKind.KEY, f"key_{number}", row))
                ids.append(row.id)
            return ids

        return (await self.database.write(work)).value

    async def grow(self, *counts: int) -> None:
        """Add that many leaves and sign them, once per count."""
        for count in counts:
            await self.append(count)
            await self.builder.build_once()

    async def alter(self, *statements: Executable) -> None:
        """Do to the database what somebody with its password can do."""

        def work(transaction: Transaction) -> None:
            for statement in statements:
                transaction.connection.execute(statement)

        await self.database.write(work)

    def service(
        self, allowed: frozenset[str] = ALL, workspace: str | None = None, *, build_wait_seconds: float = 0.0
    ) -> AuditService:
        """The reader, for somebody who may do what `allowed` names."""
        door = FakeDoor(self.database, workspace or self.workspace, allowed)
        return AuditService(door, self.keyring, Named, build_wait_seconds=build_wait_seconds)

    async def export(self, since: int = 0) -> list[str]:
        """The lines of an export as a client gets them."""
        chunks = [chunk async for chunk in await self.service().export(None, since=since)]
        return b"".join(chunks).decode().splitlines()

    async def verifier_key(self) -> str:
        return (await self.service().public_key(None)).verifier_key

    async def latest(self) -> StoredCheckpoint:
        found = await self.database.read(lambda connection: read_checkpoint(connection, self.workspace))
        assert found is not None
        return found

    async def bodies(self, workspace: str | None = None) -> list[bytes]:
        """Every stored body in order."""
        home = workspace or self.workspace
        return await self.database.read(
            lambda connection: [
                row.body or b""
                for row in connection.execute(
                    select(audit_leaf.c.body).where(audit_leaf.c.workspace == home).order_by(audit_leaf.c.seq)
                )
            ]
        )

    async def create_workspace(self) -> None:
        """Add the workspace row itself."""

        def work(transaction: Transaction) -> None:
            transaction.connection.execute(
                insert(workspace).values(
                    id=self.workspace, name="default", state="active", created_at=transaction.now, revision=1
                )
            )

        await self.database.write(work)


@dataclass(frozen=True)
class Named:
    """What the tests name a resource with."""

    name: str


@dataclass
class FakeOperation:
    """An operation of somebody who may do what `allowed` names."""

    connection: Connection
    now: float
    workspace: str
    allowed: frozenset[str]
    transaction: Transaction | None = None
    recorded: list[str] = field(default_factory=list)

    def authorise(self, action: Action, resource: Named, *, kind: str = "", name: str = "") -> None:
        del kind, name
        if action not in self.allowed:
            raise ForbiddenError(f"may not {action} on {resource.name}")

    def record(
        self,
        action: Action,
        resource: str,
        *,
        kind: ChangeKind,
        entity: str,
        detail: dict[str, Detail] | None = None,
    ) -> None:
        assert self.transaction is not None
        leaf = Leaf(
            self.workspace, action, "allowed", Actor("prn_admin", "user", "admin"), resource, self.now, detail or {}
        )
        self.transaction.append(Entry(self.workspace, kind, entity, leaf.row()))
        self.recorded.append(action)

    def unchanged(self) -> None:
        self.recorded.append("")


class FakeDoor:
    """Lets everybody in as a principal of one workspace; stands in for `keyturn.access.door.Door`."""

    def __init__(self, database: Database, workspace: str = WORKSPACE, allowed: frozenset[str] = ALL) -> None:
        self.database = database
        self.workspace = workspace
        self.allowed = allowed

    async def write(self, credentials: object, work: Callable[[FakeOperation], T]) -> Committed[T]:
        del credentials

        def unit(transaction: Transaction) -> T:
            operation = FakeOperation(
                transaction.connection, transaction.now, self.workspace, self.allowed, transaction
            )
            value = work(operation)
            assert operation.recorded
            return value

        return await self.database.write(unit)

    async def read(self, credentials: object, work: Callable[[FakeOperation], T]) -> T:
        del credentials
        now = self.database.clock.now()
        return await self.database.read(
            lambda connection: work(FakeOperation(connection, now, self.workspace, self.allowed))
        )

"""An audit log on a real database, as the tests write it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Executable, insert, select

from keyturn.audit.builder import Builder
from keyturn.audit.leaf import Actor, Detail, Leaf
from keyturn.audit.tree import StoredCheckpoint, read_checkpoint
from keyturn.kernel import envelope
from keyturn.kernel.clock import Clock
from keyturn.kernel.secret import Secret
from keyturn.storage.database import Database
from keyturn.storage.kek import FileKek
from keyturn.storage.keyring import Keyring
from keyturn.storage.postgresql import PostgresqlDatabase
from keyturn.storage.schema import audit_leaf, workspace
from keyturn.storage.sqlite import SqliteDatabase
from keyturn.storage.transaction import ChangeKind, Entry, Transaction

WORKSPACE = "wsp_0VPfh4Qa7mKx2LwZ9Yb3Rt"
OTHER_WORKSPACE = "wsp_1VPfh4Qa7mKx2LwZ9Yb3Rt"


def new_keyring() -> Keyring:
    return Keyring(FileKek("kek_test", Secret(envelope.new_key())))


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

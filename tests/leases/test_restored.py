"""After a restore no account is left that nobody knows, and no lease lives that was revoked."""

from sqlalchemy import delete, select

from keyturn.bootstrap.reapplication import Taken, reapply
from keyturn.storage.schema import lease
from keyturn.storage.schema import workspace as workspace_table
from keyturn.storage.transaction import Transaction
from keyturn.wire.actions import Action
from tests.leases.bench import Bench


async def again(bench: Bench, action: Action, resource: str, account: str) -> bool:
    """Do again what a leaf of an export says."""

    def work(transaction: Transaction) -> bool:
        workspace = str(transaction.connection.execute(select(workspace_table.c.id)).scalar_one())
        taken = Taken(action, resource, "evt_x", "prn_x", transaction.now, {"account": account})
        entry = reapply(transaction.connection, workspace, taken, transaction.now)
        if entry is not None:
            transaction.append(entry)
        return entry is not None

    return (await bench.desk.database.write(work)).value


async def test_an_account_that_was_made_after_the_backup_is_dropped(bench: Bench) -> None:
    """The restored database has no lease of it; the export of the audit log names it."""
    await bench.source()
    made = await bench.lease()
    (account,) = bench.town.accounts
    await bench.desk.database.write(lambda transaction: transaction.connection.execute(delete(lease)).rowcount)
    resource = f"lease/app/reader/{made.id}"

    assert await again(bench, Action.LEASE_CREATE, resource, account)
    assert not await again(bench, Action.LEASE_CREATE, resource, account)
    await bench.round()

    assert bench.town.accounts == {}
    assert await bench.states() == ["revoked"]


async def test_a_lease_that_was_revoked_after_the_backup_ends_again(bench: Bench) -> None:
    await bench.source()
    made = await bench.lease()
    (account,) = bench.town.accounts

    assert await again(bench, Action.LEASE_REVOKE, f"lease/app/reader/{made.id}", account)
    assert not await again(bench, Action.LEASE_REVOKE, f"lease/app/reader/{made.id}", account)
    await bench.round()

    assert await bench.states() == ["revoked"]

"""A restored database does not spend again what was leased when the backup was made."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection

from keyturn.kernel.clock import Clock
from keyturn.quotas import store
from keyturn.quotas.inspection import discrepancies
from keyturn.quotas.keeper import QuotaKeeper
from keyturn.quotas.model import Account
from keyturn.storage.backup import dump, load
from keyturn.storage.engine import make_database
from keyturn.storage.migrate import migrate_async
from keyturn.verify.spending import QuotaDemand
from keyturn.wire.policy import QuotaRule
from tests.quotas.world import spend
from tests.storage.test_backup import RIGHT

ASKED = QuotaDemand(QuotaRule("credits", 80, period="none"), "wsp_1", "key/key_1", 1)


def read_account(connection: Connection) -> Account:
    (found,) = store.accounts_of(connection, "wsp_1", "key/key_1", since=0.0)
    return found


@pytest.mark.parametrize("same_folder", [False, True], ids=["elsewhere", "same_folder"])
async def test_what_was_leased_at_the_backup_is_stranded_or_counted(tmp_path: Path, *, same_folder: bool) -> None:
    """Elsewhere nobody knows what was spent of it; in the same data folder the counters say so, to the unit."""
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("first", "restored")]
    for url in urls:
        await migrate_async(url)
    first = make_database(urls[0], Clock())
    await first.open()
    node = QuotaKeeper(first, first.clock, "nod_1", tmp_path / "a")
    await node.open()
    assert (await spend(node, first.clock.now(), ASKED)).admitted
    await dump(first, tmp_path / "backup", RIGHT)
    assert [(await spend(node, first.clock.now(), ASKED)).admitted for _ in range(3)] == [True] * 3
    node.abandon()
    await first.close()

    restored = make_database(urls[1], Clock())
    await load(restored, tmp_path / "backup", RIGHT)
    await restored.open()
    again = QuotaKeeper(restored, restored.clock, "nod_2", tmp_path / ("a" if same_folder else "b"))
    await again.open()
    await again.sweep()
    found = await restored.read(read_account)
    assert (found.spent, found.stranded, found.available) == ((4, 0, 76) if same_folder else (0, 8, 72))
    admitted = [(await spend(again, restored.clock.now(), ASKED)).admitted for _ in range(80)].count(True)
    assert admitted == (76 if same_folder else 72)
    await again.stop()
    assert await restored.read(discrepancies) == []
    await restored.close()

"""A process that spends a balance and says so, one line for each admitted call; to be killed.

python -m tests.quotas.spender DATABASE_URL FOLDER NODE AMOUNT PAUSE
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from keyturn.kernel.clock import Clock
from keyturn.quotas.keeper import QuotaKeeper
from keyturn.storage.engine import make_database
from keyturn.verify.spending import QuotaDemand
from keyturn.wire.policy import QuotaRule
from tests.quotas.world import spend


async def run(url: str, folder: Path, node: str, amount: int, pause: float) -> None:
    """Spend until nothing is left, then give back and end."""
    database = make_database(url, Clock())
    await database.open()
    keeper = QuotaKeeper(database, database.clock, node, folder)
    await keeper.start()
    asked = QuotaDemand(QuotaRule("credits", amount, period="none"), "wsp_1", "key/key_1", 1)
    refused = 0
    while refused < 3:
        found = await spend(keeper, database.clock.now(), asked)
        if found.admitted:
            os.write(1, b"+")
        elif not found.unavailable and not found.retry_after_seconds:
            refused += 1
        await asyncio.sleep(pause if found.admitted else 0.05)
    await keeper.stop()
    await database.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))

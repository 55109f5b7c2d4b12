"""Real processes on a real database, killed with SIGKILL while they spend."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keyturn.kernel.clock import Clock
from keyturn.quotas import store
from keyturn.quotas.inspection import discrepancies
from keyturn.quotas.model import Account
from keyturn.storage.engine import make_database
from keyturn.storage.migrate import migrate

AMOUNT = 1500
ROOT = Path(__file__).parents[2]


def start(url: str, folder: Path, node: str, pause: float) -> subprocess.Popen[bytes]:
    """Start a process that spends."""
    command = [sys.executable, "-m", "tests.quotas.spender", url, str(folder), node, str(AMOUNT), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def read(process: subprocess.Popen[bytes], count: int) -> int:
    """Read that many admissions; return how many came before the process ended."""
    assert process.stdout is not None
    return len(process.stdout.read(count))


def kill(process: subprocess.Popen[bytes]) -> int:
    """Kill a process; return how many admissions it had said that nobody has read yet."""
    process.send_signal(signal.SIGKILL)
    return finish(process)[0]


def finish(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Wait until a process has ended; return how many admissions were not read yet, and its exit code."""
    with process:
        rest = read(process, AMOUNT)
        return rest, process.wait(120)


async def look(url: str) -> tuple[Account, list[str]]:
    """Return the balance and what does not add up."""
    database = make_database(url, Clock())
    await database.open()
    try:
        (found,) = await database.read(lambda c: store.accounts_of(c, "wsp_1", "key/key_1", since=0.0))
        return found, await database.read(discrepancies)
    finally:
        await database.close()


def test_a_killed_process_loses_no_unit_and_admits_none_twice(migrated_database_url: str, tmp_path: Path) -> None:
    """Of what was admitted, only what a kill cut off between the count and the answer was not said: one for each."""
    migrate(migrated_database_url)
    said = 0
    kills = 3
    for number in range(kills):
        process = start(migrated_database_url, tmp_path, f"nod_{number}", 0.0002)
        said += read(process, 150)
        said += kill(process)
    last = start(migrated_database_url, tmp_path, "nod_last", 0.0)
    rest, code = finish(last)
    said += rest
    assert code == 0
    balance, wrong = asyncio.run(look(migrated_database_url))
    assert wrong == []
    assert (balance.spent, balance.leased, balance.stranded) == (AMOUNT, 0, 0)
    assert AMOUNT - kills <= said <= AMOUNT
    assert list(tmp_path.glob("*.counters")) == []


@pytest.mark.postgres
def test_processes_that_spend_at_once_never_admit_more_than_the_balance(
    migrated_postgres_url: str, tmp_path: Path
) -> None:
    """Three machines spend one balance; one is killed, and its successor settles what it held."""
    migrate(migrated_postgres_url)
    processes = [start(migrated_postgres_url, tmp_path / str(number), f"nod_{number}", 0.0005) for number in range(3)]
    said = read(processes[0], 100) + kill(processes[0])
    processes[0] = start(migrated_postgres_url, tmp_path / "0", "nod_3", 0.0005)
    for process in processes:
        rest, code = finish(process)
        said += rest
        assert code == 0
    balance, wrong = asyncio.run(look(migrated_postgres_url))
    assert wrong == []
    assert (balance.spent, balance.leased, balance.stranded) == (AMOUNT, 0, 0)
    assert AMOUNT - 1 <= said <= AMOUNT

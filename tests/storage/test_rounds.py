"""Rounds outlive whatever one of them meets, begin at once when woken, and end when they are stopped."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from keyturn.errors import UnavailableError
from keyturn.storage.rounds import Rounds, Trouble

LONG = 600.0


async def test_rounds_outlive_errors_and_bugs_and_count_them() -> None:
    stop = asyncio.Event()
    met = iter([UnavailableError("the database is away"), ValueError("a bug of our own"), None])

    async def work() -> None:
        rounds.wake()
        error = next(met)
        if error is not None:
            raise error
        stop.set()

    rounds = Rounds(work, every_seconds=LONG, failing="the work failed")
    async with asyncio.timeout(60):
        await rounds.run(stop)

    assert rounds.failures == 2


async def test_a_wake_during_a_round_is_not_lost() -> None:
    stop, begun, go_on = asyncio.Event(), asyncio.Semaphore(0), asyncio.Event()

    async def work() -> None:
        begun.release()
        await go_on.wait()

    rounds = Rounds(work, every_seconds=LONG, failing="the work failed")
    running = asyncio.create_task(rounds.run(stop))
    async with asyncio.timeout(60):
        await begun.acquire()
        rounds.wake()
        go_on.set()
        await begun.acquire()
        stop.set()
        await running

    assert rounds.failures == 0


async def test_what_is_cancelled_is_not_counted_as_a_failure() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    rounds = Rounds(work, every_seconds=LONG, failing="the work failed")
    running = asyncio.create_task(rounds.run(asyncio.Event()))
    await begun.wait()
    running.cancel()

    assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], asyncio.CancelledError)
    assert rounds.failures == 0


def test_trouble_says_when_it_begins_and_when_it_is_over_and_counts_all_of_it() -> None:
    """A loop of many turns a second must neither hide why it fails nor fill the log with it."""
    trouble = Trouble("the work failed")
    with capture_logs() as logged:
        trouble.over()
        for _ in range(3):
            trouble.met(UnavailableError("the database is away"))
        trouble.over()
        trouble.over()
        trouble.met(ValueError("a bug of our own"))

    assert trouble.failures == 4
    assert [(line["log_level"], line["event"], line.get("reason")) for line in logged] == [
        ("warning", "the work failed", "the database is away"),
        ("info", "works again", None),
        ("error", "the work failed", None),
    ]

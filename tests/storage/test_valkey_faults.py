import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from keyturn.errors import ConfigError
from keyturn.kernel.clock import boottime
from keyturn.kernel.secret import Secret
from keyturn.storage.valkey import CONNECT_SECONDS, ValkeyLimiter
from keyturn.storage.valkey_link import ANSWER_SECONDS, parse_address
from keyturn.testing.valkey import ValkeyServer
from keyturn.testing.waiting import until_async
from keyturn.verify.spending import LimitDemand
from keyturn.wire.policy import LimitRule

PATIENCE_SECONDS = 20.0
T = TypeVar("T")


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer.start() as started:
        yield started


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[ValkeyLimiter]:
    limiter = ValkeyLimiter(Secret(url))
    await limiter.start()
    try:
        yield limiter
    finally:
        await limiter.stop()


def demand(name: str = "burst", *, on_store_error: str = "deny", limit: int = 2, kind: str = "rate") -> LimitDemand:
    rule = LimitRule(name, limit, 86_400, on_store_error=on_store_error, kind=kind)
    return LimitDemand(rule, "wsp_one", f"key/key_one/{name}", 1)


async def within_bound(work: Awaitable[T]) -> T:
    """Far more than the bound, for a machine that is busy: this looks for hangs, and means no measurement."""
    async with asyncio.timeout(ANSWER_SECONDS * 30):
        return await work


async def test_a_killed_store_leaves_the_decision_to_each_rule_and_comes_back(server: ValkeyServer) -> None:
    """What was used before the kill stays used after the restart."""
    async with opened(server.url) as limiter:
        allow, deny = demand("allow", on_store_error="allow"), demand("deny")
        assert (await limiter.take([deny], 0.0)).admitted
        server.kill()

        for _ in range(3):
            refused = await within_bound(limiter.take([allow, deny], 0.0))
            assert (refused.admitted, refused.store_failed) == (False, True)
            assert [report.name for report in refused.reports] == ["deny"]
            passed = await within_bound(limiter.take([allow], 0.0))
            assert (passed.admitted, passed.store_failed, passed.reports) == (True, True, ())
        assert limiter.meter.failures == {"allow": 3, "deny": 3}
        assert not limiter.connected

        server.restart()
        await until_async(lambda: limiter.connected)
        after = await limiter.take([deny], 0.0)
        assert (after.admitted, after.store_failed) == (True, False)
        assert not (await limiter.take([deny], 0.0)).admitted


async def test_a_store_that_hangs_costs_those_who_wait_once_and_nobody_after_them(server: ValkeyServer) -> None:
    """A store that is stopped where it is must not stop verification."""
    async with opened(server.url) as limiter:
        await limiter.take([demand()], 0.0)
        trips = limiter.meter.round_trips
        server.pause()
        try:
            waiting = [limiter.take([demand("allow", on_store_error="allow")], 0.0) for _ in range(20)]
            outcomes = await within_bound(asyncio.gather(*waiting))
            assert all(one.admitted and one.store_failed for one in outcomes)

            later = [limiter.take_now([demand()], 0.0) for _ in range(100)]
            assert all(one is not None and one.store_failed and not one.admitted for one in later)
            assert limiter.meter.round_trips == trips + 1
            assert await within_bound(limiter.release(["slot_" + "a" * 22 + "." + "0" * 32 + ".wsp_one"])) == 0
        finally:
            server.resume()
        await until_async(lambda: limiter.connected)
        assert not (await limiter.take([demand()], 0.0)).store_failed


async def test_a_pause_of_this_process_is_no_loss_of_the_store(server: ValkeyServer) -> None:
    async with opened(server.url) as limiter:
        asking = asyncio.create_task(limiter.take([demand()], 0.0))
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(ANSWER_SECONDS * 2)  # noqa: ASYNC251 -- the event loop stands still, and that is the point

        outcome = await asking

        assert (outcome.admitted, outcome.store_failed) == (True, False)
        assert limiter.meter.losses == 0


async def test_a_store_that_was_away_at_the_start_is_found_later(server: ValkeyServer) -> None:
    server.kill()
    began = boottime()
    async with opened(server.url) as limiter:
        assert boottime() - began < CONNECT_SECONDS + PATIENCE_SECONDS
        assert not limiter.connected
        assert not (await limiter.take([demand()], 0.0)).admitted

        server.restart()
        await until_async(lambda: limiter.connected)
        assert (await limiter.take([demand()], 0.0)).admitted


async def test_a_store_that_takes_no_writes_is_a_lost_one(server: ValkeyServer) -> None:
    """A primary that became a replica must not look as if it counted."""
    async with opened(server.url) as limiter:
        assert (await limiter.take([demand()], 0.0)).admitted
        server.command("REPLICAOF", "127.0.0.1", "1")

        refused = await within_bound(limiter.take([demand()], 0.0))

        assert (refused.admitted, refused.store_failed) == (False, True)
        await until_async(lambda: "READONLY" in (limiter.reason or "").upper())
        server.command("REPLICAOF", "NO", "ONE")
        await until_async(lambda: limiter.connected)


async def test_connections_that_the_store_closes_are_made_again(server: ValkeyServer) -> None:
    async with opened(server.url) as limiter:
        server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        first = await within_bound(limiter.take([demand(limit=50)], 0.0))
        await until_async(lambda: limiter.connected)

        assert first.store_failed
        assert not (await limiter.take([demand(limit=50)], 0.0)).store_failed


async def test_a_wrong_password_is_named_and_never_shown(
    server: ValkeyServer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The address with its password goes into no log, error or repr."""
    wrong = "wrong" + "wrong123"
    url = server.url.partition("@")[2]
    async with opened(f"redis://:{wrong}@{url}") as limiter:
        assert not limiter.connected
        said = f"{limiter.reason} {limiter!r} {vars(limiter)} {capsys.readouterr()} {caplog.text}"

    assert "Authentication" in said or "WRONGPASS" in said
    assert wrong not in said


async def test_a_stop_answers_whoever_still_waits(server: ValkeyServer) -> None:
    limiter = ValkeyLimiter(Secret(server.url))
    await limiter.start()
    server.pause()
    try:
        waiting = [asyncio.create_task(limiter.take([demand()], 0.0)) for _ in range(5)]
        await asyncio.sleep(0)
        await within_bound(limiter.stop())
        outcomes = await within_bound(asyncio.gather(*waiting))
    finally:
        server.resume()

    assert all(one.store_failed and not one.admitted for one in outcomes)
    refused = limiter.take_now([demand()], 0.0)
    assert refused is not None
    assert refused.store_failed


def test_an_address_may_say_how_long_to_wait(server: ValkeyServer) -> None:
    assert parse_address(Secret(server.url)).answer_seconds == ANSWER_SECONDS
    assert parse_address(Secret(f"{server.url}?socket_timeout=0.5")).answer_seconds == 0.5
    for wrong in ("0", "-1", "nan", "60", "soon"):
        with pytest.raises(ConfigError):
            parse_address(Secret(f"{server.url}?socket_timeout={wrong}"))

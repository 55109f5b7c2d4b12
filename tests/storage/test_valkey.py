import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings

from keyturn.errors import ConfigError
from keyturn.kernel.secret import Secret
from keyturn.storage.valkey import ValkeyLimiter
from keyturn.storage.valkey_script import key_of, slot_key
from keyturn.testing.valkey import ValkeyServer
from keyturn.verify.limits import LocalLimiter
from keyturn.verify.spending import LimitDemand, LimitOutcome
from keyturn.wire.policy import LimitRule
from tests.verify.limit_model import LimitModel
from tests.verify.limit_strategies import BEGIN, requests


def rule(name: str = "burst", limit: int = 3, window: int = 3600, **more: object) -> LimitRule:
    return LimitRule(name, limit, window, **more)  # type: ignore[arg-type]


def demand(of: LimitRule, cost: int = 1, *, workspace: str = "wsp_one", subject: str = "key/key_one") -> LimitDemand:
    return LimitDemand(of, workspace, f"{subject}/{of.name}", cost)


def patient(url: str) -> str:
    """Wait longer than a server would: a busy machine is no lost store."""
    return f"{url}?socket_timeout=10"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[ValkeyLimiter]:
    limiter = ValkeyLimiter(Secret(patient(url)))
    await limiter.start()
    try:
        async with asyncio.timeout(120):
            while not limiter.connected:  # noqa: ASYNC110 -- on a busy machine the first try may take too long
                await asyncio.sleep(0.01)
        yield limiter
    finally:
        await limiter.stop()


async def until_admitted(limiter: ValkeyLimiter, one: LimitDemand) -> None:
    async with asyncio.timeout(120):
        while not (await limiter.take([one], 0.0)).admitted:  # noqa: ASYNC110 -- the store tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
async def limiter(valkey_url: str) -> AsyncIterator[ValkeyLimiter]:
    async with opened(valkey_url) as found:
        yield found


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_a_limit_holds_and_says_how_it_stands(valkey_server: ValkeyServer, scheme: str) -> None:
    valkey_server.command("FLUSHALL")
    async with opened(valkey_server.url.replace("redis://", f"{scheme}://")) as limiter:
        outcomes = [await limiter.take([demand(rule(limit=3, window=60))], 0.0) for _ in range(4)]

    assert [one.admitted for one in outcomes] == [True, True, True, False]
    assert [one.reports[0].remaining for one in outcomes] == [2, 1, 0, 0]
    assert 19 < outcomes[3].retry_after_seconds <= 20
    assert outcomes[3].reports[0].exceeded


async def test_a_unix_socket_serves_as_well(valkey_server: ValkeyServer) -> None:
    async with opened(valkey_server.socket_url) as limiter:
        assert (await limiter.take([demand(rule("socket"))], 0.0)).admitted


async def test_when_one_limit_refuses_none_is_charged(limiter: ValkeyLimiter) -> None:
    wide, narrow, calls = rule("wide", 10), rule("narrow", 1), rule("calls", 5, kind="concurrency")
    all_of_them = [demand(wide), demand(calls), demand(narrow)]
    assert (await limiter.take(all_of_them, 0.0)).admitted

    for _ in range(5):
        refused = await limiter.take(all_of_them, 0.0)
        assert not refused.admitted
        assert refused.slots == ()
        assert [report.exceeded for report in refused.reports] == [False, False, True]

    standing = await limiter.take([demand(wide, 0), demand(calls, 0)], 0.0)
    assert [report.remaining for report in standing.reports] == [9, 4]


async def test_calls_in_flight_are_limited_and_given_back_once(limiter: ValkeyLimiter) -> None:
    calls = demand(rule("calls", 2, kind="concurrency"))
    first, second, refused = [await limiter.take([calls], 0.0) for _ in range(3)]

    assert (first.admitted, second.admitted, refused.admitted) == (True, True, False)
    assert 0 < refused.retry_after_seconds <= 1.0
    assert await limiter.release(first.slots) == 1
    assert await limiter.release([*first.slots, "slot_unknown", "slot_" + "0" * 22 + ".wrong"]) == 0
    assert (await limiter.take([calls], 0.0)).admitted


async def test_a_slot_that_is_not_given_back_is_free_after_the_window(limiter: ValkeyLimiter) -> None:
    calls = demand(rule("calls", 1, window=1, kind="concurrency"))
    held = await limiter.take([calls], 0.0)
    assert not (await limiter.take([calls], 0.0)).admitted

    await until_admitted(limiter, calls)

    assert await limiter.release(held.slots) == 0


async def test_nothing_crosses_between_workspaces_and_no_name_stands_in_a_key(
    limiter: ValkeyLimiter, valkey_server: ValkeyServer
) -> None:
    """Whoever reads the store learns no owner and no address, and a workspace cannot name another's counter."""
    strange = "}:other {wsp_one"
    for workspace in ("wsp_one", "wsp_two", strange):
        one = demand(rule(limit=1), workspace=workspace, subject="owner/alice@example.com")
        assert (await limiter.take([one], 0.0)).admitted

    assert valkey_server.command("EVAL", "return #redis.call('KEYS', 'kt:{*}:*') - #redis.call('KEYS', 'kt:{~*')", "0")
    assert valkey_server.command("EVAL", "return #redis.call('KEYS', '*alice*')", "0") == b":0"
    keys = {key_of(workspace, "owner/alice/burst", 60, "rate") for workspace in ("wsp_one", "wsp_two", strange)}
    assert len(keys) == 3
    assert all(key.count("{") == key.count("}") == 1 and len(key) < 110 for key in keys)


async def test_every_key_expires(limiter: ValkeyLimiter, valkey_server: ValkeyServer) -> None:
    await limiter.take([demand(rule()), demand(rule("calls", kind="concurrency"))], 0.0)

    lasting = "if redis.call('TTL', key) < 0 then n = n + 1 end"
    script = f"local n = 0 for _, key in ipairs(redis.call('KEYS', '*')) do {lasting} end return n"
    assert valkey_server.command("EVAL", script, "0") == b":0"


async def test_requests_that_arrive_together_share_one_round_trip(limiter: ValkeyLimiter) -> None:
    before = limiter.meter.round_trips
    one = demand(rule(limit=30))

    outcomes = await asyncio.gather(*(limiter.take([one, demand(rule("other", 99))], 0.0) for _ in range(50)))

    assert sum(outcome.admitted for outcome in outcomes) == 30
    assert limiter.meter.round_trips == before + 1


async def test_a_verification_costs_at_most_one_round_trip(limiter: ValkeyLimiter) -> None:
    before = limiter.meter.round_trips
    everything = [demand(rule(f"limit-{number}")) for number in range(8)]
    everything += [demand(rule(f"calls-{number}", kind="concurrency")) for number in range(8)]

    for _ in range(3):
        assert (await limiter.take(everything, 0.0)).admitted

    assert limiter.meter.round_trips == before + 3
    assert limiter.take_now([], 0.0) == LimitOutcome(admitted=True, reports=())


async def test_workspaces_share_a_round_trip_and_not_their_fate(limiter: ValkeyLimiter) -> None:
    before = limiter.meter.round_trips
    demands = [demand(rule(limit=1), workspace=f"wsp_{number % 5}") for number in range(10)]

    outcomes = await asyncio.gather(*(limiter.take([one], 0.0) for one in demands))

    assert [one.admitted for one in outcomes] == [True] * 5 + [False] * 5
    assert limiter.meter.round_trips == before + 1


async def test_a_script_that_the_store_has_forgotten_is_sent_again(
    limiter: ValkeyLimiter, valkey_server: ValkeyServer
) -> None:
    one = demand(rule(limit=2))
    assert (await limiter.take([one], 0.0)).admitted
    valkey_server.command("SCRIPT", "FLUSH")

    second, third = await limiter.take([one], 0.0), await limiter.take([one], 0.0)

    assert (second.admitted, third.admitted) == (True, False)
    assert not second.store_failed
    assert limiter.meter.losses == 0


async def test_whoever_goes_away_leaves_no_slot_behind(limiter: ValkeyLimiter, valkey_server: ValkeyServer) -> None:
    calls = demand(rule("calls", 1, kind="concurrency"))
    valkey_server.pause()
    try:
        gone = asyncio.create_task(limiter.take([calls], 0.0))
        await asyncio.sleep(0.01)
        gone.cancel()
    finally:
        valkey_server.resume()

    await until_admitted(limiter, calls)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests)
def test_limits_in_valkey_are_those_of_the_model(
    valkey_url: str, valkey_server: ValkeyServer, given_requests: list[tuple[Fraction, list[LimitDemand]]]
) -> None:
    """What memory admits on one node, the store admits for all of them."""
    valkey_server.command("FLUSHALL")

    async def compare() -> None:
        now = Fraction(BEGIN)
        limiter = ValkeyLimiter(Secret(patient(valkey_url)), time=lambda: float(now))
        model, local = LimitModel(), LocalLimiter()
        await limiter.start()
        try:
            for pause, demands in given_requests:
                now += pause
                outcome = await limiter.take(demands, 0.0)
                admitted, standings = model.take(demands, now)
                assert not outcome.store_failed
                assert outcome.admitted == admitted
                found = [(one.remaining, one.exceeded) for one in outcome.reports]
                assert found == [(left, over) for left, _, over in standings]
                resets = [one.reset_seconds for one in outcome.reports]
                assert resets == pytest.approx([float(reset) for _, reset, _ in standings])
                in_memory = local.take_now(demands, float(now))
                assert outcome.retry_after_seconds == pytest.approx(in_memory.retry_after_seconds)
        finally:
            await limiter.stop()

    asyncio.run(compare())


async def test_time_that_goes_back_gives_nothing_away_and_locks_nobody_out(valkey_url: str) -> None:
    now = float(BEGIN)
    limiter = ValkeyLimiter(Secret(patient(valkey_url)), time=lambda: now)
    await limiter.start()
    one = demand(rule(limit=3, window=3))
    try:
        assert [(await limiter.take([one], 0.0)).admitted for _ in range(4)] == [True, True, True, False]
        now -= 1.0
        assert not (await limiter.take([one], 0.0)).admitted
        now -= 86_400.0
        assert not (await limiter.take([one], 0.0)).admitted
        now += 1.0
        assert (await limiter.take([one], 0.0)).admitted
    finally:
        await limiter.stop()


def _hammer(url: str, times: int, counts: "multiprocessing.Queue[tuple[int, int]]") -> None:
    async def run() -> None:
        async with opened(url) as limiter:
            one = [demand(rule(limit=300, window=86_400)), demand(rule("calls", 120, kind="concurrency"))]
            outcomes = await asyncio.gather(*(limiter.take(one, 0.0) for _ in range(times)))
            admitted = [outcome for outcome in outcomes if outcome.admitted]
            assert not any(outcome.store_failed for outcome in outcomes)
            counts.put((len(admitted), len({slot for outcome in admitted for slot in outcome.slots})))

    asyncio.run(run())


def test_several_processes_together_admit_exactly_what_the_limit_says(valkey_url: str) -> None:
    """A limit means what it says, however many workers and nodes enforce it."""
    context = multiprocessing.get_context("spawn")
    counts: multiprocessing.Queue[tuple[int, int]] = context.Queue()
    processes = [context.Process(target=_hammer, args=(valkey_url, 200, counts)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [counts.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(120)

    assert sum(admitted for admitted, _ in found) == 120
    assert sum(slots for _, slots in found) == 120


@pytest.mark.parametrize(
    "address",
    ["redis://", "http://host", "redis://host:port", "redis://host:0", "redis://host?nonsense=1", "unix://", "x"],
)
def test_an_address_that_is_none_is_refused_and_not_shown(address: str) -> None:
    hidden = "hunter" + "2hunter2"
    text = address.replace("://", f"://:{hidden}@", 1)
    with pytest.raises(ConfigError) as caught:
        ValkeyLimiter(Secret(text))

    assert hidden not in f"{caught.value} {caught.value.hint} {caught.value.__cause__} {caught.value.__context__}"


def test_a_slot_names_its_counter_and_nothing_else_does() -> None:
    assert slot_key("slot_" + "a" * 22 + "." + "0" * 32 + ".wsp_one") == "kt:{wsp_one}:" + "0" * 32
    for wrong in ("", "slot_", "slot_" + "a" * 22, "slot_" + "a" * 22 + "." + "0" * 32 + ".}:{x"):
        assert slot_key(wrong) is None


@pytest.mark.parametrize("kind", ["rate", "concurrency"])
async def test_a_limit_of_nothing_admits_nothing(limiter: ValkeyLimiter, kind: str) -> None:
    refused = await limiter.take([demand(rule(limit=0, window=0, kind=kind))], 0.0)

    assert (refused.admitted, refused.store_failed) == (False, False)

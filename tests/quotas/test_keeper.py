"""What a node may spend, and what becomes of what it holds."""

from __future__ import annotations

from keyturn.quotas import store
from keyturn.quotas.exchange import GRACE_SECONDS, LEASE_SECONDS
from keyturn.quotas.model import Account
from keyturn.storage.change_log import start_log
from keyturn.wire.policy import QuotaRule
from tests.quotas.world import WORKSPACE, World, demand, kill, spend

DAY = 86_400.0


def account(world: World, name: str = "monthly") -> Account:
    """Return the latest account of a quota."""
    found = world.database.maintain(lambda c: store.accounts_of(c, WORKSPACE, "key/key_1", since=0.0))
    return next(one for one in found if one.name == name)


def kinds(world: World, name: str = "monthly") -> list[str]:
    """Return the kinds of its lines, oldest first."""
    lines = world.database.maintain(lambda c: store.lines(c, account(world, name).id, None, 100))
    return [line.kind for line in reversed(lines)]


async def test_a_balance_admits_exactly_what_it_holds(world: World) -> None:
    node = await world.node()
    admitted = [(await spend(node, world.now())).admitted for _ in range(150)]
    assert admitted == [True] * 100 + [False] * 50
    await node.stop()
    assert account(world).spent == 100
    assert world.database.discrepancies() == []


async def test_a_refusal_says_when_the_period_ends_and_what_is_left(world: World) -> None:
    node = await world.node()
    refused = await spend(node, world.now(), demand(cost=101))
    assert not refused.admitted
    assert not refused.unavailable
    assert refused.retry_after_seconds == 31 * DAY
    assert refused.reports[0].exceeded
    assert refused.reports[0].remaining == 100
    assert refused.reports[0].resets_at == "2026-02-01T00:00:00.000Z"


async def test_spends_from_memory_touch_no_database(world: World) -> None:
    node = await world.node()
    await spend(node, world.now())
    before = world.database.units
    for _ in range(5):
        assert node.reserve_now((demand(),), world.now()) is not None
    assert world.database.units == before


async def test_what_is_refused_is_refused_from_memory_for_a_while(world: World) -> None:
    node = await world.node()
    rule = QuotaRule("none", 0)
    await spend(node, world.now(), demand(rule))
    before = world.database.units
    for _ in range(20):
        assert not (await spend(node, world.now(), demand(rule))).admitted
    assert world.database.units == before


async def test_two_quotas_are_charged_both_or_neither(world: World) -> None:
    node = await world.node()
    wide, narrow = QuotaRule("wide", 100), QuotaRule("narrow", 3)
    admitted = [(await spend(node, world.now(), demand(wide), demand(narrow))).admitted for _ in range(10)]
    assert sum(admitted) == 3
    await node.stop()
    assert account(world, "wide").spent == 3
    assert account(world, "narrow").spent == 3


async def test_what_is_released_can_be_spent_again(world: World) -> None:
    node = await world.node()
    rule = QuotaRule("one", 1)
    first = await spend(node, world.now(), demand(rule))
    assert not (await spend(node, world.now(), demand(rule))).admitted
    node.release(first)
    assert (await spend(node, world.now(), demand(rule))).admitted


async def test_a_cost_of_nothing_charges_nothing_and_reports(world: World) -> None:
    node = await world.node()
    found = await spend(node, world.now(), demand(cost=0))
    assert found.admitted
    assert found.reports[0].remaining == 100
    await node.stop()
    assert account(world).spent == 0


async def test_a_quota_in_shadow_is_charged_and_never_refuses(world: World) -> None:
    node = await world.node()
    shadow = QuotaRule("trial", 3, mode="shadow")
    found = [await spend(node, world.now(), demand(shadow)) for _ in range(5)]
    assert [one.admitted for one in found] == [True] * 5
    assert [one.reports[0].exceeded for one in found] == [False] * 3 + [True] * 2
    await node.stop()
    assert account(world, "trial").spent == 3


async def test_a_new_period_begins_with_all_of_it(world: World) -> None:
    node = await world.node()
    rule = QuotaRule("daily", 5, period="day")
    for _ in range(2):
        assert [(await spend(node, world.now(), demand(rule))).admitted for _ in range(6)].count(True) == 5
        world.elapsed.advance(DAY)
    await node.tick()
    await node.sweep()
    assert world.database.discrepancies() == []


async def test_without_the_database_what_is_leased_is_spent_until_its_lease_ends(world: World) -> None:
    node = await world.node()
    await spend(node, world.now())
    world.database.away = True
    assert (await spend(node, world.now())).admitted
    world.elapsed.advance(LEASE_SECONDS)
    found = await spend(node, world.now())
    assert not found.admitted
    assert found.unavailable
    world.database.away = False
    world.elapsed.advance(1)
    assert (await spend(node, world.now())).admitted


async def test_a_kill_strands_nothing_when_the_process_comes_back(world: World) -> None:
    node = await world.node()
    for _ in range(7):
        await spend(node, world.now())
    kill(node)
    world.elapsed.advance(LEASE_SECONDS + GRACE_SECONDS + 1)
    await (await world.node("elsewhere")).sweep()
    assert account(world).stranded > 0
    again = await world.node()
    assert again.settled == 1
    assert account(world).spent == 7
    assert account(world).leased == account(world).stranded == 0
    assert world.database.discrepancies() == []


async def test_a_node_that_never_comes_back_leaves_a_line(world: World) -> None:
    node = await world.node("gone")
    await spend(node, world.now())
    world.elapsed.advance(LEASE_SECONDS + GRACE_SECONDS + 1)
    other = await world.node()
    await other.sweep()
    assert account(world).stranded == 8
    assert kinds(world)[-1] == "forfeit"
    assert [(await spend(other, world.now())).admitted for _ in range(100)].count(True) == 92
    world.elapsed.advance(40 * DAY)
    await other.tick()
    await other.sweep()
    await other.sweep()
    assert account(world).state == "closed"
    assert account(world).stranded == 0
    assert kinds(world)[-1] == "lapse"
    assert world.database.discrepancies() == []


async def test_a_pause_past_a_lease_admits_nothing_from_it(world: World) -> None:
    node = await world.node()
    await spend(node, world.now())
    world.elapsed.advance(LEASE_SECONDS + GRACE_SECONDS + 1)
    assert node.reserve_now((demand(),), world.now()) is None
    await (await world.node("b")).sweep()
    assert (await spend(node, world.now())).admitted
    await node.tick()
    assert account(world).stranded == 0
    assert world.database.discrepancies() == []


async def test_a_lost_answer_loses_no_unit(world: World) -> None:
    node = await world.node()
    world.database.lose_answers = True
    assert (await spend(node, world.now())).unavailable
    world.database.lose_answers = False
    world.elapsed.advance(1)
    assert [(await spend(node, world.now())).admitted for _ in range(101)].count(True) == 100
    await node.stop()
    assert account(world).spent == 100
    assert world.database.discrepancies() == []


async def test_a_rule_that_changes_moves_the_balance_by_the_difference(world: World) -> None:
    node = await world.node()
    for _ in range(30):
        await spend(node, world.now())
    world.elapsed.advance(2)
    less = QuotaRule("monthly", 40)
    assert [(await spend(node, world.now(), demand(less))).admitted for _ in range(30)].count(True) == 10
    world.elapsed.advance(2)
    least = QuotaRule("monthly", 10)
    assert not (await spend(node, world.now(), demand(least))).admitted
    assert account(world).granted == 40
    world.elapsed.advance(2)
    more = QuotaRule("monthly", 50)
    assert [(await spend(node, world.now(), demand(more))).admitted for _ in range(30)].count(True) == 10
    assert world.database.discrepancies() == []


async def test_a_prepaid_balance_is_refilled_when_it_is_due(world: World) -> None:
    node = await world.node()
    rule = QuotaRule("credits", 5, period="none", refill_amount=10, refill_every="day")
    assert [(await spend(node, world.now(), demand(rule))).admitted for _ in range(9)].count(True) == 5
    world.elapsed.advance(DAY)
    assert [(await spend(node, world.now(), demand(rule))).admitted for _ in range(15)].count(True) == 10
    assert world.database.discrepancies() == []


async def test_a_restored_database_does_not_lease_again_what_was_leased(world: World) -> None:
    node = await world.node()
    await spend(node, world.now())
    world.database.maintain(lambda c: start_log(c, world.now()))
    other = await world.node("b")
    await other.sweep()
    assert account(world).stranded == 8
    assert [(await spend(other, world.now())).admitted for _ in range(120)].count(True) == 92
    assert world.database.discrepancies() == []


async def test_an_idle_node_gives_its_units_back(world: World) -> None:
    node = await world.node()
    await spend(node, world.now())
    world.elapsed.advance(31)
    await node.tick()
    assert node.held == 0
    assert account(world).leased == 0
    assert account(world).spent == 1


async def test_the_last_units_are_called_back_from_a_node_that_does_not_use_them(world: World) -> None:
    first, second = await world.node("a"), await world.node("b")
    rule = QuotaRule("few", 4)
    assert (await spend(first, world.now(), demand(rule, 2))).admitted
    first.release(await spend(first, world.now(), demand(rule, 2)))
    world.elapsed.advance(2)
    found = await spend(second, world.now(), demand(rule, 2))
    assert not found.admitted
    assert found.retry_after_seconds == 1.0
    first.refresh(world.database.announced)
    await first.tick()
    world.elapsed.advance(1)
    assert (await spend(second, world.now(), demand(rule, 2))).admitted
    assert not (await spend(second, world.now(), demand(rule, 1))).admitted


async def test_a_node_learns_at_once_that_the_database_was_restored(world: World) -> None:
    node = await world.node()
    await spend(node, world.now())
    world.database.maintain(lambda c: start_log(c, world.now()))
    node.renew()
    await node.tick()
    assert node.held == 0
    assert account(world).spent == 1
    assert account(world).leased == account(world).stranded == 0
    assert world.database.discrepancies() == []


async def test_what_a_lost_answer_leased_is_given_back_though_the_node_never_knew(world: World) -> None:
    node = await world.node()
    world.database.lose_answers = True
    assert (await spend(node, world.now())).unavailable
    world.database.lose_answers = False
    assert account(world).leased == 8
    world.elapsed.advance(31)
    await node.tick()
    assert account(world).leased == 0
    assert world.database.discrepancies() == []

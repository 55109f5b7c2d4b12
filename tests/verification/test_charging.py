"""Limits, quotas and plans in the service: what is charged, what is given back, and when a change counts."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyturn.errors import ForbiddenError, InputError, UnauthenticatedError
from keyturn.kernel.secret import Secret
from keyturn.quotas.keeper import QuotaKeeper
from keyturn.wire.policy import LimitRule, QuotaRule, Restrictions
from keyturn.wire.verification import LimitUse, ReleaseSlots
from tests.verification.world import NODE, Issued, World, credentials
from tests.verify.keepers import Balances, SlowLimiter

TWO = (LimitRule("minute", 2, 60),)
OFFICE = Restrictions(cidrs=("10.0.0.0/8",))


@pytest.fixture
async def slow_world(migrated_database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A node whose keepers have to be awaited."""
    one = await World.open(migrated_database_url, tmp_path, limiter=SlowLimiter(), quotas=Balances(waits=True))
    yield one
    await one.close()


async def codes(world: World, issued: Issued, count: int, **asked: Any) -> list[str]:
    return [(await world.verify(issued.key, **asked)).code for _ in range(count)]


async def test_an_answer_says_how_limits_and_quotas_stand_and_when_to_come_again(world: World) -> None:
    plan = await world.create_plan(scopes=("orders:read",))
    issued = await world.issue(await world.create_keyspace(), limits=TWO, quotas=(QuotaRule("monthly", 9),), plan=plan)
    await world.follow()
    answer = await world.verify(issued.key, scopes="orders:read", cost=2)
    assert (answer.code, answer.plan, answer.scopes, answer.retry_after_seconds) == (
        "VALID",
        "gold",
        ("orders:read",),
        None,
    )
    assert answer.limits is not None
    assert answer.quotas is not None
    assert [(one.name, one.limit, one.window_seconds, one.remaining) for one in answer.limits] == [("minute", 2, 60, 0)]
    assert [one.name for one in answer.quotas] == ["monthly"]
    refused = await world.verify(issued.key)
    assert (refused.valid, refused.code, refused.key_id) == (False, "RATE_LIMITED", issued.id)
    assert refused.retry_after_seconds == pytest.approx(30, abs=1)
    assert [code for _, code in world.sink.used] == ["VALID", "RATE_LIMITED"]
    assert isinstance(world.quotas, Balances)
    assert world.quotas.total == 2


async def test_an_exhausted_quota_is_usage_exceeded(world: World) -> None:
    issued = await world.issue(await world.create_keyspace(), quotas=(QuotaRule("monthly", 1),))
    await world.follow()
    assert await codes(world, issued, 3) == ["VALID", "USAGE_EXCEEDED", "USAGE_EXCEEDED"]


async def test_a_key_with_quotas_is_unavailable_where_nobody_keeps_them(world: World) -> None:
    """Security: a balance that cannot be asked admits nothing."""
    world.service.charging._quotas = None  # noqa: SLF001 -- as a server that has no keeper
    issued = await world.issue(await world.create_keyspace(), quotas=(QuotaRule("monthly", 1),))
    await world.follow()
    assert await codes(world, issued, 1) == ["UNAVAILABLE"]


async def test_balances_that_are_stored_are_spent_to_the_unit(world: World, tmp_path: Path) -> None:
    keeper = QuotaKeeper(world.database, world.clock, NODE + str(id(world)), tmp_path / "quotas")
    await keeper.open()
    world.service.charging._quotas = keeper  # noqa: SLF001 -- wired after the database is open
    issued = await world.issue(await world.create_keyspace(), limits=TWO, quotas=(QuotaRule("monthly", 3),))
    await world.follow()
    assert await codes(world, issued, 3) == ["VALID", "VALID", "RATE_LIMITED"]
    world.clock.advance(50)
    assert await codes(world, issued, 2) == ["VALID", "USAGE_EXCEEDED"]
    await keeper.stop()


async def test_what_one_owner_has_is_shared_by_all_its_keys(world: World) -> None:
    keyspace = await world.create_keyspace()
    await world.set_owner("team-a", limits=(LimitRule("shared", 2, 60, per="owner"),))
    first, second = await world.issue(keyspace), await world.issue(keyspace)
    await world.follow()
    assert [*await codes(world, first, 1), *await codes(world, second, 2)] == ["VALID", "VALID", "RATE_LIMITED"]


async def test_the_limit_of_a_plan_changes_for_every_key_on_it(world: World) -> None:
    plan = await world.create_plan(limits=TWO)
    issued = await world.issue(await world.create_keyspace(), plan=plan)
    await world.follow()
    assert await codes(world, issued, 3) == ["VALID", "VALID", "RATE_LIMITED"]
    await world.change_plan(plan, limits_json=msgspec.json.encode((LimitRule("minute", 4, 60),)).decode())
    await world.follow()
    world.clock.advance(50)
    assert await codes(world, issued, 4) == ["VALID"] * 3 + ["RATE_LIMITED"]


# --- changes ---------------------------------------------------------------------------------------------------------


async def test_a_changed_plan_or_owner_counts_once_it_is_applied(world: World) -> None:
    plan = await world.create_plan(scopes=("orders:read",))
    issued = await world.issue(await world.create_keyspace(default_plan=plan))
    await world.follow()
    assert (await world.verify(issued.key, scopes="orders:read")).plan == "gold"
    await world.change_plan(plan, restrictions_json=msgspec.json.encode(OFFICE).decode())
    await world.follow()
    assert (await world.verify(issued.key)).code == "FORBIDDEN"
    silver = await world.create_plan("silver")
    await world.set_owner("team-a", plan=silver)
    await world.follow()
    answer = await world.verify(issued.key, scopes="orders:read")
    assert (answer.code, answer.plan) == ("INSUFFICIENT_PERMISSIONS", "silver")


async def test_plans_and_owners_are_there_after_a_resync_and_when_read_through(world: World) -> None:
    plan = await world.create_plan(restrictions=OFFICE)
    await world.set_owner("team-a", plan=plan, limits=(LimitRule("x", 5, 60),))
    issued = await world.issue(await world.create_keyspace())
    # Not followed yet: looked up.
    for _ in range(2):
        looked_up = await world.verify(issued.key, ip="10.0.0.1")
        assert (looked_up.code, looked_up.plan) == ("VALID", "gold")
        assert looked_up.limits is not None
        assert (await world.verify(issued.key)).code == "FORBIDDEN"
        # Then read through.
        world.go_stale()
    world.replication.resync()
    await world.follow()
    assert (await world.verify(issued.key)).code == "FORBIDDEN"
    known = world.verify_now(issued.key, ip="10.0.0.1")
    assert known is not None
    assert (known.code, known.plan) == ("VALID", "gold")


async def test_an_answer_that_is_kept_is_not_given_once_the_plan_has_changed(world: World) -> None:
    plan = await world.create_plan(scopes=("a",))
    issued = await world.issue(await world.create_keyspace(), plan=plan)
    await world.follow()
    seen = []
    for scopes in ("a", "b"):
        await world.change_plan(plan, scopes_json=json.dumps([scopes]))
        await world.follow()
        answer = await world.verify(issued.key)
        assert json.loads(world.service.encode(answer))["scopes"] == [scopes]
        seen.append(answer.scopes)
    assert seen == [("a",), ("b",)]


# --- keepers that take their time ------------------------------------------------------------------------------------


def keepers(world: World) -> tuple[SlowLimiter, Balances]:
    assert isinstance(world.limiter, SlowLimiter)
    assert isinstance(world.quotas, Balances)
    return world.limiter, world.quotas


async def test_keepers_that_have_to_be_awaited_decide_alike(slow_world: World) -> None:
    issued = await slow_world.issue(await slow_world.create_keyspace(), limits=TWO, quotas=(QuotaRule("m", 9),))
    await slow_world.follow()
    assert slow_world.verify_now(issued.key) is None
    assert await codes(slow_world, issued, 3) == ["VALID", "VALID", "RATE_LIMITED"]
    assert keepers(slow_world)[1].total == 2


async def test_a_key_revoked_while_its_limits_are_asked_is_not_admitted(slow_world: World) -> None:
    """Security: what was decided before an await is decided again after it."""
    world = slow_world
    rules = (LimitRule("at-once", 5, 60, kind="concurrency"), LimitRule("x", 5, 60))
    issued = await world.issue(await world.create_keyspace(), limits=rules, quotas=(QuotaRule("m", 9),))
    await world.follow()
    limiter, quotas = keepers(world)
    assert (await world.verify(issued.key)).valid

    async def revoke() -> None:
        limiter.meanwhile = None
        await world.set_key_state(issued, "revoked")
        await world.follow()

    limiter.meanwhile = revoke
    answer = await world.verify(issued.key)
    assert (answer.valid, answer.code, answer.slots) == (False, "REVOKED", None)
    assert quotas.total == 1
    await asyncio.sleep(0)
    assert len(limiter.given_back) == 1
    assert [code for _, code in world.sink.used] == ["VALID", "REVOKED"]


async def test_a_node_that_goes_stale_while_limits_are_asked_reads_through(slow_world: World) -> None:
    """Security: an admission is not given by a node that is no longer fresh."""
    world = slow_world
    issued = await world.issue(
        await world.create_keyspace(), limits=(LimitRule("x", 5, 60),), quotas=(QuotaRule("m", 9),)
    )
    await world.follow()
    assert (await world.verify(issued.key)).valid
    limiter, quotas = keepers(world)

    async def pause() -> None:
        limiter.meanwhile = None
        await world.set_key_state(issued, "revoked")
        world.go_stale()

    limiter.meanwhile = pause
    assert (await world.verify(issued.key)).code == "REVOKED"
    assert quotas.total == 1
    assert world.lookup.read_throughs == 1


async def test_a_stale_node_without_a_database_gives_back_what_it_charged(slow_world: World) -> None:
    world = slow_world
    issued = await world.issue(
        await world.create_keyspace(), limits=(LimitRule("x", 5, 60),), quotas=(QuotaRule("m", 9),)
    )
    await world.follow()
    limiter, quotas = keepers(world)

    async def pause() -> None:
        world.go_stale()
        world.take_database_away()

    assert (await world.verify(issued.key)).valid
    limiter.meanwhile = pause
    assert (await world.verify(issued.key)).code == "UNAVAILABLE"
    assert quotas.total == 1


# --- shadow and explain ----------------------------------------------------------------------------------------------


async def test_what_is_in_shadow_is_told_and_counted_and_refuses_nothing(world: World) -> None:
    keyspace = await world.create_keyspace(shadow_restrictions=OFFICE)
    issued = await world.issue(keyspace, limits=(LimitRule("burst", 1, 60, mode="shadow"),))
    await world.follow()
    answers = [await world.verify(issued.key, ip="192.0.2.1") for _ in range(2)]
    assert [answer.code for answer in answers] == ["VALID", "VALID"]
    assert [answer.shadow for answer in answers] == [("restriction:cidr",), ("restriction:cidr", "limit:burst")]
    assert [code for _, code in world.sink.used] == [
        "VALID",
        "SHADOW_FORBIDDEN",
        "VALID",
        "SHADOW_FORBIDDEN",
        "SHADOW_RATE_LIMITED",
    ]
    assert world.service.charging.shadow_refusals == {("orders", "restriction:cidr"): 2, ("orders", "limit:burst"): 1}


async def test_an_explanation_charges_as_any_verification_and_names_the_source_of_each_rule(world: World) -> None:
    plan = await world.create_plan(quotas=(QuotaRule("monthly", 5),), restrictions=OFFICE)
    issued = await world.issue(await world.create_keyspace(), limits=TWO, plan=plan)
    await world.follow()
    for code in ("VALID", "VALID", "RATE_LIMITED"):
        answer = await world.verify(issued.key, ip="10.0.0.1", explain=True)
        assert answer.code == code
        found = {(one.check, one.source): one.verdict for one in answer.checks or ()}
        assert found["plan", "key"] == "pass"
        assert found["cidr", "plan"] == "pass"
        assert found["limit:minute", "key"] == ("pass" if code == "VALID" else "fail")
    denied = await world.verify(issued.key, explain=True)
    checks = {one.check: one.verdict for one in denied.checks or ()}
    assert (denied.code, checks["limit:minute"], checks["quota:monthly"]) == ("FORBIDDEN", "skipped", "skipped")


async def test_naming_a_limit_that_the_key_does_not_have_is_an_error(world: World) -> None:
    issued = await world.issue(await world.create_keyspace(), limits=TWO)
    await world.follow()
    with pytest.raises(InputError):
        await world.verify(issued.key, limits=(LimitUse("nope"),))
    assert world.sink.used == []


# --- slots -----------------------------------------------------------------------------------------------------------


async def test_a_slot_given_back_is_free_for_the_next_call(world: World) -> None:
    rules = (LimitRule("at-once", 1, 60, kind="concurrency"),)
    issued = await world.issue(await world.create_keyspace(), limits=rules)
    await world.follow()
    first = await world.verify(issued.key)
    assert first.slots is not None
    assert (await world.verify(issued.key)).code == "RATE_LIMITED"
    for released in (1, 0):
        answer = await world.service.release(world.credentials, ReleaseSlots(first.slots))
        assert answer.released == released
    assert (await world.verify(issued.key)).valid


async def test_slots_are_taken_back_only_from_those_who_may_verify(world: World) -> None:
    """Security: giving slots back needs the right that taking them needs."""
    slots = ReleaseSlots(("slot_1",))
    with pytest.raises(UnauthenticatedError):
        await world.service.release(credentials(Secret("nothing")), slots)
    for_keys = await world.restricted("key/orders/*")
    assert (await world.service.release(for_keys, slots)).released == 0
    await world.revoke_last_grant()
    await world.follow()
    with pytest.raises(ForbiddenError):
        await world.service.release(for_keys, slots)

from typing import Any

import msgspec
import pytest

from keyturn.access.caller import Credentials
from keyturn.errors import ConflictError, ForbiddenError, InputError, NotFoundError, PreconditionError
from keyturn.kernel.clock import parse_rfc3339
from keyturn.storage.nodes import database_time
from keyturn.wire.keys import ImportKeys, IssueKeys, KeyFilter, RevokeKey, UpdateKey, UpdateKeyspace
from keyturn.wire.plans import CreatePlan, RetirePlan, UpdateOwner, UpdatePlan
from keyturn.wire.policy import LimitRule, QuotaRule, Restrictions
from tests.keys.desk import Desk, wanted

MINUTE = {"name": "minute", "limit": 100, "window_seconds": 60}
MONTHLY = {"name": "monthly", "amount": 10_000}


def change(kind: type[Any], **given: Any) -> Any:
    return msgspec.convert(given, type=kind)


async def test_a_plan_is_shown_as_it_was_created(desk: Desk) -> None:
    made = await desk.plan(
        description="for a start",
        scopes=["orders:read", "orders:read"],
        limits=[MINUTE | {"per": "owner", "burst": 20}],
        quotas=[MONTHLY],
        restrictions={"cidrs": ["10.0.0.0/8"]},
        shadow_restrictions={"origins": ["https://shop.example"]},
    )
    assert made == await desk.plans.show(desk.admin, "basic")
    assert made.scopes == ("orders:read",)
    assert made.limits == (LimitRule("minute", 100, 60, burst=20, per="owner"),)
    assert made.quotas == (QuotaRule("monthly", 10_000),)
    assert (made.state, made.revision, made.keys, made.owners, made.keyspaces) == ("active", 1, 0, 0, 0)
    (listed,) = (await desk.plans.list(desk.admin)).items
    assert (listed.name, listed.shadow_restrictions) == ("basic", Restrictions(origins=("https://shop.example",)))


async def test_a_plan_that_is_created_twice_with_one_idempotency_key_is_one_plan(desk: Desk) -> None:
    request = CreatePlan(name="basic")
    first = await desk.plans.create(desk.admin, request, idempotency="one")
    assert await desk.plans.create(desk.admin, request, idempotency="one") == first
    with pytest.raises(ConflictError) as caught:
        await desk.plans.create(desk.admin, request)
    assert (caught.value.code, caught.value.field) == ("duplicate", "name")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"limits": [MINUTE, MINUTE]}, "limits[1].name"),
        ({"quotas": [MONTHLY | {"refill_day": 2}]}, "quotas[0].refill_day"),
        ({"scopes": ["a b"]}, "scopes[0]"),
        ({"restrictions": {"cidrs": ["nowhere"]}}, "restrictions.cidrs[0]"),
        ({"shadow_restrictions": {"cidrs": ["10.0.0.0/8", "nowhere"]}}, "shadow_restrictions.cidrs[1]"),
    ],
)
async def test_bad_input_is_named_and_nothing_is_kept(desk: Desk, given: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        await desk.plan(**given)
    assert caught.value.field == field
    await desk.plan()
    with pytest.raises(InputError) as caught:
        await desk.plans.update(desk.admin, "basic", change(UpdatePlan, **given))
    assert caught.value.field == field
    await desk.keyspace()
    placed = {name: value for name, value in given.items() if name != "scopes"} or {"limits": [MINUTE, MINUTE]}
    for attempt in (desk.key(**placed), desk.keyspace("shop", **placed)):
        with pytest.raises(InputError):
            await attempt


async def test_an_update_changes_what_it_names_and_says_so_in_the_log(desk: Desk) -> None:
    made = await desk.plan(scopes=["orders:read"], limits=[MINUTE])
    changed = await desk.plans.update(
        desk.admin, "basic", change(UpdatePlan, limits=[], quotas=[MONTHLY | {"mode": "shadow"}]), if_match=1
    )
    assert (changed.scopes, changed.limits, changed.revision) == (("orders:read",), (), 2)
    assert changed.quotas == (QuotaRule("monthly", 10_000, mode="shadow"),)
    assert changed.effective is True
    with pytest.raises(PreconditionError):
        await desk.plans.update(desk.admin, "basic", UpdatePlan(description="x"), if_match=1)
    again = await desk.plans.update(desk.admin, "basic", change(UpdatePlan, limits=[]))
    assert again.revision == 2
    (leaf,) = await desk.leaves("plan.update")
    assert leaf["resource"] == "plan/basic"
    assert leaf["detail"] == {"limits": [], "quotas": [{"name": "monthly", "amount": 10_000, "mode": "shadow"}]}
    assert [entity for kind, entity in await desk.news() if kind == "plan"] == [made.id] * 3


async def test_keys_and_keyspaces_say_which_plan_they_are_on(desk: Desk) -> None:
    for name in ("basic", "gold"):
        await desk.plan(name)
    keyspace = await desk.keyspace(default_plan="basic", limits=[MINUTE], quotas=[MONTHLY])
    assert (keyspace.default_plan, keyspace.limits[0].name, keyspace.quotas[0].amount) == ("basic", "minute", 10_000)
    issued = await desk.key(plan="gold", limits=[MINUTE | {"limit": 5}], shadow_restrictions={"cidrs": ["::/0"]})
    assert (issued.plan, issued.limits[0].limit) == ("gold", 5)
    shown = await desk.keys.show(desk.admin, issued.id)
    assert (shown.plan, shown.limits, shown.shadow_restrictions) == (
        "gold",
        issued.limits,
        Restrictions(cidrs=("::/0",)),
    )
    bulk = await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=(wanted(), wanted(plan="basic"))))
    assert [one.plan for one in bulk.items] == [None, "basic"]
    given = {"format": "plaintext", "value": "-".join(("sk", "foreign", "0123456789")), "owner": "o", "purpose": "p"}
    imported = await desk.keys.import_keys(
        desk.admin,
        msgspec.convert({"keyspace": "orders", "keys": [given | {"plan": "gold", "quotas": [MONTHLY]}]}, ImportKeys),
    )
    assert [(one.plan, one.quotas[0].name) for one in imported.items] == [("gold", "monthly")]
    on_gold = await desk.keys.list(desk.admin, KeyFilter(plan="gold"))
    assert {one.id for one in on_gold.items} == {issued.id, imported.items[0].id}
    assert (await desk.keys.list(desk.admin, KeyFilter(plan="none"))).items == ()
    assert (await desk.plans.show(desk.admin, "gold")).keys == 2
    basic = await desk.plans.show(desk.admin, "basic")
    assert (basic.keys, basic.keyspaces) == (1, 1)


async def test_a_key_moves_to_another_plan_and_off_it_without_a_new_secret(desk: Desk) -> None:
    await desk.keyspace()
    for name in ("basic", "gold"):
        await desk.plan(name)
    issued = await desk.key(plan="basic")
    moved = await desk.keys.update(desk.admin, issued.id, change(UpdateKey, plan="gold", limits=[MINUTE]))
    assert (moved.plan, moved.limits[0].name, moved.effective, moved.laggards) == ("gold", "minute", True, ())
    assert await desk.verdict(issued.key) == "VALID"
    off = await desk.keys.update(desk.admin, issued.id, UpdateKey(plan=None))
    assert (off.plan, off.limits) == (None, moved.limits)
    assert [leaf["detail"] for leaf in await desk.leaves("key.update")] == [
        {"plan": "gold", "limits": [MINUTE]},
        {"plan": None},
    ]
    (leaf,) = await desk.leaves("key.issue")
    assert leaf["detail"]["plan"] == "basic"


async def test_a_keyspace_takes_and_loses_its_default_plan(desk: Desk) -> None:
    await desk.keyspace()
    await desk.plan()
    changed = await desk.keyspaces.update(
        desk.admin,
        "orders",
        change(UpdateKeyspace, default_plan="basic", limits=[MINUTE], shadow_restrictions={"cidrs": ["10.0.0.0/8"]}),
    )
    assert (changed.default_plan, changed.shadow_restrictions) == ("basic", Restrictions(cidrs=("10.0.0.0/8",)))
    cleared = await desk.keyspaces.update(
        desk.admin, "orders", change(UpdateKeyspace, default_plan=None, limits=[], shadow_restrictions=None)
    )
    assert (cleared.default_plan, cleared.limits, cleared.shadow_restrictions) == (None, (), None)
    details = [leaf["detail"] for leaf in await desk.leaves("keyspace.update")]
    assert details[0]["default_plan"] == "basic"
    assert details[1] == {"default_plan": None, "limits": [], "shadow_restrictions": None}


async def test_a_plan_in_use_is_not_retired(desk: Desk) -> None:
    await desk.keyspace()
    for name in ("by-key", "by-owner", "by-keyspace"):
        await desk.plan(name)
    issued = await desk.key(plan="by-key")
    await desk.owners.update(desk.admin, "billing", UpdateOwner(plan="by-owner"))
    await desk.keyspaces.update(desk.admin, "orders", UpdateKeyspace(default_plan="by-keyspace"))
    for name in ("by-key", "by-owner", "by-keyspace"):
        with pytest.raises(ConflictError) as caught:
            await desk.plans.retire(desk.admin, name, RetirePlan())
        assert caught.value.code == "plan_in_use"
    await desk.keys.revoke(desk.admin, issued.id, RevokeKey())
    assert (await desk.plans.retire(desk.admin, "by-key", RetirePlan())).state == "retired"


async def test_what_is_on_a_retired_plan_moves_to_another(desk: Desk) -> None:
    for name in ("old", "new"):
        await desk.plan(name)
    await desk.keyspace(default_plan="old")
    issued = await desk.key(plan="old")
    await desk.owners.update(desk.admin, "billing", UpdateOwner(plan="old"))
    retired = await desk.plans.retire(desk.admin, "old", RetirePlan(move_to="new"))
    assert (retired.state, retired.keys, retired.owners, retired.keyspaces) == ("retired", 0, 0, 0)
    key = await desk.keys.show(desk.admin, issued.id)
    assert (key.plan, key.revision) == ("new", 2)
    assert (await desk.owners.show(desk.admin, "billing")).plan == "new"
    assert (await desk.keyspaces.show(desk.admin, "orders")).default_plan == "new"
    (leaf,) = await desk.leaves("plan.retire")
    assert leaf["detail"] == {"move_to": "new", "keys": 1, "owners": 1, "keyspaces": 1}
    (moved,) = await desk.leaves("key.update")
    assert (moved["resource"], moved["detail"]) == (f"key/orders/{issued.id}", {"plan": "new"})
    assert (await desk.plans.retire(desk.admin, "old", RetirePlan())).revision == retired.revision


async def test_nothing_is_put_on_a_retired_plan_and_it_never_changes(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    for name in ("old", "new"):
        await desk.plan(name)
    await desk.plans.retire(desk.admin, "old", RetirePlan())
    for attempt in (
        desk.key(plan="old"),
        desk.keyspace("shop", default_plan="old"),
        desk.keys.update(desk.admin, issued.id, UpdateKey(plan="old")),
        desk.keyspaces.update(desk.admin, "orders", UpdateKeyspace(default_plan="old")),
        desk.owners.update(desk.admin, "billing", UpdateOwner(plan="old")),
        desk.plans.retire(desk.admin, "new", RetirePlan(move_to="old")),
        desk.plans.update(desk.admin, "old", UpdatePlan(description="x")),
    ):
        with pytest.raises(ConflictError) as caught:
            await attempt
        assert caught.value.code == "plan_retired"
    with pytest.raises(InputError) as refused:
        await desk.plans.retire(desk.admin, "new", RetirePlan(move_to="new"))
    assert refused.value.field == "move_to"
    active = await desk.plans.list(desk.admin, state="active")
    assert [one.name for one in active.items] == ["new"]


async def test_the_promise_of_a_plan_change_covers_every_keyspace_that_has_a_key_on_it(desk: Desk) -> None:
    """A node may go by the old plan for as long as the slackest keyspace concerned allows, and no longer."""
    await desk.plan()
    for name, seconds in (("strict", 5), ("slack", 600), ("defaulting", 300), ("elsewhere", 3600)):
        await desk.keyspace(name, stale_after_seconds=seconds)

    async def promised() -> float:
        before = await desk.database.read(lambda connection: database_time(connection, desk.clock.now()))
        text = f"limit {before}"
        changed = await desk.plans.update(desk.admin, "basic", UpdatePlan(description=text))
        return parse_rfc3339(changed.effective_by) - before

    await desk.key("strict", plan="basic")
    assert 5 <= await promised() < 60
    await desk.keyspaces.update(desk.admin, "defaulting", UpdateKeyspace(default_plan="basic"))
    assert 300 <= await promised() < 360
    await desk.key("slack", owner="somebody")
    await desk.owners.update(desk.admin, "somebody", UpdateOwner(plan="basic"))
    assert 600 <= await promised() < 660


async def test_putting_something_on_a_plan_needs_the_right_to_read_the_plan(desk: Desk) -> None:
    """A plan may give scopes: who may not know of it cannot assign it, and cannot tell that it exists."""
    await desk.keyspace()
    issued = await desk.key()
    await desk.plan("secret")
    grants = [("key.*", "key/orders/*"), ("keyspace.*", "keyspace/*"), ("owner.update", "owner/*")]
    _, blind = await desk.hire("blind", *grants)
    _, seeing = await desk.hire("seeing", *grants, ("plan.read", "plan/secret"))

    def attempts(by: Credentials, plan: str) -> list[Any]:
        return [
            desk.keys.update(by, issued.id, UpdateKey(plan=plan)),
            desk.keys.issue(by, wanted(plan=plan)),
            desk.keyspaces.update(by, "orders", UpdateKeyspace(default_plan=plan)),
            desk.owners.update(by, "billing", UpdateOwner(plan=plan)),
        ]

    for plan in ("secret", "absent"):
        for attempt in attempts(blind, plan):
            with pytest.raises(NotFoundError) as caught:
                await attempt
            assert caught.value.message == f"no plan named '{plan}' is visible to this caller"
    for attempt in attempts(seeing, "secret"):
        await attempt
    with pytest.raises(ForbiddenError):
        await desk.plans.update(seeing, "secret", UpdatePlan(description="x"))
    with pytest.raises(NotFoundError):
        await desk.plans.update(blind, "secret", UpdatePlan(description="x"))
    assert (await desk.plans.list(blind)).items == ()


async def test_retiring_a_plan_moves_keys_only_for_who_may_change_what_holds_for_them(desk: Desk) -> None:
    """Without `plan.update` on the plan, retiring it must not give its keys what another plan gives."""
    await desk.keyspace()
    for name in ("old", "new"):
        await desk.plan(name)
    await desk.key(plan="old")
    _, retirer = await desk.hire("retirer", ("plan.retire", "plan/*"), ("plan.read", "plan/*"))
    with pytest.raises(ForbiddenError):
        await desk.plans.retire(retirer, "old", RetirePlan(move_to="new"))
    assert (await desk.plans.show(desk.admin, "old")).keys == 1


async def test_plans_do_not_cross_workspaces(desk: Desk) -> None:
    tenant = await desk.tenant("acme")
    await desk.keyspace()
    issued = await desk.key()
    await desk.plan("ours")
    await desk.plans.create(tenant, CreatePlan(name="theirs"))
    for attempt in (
        desk.plans.show(tenant, "ours"),
        desk.plans.update(tenant, "ours", UpdatePlan(description="x")),
        desk.plans.retire(tenant, "ours", RetirePlan()),
        desk.owners.update(tenant, "billing", UpdateOwner(plan="ours")),
        desk.owners.show(tenant, "billing"),
        desk.keys.update(desk.admin, issued.id, UpdateKey(plan="theirs")),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    assert [one.name for one in (await desk.plans.list(tenant)).items] == ["theirs"]
    await desk.owners.update(tenant, "billing", change(UpdateOwner, limits=[MINUTE]))
    assert (await desk.owners.show(desk.admin, "billing")).limits == ()


async def test_retiring_a_plan_moves_a_bounded_number_of_keys(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them move in one unit of work, and nobody else writes meanwhile."""
    monkeypatch.setattr("keyturn.keys.plans.MOVED_KEYS_MAX", 2)
    await desk.keyspace()
    for name in ("old", "new"):
        await desk.plan(name)
    await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=(wanted(plan="old"),) * 3))
    with pytest.raises(ConflictError) as caught:
        await desk.plans.retire(desk.admin, "old", RetirePlan(move_to="new"))
    assert caught.value.code == "plan_in_use"
    first = (await desk.keys.list(desk.admin, limit=1)).items[0]
    await desk.keys.update(desk.admin, first.id, UpdateKey(plan="new"))
    assert (await desk.plans.retire(desk.admin, "old", RetirePlan(move_to="new"))).state == "retired"
    assert (await desk.plans.show(desk.admin, "new")).keys == 3

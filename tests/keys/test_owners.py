from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.access.owners import owner_resource
from keyturn.errors import ForbiddenError, InputError, NotFoundError, PreconditionError
from keyturn.kernel.clock import parse_rfc3339
from keyturn.kernel.match import check_name, matches
from keyturn.storage.nodes import database_time
from keyturn.wire.plans import UpdateOwner
from keyturn.wire.policy import LimitRule
from tests.keys.desk import Desk

LIMITS = [{"name": "burst", "limit": 10, "window_seconds": 1, "per": "owner"}]
NAMES = ["billing", "alice@example.com", "team/shop", "Ada Lovelace", ".hidden", "a//b", "50% off?#", "Zoë", "a" * 256]


def change(**given: Any) -> UpdateOwner:
    return msgspec.convert(given, type=UpdateOwner)


async def test_an_owner_is_on_record_from_the_first_change(desk: Desk) -> None:
    await desk.keyspace()
    await desk.key(owner="billing")
    before = await desk.owners.show(desk.admin, "billing")
    assert (before.revision, before.keys, before.plan, before.updated_at) == (0, 1, None, None)
    assert (await desk.owners.list(desk.admin)).items == ()
    await desk.plan()
    changed = await desk.owners.update(desk.admin, "billing", change(plan="basic", limits=LIMITS), if_match=0)
    assert (changed.plan, changed.revision, changed.keys, changed.effective) == ("basic", 1, 1, True)
    assert changed.limits == (LimitRule("burst", 10, 1, per="owner"),)
    again = await desk.owners.update(desk.admin, "billing", change(plan=None))
    assert (again.plan, again.limits, again.revision) == (None, changed.limits, 2)
    (listed,) = (await desk.owners.list(desk.admin)).items
    assert (listed.name, listed.revision) == ("billing", 2)
    with pytest.raises(PreconditionError):
        await desk.owners.update(desk.admin, "billing", change(plan=None), if_match=0)
    assert [leaf["detail"] for leaf in await desk.leaves("owner.update")] == [
        {"plan": "basic", "limits": LIMITS},
        {"plan": None},
    ]
    news = [entity for kind, entity in await desk.news() if kind == "owner"]
    assert len(news) == 2
    assert len(set(news)) == 1


async def test_what_changes_nothing_puts_nothing_on_record(desk: Desk) -> None:
    unchanged = await desk.owners.update(desk.admin, "nobody", change(limits=[]))
    assert unchanged.revision == 0
    assert await desk.leaves("owner.update") == []
    with pytest.raises(NotFoundError):
        await desk.owners.show(desk.admin, "nobody")


@pytest.mark.parametrize("name", NAMES)
async def test_any_printable_name_can_be_an_owner(desk: Desk, name: str) -> None:
    await desk.owners.update(desk.admin, name, change(limits=LIMITS))
    shown = await desk.owners.show(desk.admin, name)
    assert (shown.name, shown.revision, shown.keys) == (name, 1, 0)
    (leaf,) = await desk.leaves("owner.update")
    assert leaf["resource"] == shown.resource == owner_resource(name).name


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00b", "a\u202eb", "a" * 257, "\ud800"])
async def test_what_no_key_can_have_as_owner_is_refused(desk: Desk, name: str) -> None:
    for attempt in (desk.owners.show(desk.admin, name), desk.owners.update(desk.admin, name, change(limits=LIMITS))):
        with pytest.raises(InputError) as caught:
            await attempt
        assert caught.value.field == "name"


async def test_management_tokens_make_no_owner(desk: Desk) -> None:
    """The principal that holds a token is no owner of keys: asking for it tells nothing."""
    principal, _ = await desk.hire("service")
    with pytest.raises(NotFoundError):
        await desk.owners.show(desk.admin, principal)


async def test_rights_on_owners_are_by_name(desk: Desk) -> None:
    _, shop = await desk.hire("shop", ("owner.*", "owner/team/*"))
    await desk.owners.update(shop, "team/shop", change(limits=LIMITS))
    await desk.owners.update(desk.admin, "billing", change(limits=LIMITS))
    for name in ("billing", "team", "absent"):
        for attempt in (desk.owners.show(shop, name), desk.owners.update(shop, name, change(limits=[]))):
            with pytest.raises(NotFoundError) as caught:
                await attempt
            assert caught.value.message == f"no owner named '{name}' is visible to this caller"
    assert [one.name for one in (await desk.owners.list(shop)).items] == ["team/shop"]
    _, reader = await desk.hire("reader", ("owner.read", "owner/*"))
    with pytest.raises(ForbiddenError):
        await desk.owners.update(reader, "billing", change(limits=[]))


async def test_owners_are_listed_by_plan(desk: Desk) -> None:
    for name in ("basic", "gold"):
        await desk.plan(name)
        await desk.owners.update(desk.admin, f"on {name}", change(plan=name))
    assert [one.name for one in (await desk.owners.list(desk.admin, plan="gold")).items] == ["on gold"]
    assert (await desk.owners.list(desk.admin, plan="absent")).items == ()
    first = await desk.owners.list(desk.admin, limit=1)
    assert first.next_cursor is not None
    second = await desk.owners.list(desk.admin, limit=1, cursor=first.next_cursor)
    assert {one.name for one in (*first.items, *second.items)} == {"on basic", "on gold"}


async def test_the_promise_of_a_change_covers_every_keyspace_the_owner_has_a_key_in(desk: Desk) -> None:
    for name, seconds in (("strict", 5), ("slack", 600), ("elsewhere", 3600)):
        await desk.keyspace(name, stale_after_seconds=seconds)

    async def promised(limit: int) -> float:
        before = await desk.database.read(lambda connection: database_time(connection, desk.clock.now()))
        limits = [LIMITS[0] | {"limit": limit}]
        changed = await desk.owners.update(desk.admin, "billing", change(limits=limits))
        return parse_rfc3339(changed.effective_by) - before

    await desk.key("strict")
    assert 5 <= await promised(1) < 60
    await desk.key("slack")
    assert 600 <= await promised(2) < 660


printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1, max_size=256)


@given(printable, printable)
def test_two_owners_never_share_a_resource_and_every_one_can_be_granted(one: str, other: str) -> None:
    """A grant on one owner must not reach another, and `owner/*` must reach all."""
    resources = owner_resource(one).name, owner_resource(other).name
    assert (resources[0] == resources[1]) == (one == other)
    for resource in resources:
        check_name(resource)
        assert matches("owner/*", resource)
        assert len(resource) <= 512


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("billing", "owner/billing"),
        ("alice@example.com", "owner/alice@example.com"),
        ("team/shop", "owner/team/shop"),
        ("Ada Lovelace", "owner/Ada=20Lovelace"),
        (".hidden", "owner/=2Ehidden"),
        ("a=b~", "owner/a=3Db=7E"),
    ],
)
def test_ordinary_names_stay_readable(name: str, resource: str) -> None:
    assert owner_resource(name).name == resource

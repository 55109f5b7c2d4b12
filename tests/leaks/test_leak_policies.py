"""Nobody writes a policy that does what they may not do themselves."""

from typing import Any

import msgspec
import pytest

from keyturn.errors import ConflictError, ForbiddenError, InputError, NotFoundError, PreconditionError
from keyturn.leaks import rules
from keyturn.wire.leaks import CreateLeakPolicy, UpdateLeakPolicy
from tests.leaks.station import Station

WRITING = ("leak_policy.*", "leak_policy/*")


@pytest.mark.parametrize(
    ("grants", "applies", "may"),
    [
        ([("key.revoke", "key/*")], {}, True),
        ([("key.*", "key/orders/*")], {}, False),
        ([("key.*", "key/orders/*")], {"keyspaces": ["orders"]}, True),
        ([("key.revoke", "key/orders/*")], {"keyspaces": ["orders", "stock"]}, False),
        ([("key.disable", "key/*")], {}, False),
        ([], {"keyspaces": ["orders"]}, False),
        ([("key.*", "*")], {"keyspaces": ["~system"]}, False),
        ([("token.revoke", "principal/*")], {"keyspaces": ["~system"]}, True),
    ],
)
async def test_a_policy_takes_the_right_that_it_will_use(
    station: Station, grants: list[tuple[str, str]], applies: dict[str, Any], *, may: bool
) -> None:
    _, writer = await station.desk.hire("writer", WRITING, *grants)
    given: dict[str, Any] = {"applies": {"certainties": ["own"]} | applies}

    if may:
        made = await station.policy(by=writer, **given)
        assert made.author == made.created_by
        return
    with pytest.raises(ForbiddenError):
        await station.policy(by=writer, **given)
    (leaf,) = [one for one in await station.desk.leaves("leak_policy.create") if one["outcome"] == "denied"]
    assert leaf["resource"] == "leak_policy/rule"


async def test_telling_somebody_takes_no_right_over_keys(station: Station) -> None:
    _, writer = await station.desk.hire("writer", WRITING)
    made = await station.policy("told", "notify", by=writer, applies={})
    assert made.action == "notify"


async def test_whoever_changes_a_policy_answers_for_it(station: Station) -> None:
    await station.policy(action="revoke")
    who, writer = await station.desk.hire("writer", WRITING, ("key.disable", "key/*"))

    with pytest.raises(ForbiddenError):
        await station.policies.update(writer, "rule", UpdateLeakPolicy(position=5))
    changed = await station.policies.update(
        writer, "rule", msgspec.convert({"position": 5, "action": "disable"}, type=UpdateLeakPolicy)
    )

    assert (changed.author, changed.position, changed.revision) == (who, 5, 2)
    with pytest.raises(PreconditionError):
        await station.policies.update(station.admin, "rule", UpdateLeakPolicy(position=6), if_match=1)


@pytest.mark.parametrize(
    "given",
    [
        {"action": "revoke", "applies": {}},
        {"action": "revoke", "applies": {"certainties": ["held"]}},
        {"action": "rotate", "applies": {"certainties": ["own", "held"]}},
        {"action": "revoke", "applies": {"certainties": ["own"], "secrets": ["production/*"]}},
        {"action": "rotate", "applies": {"certainties": ["own"], "keyspaces": ["~system"]}},
        {"action": "revoke", "applies": {"certainties": ["own"], "keyspaces": ["~system", "orders"]}},
        {"action": "notify", "applies": {"keyspaces": ["**"]}},
    ],
)
async def test_a_policy_that_cannot_do_what_it_says_is_refused(station: Station, given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        await station.policies.create(
            station.admin, msgspec.convert({"name": "rule", "position": 1} | given, type=CreateLeakPolicy)
        )


async def test_a_policy_lives_under_its_name_until_it_is_deleted(station: Station) -> None:
    request = msgspec.convert({"name": "rule", "position": 1, "action": "notify"}, type=CreateLeakPolicy)
    made = await station.policies.create(station.admin, request, idempotency="once")
    again = await station.policies.create(station.admin, request, idempotency="once")
    with pytest.raises(ConflictError):
        await station.policies.create(station.admin, request)

    assert made == again
    assert [one.name for one in (await station.policies.list(station.admin)).items] == ["rule"]
    await station.policies.delete(station.admin, "rule", if_match=1)
    with pytest.raises(NotFoundError):
        await station.policies.show(station.admin, "rule")
    assert (await station.policies.create(station.admin, request)).id != made.id
    tenant = await station.desk.tenant("other")
    assert (await station.policies.list(tenant)).items == ()


@pytest.mark.parametrize(
    ("pattern", "text", "like"),
    [
        ("src/*", "src/a/b.py", True),
        ("*.py", "src/a.py", True),
        ("*/test/*", "a/test/b", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*a*b*", "xxbxa", False),
        ("exact", "exact", True),
        ("exact", "exactly", False),
        ("*", "", True),
    ],
)
def test_a_path_pattern_is_like_what_its_stars_leave(pattern: str, text: str, like: bool) -> None:  # noqa: FBT001
    assert rules.is_like(pattern, text) is like

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import InputError
from keyturn.keys.limit_rules import check_limits, check_quotas
from keyturn.wire import rules as wire
from keyturn.wire.policy import LimitRule, QuotaRule


def limit(**given: Any) -> LimitRule:
    values: dict[str, Any] = {"name": "calls", "limit": 10, "window_seconds": 60}
    return LimitRule(**(values | given))


def quota(**given: Any) -> QuotaRule:
    values: dict[str, Any] = {"name": "calls", "amount": 10}
    return QuotaRule(**(values | given))


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "Calls"}, "name"),
        ({"name": "-calls"}, "name"),
        ({"name": "a" * 33}, "name"),
        ({"name": "calls\n"}, "name"),
        ({"limit": 0}, "limit"),
        ({"limit": 1_000_000_001}, "limit"),
        ({"limit": True}, "limit"),
        ({"window_seconds": 0}, "window_seconds"),
        ({"window_seconds": 2_678_401}, "window_seconds"),
        ({"burst": 0}, "burst"),
        ({"burst": 1_000_000_001}, "burst"),
        ({"burst": 5, "kind": "concurrency"}, "burst"),
        ({"per": "everyone"}, "per"),
        ({"kind": "window"}, "kind"),
        ({"mode": "off"}, "mode"),
        ({"on_store_error": "ask"}, "on_store_error"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused_by_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        check_limits([limit(name="first"), limit(**given)])
    assert caught.value.field == f"limits[1].{field}"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": "Calls"}, "name"),
        ({"amount": -1}, "amount"),
        ({"amount": 10**12 + 1}, "amount"),
        ({"period": "year"}, "period"),
        ({"per": "ip"}, "per"),
        ({"mode": "off"}, "mode"),
        ({"refill_amount": 5, "refill_every": "day"}, "refill_amount"),
        ({"refill_day": 1}, "refill_day"),
        ({"period": "none", "refill_amount": 5}, "refill_every"),
        ({"period": "none", "refill_every": "day"}, "refill_amount"),
        ({"period": "none", "refill_amount": 0, "refill_every": "day"}, "refill_amount"),
        ({"period": "none", "refill_amount": 5, "refill_every": "hour"}, "refill_every"),
        ({"period": "none", "refill_amount": 5, "refill_every": "week", "refill_day": 3}, "refill_day"),
        ({"period": "none", "refill_amount": 5, "refill_every": "month", "refill_day": 32}, "refill_day"),
    ],
)
def test_a_quota_that_cannot_be_kept_is_refused_by_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        check_quotas([quota(**given)])
    assert caught.value.field == f"quotas[0].{field}"


def test_a_place_has_a_name_once_and_sixteen_rules_at_most() -> None:
    with pytest.raises(InputError) as caught:
        check_limits([limit(), limit(name="other"), limit()])
    assert caught.value.field == "limits[2].name"
    limits = [limit(name=f"rule-{number}") for number in range(17)]
    quotas = [quota(name=f"rule-{number}") for number in range(17)]
    assert (len(check_limits(limits[:16])), len(check_quotas(quotas[:16]))) == (16, 16)
    with pytest.raises(InputError) as caught:
        check_limits(limits)
    assert caught.value.field == "limits"
    with pytest.raises(InputError) as caught:
        check_quotas(quotas)
    assert caught.value.field == "quotas"


def test_a_prepaid_quota_may_refill() -> None:
    refilled = quota(period="none", refill_amount=5, refill_every="month", refill_day=31)
    assert check_quotas([refilled, quota(name="credits", period="none", amount=0)])[0] == refilled


names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
good_limits = st.builds(
    wire.LimitInput,
    name=names,
    limit=st.integers(1, wire.UNITS_MAX),
    window_seconds=st.integers(1, wire.WINDOW_SECONDS_MAX),
    burst=st.none() | st.integers(1, wire.UNITS_MAX),
    per=st.sampled_from(["key", "owner", "plan", "ip"]),
    kind=st.just("rate"),
    mode=st.sampled_from(["enforce", "shadow"]),
    auto=st.booleans(),
    on_store_error=st.sampled_from(["allow", "deny"]),
)


@given(st.lists(good_limits, max_size=16, unique_by=lambda one: one.name))
def test_whatever_is_within_the_bounds_is_kept_as_it_is(limits: list[wire.LimitInput]) -> None:
    kept = check_limits(limits)
    for asked, one in zip(limits, kept, strict=True):
        assert {name: getattr(one, name) for name in LimitRule.__struct_fields__} == {
            name: getattr(asked, name) for name in LimitRule.__struct_fields__
        }


anything = st.none() | st.booleans() | st.integers() | st.text(max_size=40)
words = st.sampled_from(["key", "owner", "plan", "ip", "rate", "concurrency", "enforce", "shadow", "allow", "deny"])


@given(
    st.lists(
        st.builds(
            LimitRule,
            name=names | anything,
            limit=anything,
            window_seconds=anything,
            burst=anything,
            per=words | anything,
            kind=words | anything,
            mode=words | anything,
            on_store_error=words | anything,
        ),
        max_size=18,
    )
)
def test_what_is_kept_can_be_enforced_and_all_else_is_an_input_error(limits: list[LimitRule]) -> None:
    """No limit that a verifier could not count may get into the database, whoever calls."""
    try:
        kept = check_limits(limits)
    except InputError as error:
        refused = error.field
        kept = ()
    else:
        refused = "limits"
    assert str(refused).startswith("limits")
    assert len(kept) <= wire.RULES_MAX
    assert len({one.name for one in kept}) == len(kept)
    for one in kept:
        assert 1 <= one.limit <= wire.UNITS_MAX
        assert 1 <= one.window_seconds <= wire.WINDOW_SECONDS_MAX
        assert one.burst is None or (1 <= one.burst <= wire.UNITS_MAX and one.kind == "rate")
        assert one.per in {"key", "owner", "plan", "ip"}
        assert one.kind in {"rate", "concurrency"}


@given(
    st.lists(
        st.builds(
            QuotaRule,
            name=names,
            amount=st.integers(-1, wire.AMOUNT_MAX + 1),
            period=st.sampled_from(["day", "week", "month", "none", "year"]),
            per=st.sampled_from(["key", "owner", "ip"]),
            refill_amount=st.none() | st.integers(0, wire.AMOUNT_MAX),
            refill_every=st.none() | st.sampled_from(["day", "week", "month", "year"]),
            refill_day=st.none() | st.integers(0, 32),
        ),
        max_size=3,
    )
)
def test_a_quota_that_is_kept_says_completely_how_it_refills(quotas: list[QuotaRule]) -> None:
    try:
        kept = check_quotas(quotas)
    except InputError as error:
        refused = error.field
        kept = ()
    else:
        refused = "quotas"
    assert str(refused).startswith("quotas")
    for one in kept:
        refills = (one.refill_amount, one.refill_every, one.refill_day)
        assert one.period == "none" or refills == (None, None, None)
        assert (one.refill_amount is None) == (one.refill_every is None)
        assert one.refill_day is None or one.refill_every == "month"

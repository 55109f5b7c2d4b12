from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.cli.allowances import limit_text, quota_text, read_limit, read_quota
from keyturn.errors import InputError
from keyturn.wire import rules as wire
from keyturn.wire.policy import LimitRule, QuotaRule

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("minute=100/60s", {"limit": 100, "window_seconds": 60}),
        ("minute=100/60", {"limit": 100, "window_seconds": 60}),
        ("minute=100/2h", {"limit": 100, "window_seconds": 7200}),
        ("minute=100/1d,burst=5", {"limit": 100, "window_seconds": 86_400, "burst": 5}),
        ("minute=5/30s,concurrency,manual", {"limit": 5, "window_seconds": 30, "kind": "concurrency", "auto": False}),
        (
            "minute=5/30s,shadow,per=ip,on-store-error=allow",
            {"limit": 5, "window_seconds": 30, "mode": "shadow", "per": "ip", "on_store_error": "allow"},
        ),
    ],
)
def test_a_limit_is_read_as_it_is_written(text: str, rule: dict[str, Any]) -> None:
    assert read_limit(text) == {"name": "minute"} | rule


@pytest.mark.parametrize(
    "text", ["", "a", "a=", "a=5", "a=5/", "a=5/x", "a=-1/1s", "a=5/1s,", "a=5/1s,burst=x", "=1/1s"]
)
def test_a_limit_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_limit(text)
    assert caught.value.field == "--limit"


@pytest.mark.parametrize(
    "text", ["", "a", "a=x", "a=5/", "a=5/month,", "a=5/month,burst=5", "a=5,refill=5", "a=5,refill=x/day"]
)
def test_a_quota_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_quota(text)
    assert caught.value.field == "--quota"


@given(
    st.builds(
        LimitRule,
        name=names,
        limit=st.integers(1, wire.UNITS_MAX),
        window_seconds=st.integers(1, wire.WINDOW_SECONDS_MAX),
        burst=st.none() | st.integers(1, wire.UNITS_MAX),
        per=st.sampled_from(["key", "owner", "plan", "ip"]),
        kind=st.sampled_from(["rate", "concurrency"]),
        mode=st.sampled_from(["enforce", "shadow"]),
        auto=st.booleans(),
        on_store_error=st.sampled_from(["allow", "deny"]),
    )
)
def test_what_a_table_shows_of_a_limit_can_be_given_again(rule: LimitRule) -> None:
    assert msgspec.convert(read_limit(limit_text(msgspec.to_builtins(rule))), LimitRule) == rule


@given(
    st.builds(
        QuotaRule,
        name=names,
        amount=st.integers(0, wire.AMOUNT_MAX),
        period=st.sampled_from(["day", "week", "month", "none"]),
        per=st.sampled_from(["key", "owner"]),
        mode=st.sampled_from(["enforce", "shadow"]),
        auto=st.booleans(),
    ),
    st.none() | st.tuples(st.integers(1, wire.AMOUNT_MAX), st.sampled_from(["day", "month"]), st.integers(1, 31)),
)
def test_what_a_table_shows_of_a_quota_can_be_given_again(rule: QuotaRule, refill: tuple[int, str, int] | None) -> None:
    if refill is not None:
        amount, every, day = refill
        rule = msgspec.structs.replace(
            rule, refill_amount=amount, refill_every=every, refill_day=day if every == "month" else None
        )
    assert msgspec.convert(read_quota(quota_text(msgspec.to_builtins(rule))), QuotaRule) == rule

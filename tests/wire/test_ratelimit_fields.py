import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.wire.ratelimit_fields import fields, limit_fields
from keyturn.wire.verification import LimitReport, VerifyResponse

# RFC 9651: a List of Strings with Integer parameters, as this module writes it.
_ITEM = r'"(?:[ !#-\[\]-~]|\\["\\])*"(?:;[a-z]+=[0-9]{1,15})*'
_LIST = re.compile(f"{_ITEM}(?:, {_ITEM})*")


def report(name: str, limit: int, window: int, remaining: int, reset: float, *, shadow: bool = False) -> LimitReport:
    return LimitReport(name, limit, window, remaining, reset, shadow=shadow)


def test_the_examples_of_the_draft_are_written_as_it_writes_them() -> None:
    """A client of the draft reads a policy of 100 units a minute, 50 left, whole again in 30 seconds."""
    assert limit_fields((report("default", 100, 10, 50, 30.0),)) == [
        ("RateLimit-Policy", '"default";q=100;w=10'),
        ("RateLimit", '"default";r=50;t=30'),
    ]
    assert limit_fields((report("permin", 50, 60, 49, 1.2), report("perhr", 1000, 3600, 999, 3.6))) == [
        ("RateLimit-Policy", '"permin";q=50;w=60, "perhr";q=1000;w=3600'),
        ("RateLimit", '"permin";r=49;t=2, "perhr";r=999;t=4'),
    ]


def test_a_refusal_that_waiting_helps_with_says_how_long_rounded_up() -> None:
    limits = (report("burst", 10, 1, 0, 1.0),)
    refused = VerifyResponse(valid=False, code="RATE_LIMITED", limits=limits, retry_after_seconds=0.001)

    assert fields(refused)[2:] == [("Retry-After", "1")]


@pytest.mark.parametrize(
    "response",
    [
        VerifyResponse(valid=True, code="VALID"),
        VerifyResponse(valid=True, code="VALID", limits=()),
        VerifyResponse(valid=False, code="RATE_LIMITED", retry_after_seconds=0.0),
        VerifyResponse(valid=False, code="NOT_FOUND"),
        VerifyResponse(valid=True, code="VALID", limits=(report("trial", 1, 1, 0, 1.0, shadow=True),)),
    ],
)
def test_what_has_nothing_to_tell_has_no_fields(response: VerifyResponse) -> None:
    assert fields(response) == []


def test_limits_in_shadow_are_not_told_to_callers() -> None:
    told = limit_fields((report("real", 5, 60, 4, 12.0), report("trial", 1, 60, 0, 60.0, shadow=True)))

    assert "trial" not in str(told)
    assert told[0] == ("RateLimit-Policy", '"real";q=5;w=60')


@given(st.text(), st.integers(), st.integers(), st.integers(), st.floats(allow_nan=True))
def test_whatever_is_reported_the_fields_can_be_parsed(
    name: str, limit: int, window: int, remaining: int, reset: float
) -> None:
    """No name breaks out of its quotes or into another header."""
    for _, value in limit_fields((report(name, limit, window, remaining, reset),) * 2):
        assert _LIST.fullmatch(value), value

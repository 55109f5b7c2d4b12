from fractions import Fraction

from hypothesis import given, settings

from keyturn.verify.limits import LocalLimiter
from keyturn.verify.spending import LimitDemand
from tests.verify.limit_model import LimitModel
from tests.verify.limit_strategies import BEGIN, requests


@settings(max_examples=300)
@given(requests)
def test_limits_in_memory_are_those_of_the_model(given_requests: list[tuple[Fraction, list[LimitDemand]]]) -> None:
    """Whatever is asked, in whatever order, exactly what GCRA admits is admitted, all or nothing."""
    limiter, model = LocalLimiter(), LimitModel()
    now = Fraction(BEGIN)
    for pause, demands in given_requests:
        now += pause

        outcome = limiter.take_now(demands, float(now))

        admitted, standings = model.take(demands, now)
        assert outcome.admitted == admitted
        found = [(one.remaining, one.reset_seconds, one.exceeded) for one in outcome.reports]
        assert found == [(left, float(reset), exceeded) for left, reset, exceeded in standings]


@settings(max_examples=200)
@given(requests)
def test_waiting_as_long_as_told_always_helps(given_requests: list[tuple[Fraction, list[LimitDemand]]]) -> None:
    limiter = LocalLimiter()
    now = float(BEGIN)
    for pause, demands in given_requests:
        now += float(pause)
        outcome = limiter.take_now(demands, now)
        if outcome.admitted:
            continue
        if outcome.retry_after_seconds > 0:
            now += outcome.retry_after_seconds
            assert limiter.take_now(demands, now).admitted
        else:
            assert not limiter.take_now(demands, now + 1e9).admitted
            break

"""Random limits and requests.  Times and units are binary fractions, so that floats hold them without rounding."""

from fractions import Fraction

from hypothesis import strategies as st

from keyturn.verify.spending import LimitDemand
from keyturn.wire.policy import LimitRule

BEGIN = 1_800_000_000
NAMES = ("burst", "minute", "trial")

rules = st.builds(
    LimitRule,
    name=st.sampled_from(NAMES),
    limit=st.sampled_from((1, 2, 4, 8, 64)),
    window_seconds=st.sampled_from((1, 4, 64)),
    burst=st.none() | st.integers(1, 9),
    mode=st.sampled_from(("enforce", "enforce", "shadow")),
)
demands = st.builds(
    lambda rule, owner, cost: LimitDemand(rule, "wsp_one", f"owner/{owner}/{rule.name}", cost),
    rules,
    st.sampled_from(("a", "b")),
    st.sampled_from((0, 1, 1, 1, 2, 5)),
)
pauses = st.sampled_from([Fraction(number, 64) for number in (0, 0, 0, 1, 8, 31, 64, 640)])
_lists = st.lists(demands, min_size=1, max_size=3, unique_by=lambda one: (one.counter, one.rule.window_seconds))
requests = st.lists(st.tuples(pauses, _lists), max_size=40)

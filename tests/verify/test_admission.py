"""Charging is all or nothing over quotas and limits, and what is in shadow changes no verdict."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.errors import InputError
from keyturn.verify.admission import admit, admit_later, shadow_outcomes, undo
from keyturn.verify.demands import Demands, client_network, demands_of
from keyturn.verify.explain import explain, explain_charges
from keyturn.verify.limits import LocalLimiter
from keyturn.verify.model import Admission, Allowed, Denied, Request
from keyturn.verify.replica import Replica
from keyturn.verify.rules import verify
from keyturn.verify.spending import Limiter
from keyturn.wire.policy import LimitRule, PlanRecord, QuotaRule, Restrictions
from keyturn.wire.verification import Code, LimitUse, QuotaUse
from tests.verify.keepers import Balances, SlowLimiter
from tests.verify.sample import NOW, Issued, keyspace_record, replica_of

OFFICE = Restrictions(cidrs=("10.0.0.0/8",))


class Desk:
    """One key, its keepers, and the asking."""

    def __init__(self, *, waits: bool = False, keyspace: dict[str, Any] | None = None, **key: Any) -> None:
        """Issue a key that says this."""
        self.issued = Issued(**key)
        self.replica: Replica = replica_of(self.issued.record, keyspaces=(keyspace_record(**(keyspace or {})),))
        self.limiter: Limiter = SlowLimiter() if waits else LocalLimiter()
        self.quotas: Balances | None = Balances(waits=waits)

    def request(self, **fields: Any) -> Request:
        return self.issued.request(**fields)

    def ask(self, now: float = NOW, **fields: Any) -> Admission:
        """Decide and charge."""
        request = self.request(**fields)
        allowed = verify(self.replica, request, now)
        assert isinstance(allowed, Allowed), allowed
        done = admit(request, allowed, now, self.limiter, self.quotas)
        return done or asyncio.run(admit_later(request, allowed, now, self.limiter, self.quotas))

    def code(self, **fields: Any) -> str:
        return self.ask(**fields).verdict.code.value

    def demands(self, **fields: Any) -> Demands | Denied:
        version = self.replica.version(self.issued.version.id)
        assert version is not None
        return demands_of(self.request(**fields), version, version.terms)


def charged(demands: Demands | Denied) -> dict[str, int]:
    assert isinstance(demands, Demands)
    return {demand.counter: demand.cost for demand in demands.limits}


# --- demands ---------------------------------------------------------------------------------------------------------


def test_each_sharing_has_a_counter_of_its_own() -> None:
    rules = tuple(LimitRule(f"of-{per}", 5, 60, per=per) for per in ("key", "owner", "plan", "ip"))
    desk = Desk(limits=rules, plan="pln_gold")
    desk.replica.load_plan(PlanRecord("pln_gold", "ws_a", "gold"))
    key = desk.issued.record.id
    assert charged(desk.demands(ip="192.0.2.7", cost=3)) == {
        f"key/{key}/of-key": 3,
        "owner/team-orders/of-owner": 3,
        "plan/pln_gold/of-plan": 3,
        "ip/ks_a/192.0.2.7/of-ip": 3,
    }


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("192.0.2", None),
        ("192.0.2.7:80", None),
        ("", None),
        ("fe80::1%eth0", None),
    ],
)
def test_an_address_is_counted_as_the_network_of_one_client(ip: str, network: str | None) -> None:
    assert client_network(ip) == network


@pytest.mark.parametrize("fields", [{}, {"ip": "not an address"}])
def test_a_limit_by_address_denies_when_the_address_is_not_told(fields: dict[str, Any]) -> None:
    """Security: leaving the address out must not be a way around the limit."""
    desk = Desk(limits=(LimitRule("by-ip", 5, 60, per="ip"), LimitRule("x", 1, 60)))
    refused = desk.ask(**fields)
    assert (refused.verdict.code, refused.verdict.check) == (Code.FORBIDDEN, "limit:by-ip")
    assert desk.ask(ip="192.0.2.7").verdict


def test_a_limit_by_plan_denies_a_key_without_plan() -> None:
    assert Desk(limits=(LimitRule("x", 5, 60, per="plan"),)).code() == "FORBIDDEN"


def test_a_limit_in_shadow_that_cannot_be_kept_is_only_told() -> None:
    admitted = Desk(limits=(LimitRule("x", 5, 60, per="ip", mode="shadow"),)).ask()
    assert admitted.verdict
    assert admitted.shadow == ("limit:x",)


def test_costs_are_the_requests_and_by_name() -> None:
    rules = (LimitRule("a", 9, 60), LimitRule("b", 9, 60), LimitRule("c", 9, 60, auto=False))
    desk = Desk(limits=rules, quotas=(QuotaRule("q", 9), QuotaRule("r", 9, auto=False, per="owner")))
    found = desk.demands(cost=2, limits=(LimitUse("b", 5), LimitUse("c")), quotas=(QuotaUse("r", 4),))
    assert isinstance(found, Demands)
    assert [(one.rule.name, one.cost) for one in found.limits] == [("a", 2), ("b", 5), ("c", 1)]
    assert [(one.rule.name, one.subject, one.cost) for one in found.quotas] == [
        ("q", f"key/{desk.issued.record.id}", 2),
        ("r", "owner/team-orders", 4),
    ]


def test_a_request_may_bring_a_limit_of_its_own() -> None:
    desk = Desk()
    own = (LimitUse("login.try", 1, limit=2, window_seconds=60),)
    assert [desk.code(limits=own) for _ in range(3)] == ["VALID", "VALID", "RATE_LIMITED"]
    assert desk.code() == "VALID"


@pytest.mark.parametrize(
    ("uses", "field"),
    [
        ({"limits": (LimitUse("nope"),)}, "limits[0].name"),
        ({"limits": (LimitUse("a", limit=1, window_seconds=1),)}, "limits[0].name"),
        ({"limits": (LimitUse("n", limit=1),)}, "limits[0].window_seconds"),
        ({"limits": (LimitUse("n", window_seconds=1),)}, "limits[0].limit"),
        ({"limits": (LimitUse('a"b', limit=1, window_seconds=1),)}, "limits[0].name"),
        ({"limits": (LimitUse("a"), LimitUse("a"))}, "limits[1].name"),
        ({"quotas": (QuotaUse("nope"),)}, "quotas[0].name"),
        ({"quotas": (QuotaUse("q"), QuotaUse("q"))}, "quotas[1].name"),
    ],
)
def test_a_request_that_names_what_is_not_there_is_an_error(uses: dict[str, Any], field: str) -> None:
    desk = Desk(limits=(LimitRule("a", 5, 60),), quotas=(QuotaRule("q", 5),))
    with pytest.raises(InputError) as caught:
        desk.ask(**uses)
    assert caught.value.field == field


def test_names_of_limits_are_not_revealed_to_whoever_has_no_key() -> None:
    """Security: what limits a key has is answered only after its secret was proven."""
    desk = Desk(limits=(LimitRule("a", 5, 60),))
    for name in ("a", "nope"):
        request = Request(desk.issued.presented[:-1] + "x", limits=(LimitUse(name),))
        assert verify(desk.replica, request, NOW).code is Code.NOT_FOUND


def test_what_is_charged_follows_a_change_of_owner_at_once() -> None:
    desk = Desk(limits=(LimitRule("x", 1, 60, per="owner"),))
    assert [desk.code(), desk.code()] == ["VALID", "RATE_LIMITED"]
    changed = Issued(versions=desk.issued.record.versions, limits=desk.issued.record.limits, owner="other")
    changed_id = desk.issued.record.id
    fields = {name: getattr(changed.record, name) for name in changed.record.__struct_fields__}
    desk.replica.apply_key(type(changed.record)(**{**fields, "id": changed_id}), changed_id)
    assert desk.code() == "VALID"


# --- charging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
def test_a_refusal_by_a_limit_gives_the_quota_back(*, waits: bool) -> None:
    desk = Desk(waits=waits, limits=(LimitRule("x", 2, 60),), quotas=(QuotaRule("q", 100),))
    codes = [desk.code(cost=1) for _ in range(5)]
    assert codes == ["VALID", "VALID", "RATE_LIMITED", "RATE_LIMITED", "RATE_LIMITED"]
    assert desk.quotas is not None
    assert desk.quotas.total == 2


@pytest.mark.parametrize("waits", [False, True])
def test_a_refusal_by_a_quota_charges_no_limit(*, waits: bool) -> None:
    desk = Desk(waits=waits, limits=(LimitRule("x", 5, 60),), quotas=(QuotaRule("q", 1),))
    assert [desk.code() for _ in range(4)] == ["VALID", *["USAGE_EXCEEDED"] * 3]
    assert desk.quotas is not None
    desk.quotas.spent.clear()
    reports = desk.ask().limits
    assert [report.remaining for report in reports] == [3]


def test_a_refusal_says_when_to_come_again_and_how_all_limits_stand() -> None:
    desk = Desk(limits=(LimitRule("a", 1, 10), LimitRule("b", 5, 60)))
    assert desk.ask().verdict
    refused = desk.ask()
    assert refused.verdict.check == "limit:a"
    assert refused.retry_after_seconds == pytest.approx(10.0)
    assert [(one.name, one.remaining, one.exceeded) for one in refused.limits] == [("a", 0, True), ("b", 4, False)]
    assert desk.ask(now=NOW + 10).verdict


def test_a_key_with_quotas_is_unavailable_while_nobody_keeps_them() -> None:
    """Security: a balance that cannot be asked admits nothing."""
    desk = Desk(quotas=(QuotaRule("q", 5),))
    desk.quotas = None
    assert desk.code() == "UNAVAILABLE"
    desk.quotas = Balances()
    desk.quotas.away = True
    assert desk.code() == "UNAVAILABLE"


def test_a_cost_of_nothing_is_admitted_and_tells_how_things_stand() -> None:
    desk = Desk(limits=(LimitRule("x", 1, 60),), quotas=(QuotaRule("q", 1),))
    assert desk.code() == "VALID"
    asked = desk.ask(cost=0)
    assert asked.verdict
    assert [one.remaining for one in asked.limits] == [0]
    assert [one.remaining for one in asked.quotas] == [0]


def test_slots_of_calls_at_once_are_told_and_can_be_given_back() -> None:
    desk = Desk(limits=(LimitRule("at-once", 1, 60, kind="concurrency"),))
    first = desk.ask()
    assert len(first.slots) == 1
    assert desk.code() == "RATE_LIMITED"
    assert asyncio.run(desk.limiter.release(undo(first, None))) == 1
    assert desk.code() == "VALID"


async def test_a_caller_that_goes_while_limits_are_asked_leaves_no_reservation_behind() -> None:
    desk = Desk(waits=True, limits=(LimitRule("x", 5, 60),), quotas=(QuotaRule("q", 5),))
    assert isinstance(desk.limiter, SlowLimiter)
    assert desk.quotas is not None
    asked, never = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        asked.set()
        await never.wait()

    desk.limiter.meanwhile = hang
    request = desk.request()
    allowed = verify(desk.replica, request, NOW)
    assert isinstance(allowed, Allowed)
    task = asyncio.create_task(admit_later(request, allowed, NOW, desk.limiter, desk.quotas))
    await asked.wait()
    assert desk.quotas.total == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert desk.quotas.total == 0


_limits = st.lists(
    st.builds(
        LimitRule,
        st.sampled_from("abcd"),
        st.integers(1, 4),
        st.sampled_from([1, 60]),
        mode=st.sampled_from(["enforce", "shadow"]),
        per=st.sampled_from(["key", "owner", "ip"]),
    ),
    max_size=3,
    unique_by=lambda one: one.name,
).map(tuple)
_quotas = st.lists(
    st.builds(QuotaRule, st.sampled_from("abcd"), st.integers(0, 6), mode=st.sampled_from(["enforce", "shadow"])),
    max_size=2,
    unique_by=lambda one: one.name,
).map(tuple)
_asks = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 30), st.sampled_from(["10.0.0.1", "10.0.0.2"])), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(limits=_limits, quotas=_quotas, asks=_asks, shadow=st.sampled_from([None, OFFICE]), waits=st.booleans())
def test_what_is_in_shadow_changes_no_verdict(
    limits: tuple[LimitRule, ...],
    quotas: tuple[QuotaRule, ...],
    asks: list[tuple[int, int, str]],
    shadow: Restrictions | None,
    *,
    waits: bool,
) -> None:
    """A key with shadow rules is answered as the same key without them, also after any number of calls."""
    enforced_limits = tuple(one for one in limits if one.mode == "enforce")
    enforced_quotas = tuple(one for one in quotas if one.mode == "enforce")
    with_shadow = Desk(waits=waits, limits=limits, quotas=quotas, shadow_restrictions=shadow)
    without = Desk(waits=waits, quotas=enforced_quotas, limits=enforced_limits)
    now = NOW
    for cost, seconds, ip in asks:
        now += seconds
        one, other = (desk.ask(now=now, cost=cost, ip=ip) for desk in (with_shadow, without))
        assert (one.verdict.code, one.verdict.check) == (other.verdict.code, other.verdict.check)
        names = {f"limit:{rule.name}" for rule in limits if rule.mode == "shadow"}
        names |= {f"quota:{rule.name}" for rule in quotas if rule.mode == "shadow"}
        assert set(one.shadow) <= names
        assert other.shadow == ()


@settings(max_examples=150, deadline=None)
@given(limits=_limits, quotas=_quotas, asks=_asks, waits=st.booleans())
def test_what_is_spent_of_quotas_is_what_was_admitted(
    limits: tuple[LimitRule, ...], quotas: tuple[QuotaRule, ...], asks: list[tuple[int, int, str]], *, waits: bool
) -> None:
    desk = Desk(waits=waits, limits=limits, quotas=quotas)
    admitted: Counter[str] = Counter()
    now = NOW
    for cost, seconds, ip in asks:
        now += seconds
        done = desk.ask(now=now, cost=cost, ip=ip)
        if done.verdict:
            admitted.update({one.name: cost for one in done.quotas if not one.exceeded})
    assert desk.quotas is not None
    spent = {name: units for (_, _, name), units in desk.quotas.spent.items() if units}
    assert spent == {name: units for name, units in admitted.items() if units}


# --- shadow and explain ----------------------------------------------------------------------------------------------


def test_what_would_have_refused_is_named() -> None:
    desk = Desk(
        limits=(LimitRule("burst", 1, 60, mode="shadow"),),
        quotas=(QuotaRule("monthly", 1, mode="shadow"),),
        shadow_restrictions=Restrictions(cidrs=("10.0.0.0/8",), origins=("https://a.example",)),
        keyspace={"shadow_restrictions": OFFICE},
    )
    assert desk.ask(ip="10.1.1.1", origin="https://a.example").shadow == ()
    second = desk.ask(ip="192.0.2.1")
    assert second.verdict
    assert second.shadow == ("restriction:cidr", "restriction:origin", "limit:burst", "quota:monthly")
    assert shadow_outcomes(second.shadow) == ("SHADOW_FORBIDDEN", "SHADOW_RATE_LIMITED", "SHADOW_USAGE_EXCEEDED")


def test_the_explanation_names_every_rule_with_its_source() -> None:
    desk = Desk(
        limits=(LimitRule("own", 1, 60),),
        plan="pln_gold",
        keyspace={"limits": (LimitRule("all", 9, 60), LimitRule("own", 99, 60)), "shadow_restrictions": OFFICE},
    )
    desk.replica.load_plan(
        PlanRecord("pln_gold", "ws_a", "gold", restrictions=OFFICE, quotas=(QuotaRule("m", 5, mode="shadow"),))
    )
    request = desk.request(ip="10.0.0.1", limits=(LimitUse("extra", 1, limit=1, window_seconds=1),))
    for code in ("VALID", "RATE_LIMITED"):
        verdict, checks = explain(request, desk.replica.version(desk.issued.version.id), NOW)
        assert isinstance(verdict, Allowed)
        done = admit(request, verdict, NOW, desk.limiter, desk.quotas)
        assert done is not None
        assert done.verdict.code == code
        checks = (*checks, *explain_charges(request, verdict.version, done))
        found = {(one.name, one.source): one.verdict for one in checks}
        assert found["plan", "key"] == "pass"
        assert found["cidr", "plan"] == "pass"
        assert found["shadow:restriction:cidr", "keyspace"] == "pass"
        assert found["limit:all", "keyspace"] == "pass"
        assert found["limit:own", "key"] == ("pass" if code == "VALID" else "fail")
        assert found["limit:extra", "request"] == ("pass" if code == "VALID" else "fail")
        assert found["shadow:quota:m", "plan"] == ("pass" if code == "VALID" else "skipped")


def test_the_explanation_of_a_refusal_charges_nothing_and_says_so() -> None:
    desk = Desk(limits=(LimitRule("x", 1, 60),), quotas=(QuotaRule("q", 1),), state="disabled")
    version = desk.replica.version(desk.issued.version.id)
    assert version is not None
    checks = explain_charges(desk.request(), version, None)
    assert [(one.name, one.verdict) for one in checks] == [("quota:q", "skipped"), ("limit:x", "skipped")]


@settings(max_examples=100, deadline=None)
@given(limits=_limits, quotas=_quotas, asks=_asks)
def test_the_explanation_fails_a_charge_exactly_when_it_refused(
    limits: tuple[LimitRule, ...], quotas: tuple[QuotaRule, ...], asks: list[tuple[int, int, str]]
) -> None:
    desk = Desk(limits=limits, quotas=quotas)
    version = desk.replica.version(desk.issued.version.id)
    assert version is not None
    for cost, seconds, ip in asks:
        done = desk.ask(now=NOW + seconds, cost=cost, ip=ip)
        checks = explain_charges(desk.request(cost=cost, ip=ip), version, done)
        failed = [one for one in checks if one.verdict == "fail"]
        enforced = [one.name for one in failed if not one.name.startswith("shadow:")]
        assert bool(done.verdict) is not bool(enforced)
        assert {one.name.removeprefix("shadow:") for one in failed if one.name not in enforced} == set(done.shadow)

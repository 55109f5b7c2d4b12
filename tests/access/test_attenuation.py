"""Nobody hands out more than they hold: in single cases, and over chains that hypothesis makes up."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from keyturn.access import rules
from keyturn.access.caller import Caller, Conditions, Grant, Resource

NOW = 100.0

ACTIONS = ["key.issue", "key.read", "grant.create", "principal.read"]
RESOURCES = [
    Resource(name, environment)
    for name in ("key/orders/k1", "key/orders/k2", "key/~system/k1", "principal/p1", "~instance/a")
    for environment in ("production", "staging", None)
]
FROM = [(ip, at) for ip in (None, "10.1.0.1", "10.2.0.1", "2001:db8::1") for at in (0.0, 50.0, NOW, 150.0)]

action_patterns = st.sampled_from(["*", "key.*", "*.read", "key.issue", "key.read", "grant.create"])
resource_patterns = st.sampled_from(
    ["*", "key/*", "key/orders/*", "key/*/k1", "key/orders/k1", "key/~system/*", "principal/*", "~instance/*"]
)
conditions = st.builds(
    Conditions,
    environments=st.sampled_from([(), (), ("production",), ("production", "staging")]),
    cidrs=st.sampled_from([(), (), ("10.0.0.0/8",), ("10.1.0.0/16",), ("10.1.0.0/16", "192.0.2.0/24"), ("::/0",)]),
    not_before=st.sampled_from([None, None, 0.0, 50.0, 120.0]),
    not_after=st.sampled_from([None, None, 90.0, 150.0, 200.0]),
)
grants = st.builds(
    Grant,
    id=st.just("grt"),
    subject=st.just("prn"),
    actions=st.lists(action_patterns, min_size=1, max_size=2).map(tuple),
    resource=resource_patterns,
    conditions=conditions,
)
bounds = st.tuples(st.lists(action_patterns, max_size=2).map(tuple), st.lists(resource_patterns, max_size=2).map(tuple))


expiries = st.sampled_from([None, None, 120.0, 150.0, 200.0])


def holder(
    held: tuple[Grant, ...],
    token: tuple[Any, Any] = ((), ()),
    principal: str = "prn",
    expires_at: float | None = None,
) -> Caller:
    bounds_of_token = (token[0], token[1])
    return Caller(
        "wsp", principal, "service", "x", "tok", *bounds_of_token, held, ip="10.1.0.1", token_expires_at=expires_at
    )


def accesses(who: Caller) -> set[tuple[str, Resource, str | None, float]]:
    """Everything a caller can do, from wherever and whenever it may call."""
    return {
        (action, resource, ip, at)
        for action, resource, (ip, at) in product(ACTIONS, RESOURCES, FROM)
        if rules.may(structs.replace(who, ip=ip), action, resource, at)
        and (who.token_expires_at is None or at < who.token_expires_at)
    }


links = st.lists(st.tuples(bounds, expiries, st.lists(grants, min_size=1, max_size=6)), min_size=1, max_size=3)


@settings(deadline=None)
@given(st.lists(grants, min_size=1, max_size=3).map(tuple), links)
def test_a_chain_of_grants_never_yields_an_access_that_its_root_did_not_hold(
    rooted: tuple[Grant, ...], chain: list[tuple[tuple[Any, Any], float | None, list[Grant]]]
) -> None:
    """Each holder grants the next whatever the rules let it, through a token of its own; the last one is compared."""
    whole = accesses(holder(rooted))
    held = rooted
    for token, expires_at, wished in chain:
        giver = holder(held, token, expires_at=expires_at)
        given_on = tuple(
            one for one in wished if rules.attenuates(giver, one.actions, one.resource, one.conditions, NOW)
        )
        assert accesses(holder(given_on)) <= accesses(giver)
        held = given_on
    assert accesses(holder(held)) <= whole


@settings(deadline=None)
@given(
    own=st.lists(grants, min_size=1, max_size=3).map(tuple),
    token=bounds,
    other=st.lists(grants, min_size=1, max_size=2).map(tuple),
    asked=bounds,
    ends=st.tuples(expiries, expiries),
    itself=st.booleans(),
)
def test_an_issued_token_never_yields_an_access_that_its_issuer_does_not_hold(
    own: tuple[Grant, ...],
    token: tuple[Any, Any],
    other: tuple[Grant, ...],
    asked: tuple[Any, Any],
    ends: tuple[float | None, float | None],
    *,
    itself: bool,
) -> None:
    """Whether it is issued for another principal or for the issuer itself, through a token that is bounded."""
    issuer = holder(own, token, expires_at=ends[0])
    owner, theirs = ("prn", own) if itself else ("prn_other", other)
    if rules.may_issue_token(issuer, owner, theirs, asked[0], asked[1], NOW, expires_at=ends[1]):
        assert accesses(holder(theirs, asked, owner, ends[1])) <= accesses(issuer)


@pytest.mark.parametrize(("end", "allowed"), [(None, False), (151.0, False), (150.0, True), (120.0, True)])
def test_what_an_expiring_token_hands_out_ends_with_it(end: float | None, *, allowed: bool) -> None:
    everything = Grant("grt", "prn", ("*",), "*", Conditions())
    giver = holder((everything,), expires_at=150.0)
    assert rules.attenuates(giver, ("key.read",), "key/*", Conditions(not_after=end), NOW) is allowed
    for owner in ("prn", "prn_other"):
        assert rules.may_issue_token(giver, owner, (everything,), (), (), NOW, expires_at=end) is allowed


def test_an_expiry_narrows_a_token_to_the_window_of_the_issuers_grant() -> None:
    """A right held until then can be handed on in a token that ends by then, though the owner's grant does not."""
    giver = holder((Grant("grt", "prn", ("*",), "*", Conditions(not_after=150.0)),))
    theirs = (Grant("grt", "prn_other", ("key.read",), "key/*", Conditions()),)
    assert rules.may_issue_token(giver, "prn_other", theirs, (), (), NOW, expires_at=150.0)
    assert not rules.may_issue_token(giver, "prn_other", theirs, (), (), NOW, expires_at=151.0)
    assert not rules.may_issue_token(giver, "prn_other", theirs, (), (), NOW)


@given(grants)
def test_what_is_held_and_in_force_may_be_handed_on_unchanged(held: Grant) -> None:
    """Otherwise the properties above would hold for a rule that allows nothing."""
    in_force = replace(held, conditions=replace(held.conditions, cidrs=(), not_before=None, not_after=None))
    giver = holder((in_force,))
    assert rules.attenuates(giver, in_force.actions, in_force.resource, in_force.conditions, NOW)
    assert rules.may_issue_token(giver, "prn_other", (in_force,), (), (), NOW)


WIDE = Conditions(
    environments=("production", "staging"), cidrs=("10.0.0.0/8", "2001:db8::/32"), not_before=50.0, not_after=150.0
)


@pytest.mark.parametrize(
    ("given_on", "allowed"),
    [
        (WIDE, True),
        (replace(WIDE, environments=("production",)), True),
        (replace(WIDE, environments=()), False),
        (replace(WIDE, environments=("production", "development")), False),
        (replace(WIDE, cidrs=("10.1.0.0/16",)), True),
        (replace(WIDE, cidrs=("10.1.2.3",)), True),
        (replace(WIDE, cidrs=("2001:db8:1::/48", "10.0.0.0/8")), True),
        (replace(WIDE, cidrs=("0.0.0.0/0",)), False),
        (replace(WIDE, cidrs=("10.0.0.0/7",)), False),
        (replace(WIDE, cidrs=("::a00:1",)), False),  # the number of 10.0.0.1, in the other family
        (replace(WIDE, cidrs=("11.0.0.0/8",)), False),
        (replace(WIDE, cidrs=("2001::/16",)), False),
        (replace(WIDE, cidrs=()), False),
        (replace(WIDE, not_before=60.0, not_after=140.0), True),
        (replace(WIDE, not_before=None), False),
        (replace(WIDE, not_before=49.0), False),
        (replace(WIDE, not_after=None), False),
        (replace(WIDE, not_after=151.0), False),
        (replace(WIDE, unknown=True), False),
    ],
)
def test_conditions_handed_on_are_at_least_as_strict(given_on: Conditions, *, allowed: bool) -> None:
    giver = holder((Grant("grt", "prn", ("*",), "*", WIDE),))
    assert rules.attenuates(giver, ("key.read",), "key/*", given_on, NOW) is allowed


def test_a_grant_that_is_not_in_force_hands_out_nothing() -> None:
    """Outside its networks or its window a grant gives no access, so it gives none to pass on either."""
    giver = holder((Grant("grt", "prn", ("*",), "*", WIDE),))
    assert rules.attenuates(giver, ("key.read",), "*", WIDE, NOW)
    assert not rules.attenuates(structs.replace(giver, ip="192.0.2.1"), ("key.read",), "*", WIDE, NOW)
    assert not rules.attenuates(structs.replace(giver, ip=None), ("key.read",), "*", WIDE, NOW)
    assert not rules.attenuates(giver, ("key.read",), "*", WIDE, 151.0)


def test_a_bounded_token_does_not_issue_an_unbounded_one_for_itself() -> None:
    """Else any token could shed its bounds."""
    giver = holder((Grant("grt", "prn", ("*",), "*", Conditions()),), (("token.issue", "key.*"), ("principal/*",)))
    assert not rules.may_issue_token(giver, "prn", giver.grants, (), (), NOW)
    assert not rules.may_issue_token(giver, "prn", giver.grants, ("key.read",), (), NOW)
    assert not rules.may_issue_token(giver, "prn", giver.grants, ("key.read", "*"), ("principal/*",), NOW)
    assert rules.may_issue_token(giver, "prn", giver.grants, ("key.read",), ("principal/p1",), NOW)


def test_a_bounded_token_grants_only_within_its_bounds() -> None:
    """Else any token could shed its bounds through a grant to an accomplice, or through a token of one."""
    grant = Grant("grt", "prn", ("*",), "*", Conditions())
    for token in ((("key.*",), ()), ((), ("key/orders/*",))):
        giver = holder((grant,), token)
        assert not rules.attenuates(giver, ("*",), "*", Conditions(), NOW)
        assert not rules.may_issue_token(giver, "prn_other", (grant,), (), (), NOW)
        assert rules.attenuates(giver, ("key.read",), "key/orders/a", Conditions(), NOW)
        assert rules.may_issue_token(giver, "prn_other", (grant,), ("key.read",), ("key/orders/a",), NOW)


def test_a_token_for_another_is_compared_with_what_its_bounds_leave_of_every_grant() -> None:
    """What the bounds cut away does not count; what is named outright does."""
    giver = holder((Grant("grt", "prn", ("key.read",), "key/*", Conditions()),))
    theirs = (Grant("grt_2", "prn_other", ("key.revoke", "key.read"), "key/a/b", Conditions()),)
    assert not rules.may_issue_token(giver, "prn_other", theirs, ("key.*",), (), NOW)
    assert not rules.may_issue_token(giver, "prn_other", theirs, (), ("key/a/*",), NOW)
    assert rules.may_issue_token(giver, "prn_other", theirs, ("key.read",), (), NOW)
    assert rules.may_issue_token(giver, "prn_other", theirs, ("key.*",), ("key/c/*",), NOW)
    wide = (replace(theirs[0], actions=("key.*",)),)
    assert not rules.may_issue_token(giver, "prn_other", wide, ("key.revoke",), (), NOW)
    assert rules.may_issue_token(giver, "prn_other", wide, ("grant.create", "key.read"), (), NOW)


def test_what_is_not_covered_is_named() -> None:
    giver = holder((Grant("grt", "prn", ("key.*",), "key/*", Conditions()),))
    assert rules.uncovered(giver, ("key.read", "*", "grant.create"), "key/a/b", Conditions(), NOW) == (
        "*",
        "grant.create",
    )

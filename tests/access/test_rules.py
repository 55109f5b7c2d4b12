from dataclasses import replace

import pytest
from msgspec import structs

from keyturn.access import rules
from keyturn.access.caller import Caller, Conditions, Grant, Resource
from keyturn.errors import CapError, InputError
from keyturn.wire.actions import SYSTEM_ACTIONS, Action

NOON = 1_767_268_800.0
ORDERS = Resource("key/orders/key_1", "production")
BILLING = Resource("key/billing/key_2", "staging")
ALICE = Resource("principal/prn_alice")


def grant(actions: str, resource: str, conditions: Conditions | None = None, name: str = "grt_1") -> Grant:
    return Grant(name, "prn_me", tuple(actions.split()), resource, conditions or Conditions())


def caller(*grants: Grant, scopes: str = "", resources: str = "", ip: str | None = "10.1.2.3") -> Caller:
    return Caller(
        workspace="wsp_1",
        principal="prn_me",
        kind="service",
        name="me",
        token_id="tok",
        token_scopes=tuple(scopes.split()),
        token_resources=tuple(resources.split()),
        grants=grants,
        ip=ip,
    )


EVERYTHING = caller(grant("*", "*"))
OPERATOR = caller(grant("*", "*"), grant("*", "~instance/*", name="grt_2"))
ISSUER = caller(grant("key.issue key.read", "key/orders/*"))
PRODUCTION = caller(grant("key.*", "key/*", Conditions(environments=("production",))))
OFFICE = caller(grant("*", "*", Conditions(cidrs=("10.1.0.0/16", "2001:db8::/32"))))
TODAY = caller(grant("*", "*", Conditions(not_before=NOON - 10, not_after=NOON + 10)))
READ_ONLY_TOKEN = caller(grant("*", "*"), scopes="*.read")
ONE_KEYSPACE_TOKEN = caller(grant("*", "*"), resources="key/orders/*")


def allow(who: Caller, action: str, resource: Resource, now: float = NOON) -> tuple[object, ...]:
    return who, action, resource, now, True


def deny(who: Caller, action: str, resource: Resource, now: float = NOON) -> tuple[object, ...]:
    return who, action, resource, now, False


POLICY = [
    allow(EVERYTHING, "key.issue", ORDERS),
    allow(EVERYTHING, "grant.create", Resource("grant/grt_9")),
    deny(EVERYTHING, "key.issue", Resource("key/~system/key_3")),
    deny(EVERYTHING, "workspace.create", Resource("~instance/workspace/acme")),
    allow(OPERATOR, "workspace.create", Resource("~instance/workspace/acme")),
    deny(OPERATOR, "key.read", Resource("key/~system/key_3")),
    deny(caller(), "key.read", ORDERS),
    allow(ISSUER, "key.issue", ORDERS),
    allow(ISSUER, "key.read", ORDERS),
    deny(ISSUER, "key.revoke", ORDERS),
    deny(ISSUER, "key.issue", BILLING),
    deny(ISSUER, "key.issue", Resource("key/orders")),
    deny(ISSUER, "key.issue", Resource("")),
    deny(ISSUER, "key.issue", Resource("key/orders/a\n")),
    allow(PRODUCTION, "key.revoke", ORDERS),
    deny(PRODUCTION, "key.revoke", BILLING),
    deny(PRODUCTION, "key.revoke", replace(ORDERS, environment=None)),
    allow(OFFICE, "key.issue", ORDERS),
    allow(structs.replace(OFFICE, ip="2001:db8::1"), "key.issue", ORDERS),
    allow(structs.replace(OFFICE, ip="::ffff:10.1.9.9"), "key.issue", ORDERS),
    deny(structs.replace(OFFICE, ip="10.2.0.1"), "key.issue", ORDERS),
    deny(structs.replace(OFFICE, ip=None), "key.issue", ORDERS),
    deny(structs.replace(OFFICE, ip="not an address"), "key.issue", ORDERS),
    allow(TODAY, "key.issue", ORDERS, NOON - 10),
    deny(TODAY, "key.issue", ORDERS, NOON - 11),
    allow(TODAY, "key.issue", ORDERS, NOON + 9),
    deny(TODAY, "key.issue", ORDERS, NOON + 10),
    allow(READ_ONLY_TOKEN, "principal.read", ALICE),
    deny(READ_ONLY_TOKEN, "principal.disable", ALICE),
    allow(ONE_KEYSPACE_TOKEN, "key.revoke", ORDERS),
    deny(ONE_KEYSPACE_TOKEN, "key.revoke", BILLING),
    deny(caller(scopes="*"), "key.read", ORDERS),
    deny(caller(grant("*", "*", Conditions(unknown=True))), "key.read", ORDERS),
    deny(caller(grant("*", "*", Conditions(cidrs=("broken",)))), "key.read", ORDERS),
    deny(EVERYTHING, "key.destroy", ORDERS),
]


@pytest.mark.parametrize(("who", "action", "resource", "now", "allowed"), POLICY)
def test_the_policy_reads_as_written(
    who: Caller, action: str, resource: Resource, now: float, *, allowed: bool
) -> None:
    """The table is the policy: whoever changes the rules changes a line here."""
    assert rules.may(who, action, resource, now) is allowed


@pytest.mark.parametrize(("who", "action", "resource", "now", "allowed"), POLICY)
def test_an_explanation_agrees_with_the_decision_and_names_every_grant(
    who: Caller, action: str, resource: Resource, now: float, *, allowed: bool
) -> None:
    found = rules.explain(who, action, resource, now)
    assert found.allowed is allowed
    assert [one.source for one in found.considered] == ["token", *(one.id for one in who.grants)]
    token, *grants = found.considered
    assert found.allowed is (token.applies and any(one.applies for one in grants))
    assert all(one.reason for one in found.considered)


@pytest.mark.parametrize("action", sorted(SYSTEM_ACTIONS))
def test_what_the_system_does_is_never_granted(action: Action) -> None:
    """No grant, not even of the action by its very name, lets a principal write the system's own leaves."""
    named = caller(grant(str(action), "*"), grant("*", "*"))
    assert not rules.may(named, action, Resource("audit/log"), NOON)
    with pytest.raises(InputError, match="matches an action"):
        rules.check_grant((str(action),), "*", Conditions())


@pytest.mark.parametrize(
    ("who", "action", "resource", "known"),
    [
        (ISSUER, Action.KEY_REVOKE, ORDERS, True),
        (ISSUER, Action.KEY_REVOKE, BILLING, False),
        (ISSUER, Action.PRINCIPAL_DISABLE, ALICE, False),
        (caller(grant("principal.read", "principal/*")), Action.GRANT_EXPLAIN, ALICE, True),
        (caller(grant("principal.read", "principal/*")), Action.TOKEN_ISSUE, ALICE, True),
        (caller(grant("keyspace.read", "*")), Action.PEPPER_ROTATE, Resource("keyspace/orders"), True),
        (caller(grant("workspace.read", "*")), Action.WORKSPACE_UPDATE, Resource("~instance/workspace/a"), False),
        (caller(grant("workspace.read", "~instance/*")), Action.TOKEN_ISSUE, Resource("~instance/workspace/a"), True),
        (caller(grant("*.read", "*"), scopes="key.issue"), Action.KEY_REVOKE, ORDERS, False),
    ],
)
def test_a_thing_is_known_to_whoever_may_read_it(
    who: Caller, action: Action, resource: Resource, *, known: bool
) -> None:
    """Everybody else gets the answer for a thing that does not exist."""
    assert rules.may_know(who, action, resource, NOON) is known


@pytest.mark.parametrize(
    ("actions", "resource", "conditions", "field"),
    [
        ((), "*", Conditions(), "actions"),
        (("key.isue",), "*", Conditions(), "actions"),
        (("keys.*",), "*", Conditions(), "actions"),
        (("key.*x",), "*", Conditions(), "actions"),
        (("system.*",), "*", Conditions(), "actions"),
        (("key.issue",), "", Conditions(), "resource"),
        (("key.issue",), "key//a", Conditions(), "resource"),
        (("key.issue",), "*", Conditions(cidrs=("10.0.0.1/8",)), "conditions.cidrs"),
        (("key.issue",), "*", Conditions(cidrs=("office",)), "conditions.cidrs"),
        (("key.issue",), "*", Conditions(not_before=NOON, not_after=NOON), "conditions.not_after"),
    ],
)
def test_a_grant_that_could_match_nothing_is_refused_by_field(
    actions: tuple[str, ...], resource: str, conditions: Conditions, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        rules.check_grant(actions, resource, conditions)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("cap", "held", "adding", "within"),
    [(None, 10**6, 10**6, True), (3, 2, 1, True), (3, 3, 1, False), (0, 0, 1, False)],
)
def test_a_cap_is_the_most_that_may_be_held(cap: int | None, held: int, adding: int, *, within: bool) -> None:
    if within:
        rules.require_within_cap(cap, held, adding, "the workspace")
    else:
        with pytest.raises(CapError, match=f"may hold {cap} keys, holds {held}"):
            rules.require_within_cap(cap, held, adding, "the workspace")

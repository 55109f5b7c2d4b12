"""What holds for a key follows from its keyspace, plan, owner and itself, at once and in whatever order news comes."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from keyturn.errors import BrokenInvariantError
from keyturn.verify.model import VersionPolicy
from keyturn.verify.replica import Replica
from keyturn.verify.rules import decide, verify
from keyturn.wire.policy import KeyRecord, KeyspaceRecord, LimitRule, OwnerRecord, PlanRecord, QuotaRule, Restrictions
from keyturn.wire.verification import Code
from tests.verify.sample import NOW, Issued, keyspace_record, replica_of

OFFICE = Restrictions(cidrs=("10.0.0.0/8",))


def plan_record(plan_id: str = "pln_gold", **changes: Any) -> PlanRecord:
    return PlanRecord(**{"id": plan_id, "workspace": "ws_a", "name": plan_id.removeprefix("pln_"), **changes})


def owner_record(**changes: Any) -> OwnerRecord:
    return OwnerRecord(**{"id": "own_1", "workspace": "ws_a", "name": "team-orders", **changes})


def of(replica: Replica, issued: Issued) -> VersionPolicy:
    found = replica.version(issued.version.id)
    assert found is not None
    return found


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_keys_plan_goes_before_its_owners_and_that_before_the_keyspaces() -> None:
    issued = Issued()
    replica = replica_of(issued.record, keyspaces=(keyspace_record(default_plan="pln_free"),))
    for name in ("free", "team", "gold"):
        replica.load_plan(plan_record(f"pln_{name}"))
    plans = []
    changes: tuple[Callable[[], None], ...] = (
        lambda: None,
        lambda: replica.apply_owner(owner_record(plan="pln_team"), "own_1"),
        lambda: replica.apply_key(msgspec.structs.replace(issued.record, plan="pln_gold"), issued.record.id),
        lambda: replica.apply_key(issued.record, issued.record.id),
        lambda: replica.apply_owner(None, "own_1"),
    )
    for change in changes:
        change()
        terms = of(replica, issued).terms
        assert terms.plan is not None
        plans.append((terms.plan.name, terms.plan_source))
    free, team, gold = ("free", "keyspace"), ("team", "owner"), ("gold", "key")
    assert plans == [free, team, gold, team, free]


def test_a_plan_gives_its_scopes_to_the_keys_own() -> None:
    issued = Issued(scopes=("a",), plan="pln_gold")
    replica = replica_of(issued.record)
    replica.load_plan(plan_record(scopes=("b:*", "a")))
    assert verify(replica, issued.request(scopes="a AND b:c"), NOW)
    assert of(replica, issued).scopes == ("a", "b:*")
    replica.load_plan(plan_record(scopes=("c",)))
    assert verify(replica, issued.request(scopes="b:c"), NOW).code is Code.INSUFFICIENT_PERMISSIONS


def test_a_plans_restrictions_hold_beside_those_of_keyspace_and_key() -> None:
    issued = Issued(plan="pln_gold", restrictions=Restrictions(origins=("https://a.example",)))
    replica = replica_of(issued.record)
    replica.load_plan(plan_record(restrictions=OFFICE))
    origin = "https://a.example"
    assert verify(replica, issued.request(ip="10.1.1.1", origin=origin), NOW)
    assert verify(replica, issued.request(ip="192.0.2.1", origin=origin), NOW).check == "cidr"
    assert verify(replica, issued.request(ip="10.1.1.1"), NOW).check == "origin"


def test_a_plan_that_is_not_loaded_denies_until_it_is() -> None:
    """Security: without its plan nobody knows what restricts a key, so it must not be admitted without."""
    issued = Issued(plan="pln_gold")
    replica = replica_of(issued.record)
    denied = verify(replica, issued.request(), NOW)
    assert (denied.code, denied.check) == (Code.FORBIDDEN, "plan")
    replica.load_plan(plan_record())
    assert verify(replica, issued.request(), NOW)
    replica.remove_plan("pln_gold")
    replica.remove_plan("pln_gold")
    assert verify(replica, issued.request(), NOW).code is Code.FORBIDDEN
    assert replica.counts().plans == 0


def test_a_plan_of_another_workspace_is_no_plan() -> None:
    """Security: nothing crosses workspaces."""
    issued = Issued(plan="pln_gold", owner="team-orders")
    replica = replica_of(issued.record)
    replica.load_plan(plan_record(workspace="ws_b", scopes=("admin",)))
    replica.apply_owner(owner_record(workspace="ws_b", limits=(LimitRule("x", 1, 1),)), "own_1")
    assert verify(replica, issued.request(), NOW).check == "plan"
    assert of(replica, issued).terms.limits == ()


@pytest.mark.parametrize(
    "rule_of",
    [
        {"kind": "leaky"},
        {"per": "country"},
        {"mode": "audit"},
        {"limit": 0},
        {"window_seconds": 0},
        {"burst": 0},
        {"kind": "leaky", "mode": "shadow"},
        {"per": "country", "auto": False},
    ],
)
@pytest.mark.parametrize("place", ["key", "owner", "plan", "keyspace"])
def test_a_limit_that_is_not_understood_denies(rule_of: dict[str, Any], place: str) -> None:
    """Security: a newer server's rule cannot be kept here, and must not count as absent."""
    rules = (LimitRule(**{"name": "x", "limit": 1, "window_seconds": 1, **rule_of}),)
    denied = _with_rules(place, limits=rules)
    assert (denied.code, denied.check) == (Code.FORBIDDEN, "unknown_limit")


@pytest.mark.parametrize(
    "rule_of",
    [{"period": "fortnight"}, {"per": "plan"}, {"mode": "audit"}, {"amount": -1}, {"refill_every": "fortnight"}],
)
@pytest.mark.parametrize("place", ["key", "owner", "plan", "keyspace"])
def test_a_quota_that_is_not_understood_denies(rule_of: dict[str, Any], place: str) -> None:
    """Security: as for limits."""
    rules = (QuotaRule(**{"name": "x", "amount": 1, **rule_of}),)
    denied = _with_rules(place, quotas=rules)
    assert (denied.code, denied.check) == (Code.FORBIDDEN, "unknown_quota")


def _with_rules(place: str, **rules: Any) -> Any:
    issued = Issued(plan="pln_gold", **(rules if place == "key" else {}))
    keyspace = keyspace_record(**(rules if place == "keyspace" else {}))
    replica = replica_of(issued.record, keyspaces=(keyspace,))
    replica.load_plan(plan_record(**(rules if place == "plan" else {})))
    replica.apply_owner(owner_record(**(rules if place == "owner" else {})), "own_1")
    return verify(replica, issued.request(), NOW)


def test_an_owners_record_under_another_id_is_a_broken_invariant() -> None:
    with pytest.raises(BrokenInvariantError):
        Replica().apply_owner(owner_record(), "own_2")


def test_an_owner_renamed_holds_for_the_new_name_only() -> None:
    first, second = Issued(owner="a"), Issued(owner="b")
    replica = replica_of(first.record, second.record)
    rules = (LimitRule("x", 1, 1),)
    replica.apply_owner(owner_record(name="a", limits=rules), "own_1")
    assert (of(replica, first).terms.limits, of(replica, second).terms.limits) == (rules, ())
    replica.apply_owner(owner_record(name="b", limits=rules), "own_1")
    assert (of(replica, first).terms.limits, of(replica, second).terms.limits) == ((), rules)
    # Another record took the name over before this one was removed.
    replica.apply_owner(owner_record(id="own_2", name="b", limits=rules), "own_2")
    replica.apply_owner(None, "own_1")
    assert of(replica, second).terms.limits == rules


def test_keys_that_say_the_same_share_their_terms() -> None:
    issued = [Issued(owner=f"team-{n}", scopes=("a",)) for n in range(3)]
    replica = replica_of(*(one.record for one in issued), keyspaces=(keyspace_record(limits=(LimitRule("x", 1, 1),)),))
    first, second, third = (of(replica, one).terms for one in issued)
    assert first is second
    assert second is third
    assert first.limits == (LimitRule("x", 1, 1),)


def test_owners_that_say_the_same_share_the_terms_of_their_keys() -> None:
    issued = [Issued(owner=f"team-{n}", scopes=("a",)) for n in range(3)]
    replica = replica_of(*(one.record for one in issued))
    replica.load_plan(plan_record())
    for n in range(3):
        plan = "pln_gold" if n < 2 else None
        replica.apply_owner(owner_record(id=f"own_{n}", name=f"team-{n}", plan=plan), f"own_{n}")
    first, second, third = (of(replica, one).terms for one in issued)
    assert first is second
    assert third.plan is None


# --- any order -------------------------------------------------------------------------------------------------------

_rules = st.lists(
    st.builds(LimitRule, st.sampled_from("abc"), st.integers(1, 3), st.just(1), auto=st.booleans()), max_size=2
).map(tuple)
_quotas = st.lists(st.builds(QuotaRule, st.sampled_from("abc"), st.integers(0, 3)), max_size=2).map(tuple)
_restrictions = st.sampled_from([None, OFFICE, Restrictions(origins=("https://a.example",))])
_plan_ids = st.sampled_from([None, "pln_0", "pln_1"])
_scopes = st.sampled_from([(), ("s:a",), ("s:b", "s:a")])


class TermsMachine(RuleBasedStateMachine):
    """Applies records in any order, also through a resync, and compares with terms made from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.replica = Replica()
        self.keyspaces: dict[str, KeyspaceRecord] = {}
        self.plans: dict[str, PlanRecord] = {}
        self.owners: dict[str, OwnerRecord] = {}
        self.keys: dict[str, KeyRecord] = {}
        self.issued = [Issued() for _ in range(3)]

    @rule(
        which=st.sampled_from(["ks_a", "ks_b"]),
        default_plan=_plan_ids,
        limits=_rules,
        quotas=_quotas,
        restrictions=_restrictions,
        shadow=_restrictions,
    )
    def keyspace(self, which: str, shadow: Restrictions | None, **fields: Any) -> None:
        record = keyspace_record(id=which, name=which, shadow_restrictions=shadow, **fields)
        self.keyspaces[which] = record
        self.replica.load_keyspace(record)

    @rule(
        which=st.sampled_from(["pln_0", "pln_1"]),
        workspace=st.sampled_from(["ws_a", "ws_a", "ws_b"]),
        scopes=_scopes,
        limits=_rules,
        quotas=_quotas,
        restrictions=_restrictions,
        shadow=_restrictions,
    )
    def plan(self, which: str, shadow: Restrictions | None, **fields: Any) -> None:
        self.plans[which] = plan_record(which, shadow_restrictions=shadow, **fields)
        self.replica.load_plan(self.plans[which])

    @rule(which=st.sampled_from(["pln_0", "pln_1"]))
    def remove_plan(self, which: str) -> None:
        self.plans.pop(which, None)
        self.replica.remove_plan(which)

    @rule(which=st.sampled_from(["x", "y"]), plan=_plan_ids, limits=_rules, quotas=_quotas)
    def owner(self, which: str, **fields: Any) -> None:
        self.owners[which] = owner_record(id=f"own_{which}", name=which, **fields)
        self.replica.apply_owner(self.owners[which], f"own_{which}")

    @rule(which=st.sampled_from(["x", "y"]))
    def remove_owner(self, which: str) -> None:
        self.owners.pop(which, None)
        self.replica.apply_owner(None, f"own_{which}")

    @rule(
        which=st.integers(0, 2),
        keyspace=st.sampled_from(["ks_a", "ks_b"]),
        owner=st.sampled_from(["x", "y", "z"]),
        plan=_plan_ids,
        scopes=_scopes,
        limits=_rules,
        quotas=_quotas,
        restrictions=_restrictions,
        shadow=_restrictions,
    )
    def key(self, which: int, shadow: Restrictions | None, **fields: Any) -> None:
        record = msgspec.structs.replace(self.issued[which].record, shadow_restrictions=shadow, **fields)
        if record.keyspace in self.keyspaces:
            self.keys[record.id] = record
            self.replica.apply_key(record, record.id)

    @rule()
    def resync(self) -> None:
        self.replica.replace_all(self.keyspaces.values(), self.keys.values(), self.plans.values(), self.owners.values())

    @invariant()
    def terms_are_those_made_from_scratch(self) -> None:
        for record in self.keys.values():
            for version in self.replica.versions_of(record.id):
                terms = version.terms
                assert _shown(terms) == self._model(record), (record, terms)
                request = next(one for one in self.issued if one.record.id == record.id).request(ip="10.0.0.1")
                verdict = decide(request, version, NOW)
                assert bool(verdict) is self._admits(record)

    def _plan_id(self, record: KeyRecord) -> str | None:
        owner = self.owners.get(record.owner)
        of_owner = None if owner is None else owner.plan
        return record.plan or of_owner or self.keyspaces[record.keyspace].default_plan

    def _plan_of(self, record: KeyRecord) -> PlanRecord | None:
        plan = self.plans.get(self._plan_id(record) or "")
        return None if plan is None or plan.workspace != "ws_a" else plan

    def _model(self, record: KeyRecord) -> dict[str, Any]:
        plan = self._plan_of(record)
        layers = [self.keyspaces[record.keyspace], plan, self.owners.get(record.owner), record]
        limits = {one.name: one for layer in layers if layer for one in layer.limits}
        quotas = {one.name: one for layer in layers if layer for one in layer.quotas}
        scopes = {*record.scopes, *(plan.scopes if plan else ())}
        shadows = [layer.shadow_restrictions for layer in (layers[0], plan, record) if layer]  # type: ignore[union-attr]
        return {
            "fault": "plan" if self._plan_id(record) and plan is None else None,
            "plan": plan.id if plan else None,
            "scopes": scopes,
            "limits": limits,
            "quotas": quotas,
            "auto": {name for name, one in limits.items() if one.auto},
            "shadows": sum(one is not None for one in shadows),
        }

    def _admits(self, record: KeyRecord) -> bool:
        """The request tells an address of the office, and no origin."""
        plan = self._plan_of(record)
        if self._plan_id(record) and plan is None:
            return False
        layers = [self.keyspaces[record.keyspace], plan, record]
        return all(layer is None or layer.restrictions in (None, OFFICE) for layer in layers)


def _shown(terms: Any) -> dict[str, Any]:
    return {
        "fault": terms.fault,
        "plan": terms.plan.id if terms.plan else None,
        "scopes": set(terms.grants.names),
        "limits": {one.name: one for one in terms.limits},
        "quotas": {one.name: one for one in terms.quotas},
        "auto": {one.name for one in terms.auto_limits},
        "shadows": len(terms.shadows),
    }


TestTerms = TermsMachine.TestCase
TestTerms.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)

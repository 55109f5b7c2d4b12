"""What is worked out once for a key in use is what would be worked out again, and is bounded."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from keyturn.verify import model
from keyturn.verify.admission import admit
from keyturn.verify.explain import explain
from keyturn.verify.limits import LocalLimiter
from keyturn.verify.model import Allowed, VersionPolicy
from keyturn.verify.replica import Replica
from keyturn.verify.rules import verify
from keyturn.wire.policy import KeyRecord, LimitRule, OwnerRecord, PlanRecord, Restrictions
from tests.verify.sample import NOW, Issued, keyspace_record, replica_of

OFFICE = Restrictions(cidrs=("10.0.0.0/8", "2001:db8::/32"))
LIMITS = st.lists(
    st.builds(
        LimitRule,
        st.sampled_from(["burst", "minute"]),
        st.just(1_000_000),
        st.sampled_from([1, 60]),
        per=st.sampled_from(["key", "owner", "plan", "ip"]),
        mode=st.sampled_from(["enforce", "shadow"]),
        auto=st.booleans(),
    ),
    max_size=2,
    unique_by=lambda limit: limit.name,
).map(tuple)
RESTRICTED = st.sampled_from([None, OFFICE])
REQUESTS: tuple[dict[str, Any], ...] = (
    {},
    {"scopes": "orders:read"},
    {"scopes": "orders:write", "ip": "10.1.2.3"},
    {"ip": "2001:db8::1", "cost": 2},
    {"ip": "192.0.2.1"},
)


def answer(replica: Replica, issued: Issued, fields: dict[str, Any]) -> tuple[object, ...]:
    """Return everything that a verification with counters of its own says."""
    request = issued.request(**fields)
    verdict = verify(replica, request, NOW)
    explained, _ = explain(request, replica.version(issued.version.id), NOW)
    assert (verdict.code, verdict.check) == (explained.code, explained.check)
    if not isinstance(verdict, Allowed):
        return verdict.code, verdict.check
    done = admit(request, verdict, NOW, LocalLimiter(), None)
    assert done is not None
    return done.verdict.code, done.verdict.check, done.limits, done.shadow, verdict.terms.grants.names


class WarmAndCold(RuleBasedStateMachine):
    """A replica in use answers as one that was just loaded with the same records, whatever has changed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.issued = Issued(scopes=("orders:read",))
        self.key: KeyRecord | None = self.issued.record
        self.keyspace = keyspace_record()
        self.plan: PlanRecord | None = None
        self.owner: OwnerRecord | None = None
        self.warm = replica_of(self.issued.record)

    @rule(limits=LIMITS, restrictions=RESTRICTED, plan=st.sampled_from([None, "pln_a"]), state=st.booleans())
    def change_keyspace(self, limits: tuple[LimitRule, ...], state: bool, **fields: Any) -> None:  # noqa: FBT001
        self.keyspace = keyspace_record(
            limits=limits,
            restrictions=fields["restrictions"],
            default_plan=fields["plan"],
            state="active" if state else "disabled",
        )
        self.warm.load_keyspace(self.keyspace)

    @rule(limits=LIMITS, restrictions=RESTRICTED, known=st.booleans())
    def change_plan(self, limits: tuple[LimitRule, ...], restrictions: Restrictions | None, known: bool) -> None:  # noqa: FBT001
        self.plan = None
        self.warm.remove_plan("pln_a")
        if known:
            self.plan = PlanRecord("pln_a", "ws_a", "a", ("orders:write",), limits, restrictions=restrictions)
            self.warm.load_plan(self.plan)

    @rule(limits=LIMITS, plan=st.sampled_from([None, "pln_a"]), known=st.booleans())
    def change_owner(self, limits: tuple[LimitRule, ...], plan: str | None, known: bool) -> None:  # noqa: FBT001
        self.owner = OwnerRecord("own_a", "ws_a", "team-orders", plan, limits) if known else None
        self.warm.apply_owner(self.owner, "own_a")

    @rule(limits=LIMITS, shadow=RESTRICTED, scopes=st.sampled_from([(), ("orders:*",)]), there=st.booleans())
    def change_key(self, there: bool, **fields: Any) -> None:  # noqa: FBT001
        self.key = None
        if there:
            self.key = Issued(
                id=self.issued.record.id,
                versions=(self.issued.version,),
                limits=fields["limits"],
                scopes=fields["scopes"],
                shadow_restrictions=fields["shadow"],
            ).record
        self.warm.apply_key(self.key, self.issued.record.id)

    @invariant()
    def warm_says_what_cold_says(self) -> None:
        cold = Replica()
        cold.replace_all(
            (self.keyspace,),
            () if self.key is None else (self.key,),
            () if self.plan is None else (self.plan,),
            () if self.owner is None else (self.owner,),
        )
        for fields in REQUESTS:
            expected = answer(cold, self.issued, fields)
            assert answer(self.warm, self.issued, fields) == expected
            assert answer(self.warm, self.issued, fields) == expected


TestWarmAndCold = WarmAndCold.TestCase
TestWarmAndCold.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)


def test_no_more_is_kept_than_its_bound() -> None:
    keys = [Issued() for _ in range(3)]
    replica = replica_of(*(one.record for one in keys))
    versions: list[VersionPolicy] = [replica.versions_of(one.record.id)[0] for one in keys]
    first = versions[0]
    book = first.standing.keyspace.book
    held = first.keep(first.terms)
    assert first.keep(first.terms) is held

    book.kept.extend([first] * (model.KEPT_MAX - len(book.kept)))
    versions[1].keep(versions[1].terms)

    assert first.kept is None
    assert book.kept == [versions[1]]
    assert first.owner == versions[1].owner == "team-orders"

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel.tokenformat import mint
from keyturn.verify.explain import explain
from keyturn.verify.model import Check, Request
from keyturn.verify.rules import decide
from keyturn.wire.policy import MethodPath, Restrictions
from keyturn.wire.verification import Code
from tests.verify.sample import NOW, Issued, imported, keyspace_record, replica_of

OFFICE = Restrictions(cidrs=("10.0.0.0/8",))


def _explained(issued: Issued, **fields: Any) -> tuple[Code, dict[tuple[str, str], Check]]:
    replica = replica_of(issued.record, keyspaces=(fields.pop("keyspace_of", keyspace_record()),))
    verdict, checks = explain(issued.request(**fields), replica.version(issued.version.id), NOW)
    named: dict[tuple[str, str], Check] = {(check.name, check.source): check for check in checks}
    assert len(named) == len(checks)
    return verdict.code, named


def test_every_check_is_reported_with_its_source_also_after_the_first_failure() -> None:
    code, checks = _explained(
        Issued(
            state="disabled",
            expires_at=NOW - 1,
            scopes=("orders:read",),
            restrictions=Restrictions(endpoints=(MethodPath(("GET",), "/orders/*"),)),
        ),
        keyspace_of=keyspace_record(restrictions=OFFICE),
        ip="10.0.0.1",
        scopes="orders:read AND orders:write",
    )
    assert code is Code.DISABLED
    assert {key: check.verdict for key, check in checks.items()} == {
        ("shape", "request"): "pass",
        ("secret", "request"): "pass",
        ("version_state", "version"): "pass",
        ("key_state", "key"): "fail",
        ("keyspace_state", "keyspace"): "pass",
        ("overlap", "version"): "skipped",
        ("not_before", "key"): "skipped",
        ("expiry", "key"): "fail",
        ("plan", "key"): "skipped",
        ("cidr", "keyspace"): "pass",
        ("restrictions", "plan"): "skipped",
        ("endpoint", "key"): "fail",
        ("scopes", "key"): "fail",
    }
    assert checks["scopes", "key"].detail == "not granted: orders:write"
    assert checks["endpoint", "key"].detail == "the request does not tell method and path"


def test_a_good_key_fails_nothing() -> None:
    code, checks = _explained(Issued(scopes=("a",)), scopes="a")
    assert code is Code.VALID
    assert {check.verdict for check in checks.values()} == {"pass", "skipped"}


def test_an_imported_key_is_not_blamed_for_its_shape() -> None:
    record = imported("legacy-0001")
    replica = replica_of(record, keyspaces=(keyspace_record(accepts_foreign=True),))
    verdict, checks = explain(Request("legacy-0001"), replica.version(record.versions[0].id), NOW)
    assert verdict
    assert checks[0].verdict == "skipped"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"state": "revoked"},
        {"state": "disabled", "expires_at": NOW - 1},
        {"restrictions": OFFICE, "scopes": ("a",)},
        {"version": {"state": "compromised"}},
    ],
)
def test_an_explanation_without_proof_is_the_same_for_every_key(changes: dict[str, Any]) -> None:
    """`explain` must not be a way around the rule that state is revealed only after proof."""
    issued = Issued(**changes)
    wrong = mint("acme", "live").key.reveal()
    replica = replica_of(issued.record)
    request = Request(wrong, scopes="a AND b", ip="192.0.2.1")
    of_unknown = explain(request, None, NOW)
    assert explain(request, replica.version(issued.version.id), NOW) == of_unknown
    refused = explain(issued.request(scopes="a AND b"), replica.version(issued.version.id), NOW, lambda _: False)
    assert refused == of_unknown
    assert {check.detail for check in of_unknown[1]} == {None}
    assert [check.name for check in of_unknown[1] if check.verdict == "fail"] == ["secret"]


@given(
    state=st.sampled_from(["active", "disabled", "revoked", "new"]),
    version=st.sampled_from(["current", "previous", "pending", "suspended", "revoked", "new"]),
    limits=st.tuples(*[st.sampled_from([None, NOW - 1, NOW, NOW + 1])] * 3),
    restrictions=st.sampled_from([None, OFFICE]),
    of_keyspace=st.sampled_from([None, OFFICE]),
    keyspace_state=st.sampled_from(["active", "disabled"]),
    ip=st.sampled_from([None, "10.0.0.1", "192.0.2.1"]),
    scopes=st.sampled_from([None, "a", "a AND b", "b OR a"]),
)
def test_the_explanation_fails_a_check_exactly_when_the_decision_denies(
    state: str,
    version: str,
    limits: tuple[float | None, float | None, float | None],
    restrictions: Restrictions | None,
    of_keyspace: Restrictions | None,
    keyspace_state: str,
    ip: str | None,
    scopes: str | None,
) -> None:
    issued = Issued(
        state=state,
        version={"state": version, "valid_until": limits[0]},
        not_before=limits[1],
        expires_at=limits[2],
        restrictions=restrictions,
        scopes=("a",),
    )
    keyspace = keyspace_record(restrictions=of_keyspace, state=keyspace_state)
    known = replica_of(issued.record, keyspaces=(keyspace,)).version(issued.version.id)
    request = issued.request(ip=ip, scopes=scopes)
    verdict, checks = explain(request, known, NOW)
    assert verdict == decide(request, known, NOW)
    assert bool(verdict) is all(check.verdict != "fail" for check in checks)

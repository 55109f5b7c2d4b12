from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import InputError
from keyturn.kernel.tokenformat import mint
from keyturn.verify.model import NOT_FOUND, UNAVAILABLE, Allowed, Denied, Request
from keyturn.verify.rules import decide, state_code, verify
from keyturn.wire.policy import MethodPath, PepperRecord, Restrictions
from keyturn.wire.verification import Code
from tests.verify.sample import NEWER_PEPPER, NOW, Issued, code_of, decided, imported, keyspace_record, replica_of

LATER = NOW + 10
EARLIER = NOW - 10
OFFICE = Restrictions(cidrs=("10.0.0.0/8",))
SHOP = Restrictions(origins=("https://shop.example.com",))
READS = Restrictions(endpoints=(MethodPath(("GET",), "/orders/*"),))
EVERYWHERE: dict[str, Any] = {
    "ip": "10.1.2.3",
    "origin": "https://shop.example.com",
    "method": "GET",
    "path": "/orders/7",
}

# What a key is, what is asked of it, and the answer.
POLICY: list[tuple[str, Issued, dict[str, Any], Code]] = [
    ("a plain key", Issued(), {}, Code.VALID),
    ("a key nobody asks scopes of", Issued(scopes=("orders:read",)), {}, Code.VALID),
    ("a granted scope", Issued(scopes=("orders:read",)), {"scopes": "orders:read"}, Code.VALID),
    ("a scope under a granted wildcard", Issued(scopes=("orders:*",)), {"scopes": "orders:read:own"}, Code.VALID),
    ("either of two scopes", Issued(scopes=("a",)), {"scopes": "a OR b"}, Code.VALID),
    ("both of two scopes", Issued(scopes=("a",)), {"scopes": "a AND b"}, Code.INSUFFICIENT_PERMISSIONS),
    ("a scope that is not granted", Issued(scopes=("a",)), {"scopes": "b"}, Code.INSUFFICIENT_PERMISSIONS),
    ("a scope of a key without any", Issued(), {"scopes": "a"}, Code.INSUFFICIENT_PERMISSIONS),
    ("a disabled key", Issued(state="disabled"), {}, Code.DISABLED),
    ("a revoked key", Issued(state="revoked"), {}, Code.REVOKED),
    ("a key in a state of the future", Issued(state="quarantined"), {}, Code.FORBIDDEN),
    ("a replaced version in its overlap", Issued(version={"state": "previous", "valid_until": LATER}), {}, Code.VALID),
    ("a replaced version without an end", Issued(version={"state": "previous"}), {}, Code.VALID),
    ("a replaced version after it", Issued(version={"state": "previous", "valid_until": NOW}), {}, Code.EXPIRED),
    ("a pending version", Issued(version={"state": "pending"}), {}, Code.NOT_YET_VALID),
    ("a suspended version", Issued(version={"state": "suspended"}), {}, Code.DISABLED),
    ("a revoked version", Issued(version={"state": "revoked"}), {}, Code.REVOKED),
    ("a compromised version", Issued(version={"state": "compromised"}), {}, Code.REVOKED),
    ("a destroyed version", Issued(version={"state": "destroyed"}), {}, Code.REVOKED),
    ("a version in a state of the future", Issued(version={"state": "escrowed"}), {}, Code.FORBIDDEN),
    ("a revoked key that is also disabled", Issued(state="disabled", version={"state": "revoked"}), {}, Code.REVOKED),
    ("a key before its time", Issued(not_before=LATER), {}, Code.NOT_YET_VALID),
    ("a key at its time", Issued(not_before=NOW), {}, Code.VALID),
    ("a key about to expire", Issued(expires_at=LATER), {}, Code.VALID),
    ("a key at its expiry", Issued(expires_at=NOW), {}, Code.EXPIRED),
    ("an expiry that is not a number", Issued(expires_at=float("nan")), {}, Code.EXPIRED),
    ("a start that is not a number", Issued(not_before=float("nan")), {}, Code.NOT_YET_VALID),
    ("an address inside", Issued(restrictions=OFFICE), {"ip": "10.1.2.3"}, Code.VALID),
    ("an address outside", Issued(restrictions=OFFICE), {"ip": "11.1.2.3"}, Code.FORBIDDEN),
    ("no address where one is needed", Issued(restrictions=OFFICE), {}, Code.FORBIDDEN),
    ("the right origin", Issued(restrictions=SHOP), {"origin": "https://shop.example.com"}, Code.VALID),
    ("the wrong origin", Issued(restrictions=SHOP), {"origin": "https://evil.example.com"}, Code.FORBIDDEN),
    ("no origin where one is needed", Issued(restrictions=SHOP), {}, Code.FORBIDDEN),
    ("an allowed endpoint", Issued(restrictions=READS), {"method": "GET", "path": "/orders/7"}, Code.VALID),
    ("another method", Issued(restrictions=READS), {"method": "POST", "path": "/orders/7"}, Code.FORBIDDEN),
    ("a path without its method", Issued(restrictions=READS), {"path": "/orders/7"}, Code.FORBIDDEN),
    ("restrictions that are empty", Issued(restrictions=Restrictions()), {}, Code.VALID),
    # The order: the first failure wins.
    ("state before expiry", Issued(state="disabled", expires_at=EARLIER), {}, Code.DISABLED),
    ("start before expiry", Issued(not_before=LATER, expires_at=EARLIER), {}, Code.NOT_YET_VALID),
    ("expiry before restrictions", Issued(expires_at=EARLIER, restrictions=OFFICE), {}, Code.EXPIRED),
    ("restrictions before scopes", Issued(restrictions=OFFICE), {"scopes": "a"}, Code.FORBIDDEN),
]


@pytest.mark.parametrize(("issued", "asked", "code"), [row[1:] for row in POLICY], ids=[row[0] for row in POLICY])
def test_policy(issued: Issued, asked: dict[str, Any], code: Code) -> None:
    verdict = decided(issued, **asked)
    assert verdict.code is code
    assert bool(verdict) is (code is Code.VALID)


def test_every_code_is_reached_here_or_known_to_be_decided_elsewhere() -> None:
    elsewhere = {Code.USAGE_EXCEEDED, Code.RATE_LIMITED, UNAVAILABLE.code}
    reached = {row[3] for row in POLICY} | {NOT_FOUND.code}
    assert reached | elsewhere == set(Code)
    assert not reached & elsewhere


def test_a_disabled_keyspace_disables_its_keys() -> None:
    for state in ("disabled", "frozen"):
        assert code_of(Issued(), keyspace=keyspace_record(state=state)) is Code.DISABLED


def test_restrictions_of_keyspace_and_key_both_apply() -> None:
    keyspace = keyspace_record(restrictions=OFFICE)
    issued = Issued(restrictions=READS)
    assert code_of(issued, keyspace=keyspace, **EVERYWHERE) is Code.VALID
    assert code_of(issued, keyspace=keyspace, **{**EVERYWHERE, "ip": "11.1.2.3"}) is Code.FORBIDDEN
    assert code_of(issued, keyspace=keyspace, **{**EVERYWHERE, "method": "POST"}) is Code.FORBIDDEN


def test_a_restriction_of_a_kind_that_is_not_known_denies() -> None:
    """A verifier that is older than its server must not read a new restriction as none."""

    class Newer(Restrictions, frozen=True):
        certificates: tuple[str, ...] = ()

    assert code_of(Issued(restrictions=Newer(certificates=("cn=x",))), **EVERYWHERE) is Code.FORBIDDEN
    assert code_of(Issued(restrictions=Newer()), **EVERYWHERE) is Code.VALID


def test_a_restriction_that_cannot_be_read_allows_nothing() -> None:
    """Data that got past the check at write time must not open a key."""
    for broken in (
        Restrictions(cidrs=("10.0.0.0/99",)),
        Restrictions(origins=("https://*",)),
        Restrictions(endpoints=(MethodPath(("GET",), "orders"), MethodPath((), "/orders/*"))),
    ):
        assert code_of(Issued(restrictions=broken), **EVERYWHERE) is Code.FORBIDDEN


# --- nothing before proof --------------------------------------------------------------------------------------------


def _hidden_cases() -> list[tuple[str, Any]]:
    """Return what must be indistinguishable: each builds a verdict about a presented key."""

    def of(issued: Issued, request: Request, **fields: Any) -> Allowed | Denied:
        keyspace = fields.pop("keyspace_of", keyspace_record())
        return verify(replica_of(issued.record, keyspaces=(keyspace,)), request, NOW, **fields)

    def wrong_secret(**changes: Any) -> Any:
        def decide_it() -> Allowed | Denied:
            issued = Issued(**changes)
            other = mint("acme", "live").key.reveal()
            replica = replica_of(issued.record)
            return decide(Request(other), replica.version(issued.version.id), NOW)

        return decide_it

    return [
        ("junk", lambda: of(Issued(), Request("junk"))),
        ("empty", lambda: of(Issued(), Request(""))),
        ("not unicode", lambda: of(Issued(), Request("\ud800"))),
        ("unknown id", lambda: of(Issued(), Request(mint("acme", "live").key.reveal()))),
        ("wrong secret", wrong_secret()),
        ("wrong secret of a revoked key", wrong_secret(state="revoked")),
        ("wrong secret of a disabled key", wrong_secret(state="disabled")),
        ("wrong secret of an expired key", wrong_secret(expires_at=EARLIER)),
        ("a pepper that is not here", lambda: of(i := Issued(version={"pepper": 9}), i.request())),
        ("a digest of another pepper", lambda: of(i := Issued(version={"pepper": 2}), i.request())),
        ("an empty digest", lambda: of(i := Issued(version={"digest": b""}), i.request())),
        ("an all-zero digest", lambda: of(i := Issued(version={"digest": bytes(32), "pepper": 9}), i.request())),
        ("a digest kind of the future", lambda: of(i := Issued(version={"digest_kind": "blake9"}), i.request())),
        ("a slow kind without proof", lambda: of(i := Issued(version={"digest_kind": "bcrypt"}), i.request())),
        ("a refused keyspace", lambda: of(i := Issued(), i.request(), allowed=lambda _: False)),
        ("another keyspace than asked for", lambda: of(i := Issued(), i.request(keyspace="refunds"))),
        ("a system keyspace", lambda: of(i := Issued(), i.request(), keyspace_of=keyspace_record(system=True))),
        (
            "a system keyspace the caller would be allowed",
            lambda: of(i := Issued(), i.request(), keyspace_of=keyspace_record(system=True), allowed=lambda _: True),
        ),
        (
            "a revoked key of a refused keyspace",
            lambda: of(i := Issued(state="revoked"), i.request(), allowed=lambda _: False),
        ),
    ]


@pytest.mark.parametrize("case", [c[1] for c in _hidden_cases()], ids=[c[0] for c in _hidden_cases()])
def test_what_is_not_proven_or_not_visible_gets_one_and_the_same_answer(case: Any) -> None:
    """Nothing about a key, not even that it exists, is told to who does not hold it or may not know of it."""
    verdict = case()
    assert verdict is NOT_FOUND
    assert verdict.version is None
    assert verdict.code is Code.NOT_FOUND


def test_a_slow_digest_counts_only_when_proven_outside() -> None:
    record = imported("legacy-0001", kind="bcrypt", lookup="legacy-")
    replica = replica_of(record, keyspaces=(keyspace_record(accepts_foreign=True),))
    version = replica.version(record.versions[0].id)
    assert decide(Request("legacy-0001"), version, NOW) is NOT_FOUND
    assert decide(Request("legacy-0001"), version, NOW, proven=True).code is Code.VALID
    assert decide(Request("legacy-0001"), version, NOW, lambda _: False, proven=True) is NOT_FOUND


def test_proof_outside_does_not_count_for_our_own_kind() -> None:
    """A caller's mistake must not switch off the digest."""
    issued = Issued()
    version = replica_of(issued.record).version(issued.version.id)
    assert decide(Request("anything"), version, NOW, proven=True) is NOT_FOUND


def test_the_keyspace_may_be_asked_for_by_name_or_id() -> None:
    issued = Issued()
    assert code_of(issued) is Code.VALID
    for name in ("orders", "ks_a"):
        assert verify(replica_of(issued.record), issued.request(keyspace=name), NOW).code is Code.VALID


def test_the_permission_is_asked_about_the_keys_own_keyspace() -> None:
    issued = Issued()
    asked: list[str] = []

    def allowed(keyspace: Any) -> bool:
        asked.append(keyspace.workspace)
        return True

    assert verify(replica_of(issued.record), issued.request(), NOW, allowed)
    assert asked == ["ws_a"]


def test_a_malformed_query_is_an_error_whatever_the_key() -> None:
    """Otherwise the error would tell whether the key is good."""
    issued = Issued(state="revoked")
    replica = replica_of(issued.record)
    for request in (issued.request(scopes="a AND"), Request("junk", scopes="a AND")):
        with pytest.raises(InputError):
            verify(replica, request, NOW)


def test_an_empty_query_is_an_error_and_not_the_absence_of_one() -> None:
    """A caller whose configuration is empty must not lose its scope check."""
    for text in ("", "  ", "()"):
        with pytest.raises(InputError):
            code_of(Issued(), scopes=text)


def test_no_secret_shows_in_the_repr_of_a_request_a_verdict_or_a_policy() -> None:
    issued = Issued()
    replica = replica_of(issued.record, keyspaces=(keyspace_record(peppers=(PepperRecord(1, NEWER_PEPPER),)),))
    verdict = decided(issued)
    keyspace = replica.keyspace("ks_a")
    shown = f"{issued.request()!r} {verdict!r} {keyspace!r} {list(issued.request().__rich_repr__())}"
    assert issued.presented not in shown
    assert repr(issued.version.digest)[2:-1] not in shown
    assert repr(NEWER_PEPPER)[2:-1] not in shown


@given(version=st.text(max_size=12), key=st.text(max_size=12))
def test_only_known_good_states_admit(version: str, key: str) -> None:
    good = version in {"current", "previous"} and key == "active"
    assert (state_code(version, key) is None) is good


@given(st.text(max_size=200))
def test_no_presented_text_raises_or_admits(text: str) -> None:
    assert verify(_REPLICA, Request(text), NOW) is NOT_FOUND


_REPLICA = replica_of(Issued().record)


class _Counted(str):
    """Counts how often its bytes are asked for, which is once per digest."""

    __slots__ = ("digests",)

    digests: int

    def encode(self, *arguments: Any) -> bytes:
        self.digests = getattr(self, "digests", 0) + 1
        return super().encode(*arguments)


def test_an_unknown_id_and_junk_cost_the_same_digest_as_a_wrong_secret() -> None:
    """Otherwise the time would tell which ids exist.  The work is compared; comparing times would be a coin toss."""
    issued = Issued()
    known = replica_of(issued.record).version(issued.version.id)
    for version in (known, None):
        presented = _Counted(mint("acme", "live").key.reveal())
        assert decide(Request(presented), version, NOW) is NOT_FOUND
        assert presented.digests == 1

import gc
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from keyturn.errors import BrokenInvariantError
from keyturn.kernel.ids import new_version_id
from keyturn.kernel.tokenformat import digest, sha256
from keyturn.verify.model import NOT_FOUND, Request
from keyturn.verify.replica import Replica
from keyturn.verify.rules import decide, verify
from keyturn.verify.sharing import POOL_MAX
from keyturn.wire.policy import KeyRecord, PepperRecord, Restrictions, VersionRecord
from keyturn.wire.verification import Code
from tests.verify.sample import NEWER_PEPPER, NOW, PEPPER, Issued, imported, keyspace_record, replica_of


def _with(record: KeyRecord, **changes: Any) -> KeyRecord:
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    return KeyRecord(**{**fields, **changes})


def _second_version(issued: Issued) -> tuple[Issued, KeyRecord]:
    other = Issued()
    first = VersionRecord(
        **{**{n: getattr(issued.version, n) for n in issued.version.__struct_fields__}, "state": "previous"}
    )
    second = VersionRecord(**{**{n: getattr(other.version, n) for n in other.version.__struct_fields__}, "number": 2})
    return other, _with(issued.record, versions=(second, first))


def test_what_a_record_says_is_what_the_policy_says() -> None:
    issued = Issued(
        name="ci",
        scopes=("a", "b:*"),
        metadata={"team": "x", "\u00e9": "\u2603"},
        not_before=1.0,
        expires_at=2.0,
        version={"valid_until": 3.0, "number": 7},
    )
    version = replica_of(issued.record).version(issued.version.id)
    assert version is not None
    assert (version.id, version.key_id, version.number) == (issued.version.id, issued.record.id, 7)
    assert (version.owner, version.name, version.environment) == ("team-orders", "ci", "production")
    assert (version.not_before, version.expires_at, version.valid_until) == (1.0, 2.0, 3.0)
    assert version.scopes == ("a", "b:*")
    assert version.metadata() == {"team": "x", "\u00e9": "\u2603"}
    assert version.keyspace.stale_after_seconds == 60.0
    assert not version.slow


def test_after_rotation_both_secrets_name_the_same_key() -> None:
    issued = Issued()
    replica = replica_of(issued.record)
    other, rotated = _second_version(issued)
    replica.apply_key(rotated, rotated.id)
    for presented, number in ((issued, 1), (other, 2)):
        verdict = verify(replica, presented.request(), NOW)
        assert verdict
        assert verdict.version is not None
        assert (verdict.version.key_id, verdict.version.number) == (issued.record.id, number)
    assert [version.number for version in replica.versions_of(issued.record.id)] == [2, 1]


def test_a_version_that_is_no_longer_in_the_record_is_no_longer_known() -> None:
    issued = Issued()
    replica = replica_of(issued.record)
    other, rotated = _second_version(issued)
    replica.apply_key(rotated, rotated.id)
    replica.apply_key(_with(rotated, versions=rotated.versions[:1]), rotated.id)
    assert verify(replica, issued.request(), NOW) is NOT_FOUND
    assert verify(replica, other.request(), NOW)
    replica.apply_key(_with(rotated, versions=()), rotated.id)
    assert verify(replica, other.request(), NOW) is NOT_FOUND
    assert replica.counts().keys == 0


def test_the_last_record_applied_wins_and_applying_it_again_changes_nothing() -> None:
    issued = Issued()
    replica = replica_of(issued.record)
    for state, code in (("revoked", Code.REVOKED), ("active", Code.VALID), ("disabled", Code.DISABLED)):
        record = _with(issued.record, state=state)
        for _ in range(2):
            replica.apply_key(record, record.id)
            assert verify(replica, issued.request(), NOW).code is code
    assert replica.counts().versions == 1


def test_a_removed_key_is_not_known() -> None:
    issued = Issued()
    replica = replica_of(issued.record)
    replica.remove_key(issued.record.id)
    replica.remove_key(issued.record.id)
    assert verify(replica, issued.request(), NOW) is NOT_FOUND
    assert (replica.counts().keys, replica.counts().versions, replica.removed) == (0, 0, 1)


def test_a_change_of_the_keyspace_reaches_all_its_keys_at_once() -> None:
    keys = [Issued(), Issued()]
    replica = replica_of(*(key.record for key in keys))
    replica.load_keyspace(keyspace_record(state="disabled"))
    assert {verify(replica, key.request(), NOW).code for key in keys} == {Code.DISABLED}
    replica.load_keyspace(keyspace_record(restrictions=Restrictions(cidrs=("10.0.0.0/8",))))
    assert {verify(replica, key.request(), NOW).code for key in keys} == {Code.FORBIDDEN}
    replica.load_keyspace(keyspace_record())
    assert {verify(replica, key.request(), NOW).code for key in keys} == {Code.VALID}
    replica.load_keyspace(keyspace_record(peppers=(PepperRecord(2, NEWER_PEPPER),)))
    assert {verify(replica, key.request(), NOW).code for key in keys} == {Code.NOT_FOUND}


def test_a_version_under_the_newest_pepper_verifies_beside_one_under_the_oldest() -> None:
    old, new = Issued(), Issued()
    rehashed = VersionRecord(
        id=new.version.id,
        number=1,
        state="current",
        digest_kind="blake2b",
        digest=digest(NEWER_PEPPER, sha256(new.presented)),
        pepper=2,
    )
    replica = replica_of(old.record, _with(new.record, versions=(rehashed,)))
    assert verify(replica, old.request(), NOW)
    assert verify(replica, new.request(), NOW)


@pytest.mark.parametrize("length", [0, 16, 31, 65])
def test_a_pepper_of_a_wrong_size_is_no_pepper(length: int) -> None:
    """An empty pepper would leave the digest without a key."""
    issued = Issued()
    keyspace = keyspace_record(peppers=(PepperRecord(1, bytes(length)),))
    assert verify(replica_of(issued.record, keyspaces=(keyspace,)), issued.request(), NOW) is NOT_FOUND


def test_a_removed_keyspace_takes_its_keys_with_it_and_hides_what_is_still_held() -> None:
    mine, other = Issued(), Issued(keyspace="ks_b")
    replica = replica_of(mine.record, other.record, keyspaces=(keyspace_record(), keyspace_record(id="ks_b")))
    held = replica.version(mine.version.id)
    replica.remove_keyspace("ks_a")
    replica.remove_keyspace("ks_unknown")
    assert decide(mine.request(), held, NOW) is NOT_FOUND
    assert verify(replica, mine.request(), NOW) is NOT_FOUND
    assert verify(replica, other.request(), NOW)
    assert (replica.counts().keyspaces, replica.counts().keys) == (1, 1)


def test_a_key_of_a_keyspace_that_is_not_loaded_is_counted_and_not_held() -> None:
    issued = Issued()
    replica = replica_of(issued.record)
    replica.apply_key(_with(issued.record, keyspace="ks_unknown"), issued.record.id)
    assert verify(replica, issued.request(), NOW) is NOT_FOUND
    assert (replica.counts().orphaned, replica.counts().keys) == (1, 0)


def test_a_record_under_another_id_is_refused_and_changes_nothing() -> None:
    issued = Issued()
    replica = replica_of(issued.record)
    with pytest.raises(BrokenInvariantError):
        replica.apply_key(_with(issued.record, state="revoked"), "key_other")
    assert verify(replica, issued.request(), NOW)


def test_a_resync_replaces_everything_and_answers_from_the_old_until_then() -> None:
    gone, kept, new = Issued(), Issued(), Issued()
    replica = replica_of(gone.record, kept.record)
    staged = replica.staging()
    staged.load_keyspace(keyspace_record())
    staged.apply_key(_with(kept.record, state="revoked"), kept.record.id)
    staged.apply_key(new.record, new.record.id)
    assert verify(replica, gone.request(), NOW)
    assert verify(replica, kept.request(), NOW)
    assert verify(replica, new.request(), NOW) is NOT_FOUND
    replica.adopt(staged)
    assert verify(replica, gone.request(), NOW) is NOT_FOUND
    assert verify(replica, kept.request(), NOW).code is Code.REVOKED
    assert verify(replica, new.request(), NOW)
    assert replica.counts().resyncs == 2


def test_a_resync_that_fails_changes_nothing() -> None:
    issued = Issued()
    replica = replica_of(issued.record)

    def broken() -> Any:
        yield Issued().record
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 -- the one raised above
        replica.replace_all((keyspace_record(),), broken())
    assert verify(replica, issued.request(), NOW)
    assert replica.counts().keys == 1


# --- imported keys ---------------------------------------------------------------------------------------------------

ACCEPTS = keyspace_record(accepts_foreign=True)


def _found(replica: Replica, presented: str, *, workspace: str = "ws_a", **fields: Any) -> Any:
    return replica.foreign(workspace, presented, sha256(presented), **fields)


def test_an_imported_digest_is_found_and_proven_again() -> None:
    record = imported("legacy-0001")
    replica = replica_of(record, imported("legacy-0002"), keyspaces=(ACCEPTS,))
    found = _found(replica, "legacy-0001")
    assert found.version is replica.version(record.versions[0].id)
    assert decide(Request("legacy-0001"), found.version, NOW)
    assert _found(replica, "legacy-0003").version is None
    assert replica.counts().imported == 2


@pytest.mark.parametrize(
    ("keyspace", "fields"),
    [
        (keyspace_record(), {}),
        (keyspace_record(accepts_foreign=True, system=True), {}),
        (keyspace_record(accepts_foreign=True, peppers=(PepperRecord(2, NEWER_PEPPER),)), {}),
        (ACCEPTS, {"workspace": "ws_b"}),
        (ACCEPTS, {"keyspace": "refunds"}),
        (ACCEPTS, {"allowed": lambda _: False}),
    ],
)
def test_an_imported_key_is_found_only_where_its_keyspace_takes_foreign_shapes(
    keyspace: Any, fields: dict[str, Any]
) -> None:
    replica = replica_of(
        imported("legacy-0001"), imported("slow-1", kind="argon2", lookup="slow-"), keyspaces=(keyspace,)
    )
    assert _found(replica, "legacy-0001", **fields).version is None
    if fields or not keyspace.accepts_foreign or keyspace.system:
        assert _found(replica, "slow-1", **fields).candidates == ()


def test_a_presented_key_beyond_the_bound_is_not_looked_for() -> None:
    replica = replica_of(imported("x" * 600), keyspaces=(ACCEPTS,))
    assert _found(replica, "x" * 600).version is None


def test_a_key_we_issued_is_not_found_as_a_foreign_one() -> None:
    issued = Issued()
    assert _found(replica_of(issued.record, keyspaces=(ACCEPTS,)), issued.presented).version is None


def test_slow_digests_are_candidates_by_their_declared_prefix_longest_first() -> None:
    short = imported("sk_live_abcdef", kind="bcrypt", lookup="sk_")
    long = imported("sk_live_abcxyz", kind="argon2", lookup="sk_live_abc")
    silent = imported("sk_live_abc000", kind="bcrypt", lookup="")
    replica = replica_of(short, long, silent, keyspaces=(ACCEPTS,))
    ids = [version.id for version in _found(replica, "sk_live_abcdef").candidates]
    assert ids == [long.versions[0].id, short.versions[0].id]
    assert all(version.slow for version in _found(replica, "sk_live_abcdef").candidates)
    assert [version.id for version in _found(replica, "sk_x").candidates] == [short.versions[0].id]
    assert _found(replica, "other").candidates == ()
    assert _found(replica, "").candidates == ()


def test_a_removed_or_rehashed_import_is_no_longer_found_the_old_way() -> None:
    slow = imported("legacy-0001", kind="bcrypt", lookup="legacy-")
    fast = imported("legacy-0002")
    replica = replica_of(slow, fast, keyspaces=(ACCEPTS,))
    rehashed = VersionRecord(
        id=slow.versions[0].id,
        number=1,
        state="current",
        digest_kind="blake2b",
        digest=digest(PEPPER, sha256("legacy-0001")),
        pepper=1,
        foreign=True,
    )
    replica.apply_key(_with(slow, versions=(rehashed,)), slow.id)
    replica.remove_key(fast.id)
    found = _found(replica, "legacy-0001")
    assert found.candidates == ()
    assert decide(Request("legacy-0001"), found.version, NOW)
    assert _found(replica, "legacy-0002").version is None
    assert replica.counts().imported == 1


# --- thrift ----------------------------------------------------------------------------------------------------------


def test_keys_that_are_equal_but_for_their_ids_share_everything_else() -> None:
    def key() -> Issued:
        return Issued(
            owner="".join(["team", "-", "x"]),
            scopes=("orders:read", "x:*"),
            restrictions=Restrictions(cidrs=("10.0.0.0/8",)),
            metadata={"a": "b"},
        )

    first, second = key(), key()
    replica = replica_of(first.record, second.record)
    a, b = replica.version(first.version.id), replica.version(second.version.id)
    assert a is not None
    assert b is not None
    for name in ("keyspace", "standing", "own", "terms"):
        assert getattr(a, name) is getattr(b, name), name


def test_a_version_has_no_dict_and_is_not_walked_by_the_collector() -> None:
    issued = Issued()
    version = replica_of(issued.record).version(issued.version.id)
    assert not hasattr(version, "__dict__")
    assert not gc.is_tracked(version)


def test_sharing_is_bounded_and_correct_past_its_bound() -> None:
    replica = replica_of()
    record = Issued().record
    for number in range(POOL_MAX + 10):
        replica.apply_key(_with(record, owner=f"owner-{number}"), record.id)
    assert replica.versions_of(record.id)[0].owner == f"owner-{POOL_MAX + 9}"


# --- any order -------------------------------------------------------------------------------------------------------


class ReplicaMachine(RuleBasedStateMachine):
    """Applies changes in any order and compares with a dictionary of records."""

    keys = st.sampled_from([f"key_{n}" for n in range(4)])
    spaces = st.sampled_from(["ks_a", "ks_b", "ks_c"])

    def __init__(self) -> None:
        super().__init__()
        self.replica = Replica()
        self.spaces_known: set[str] = set()
        self.records: dict[str, KeyRecord] = {}

    @rule(space=spaces)
    def load_keyspace(self, space: str) -> None:
        self.replica.load_keyspace(keyspace_record(id=space, accepts_foreign=True))
        self.spaces_known.add(space)

    @rule(space=spaces)
    def remove_keyspace(self, space: str) -> None:
        self.replica.remove_keyspace(space)
        self.spaces_known.discard(space)
        self.records = {k: r for k, r in self.records.items() if r.keyspace != space}

    @rule(key=keys, space=spaces, kinds=st.lists(st.sampled_from(["own", "foreign", "slow"]), max_size=3))
    def apply_key(self, key: str, space: str, kinds: list[str]) -> None:
        held = self.records.get(key)
        versions = []
        for number, kind in enumerate(kinds):
            reused = held.versions[number].id if held and number < len(held.versions) else new_version_id()
            versions.append(
                VersionRecord(
                    id=reused,
                    number=number,
                    state="current",
                    digest_kind="bcrypt" if kind == "slow" else "blake2b",
                    digest=digest(PEPPER, sha256(f"{key}-{number}")),
                    pepper=1,
                    foreign=kind != "own",
                    lookup=key if kind == "slow" else None,
                )
            )
        record = Issued(id=key, keyspace=space, versions=tuple(versions)).record
        self.replica.apply_key(record, key)
        if space in self.spaces_known and versions:
            self.records[key] = record
        else:
            self.records.pop(key, None)

    @rule(key=keys)
    def remove_key(self, key: str) -> None:
        self.replica.remove_key(key)
        self.records.pop(key, None)

    @rule()
    def resync(self) -> None:
        self.replica.replace_all(
            [keyspace_record(id=space, accepts_foreign=True) for space in self.spaces_known], self.records.values()
        )
        self.records = {k: r for k, r in self.records.items() if r.keyspace in self.spaces_known}

    @invariant()
    def holds_exactly_the_current_records(self) -> None:
        expected = {v.id: (k, v) for k, r in self.records.items() for v in r.versions}
        counts = self.replica.counts()
        assert (counts.keys, counts.versions) == (len(self.records), len(expected))
        for version_id, (key, record) in expected.items():
            version = self.replica.version(version_id)
            assert version is not None
            assert (version.key_id, version.keyspace.id) == (key, self.records[key].keyspace)
            presented = f"{key}-{record.number}"
            found = self.replica.foreign("ws_a", presented, sha256(presented), self.records[key].keyspace)
            if record.digest_kind != "blake2b":
                assert version in found.candidates or found.version is not None
            elif record.foreign:
                assert found.version is version
        imports = sum(v.foreign or v.digest_kind != "blake2b" for _, v in expected.values())
        assert counts.imported == imports


ReplicaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestReplicaMachine = ReplicaMachine.TestCase

"""The life of a key against a model: what the rules make of its versions, judged by verify itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyturn.errors import ConflictError
from keyturn.kernel import tokenformat
from keyturn.keys import rules
from keyturn.keys.model import Key, Version, VersionChange
from keyturn.verify.model import Request
from keyturn.verify.replica import Replica
from keyturn.verify.rules import verify
from keyturn.wire.keys import RevokeReason
from keyturn.wire.policy import KeyRecord, KeyspaceRecord, PepperRecord, VersionRecord
from keyturn.wire.usage import VersionUse
from tests.keys.sample import NOW, key, version

PEPPER = bytes(range(32))
KEYSPACE = KeyspaceRecord(
    id="ksp_1",
    workspace="wsp_1",
    name="orders",
    prefix="acme",
    tag="live",
    environment="production",
    state="active",
    stale_after_seconds=60.0,
    peppers=(PepperRecord(1, PEPPER),),
)
LIVE_MAX = 8


@dataclass
class Handed:
    """A secret somebody holds, and the model's view of it: valid until when, whether cut."""

    presented: str
    until: float | None = None
    cut: bool = False

    def valid(self, now: float) -> bool:
        return not self.cut and (self.until is None or now < self.until)


class LifeOfAKey(RuleBasedStateMachine):
    """Rotates, retires, disables, enables and revokes at random, while time passes and callers come."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.key: Key = key()
        self.versions: list[Version] = []
        self.handed: list[Handed] = []
        self.used: dict[str, VersionUse] = {}
        self.state = "active"
        self._mint()

    # --- what happens ---

    @rule(seconds=st.sampled_from([1, 59, 60, 3600, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(back=st.integers(0, 3))
    def somebody_calls(self, back: int) -> None:
        place = max(0, len(self.handed) - 1 - back)
        if self._verdict(self.handed[place].presented) == "VALID":
            self.used[self.versions[place].id] = VersionUse(self.now, 1, ())

    @rule(overlap=st.sampled_from([60, 3600, 315_360_000, 1, 0]))
    def rotate(self, overlap: int) -> None:
        valid = sum(one.valid(self.now) for one in self.handed)
        try:
            changes = rules.rotate(self.key, self.versions, overlap, self.now)
        except ConflictError:
            assert self.state == "revoked" or (overlap > 0 and valid >= LIVE_MAX)
            return
        assert self.state != "revoked"
        self._apply(changes)
        for one in self.handed:
            if overlap == 0:
                one.cut = True
            elif one.until is None:
                one.until = self.now + overlap
        self._mint()

    @rule(silent=st.sampled_from([3600, 60, 0]), force=st.booleans())
    def retire(self, silent: int, force: bool) -> None:  # noqa: FBT001 -- drawn by hypothesis
        old = [(v, h) for v, h in zip(self.versions, self.handed, strict=True) if v.state == "previous"]
        noisy = any(h.valid(self.now) and v.id in self.used and self.used[v.id].at + silent > self.now for v, h in old)
        try:
            changes = rules.retire(self.versions, self.used, silent, self.now, force=force)
        except ConflictError:
            assert noisy
            assert not force
            return
        assert force or not noisy
        self._apply(changes)
        for _, one in old:
            one.cut = True

    @rule(to=st.sampled_from(["active", "disabled"]))
    def switch(self, to: str) -> None:
        try:
            rules.require_key_transition(self.key, to)
        except ConflictError:
            assert self.state in {to, "revoked"}
            return
        self.key = replace(self.key, state=to)
        self.state = to

    # Not at once: what follows a revocation is soon told.
    @precondition(lambda self: len(self.versions) > 4)
    @rule(reason=st.sampled_from(list(RevokeReason)))
    def revoke(self, reason: RevokeReason) -> None:
        try:
            changes = rules.revoke(self.key, self.versions, reason, self.now)
        except ConflictError:
            assert self.state == "revoked"
            return
        if changes is not None:
            self._apply(changes)
            self.key = replace(self.key, state="revoked", revoke_reason=str(reason))
        self.state = "revoked"
        for one in self.handed:
            one.cut = True

    # --- what must hold ---

    @invariant()
    def a_secret_is_admitted_exactly_when_the_model_says_so(self) -> None:
        for one in self.handed:
            admitted = self._verdict(one.presented) == "VALID"
            assert admitted == (self.state == "active" and one.valid(self.now))

    @invariant()
    def a_key_that_is_not_revoked_has_one_current_version(self) -> None:
        current = [v for v in self.versions if v.state == "current"]
        assert len(current) == (0 if self.state == "revoked" else 1)
        assert all(v.number == len(self.versions) for v in current)

    @precondition(lambda self: self.key.revoke_reason == "key_compromise")
    @invariant()
    def a_compromise_leaves_no_other_state(self) -> None:
        assert {v.state for v in self.versions} == {"compromised"}

    # --- how ---

    def _mint(self) -> None:
        minted = tokenformat.mint("acme", "live")
        digest = tokenformat.digest(PEPPER, tokenformat.sha256(minted.key.reveal()))
        number = len(self.versions) + 1
        self.versions.append(version(id=minted.version_id, number=number, digest=digest, created_at=self.now))
        self.handed.append(Handed(minted.key.reveal()))

    def _apply(self, changes: tuple[VersionChange, ...]) -> None:
        by_id = {change.id: change for change in changes}
        for place, before in enumerate(self.versions):
            change = by_id.get(before.id)
            if change is not None:
                self.versions[place] = replace(
                    before, state=change.state, valid_until=change.valid_until, retired_at=change.retired_at
                )

    def _verdict(self, presented: str) -> str:
        replica = Replica()
        replica.load_keyspace(KEYSPACE)
        record = KeyRecord(
            id=self.key.id,
            keyspace="ksp_1",
            owner=self.key.owner,
            environment="production",
            state=self.key.state,
            versions=tuple(
                VersionRecord(v.id, v.number, v.state, v.digest_kind, v.digest, v.pepper, v.valid_until)
                for v in self.versions
            ),
        )
        replica.apply_key(record, record.id)
        return verify(replica, Request(presented), self.now).code


TestLifeOfAKey = LifeOfAKey.TestCase

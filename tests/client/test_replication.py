"""The feed's state machine against a model of a server, in every order of answers, losses and refusals."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyturn import errors
from keyturn.client.replication import Changes, Confirming, Feed, Leave, Load, Page, Poll, Register
from keyturn.kernel.clock import Clock
from keyturn.kernel.tokenformat import digest, mint, sha256
from keyturn.verify.model import Request
from keyturn.verify.rules import verify
from keyturn.wire.policy import KeyRecord, KeyspaceRecord, PepperRecord, VersionRecord
from keyturn.wire.replication import ConfirmedReplica, RegisteredVerifier, ReplicaChanges, ReplicaSnapshot

STALE_AFTER = 10.0
PEPPER = bytes(range(32))
KEYS = 4
MINTED = [mint("acme", "live") for _ in range(KEYS)]


def keyspace(name: str) -> KeyspaceRecord:
    return KeyspaceRecord(
        name, "wsp_1", name, "acme", "live", "production", "active", STALE_AFTER, (PepperRecord(1, PEPPER),)
    )


@dataclass
class Server:
    """A control plane: a log, what each key is now, who is registered and what it allows."""

    log: int = 1
    seq: int = 10
    revoked: dict[int, tuple[float, int]] = field(default_factory=dict)
    """When each revoked key was, and the number of that change."""
    changed: list[tuple[int, int]] = field(default_factory=list)
    nodes: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    """What the registry shows: log, applied, confirmed at."""
    registered: int = 0
    permits: bool = True
    reaches_back_to: int = 0

    @property
    def log_id(self) -> str:
        return f"log_{self.log}"

    def key(self, number: int) -> KeyRecord:
        minted = MINTED[number]
        value = digest(PEPPER, sha256(minted.key.reveal()))
        state = "revoked" if number in self.revoked else "active"
        version = VersionRecord(minted.version_id, 1, "current", "blake2b", value, 1)
        return KeyRecord(f"key_{number}", "ks_a", "alice", "production", state, (version,))


def as_page(answer: ReplicaSnapshot) -> Page:
    return msgspec.json.decode(msgspec.json.encode(answer), type=Page)


def as_changes(answer: ReplicaChanges) -> Changes:
    return msgspec.json.decode(msgspec.json.encode(answer), type=Changes)


class FeedMachine(RuleBasedStateMachine):
    """Drives a feed; nothing that was revoked is admitted once it must not be."""

    def __init__(self) -> None:
        super().__init__()
        self.boot = 1000.0
        self.server = Server()
        self.feed = Feed(Clock(0.0, boottime=lambda: self.boot), threading.Lock())
        self.confirms: list[Confirming] = []
        self.answers: list[tuple[Confirming, ConfirmedReplica]] = []

    # --- the following thread -------------------------------------------------------------------------------------

    @rule(lost=st.booleans())
    def follow(self, *, lost: bool) -> None:
        """Do what the feed asks for next."""
        ask = self.feed.ask()
        if not self.server.permits and not isinstance(ask, Leave):
            self.feed.refused(errors.ForbiddenError("no"))
        elif lost:
            return
        elif isinstance(ask, Leave):
            self.server.nodes.pop(ask.node, None)
            self.feed.left(ask.node)
        elif isinstance(ask, Register):
            self.server.registered += 1
            node = f"nod_{self.server.registered}"
            self.server.nodes[node] = ("", -1, self.boot)
            self.feed.registered(RegisteredVerifier(node, self.server.log_id))
        elif isinstance(ask, Load):
            self.load(ask)
        else:
            self.poll(ask)

    def load(self, ask: Load) -> None:
        """Answer in three pages, each as of when it is asked for."""
        server = self.server
        common: dict[str, Any] = {"log_id": server.log_id, "seq": server.seq, "allowed": ("ks_a",)}
        if ask.cursor is None:
            page = ReplicaSnapshot(keyspaces=(keyspace("ks_a"),), next_cursor="0", **common)
        else:
            first = int(ask.cursor)
            keys = tuple(server.key(number) for number in range(first, min(first + 2, KEYS)))
            page = ReplicaSnapshot(keys=keys, next_cursor=str(first + 2) if first + 2 < KEYS else None, **common)
        self.feed.loaded(ask, as_page(page))

    def poll(self, ask: Poll) -> None:
        """Answer a part of what has changed."""
        server = self.server
        if ask.log_id != server.log_id or ask.after < server.reaches_back_to:
            self.feed.gone()
            return
        news = [(seq, number) for seq, number in server.changed if seq > ask.after][:2]
        seq = news[-1][0] if len(news) == 2 else server.seq
        keys = tuple(server.key(number) for number in sorted({number for _, number in news}))
        self.feed.changed(
            as_changes(ReplicaChanges(server.log_id, max(seq, ask.after), server.seq, ("ks_a",), keys=keys))
        )

    # --- the confirming thread ------------------------------------------------------------------------------------

    @rule()
    def confirm(self) -> None:
        """Send a confirm; the answer is on its way."""
        confirming = self.feed.confirming()
        if confirming is None:
            return
        server, sent = self.server, confirming.sent
        if not server.permits:
            self.feed.refused(errors.ForbiddenError("no"))
            return
        known = confirming.node in server.nodes
        if known:
            server.nodes[confirming.node] = (sent.log_id, sent.applied, self.boot)
        answer = ConfirmedReplica(known, server.log_id, server.seq, self.boot, STALE_AFTER, ("ks_a",))
        self.answers.append((confirming, answer))

    @precondition(lambda self: self.answers)
    @rule(which=st.integers(0, 100), lost=st.booleans())
    def confirmed(self, which: int, *, lost: bool) -> None:
        """Deliver some answer, late and out of order, or lose it."""
        confirming, answer = self.answers.pop(which % len(self.answers))
        if not lost:
            self.feed.confirmed(confirming, self.boot, answer)

    @rule(steps=st.integers(2, 7), confirms=st.booleans())
    def goes_well(self, steps: int, *, confirms: bool) -> None:
        """For a while nothing is lost or late."""
        for _ in range(steps):
            self.follow(lost=False)
        if confirms:
            self.confirm()
            self.deliver()

    def deliver(self) -> None:
        while self.answers:
            self.confirmed(which=0, lost=False)

    # --- the world ------------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, KEYS - 1))
    def revoke(self, number: int) -> None:
        server = self.server
        server.seq += 1
        if number not in server.revoked:
            server.revoked[number] = (self.boot, server.seq)
        server.changed.append((server.seq, number))

    @rule(seconds=st.floats(0.1, 6.0))
    def passes(self, seconds: float) -> None:
        self.boot += seconds

    @rule()
    def forget_nodes(self) -> None:
        """The registry is lost; what it knew can no longer prove anything."""
        if all(self.boot - at > STALE_AFTER for _, _, at in self.server.nodes.values()):
            self.server.nodes.clear()

    @rule(confirms=st.booleans())
    def forget_a_silent_node(self, *, confirms: bool) -> None:
        """The node was silent for so long that nobody waits for it, and then speaks again."""
        self.boot += STALE_AFTER + 2.0
        self.server.nodes.clear()
        if confirms:
            self.confirm()
            self.deliver()

    @rule()
    def restart_log(self) -> None:
        self.server.log += 1
        self.server.changed.clear()
        self.server.reaches_back_to = self.server.seq

    @rule()
    def drop_old_changes(self) -> None:
        self.server.changed.clear()
        self.server.reaches_back_to = self.server.seq

    @rule()
    def withdraw(self) -> None:
        self.server.permits = False

    @rule()
    def permit(self) -> None:
        self.server.permits = True

    # --- what holds -----------------------------------------------------------------------------------------------

    def admits(self, number: int) -> bool:
        if not self.feed.freshness.fresh(self.boot, STALE_AFTER):
            return False
        return bool(verify(self.feed.replica, Request(MINTED[number].key.reveal()), self.boot))

    @invariant()
    def nothing_revoked_is_admitted_past_the_bound(self) -> None:
        for number, (at, _) in self.server.revoked.items():
            if self.boot >= at + STALE_AFTER:
                assert not self.admits(number)

    @invariant()
    def nothing_revoked_is_admitted_once_the_registry_calls_it_effective(self) -> None:
        for number, (_, seq) in self.server.revoked.items():
            live = [one for one in self.server.nodes.values() if one[2] + STALE_AFTER + 1 > self.boot]
            if all(log == self.server.log_id and applied >= seq for log, applied, _ in live):
                assert not self.admits(number)

    @invariant()
    def who_was_refused_holds_nothing(self) -> None:
        if self.feed.last_refusal is not None and not self.feed.node:
            assert self.feed.replica.counts().versions == 0
            assert not self.feed.freshness.fresh(self.boot, STALE_AFTER)

    def teardown(self) -> None:
        """Left alone, it becomes fresh and right again."""
        self.server.permits = True
        self.answers.clear()
        for _ in range(3):
            for _ in range(20):
                self.follow(lost=False)
            self.confirm()
            self.deliver()
        assert self.feed.freshness.fresh(self.boot, STALE_AFTER)
        assert [self.admits(number) for number in range(KEYS)] == [
            number not in self.server.revoked for number in range(KEYS)
        ]


FeedMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
test_feed = pytest.mark.filterwarnings("ignore")(FeedMachine.TestCase)


def loaded_feed() -> Feed:
    machine = FeedMachine()
    for _ in range(6):
        machine.follow(lost=False)
    return machine.feed


def test_a_record_of_a_newer_server_denies() -> None:
    """What cannot be read never counts as absent."""
    feed = loaded_feed()
    seq, log_id = feed.freshness.applied, feed.freshness.log_id
    assert verify(feed.replica, Request(MINTED[0].key.reveal()), 0.0)
    newer = b'{"id":"key_0","keyspace":"ks_a","owner":"a","environment":"e","state":"active","versions":[],"new":1}'
    answer = {"log_id": log_id, "seq": seq + 1, "awaited": 0, "allowed": ["ks_a"], "keys": [msgspec.Raw(newer)]}
    feed.changed(msgspec.json.decode(msgspec.json.encode(answer), type=Changes))
    assert not verify(feed.replica, Request(MINTED[0].key.reveal()), 0.0)
    assert verify(feed.replica, Request(MINTED[1].key.reveal()), 0.0)
    owner = b'{"id":"own_1","workspace":"wsp_1","name":"alice","limits":[],"later":true}'
    answer = {"log_id": log_id, "seq": seq + 2, "awaited": 0, "allowed": ["ks_a"], "owners": [msgspec.Raw(owner)]}
    feed.changed(msgspec.json.decode(msgspec.json.encode(answer), type=Changes))
    assert not verify(feed.replica, Request(MINTED[1].key.reveal()), 0.0)


def test_time_is_not_learned_from_a_slow_answer() -> None:
    """A server that stood still cannot move the time by half of its pause."""
    boot = [100.0]
    clock = Clock(0.0, boottime=lambda: boot[0])
    feed = Feed(clock, threading.Lock())
    feed.registered(RegisteredVerifier("nod_1", "log_1"))
    for waited, told, expected in ((0.2, 500.1, 500.2), (60.0, 500.3, 560.2)):
        confirming = feed.confirming()
        assert confirming is not None
        boot[0] += waited
        feed.confirmed(confirming, boot[0], ConfirmedReplica(True, "log_1", 1, told, 10.0, ()))
        assert clock.now() == pytest.approx(expected)
    assert feed.time_jumps == 0

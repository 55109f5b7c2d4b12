"""Freshness: unit scenarios, and a simulation of the whole protocol around it.

The simulation has one database (log, registry), several nodes, and every message in pieces that can be delayed,
lost and put in another order: confirm (sent, written, head read, answered), follow (read, applied), snapshot
(read, adopted), verification (received and checked, decided and checked again) and revocation (committed, asked
whether effective).  Time passes in between as it likes, which is also what a stopped process looks like.
"""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from keyturn.verify.freshness import Extension, Freshness, Sent
from tests.verify.freshness_world import LONGEST, STALE_AFTER, Node, World, confirm_at_once, ready

BOUND = 60.0


def following(log_id: str = "log_a", seq: int = 5) -> Freshness:
    """Return a node that has loaded a snapshot and not confirmed yet."""
    freshness = Freshness()
    freshness.loaded(log_id, seq)
    return freshness


# --- scenarios -------------------------------------------------------------------------------------------------------


def test_a_node_that_has_loaded_nothing_is_not_fresh() -> None:
    freshness = Freshness()
    assert freshness.resync_needed
    assert not freshness.fresh(-inf, BOUND)
    freshness.confirmed(freshness.sending(0.0), "log_a", 0, BOUND)
    assert not freshness.fresh(0.0, BOUND)


def test_loading_alone_does_not_make_fresh() -> None:
    freshness = following()
    assert not freshness.resync_needed
    assert not freshness.fresh(0.0, BOUND)


def test_freshness_counts_from_sending_and_not_from_the_answer() -> None:
    freshness = following()
    freshness.confirmed(freshness.sending(100.0), "log_a", 5, BOUND)
    assert freshness.fresh(159.9, BOUND)
    assert not freshness.fresh(160.0, BOUND)
    assert freshness.remaining(150.0) == 10.0
    assert freshness.remaining(170.0) == 0.0


def test_a_keyspace_that_asks_for_less_gets_less() -> None:
    freshness = following()
    freshness.confirmed(freshness.sending(100.0), "log_a", 5, BOUND)
    assert not freshness.fresh(105.0, 5.0)
    assert freshness.fresh(104.9, 5.0)
    assert not freshness.fresh(160.0, 3600.0)
    assert freshness.remaining(102.0, 5.0) == 3.0


@pytest.mark.parametrize("bound", [0.0, -1.0, nan])
def test_a_bound_that_is_not_positive_is_never_fresh(bound: float) -> None:
    freshness = following()
    freshness.confirmed(freshness.sending(100.0), "log_a", 5, BOUND)
    assert not freshness.fresh(100.0, bound)
    freshness.confirmed(freshness.sending(101.0), "log_a", 5, bound)
    assert not freshness.fresh(101.0, BOUND)


def test_an_extension_waits_until_its_head_is_applied() -> None:
    freshness = following()
    freshness.confirmed(freshness.sending(100.0), "log_a", 7, BOUND)
    assert not freshness.fresh(100.0, BOUND)
    freshness.advanced(6)
    assert not freshness.fresh(100.0, BOUND)
    freshness.advanced(7)
    assert freshness.fresh(100.0, BOUND)


def test_a_stuck_follower_does_not_extend_however_often_it_confirms() -> None:
    freshness = following()
    freshness.confirmed(freshness.sending(100.0), "log_a", 5, BOUND)
    for second in range(1, 600):
        freshness.confirmed(freshness.sending(100.0 + second), "log_a", 5 + second, BOUND)
    assert freshness.fresh(159.0, BOUND)
    assert not freshness.fresh(160.0, BOUND)
    freshness.advanced(5 + 599)
    assert freshness.fresh(700.0, BOUND)


def test_a_follower_that_is_always_a_little_behind_stays_fresh() -> None:
    freshness = following(seq=0)
    for second in range(300):
        freshness.confirmed(freshness.sending(float(second)), "log_a", second, BOUND)
        if second >= 30:
            freshness.advanced(second - 30)
            assert freshness.fresh(float(second), BOUND)


def test_answers_out_of_order_leave_the_one_sent_last() -> None:
    freshness = following()
    first, second = freshness.sending(100.0), freshness.sending(110.0)
    freshness.confirmed(second, "log_a", 5, BOUND)
    freshness.confirmed(first, "log_a", 5, BOUND)
    assert freshness.fresh(169.0, BOUND)


def test_an_answer_after_its_time_changes_nothing() -> None:
    freshness = following()
    freshness.confirmed(freshness.sending(100.0), "log_a", 5, BOUND)
    assert not freshness.fresh(1000.0, BOUND)


def test_news_applied_while_a_confirm_was_on_its_way_does_not_call_for_a_resync() -> None:
    freshness = following()
    sent = freshness.sending(100.0)
    freshness.advanced(9)
    freshness.confirmed(sent, "log_a", 6, BOUND)
    assert not freshness.resync_needed
    assert freshness.fresh(100.0, BOUND)


@pytest.mark.parametrize(("log_id", "head"), [("log_b", 5), ("log_b", 900), ("log_a", 4)])
def test_another_log_or_a_head_that_went_back_ends_freshness_until_reloaded(log_id: str, head: int) -> None:
    """What is in memory may hold changes that a restore undid, or miss some that it made."""
    for tell in ("confirm", "follower"):
        freshness = following()
        freshness.confirmed(freshness.sending(100.0), "log_a", 5, BOUND)
        assert freshness.fresh(101.0, BOUND)
        if tell == "confirm":
            freshness.confirmed(freshness.sending(101.0), log_id, head, BOUND)
        else:
            freshness.observed(log_id, head)
        assert freshness.resync_needed
        assert not freshness.fresh(101.0, BOUND)
        freshness.advanced(1000)
        assert not freshness.fresh(101.0, BOUND)
        freshness.confirmed(freshness.sending(102.0), log_id, head, BOUND)
        assert not freshness.fresh(102.0, BOUND)
        freshness.loaded(log_id, head)
        assert freshness.fresh(102.0, BOUND)


def test_a_snapshot_that_is_older_than_a_confirm_does_not_make_it_count() -> None:
    freshness = Freshness()
    freshness.confirmed(freshness.sending(100.0), "log_a", 9, BOUND)
    freshness.loaded("log_a", 8)
    assert not freshness.fresh(100.0, BOUND)
    freshness.advanced(9)
    assert freshness.fresh(100.0, BOUND)


def test_a_confirm_of_another_log_than_the_one_loaded_does_not_count() -> None:
    freshness = Freshness()
    freshness.confirmed(freshness.sending(100.0), "log_b", 0, BOUND)
    freshness.loaded("log_a", 9)
    assert not freshness.fresh(100.0, BOUND)


def test_a_late_answer_from_the_log_before_does_not_undo_the_resync() -> None:
    freshness = following()
    late = freshness.sending(99.0)
    freshness.confirmed(freshness.sending(100.0), "log_b", 5, BOUND)
    freshness.loaded("log_b", 5)
    freshness.confirmed(late, "log_a", 5, BOUND)
    assert not freshness.resync_needed
    assert freshness.fresh(100.0, BOUND)


def test_a_cursor_that_is_no_longer_kept_ends_freshness() -> None:
    freshness = following()
    freshness.confirmed(freshness.sending(100.0), "log_a", 5, BOUND)
    freshness.start_resync()
    assert freshness.resync_needed
    assert not freshness.fresh(100.0, BOUND)


def test_what_is_sent_is_what_the_registry_is_to_hold() -> None:
    freshness = following()
    freshness.advanced(8)
    assert freshness.sending(1.0) == Sent(1.0, "log_a", 8)
    assert (freshness.log_id, freshness.applied) == ("log_a", 8)


# --- the simulation --------------------------------------------------------------------------------------------------


class Simulation(RuleBasedStateMachine):
    """Everything that can happen, in any order."""

    make: type[Freshness] = Freshness
    head_before_write = False
    checks_again = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.make)
        self.world.head_before_write = self.head_before_write
        self.world.checks_again = self.checks_again
        for _ in range(2):
            ready(self.world)

    pick = st.integers(0, 7)

    def node(self, at: int) -> Node:
        return self.world.nodes[at % len(self.world.nodes)]

    @rule(seconds=st.sampled_from([0.25, 1.0, 2.0, 3.0, 5.0, 9.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    @precondition(lambda self: len(self.world.nodes) < 3)
    @rule()
    def start_node(self) -> None:
        self.world.start_node()

    @precondition(lambda self: len(self.world.nodes) > 1)
    @rule(at=pick)
    def stop_node(self, at: int) -> None:
        self.world.stop_node(self.node(at))

    @rule()
    def commit(self) -> None:
        self.world.commit()

    @precondition(lambda self: len(self.world.revocations) < 3)
    @rule(keyspace=st.sampled_from(sorted(STALE_AFTER)))
    def revoke(self, keyspace: str) -> None:
        self.world.revoke(keyspace)

    @precondition(lambda self: self.world.log_id == "log_0")
    @rule(sure=st.integers(0, 4))
    def restart_log(self, sure: int) -> None:
        if sure == 0:
            self.world.restart_log()

    @precondition(lambda self: self.world.revocations)
    @rule(at=pick)
    def ask_whether_effective(self, at: int) -> None:
        self.world.ask(self.world.revocations[at % len(self.world.revocations)])

    @rule(at=pick)
    def send_confirm(self, at: int) -> None:
        if len(self.node(at).confirms) < 3:
            self.world.send(self.node(at))

    @rule(at=pick, which=pick)
    def execute_confirm(self, at: int, which: int) -> None:
        node = self.node(at)
        if node.confirms:
            self.world.write(node, node.confirms[which % len(node.confirms)])

    @rule(at=pick, which=pick)
    def answer_or_lose_confirm(self, at: int, which: int) -> None:
        node = self.node(at)
        if node.confirms:
            self.world.answer(node, node.confirms[which % len(node.confirms)])

    @rule(at=pick)
    def confirm_without_delay(self, at: int) -> None:
        confirm_at_once(self.world, self.node(at))

    @rule(at=pick)
    def follow(self, at: int) -> None:
        self.world.follow(self.node(at))

    @rule(at=pick)
    def load(self, at: int) -> None:
        if self.node(at).freshness.resync_needed:
            self.world.load(self.node(at))

    @precondition(lambda self: self.world.revocations)
    @rule(at=pick, which=pick)
    def receive(self, at: int, which: int) -> None:
        self.world.receive(self.node(at), self.world.revocations[which % len(self.world.revocations)])

    @rule(at=pick)
    def finish(self, at: int) -> None:
        for verification in tuple(self.node(at).verifications):
            self.world.finish(self.node(at), verification)

    @precondition(lambda self: self.world.revocations)
    @rule()
    def ask_and_verify_everywhere(self) -> None:
        for revocation in self.world.revocations:
            self.world.ask(revocation)
        for node in self.world.nodes:
            for revocation in self.world.revocations:
                self.world.receive(node, revocation)
            for verification in tuple(node.verifications):
                self.world.finish(node, verification)


Simulation.TestCase.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSimulation = Simulation.TestCase
TestSimulation.__doc__ = "No verification is admitted after `effective`, or after commit + `stale_after`."


# --- the simulation notices ------------------------------------------------------------------------------------------


class _CountsFromTheAnswer(Freshness):
    """Extends from the moment of the answer."""

    def confirmed(self, sent: Sent, log_id: str, head: int, fresh_for: float) -> None:
        super().confirmed(Sent(sent.at + 2.0, sent.log_id, sent.applied), log_id, head, fresh_for)


class _DoesNotWaitForTheHead(Freshness):
    """Lets a stuck follower go on extending."""

    def _settle(self) -> None:
        self._waiting = [Extension(e.sent, e.fresh_for, e.log_id, -1) for e in self._waiting]
        super()._settle()


class _KeepsFreshnessOverAnotherLog(Freshness):
    """Goes on with what it has when the log is another one."""

    def confirmed(self, sent: Sent, log_id: str, head: int, fresh_for: float) -> None:
        super().confirmed(sent, self.log_id or log_id, min(head, max(self.applied, 0)), fresh_for)


class _IgnoresTheKeyspace(Freshness):
    """Uses `fresh_for` alone."""

    def fresh(self, now_boot: float, stale_after: float) -> bool:
        return super().fresh(now_boot, max(stale_after, LONGEST))


BROKEN = {
    "counts from the answer": _CountsFromTheAnswer,
    "does not wait for the head": _DoesNotWaitForTheHead,
    "keeps freshness over another log": _KeepsFreshnessOverAnotherLog,
    "ignores the keyspace's bound": _IgnoresTheKeyspace,
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_simulation_notices_a_broken_rule(broken: str) -> None:
    """A simulation that cannot fail proves nothing: each rule is broken once, and must be missed."""
    machine = type("Broken", (Simulation,), {"make": BROKEN[broken]})
    with pytest.raises(AssertionError, match="admitted"):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=20_000,
                stateful_step_count=60,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                print_blob=False,
                suppress_health_check=list(HealthCheck),
            ),
        )


@pytest.mark.parametrize("checks_again", [True, False])
def test_a_pause_between_deciding_and_answering_admits_nothing(checks_again: bool) -> None:  # noqa: FBT001
    """Freshness is checked again after the decision; without that, a stopped process admits when it wakes."""
    world = World(Freshness)
    world.checks_again = checks_again
    node = ready(world)
    world.revoke("usual")
    world.receive(node, world.revocations[0])
    world.now += LONGEST
    if checks_again:
        world.finish(node, node.verifications[0])
    else:
        with pytest.raises(AssertionError, match="admitted after effective_by"):
            world.finish(node, node.verifications[0])


@pytest.mark.parametrize("decides_again", [True, False])
def test_a_decision_that_news_overtook_is_made_again(decides_again: bool) -> None:  # noqa: FBT001
    """A node that is fresh by what it applied since says nothing about a decision from before."""
    world = World(Freshness)
    world.decides_again = decides_again
    node = ready(world)
    world.revoke("strict")
    world.receive(node, world.revocations[0])
    world.follow(node)
    world.follow(node)
    world.now += STALE_AFTER["strict"]
    confirm_at_once(world, node)
    if decides_again:
        world.finish(node, node.verifications[0])
    else:
        with pytest.raises(AssertionError, match="admitted after effective_by"):
            world.finish(node, node.verifications[0])


@pytest.mark.parametrize("head_before_write", [False, True])
def test_a_node_back_from_the_dead_is_seen_by_the_registry_or_sees_the_revocation(
    head_before_write: bool,  # noqa: FBT001 -- both must be shown
) -> None:
    """The registry row must be visible before the head is read, or a revocation can fall between the two."""
    world = World(Freshness)
    world.head_before_write = head_before_write
    node = ready(world)
    world.now += 2 * LONGEST
    world.send(node)
    confirm = node.confirms[-1]
    world.write(node, confirm)
    world.revoke("usual")
    revocation = world.revocations[0]
    world.ask(revocation)
    world.write(node, confirm)
    world.answer(node, confirm)
    world.receive(node, revocation)
    if head_before_write:
        assert revocation.effective_at <= world.now
        with pytest.raises(AssertionError, match="received after effective"):
            world.finish(node, node.verifications[0])
    else:
        assert revocation.effective_at == inf
        assert not node.verifications

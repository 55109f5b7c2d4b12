import asyncio
import threading
from collections.abc import Sequence

import pytest

from keyturn.verify.limits import STEP_SECONDS, LocalLimiter, ThreadedLimiter, without_store
from keyturn.verify.spending import LimitDemand, LimitOutcome
from keyturn.wire.policy import LimitRule

NOW = 1_800_000_000.0


def rule(name: str = "burst", limit: int = 3, window: int = 60, **more: object) -> LimitRule:
    return LimitRule(name, limit, window, **more)  # type: ignore[arg-type]


def demand(of: LimitRule, cost: int = 1, *, counter: str | None = None, workspace: str = "wsp_one") -> LimitDemand:
    return LimitDemand(of, workspace, counter or f"key/key_one/{of.name}", cost)


def take(limiter: LocalLimiter, *demands: LimitDemand, at: float = NOW) -> LimitOutcome:
    return limiter.take_now(demands, at)


def admitted(limiter: LocalLimiter, one: LimitDemand, at: float, times: int) -> int:
    return sum(take(limiter, one, at=at).admitted for _ in range(times))


def test_a_limit_admits_its_burst_and_then_one_unit_each_interval() -> None:
    limiter, one = LocalLimiter(), demand(rule(limit=3, window=60))

    assert admitted(limiter, one, NOW, 10) == 3
    assert admitted(limiter, one, NOW + 19.9, 10) == 0
    assert admitted(limiter, one, NOW + 20.0, 10) == 1
    assert admitted(limiter, one, NOW + 60.0, 10) == 2
    assert admitted(limiter, one, NOW + 6000.0, 10) == 3


def test_a_burst_other_than_the_limit_holds() -> None:
    limiter, one = LocalLimiter(), demand(rule(limit=60, window=60, burst=2))

    assert admitted(limiter, one, NOW, 10) == 2
    assert admitted(limiter, one, NOW + 1.0, 10) == 1


def test_a_report_says_what_remains_and_when_it_is_whole() -> None:
    outcome = take(LocalLimiter(), demand(rule(limit=3, window=60), 2))

    (report,) = outcome.reports
    assert (report.name, report.limit, report.window_seconds) == ("burst", 3, 60)
    assert (report.remaining, report.reset_seconds, report.exceeded) == (1, 40.0, False)


def test_a_refusal_says_how_long_to_wait_and_waiting_so_long_helps() -> None:
    limiter, one = LocalLimiter(), demand(rule(limit=3, window=60), 2)
    take(limiter, one)

    refused = take(limiter, one, at=NOW + 5.0)

    assert not refused.admitted
    assert refused.retry_after_seconds == pytest.approx(15.0)
    assert refused.reports[0].exceeded
    assert take(limiter, one, at=NOW + 5.0 + refused.retry_after_seconds).admitted


def test_what_costs_more_than_the_burst_is_never_admitted_and_waiting_is_not_advised() -> None:
    refused = take(LocalLimiter(), demand(rule(limit=3), 4))

    assert not refused.admitted
    assert refused.retry_after_seconds == 0.0


def test_no_cost_charges_nothing_and_reports_how_the_limit_stands() -> None:
    limiter, one = LocalLimiter(), rule(limit=1)
    take(limiter, demand(one))

    outcome = take(limiter, demand(one, 0))

    assert outcome.admitted
    assert outcome.reports[0].remaining == 0
    assert not outcome.reports[0].exceeded


def test_when_one_limit_refuses_none_is_charged() -> None:
    limiter = LocalLimiter()
    wide, narrow, slots = rule("wide", 10), rule("narrow", 1), rule("calls", 5, kind="concurrency")
    assert take(limiter, demand(wide), demand(slots), demand(narrow)).admitted

    for _ in range(5):
        refused = take(limiter, demand(wide), demand(slots), demand(narrow))
        assert not refused.admitted
        assert [report.exceeded for report in refused.reports] == [False, False, True]
        assert refused.slots == ()

    assert take(limiter, demand(wide, 0)).reports[0].remaining == 9
    assert take(limiter, demand(slots, 0)).reports[0].remaining == 4


def test_a_refusal_reports_limits_that_were_not_reached_yet() -> None:
    refused = take(LocalLimiter(), demand(rule("narrow", 1), 2), demand(rule("new", 7)))

    assert [report.remaining for report in refused.reports] == [1, 7]


def test_the_same_counter_twice_in_one_request_is_charged_twice() -> None:
    limiter, one = LocalLimiter(), demand(rule(limit=3), 2)

    refused = take(limiter, one, one)

    assert not refused.admitted
    assert refused.retry_after_seconds == 0.0
    assert take(limiter, demand(rule(limit=3), 0)).reports[0].remaining == 3


def test_a_shadow_limit_refuses_nothing_and_says_that_it_would() -> None:
    limiter, shadow = LocalLimiter(), rule("trial", 1, mode="shadow")
    real = rule("real", 10)

    first, second = (take(limiter, demand(real), demand(shadow)) for _ in range(2))

    assert first.admitted
    assert second.admitted
    assert [report.exceeded for report in first.reports] == [False, False]
    assert [(report.exceeded, report.shadow) for report in second.reports] == [(False, False), (True, True)]
    assert take(limiter, demand(shadow), at=NOW + 60.0).reports[0].exceeded is False


def test_nothing_crosses_between_workspaces() -> None:
    """The same owner's name in two workspaces is two owners."""
    limiter, one = LocalLimiter(), rule(limit=1)

    assert take(limiter, demand(one, workspace="wsp_one")).admitted
    assert take(limiter, demand(one, workspace="wsp_two")).admitted


def test_raising_a_limit_keeps_what_was_used() -> None:
    limiter = LocalLimiter()
    take(limiter, demand(rule(limit=2), 2))

    assert take(limiter, demand(rule(limit=4), 0)).reports[0].remaining == 0
    assert take(limiter, demand(rule(limit=4)), at=NOW + 15.0).admitted


def test_time_that_goes_back_a_little_gives_no_units_away() -> None:
    limiter, one = LocalLimiter(), demand(rule(limit=3, window=3))
    assert admitted(limiter, one, NOW, 3) == 3

    for _ in range(200):
        assert not take(limiter, one, at=NOW - 1.0).admitted
        assert not take(limiter, one, at=NOW).admitted


def test_a_step_back_gives_no_units_away_and_locks_nobody_out() -> None:
    limiter, one = LocalLimiter(), demand(rule(limit=3, window=3))
    assert admitted(limiter, one, NOW, 3) == 3
    past = NOW - 86_400.0

    assert not take(limiter, one, at=past).admitted
    assert take(limiter, one, at=past + 1.0).admitted
    assert STEP_SECONDS < 3


def test_calls_in_flight_are_limited_and_given_back() -> None:
    limiter, one = LocalLimiter(), demand(rule("calls", 2, kind="concurrency"))
    first, second = take(limiter, one), take(limiter, one)
    refused = take(limiter, one)

    assert (first.admitted, second.admitted, refused.admitted) == (True, True, False)
    assert second.reports[0].remaining == 0
    assert 0 < refused.retry_after_seconds <= 1.0
    assert limiter.release_now(first.slots) == 1
    assert limiter.release_now([*first.slots, "slot_unknown"]) == 0
    assert take(limiter, one).admitted


def test_a_slot_that_is_not_given_back_is_free_after_the_window() -> None:
    limiter, one = LocalLimiter(), demand(rule("calls", 1, window=30, kind="concurrency"))
    held = take(limiter, one)

    assert not take(limiter, one, at=NOW + 29.0).admitted
    assert take(limiter, one, at=NOW + 30.0).admitted
    assert limiter.release_now(held.slots) == 0


def test_a_slot_outlives_no_step_back_of_time_by_more_than_its_window() -> None:
    limiter, one = LocalLimiter(), demand(rule("calls", 1, window=30, kind="concurrency"))
    take(limiter, one)
    past = NOW - 86_400.0

    assert not take(limiter, one, at=past).admitted
    assert take(limiter, one, at=past + 30.0).admitted


def test_a_call_takes_one_slot_whatever_it_costs() -> None:
    limiter, calls = LocalLimiter(), rule("calls", 2, kind="concurrency")

    assert take(limiter, demand(calls, 500)).reports[0].remaining == 1
    assert take(limiter, demand(calls, 0)).slots == ()


def test_slots_cannot_be_guessed() -> None:
    limiter, one = LocalLimiter(), demand(rule("calls", 100, kind="concurrency"))
    slots = {slot for _ in range(100) for slot in take(limiter, one).slots}

    assert len(slots) == 100
    assert {len(slot) for slot in slots} == {27}


async def test_take_and_release_answer_at_once() -> None:
    limiter, one = LocalLimiter(), demand(rule("calls", 1, kind="concurrency"))

    outcome = await limiter.take([one], NOW)

    assert await limiter.release(outcome.slots) == 1


def test_counters_that_are_whole_are_forgotten() -> None:
    limiter, one = LocalLimiter(), rule(limit=1, window=10)
    for number in range(10_000):
        take(limiter, demand(one, counter=f"ip/{number}"), at=NOW + number)

    assert len(limiter) < 64


def test_counters_in_use_are_kept_while_there_is_room_although_they_are_whole() -> None:
    limiter, one = LocalLimiter(capacity=1_000), rule(limit=1_000, window=1)
    for at in range(20):
        for number in range(400):
            take(limiter, demand(one, counter=f"ip/{number}"), at=NOW + at)
    assert len(limiter) == 400

    for number in range(400, 10_000):
        take(limiter, demand(one, counter=f"ip/{number}"), at=NOW + 20 + number / 1_000)

    assert len(limiter) < 600


def test_without_room_for_a_new_counter_its_rule_decides_and_the_others_count_on() -> None:
    """No counter that somebody has used up is forgotten, however many others are asked for."""
    limiter = LocalLimiter(capacity=100)
    deny, allow = rule(limit=1), rule(limit=1, on_store_error="allow")
    for number in range(100):
        assert take(limiter, demand(deny, counter=f"ip/{number}")).admitted

    refused = take(limiter, demand(deny, counter="ip/new"))
    passed = take(limiter, demand(allow, counter="ip/new"))

    assert (refused.admitted, refused.store_failed) == (False, True)
    assert (passed.admitted, passed.store_failed) == (True, True)
    assert limiter.failures == {"allow": 1, "deny": 1}
    assert len(limiter) == 100
    assert not any(take(limiter, demand(deny, counter=f"ip/{number}")).admitted for number in range(100))
    assert take(limiter, demand(deny, counter="ip/new"), at=NOW + 60.0).admitted


def test_a_limit_of_a_thousand_million_a_second_still_ends() -> None:
    limiter, one = LocalLimiter(), demand(rule(limit=1_000_000_000, window=1), 1_000_000)

    assert admitted(limiter, one, NOW, 2000) == 1000


@pytest.mark.parametrize("window", [7, 3600, 2_678_400])
def test_repeated_rounding_admits_no_unit_too_many(window: int) -> None:
    limiter, one = LocalLimiter(), demand(rule(limit=1_000_003, window=window, burst=7))
    interval = window / 1_000_003
    calls = [NOW + number * interval / 3 for number in range(30_000)]

    count = sum(take(limiter, one, at=at).admitted for at in calls)

    assert 7 + 9_990 <= count <= 7 + 10_000


def test_many_threads_never_admit_more_than_the_limit() -> None:
    limiter, one = ThreadedLimiter(), demand(rule(limit=500, window=3600))
    counts: list[int] = []

    def hammer() -> None:
        counts.append(admitted(limiter, one, NOW, 500))

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(counts) == 500


def test_a_threaded_limiter_may_be_told_that_a_rule_has_changed_its_kind() -> None:
    limiter = ThreadedLimiter()
    held = take(limiter, demand(rule("calls", 1, kind="concurrency")))

    assert take(limiter, demand(rule("calls", 1))).admitted
    assert limiter.release_now(held.slots) == 0
    assert asyncio.run(limiter.release(held.slots)) == 0


def test_each_rule_decides_when_its_store_cannot_be_asked() -> None:
    deny, allow, trial = rule("deny"), rule("allow", on_store_error="allow"), rule("trial", mode="shadow")

    def decided(*demands: LimitDemand) -> tuple[bool, Sequence[str]]:
        outcome = without_store(demands)
        assert outcome.store_failed
        return outcome.admitted, [report.name for report in outcome.reports]

    assert decided(demand(allow), demand(trial)) == (True, [])
    assert decided(demand(allow), demand(deny)) == (False, ["deny"])
    assert decided(demand(deny, 0)) == (True, [])


def test_slots_that_are_never_given_back_take_no_more_memory_than_there_is_room_for() -> None:
    """One wide concurrency limit cannot fill the memory of a server."""
    limiter = LocalLimiter(capacity=100)
    wide, rate = demand(rule("calls", 1_000_000, kind="concurrency")), demand(rule("rate", 1000))
    assert admitted(limiter, wide, NOW, 100) == 100

    refused = take(limiter, rate, wide)

    assert (refused.admitted, refused.store_failed, refused.slots) == (False, True, ())
    assert limiter.slots_held == 100
    assert take(limiter, demand(rule("rate", 1000), 0)).reports[0].remaining == 1000
    assert take(limiter, demand(rule("calls", 1_000_000, kind="concurrency"), 0)).admitted
    assert admitted(limiter, wide, NOW + 60.0, 10) == 10


def test_counters_of_slots_that_have_expired_are_forgotten_with_their_slots() -> None:
    limiter = LocalLimiter()
    calls = rule("calls", 2, window=5, kind="concurrency")
    for number in range(2_000):
        take(limiter, demand(calls, counter=f"key/{number}/calls"), at=NOW + number)

    assert len(limiter) < 64
    assert limiter.slots_held < 64


@pytest.mark.parametrize("kind", ["rate", "concurrency"])
def test_a_limit_of_nothing_admits_nothing(kind: str) -> None:
    """Whatever a record says, verification gets an answer and no exception."""
    refused = take(LocalLimiter(), demand(rule(limit=0, window=0, kind=kind)))

    assert not refused.admitted
    assert refused.reports[0].remaining == 0


def test_a_demand_that_is_used_again_is_charged_where_others_are() -> None:
    """A counter that was forgotten, or is another limiter's, is not charged in secret."""
    limiter, other = LocalLimiter(capacity=2), LocalLimiter()
    kept = demand(rule(limit=3, window=3))
    assert take(limiter, kept).admitted
    for number in range(50):
        one = demand(rule(limit=3, window=3), counter=f"key/{number}/burst")
        assert take(limiter, one, at=NOW + 10 + 4 * number).admitted
    later = NOW + 1000
    assert take(limiter, kept, at=later).reports[0].remaining == 2
    assert take(limiter, demand(kept.rule), at=later).reports[0].remaining == 1
    assert take(limiter, kept, at=later).reports[0].remaining == 0

    assert take(other, kept, at=later).reports[0].remaining == 2
    assert not take(limiter, kept, at=later).admitted

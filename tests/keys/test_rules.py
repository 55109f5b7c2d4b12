from dataclasses import replace
from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import ConflictError, InputError
from keyturn.keys import rules
from keyturn.keys.rules import KEY_TRANSITIONS, VERSION_TRANSITIONS
from keyturn.wire.keys import RevokeReason
from keyturn.wire.policy import KeyState, VersionState
from keyturn.wire.usage import VersionUse
from tests.keys.sample import NOW, key, keyspace, version

ALLOWED_KEYS = {
    ("active", "disabled"),
    ("active", "revoked"),
    ("disabled", "active"),
    ("disabled", "revoked"),
}
ALLOWED_VERSIONS = {
    ("pending", "current"),
    ("pending", "revoked"),
    ("pending", "compromised"),
    ("current", "previous"),
    ("current", "revoked"),
    ("current", "compromised"),
    ("previous", "suspended"),
    ("previous", "revoked"),
    ("previous", "compromised"),
    ("suspended", "previous"),
    ("suspended", "revoked"),
    ("suspended", "compromised"),
    ("revoked", "compromised"),
    ("revoked", "destroyed"),
    ("compromised", "destroyed"),
}


def test_the_tables_know_every_state_and_no_other() -> None:
    assert set(KEY_TRANSITIONS) == set(get_args(KeyState))
    assert set(VERSION_TRANSITIONS) == set(get_args(VersionState))


@pytest.mark.parametrize(("start", "to"), list(product(get_args(KeyState), repeat=2)))
def test_a_key_moves_along_the_table_and_nowhere_else(start: str, to: str) -> None:
    """Every pair of states is tried: a forbidden one, such as bringing back a revoked key, is a conflict."""
    if (start, to) in ALLOWED_KEYS:
        rules.require_key_transition(key(state=start), to)
    else:
        with pytest.raises(ConflictError):
            rules.require_key_transition(key(state=start), to)


@pytest.mark.parametrize(("start", "to"), list(product(get_args(VersionState), repeat=2)))
def test_a_version_moves_along_the_table_and_nowhere_else(start: str, to: str) -> None:
    """Every pair of states is tried: a secret that was cut or compromised never becomes valid again."""
    if (start, to) in ALLOWED_VERSIONS:
        rules.require_version_transition(version(state=start), to)
    else:
        with pytest.raises(ConflictError):
            rules.require_version_transition(version(state=start), to)


def test_an_unknown_state_allows_nothing() -> None:
    with pytest.raises(ConflictError):
        rules.require_key_transition(key(state="paused"), "active")
    with pytest.raises(ConflictError):
        rules.require_version_transition(version(state="paused"), "current")


def test_a_rotation_keeps_the_promise_of_an_overlap_that_still_runs() -> None:
    versions = [version(), version(id="v0", state="previous", valid_until=NOW + 10)]
    changes = rules.rotate(key(), versions, 1000, NOW)
    assert [(c.id, c.state, c.valid_until) for c in changes] == [("v1", "previous", NOW + 1000)]


def test_no_overlap_prolongs_a_version_whose_end_was_set() -> None:
    """The end of a secret that has leaked stands, whatever overlap somebody rotates it with."""
    for overlap, until in ((5, NOW + 5), (1000, NOW + 10)):
        changes = rules.rotate(key(), [version(valid_until=NOW + 10)], overlap, NOW)
        assert [(c.id, c.state, c.valid_until) for c in changes] == [("v1", "previous", until)]


def test_an_end_is_set_to_what_could_still_be_admitted_and_never_moved_further() -> None:
    ends = rules.end_at(version(valid_until=NOW + 100), NOW + 10)
    assert ends is not None
    assert (ends.state, ends.valid_until) == ("current", NOW + 10)
    assert rules.end_at(version(valid_until=NOW + 5), NOW + 10) is None
    assert rules.end_at(version(state="revoked"), NOW + 10) is None


@pytest.mark.parametrize("state", ["active", "disabled"])
def test_an_overlap_of_zero_ends_all_that_could_be_admitted(state: str) -> None:
    versions = [
        version(id="current"),
        version(id="previous", state="previous", valid_until=NOW + 10),
        version(id="long over", state="previous", valid_until=NOW - 10),
        version(id="suspended", state="suspended"),
        version(id="revoked", state="revoked", valid_until=NOW - 5, retired_at=NOW - 5),
    ]
    changes = rules.rotate(key(state=state), versions, 0, NOW)
    assert [(c.id, c.state, c.valid_until) for c in changes] == [
        ("current", "revoked", NOW),
        ("previous", "revoked", NOW),
        ("long over", "revoked", NOW - 10),
        ("suspended", "revoked", NOW),
    ]


def test_a_revoked_key_is_not_rotated() -> None:
    for overlap in (0, 60):
        with pytest.raises(ConflictError, match="revoked"):
            rules.rotate(key(state="revoked"), [version(state="revoked")], overlap, NOW)


@pytest.mark.parametrize(
    ("used_ago", "silent_seconds", "refused"),
    [(None, 3600, False), (3599, 3600, True), (3600, 3600, False), (0, 0, False), (0, 1, True)],
)
def test_an_old_version_is_retired_after_its_silence(
    used_ago: float | None, silent_seconds: int, *, refused: bool
) -> None:
    uses = {} if used_ago is None else {"v1": VersionUse(NOW - used_ago, 1, ())}
    versions = [version(state="previous", valid_until=NOW + 1)]
    if refused:
        with pytest.raises(ConflictError):
            rules.retire(versions, uses, silent_seconds, NOW, force=False)
    else:
        (change,) = rules.retire(versions, uses, silent_seconds, NOW, force=False)
        assert (change.state, change.retired_at) == ("revoked", NOW)


def test_attempts_with_a_secret_whose_overlap_ended_do_not_keep_it() -> None:
    uses = {"v1": VersionUse(NOW, 1, ())}
    versions = [version(state="previous", valid_until=NOW - 1)]
    assert rules.retire(versions, uses, 3600, NOW, force=False)


@pytest.mark.parametrize("reason", list(RevokeReason))
def test_a_revocation_ends_every_version(reason: RevokeReason) -> None:
    versions = [version(id=state, state=state) for state in VERSION_TRANSITIONS]
    changes = rules.revoke(key(), versions, reason, NOW)
    assert changes is not None
    after = {v.id: v.state for v in versions} | {c.id: c.state for c in changes}
    final = {"revoked", "compromised", "destroyed"}
    assert set(after.values()) <= final
    if reason is RevokeReason.KEY_COMPROMISE:
        assert set(after.values()) == {"compromised", "destroyed"}


@pytest.mark.parametrize(
    ("environment", "tag", "expected"),
    [
        ("production", None, "live"),
        ("staging", None, "test"),
        ("development", None, "dev"),
        ("qa", None, "qa"),
        ("production", "prod", "prod"),
        ("pre-release", "pre", "pre"),
    ],
)
def test_the_tag_follows_the_environment(environment: str, tag: str | None, expected: str) -> None:
    assert rules.tag_for(environment, tag) == expected


@pytest.mark.parametrize("environment", ["pre-release", "x", "a-very-long-environment"])
def test_an_environment_that_is_no_tag_needs_one(environment: str) -> None:
    with pytest.raises(InputError) as caught:
        rules.tag_for(environment, None)
    assert caught.value.field == "tag"


def test_a_lowered_bound_counts_as_the_old_one_until_every_node_must_know() -> None:
    """`effective_by` must not be earlier than a node could still act under the bound it knew."""
    lowered = rules.with_stale_after(keyspace(stale_after_seconds=600.0), 10.0, NOW)
    assert rules.bound_seconds(lowered, NOW) == 600
    assert rules.bound_seconds(lowered, NOW + 601) == 600
    assert rules.bound_seconds(lowered, NOW + 602) == 10


def test_two_lowerings_in_a_row_keep_the_longest_bound() -> None:
    once = rules.with_stale_after(keyspace(stale_after_seconds=600.0), 300.0, NOW)
    twice = rules.with_stale_after(once, 10.0, NOW + 1)
    assert rules.bound_seconds(twice, NOW + 500) == 600


def test_raising_the_bound_counts_at_once() -> None:
    raised = rules.with_stale_after(keyspace(stale_after_seconds=10.0), 600.0, NOW)
    assert rules.bound_seconds(raised, NOW) == 600
    assert (raised.stale_after_was, raised.stale_after_changed_at) == (None, None)


@given(st.lists(st.tuples(st.floats(0, 5000), st.integers(1, 3600)), max_size=6), st.floats(0, 4000))
def test_the_bound_covers_every_value_a_node_may_still_go_by(steps: list[tuple[float, int]], later: float) -> None:
    """Whatever the order of changes, no node that has not heard for its own bound outlives `bound_seconds`."""
    now = NOW
    changing = keyspace(stale_after_seconds=60.0)
    history: list[tuple[float, float]] = []
    for wait, seconds in steps:
        now += wait
        history.append((now, changing.stale_after_seconds))
        changing = rules.with_stale_after(changing, float(seconds), now)
    now += later
    possible = [was for replaced_at, was in history if replaced_at + was > now]
    assert rules.bound_seconds(changing, now) >= max([changing.stale_after_seconds, *possible])


def test_a_pepper_is_retired_only_when_nothing_needs_it() -> None:
    assert rules.retire_peppers([2, 1], {2: 5}, None) == (1,)
    with pytest.raises(ConflictError, match="pepper 2 is needed by 5"):
        rules.retire_peppers([2, 1], {2: 5}, 2)
    with pytest.raises(ConflictError, match="not a previous one"):
        rules.retire_peppers([2, 1], {}, 3)
    with pytest.raises(ConflictError):
        rules.retire_peppers([], {}, None)


def test_revoking_again_for_the_same_reason_changes_nothing() -> None:
    revoked = replace(key(), state="revoked", revoke_reason="superseded")
    assert rules.revoke(revoked, [], "superseded", NOW) is None
    with pytest.raises(ConflictError):
        rules.revoke(revoked, [], "unspecified", NOW)

"""The state machine of leases: every pair of states is either in the table or refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import BrokenInvariantError, ConflictError, InputError
from keyturn.leases.connectors.statements import check, render
from keyturn.leases.model import Lease, Role
from keyturn.leases.rules import (
    LIVE,
    OVER,
    TRANSITIONS,
    Timing,
    account_name,
    after_drop,
    after_failure,
    ends,
    public_error,
    renewed,
    require_transition,
    when_due,
)
from keyturn.wire.leases import LeaseState

S = LeaseState
ALLOWED = {
    (S.INTENT, S.ACTIVE),
    (S.INTENT, S.ABANDONED),
    (S.INTENT, S.FAILED),
    (S.ACTIVE, S.ACTIVE),
    (S.ACTIVE, S.REVOKING),
    (S.ACTIVE, S.REVOKED),
    (S.REVOKING, S.REVOKING),
    (S.REVOKING, S.REVOKED),
    (S.REVOKING, S.IRREVOCABLE),
    (S.ABANDONED, S.ABANDONED),
    (S.ABANDONED, S.LINGERING),
    (S.ABANDONED, S.IRREVOCABLE),
    (S.LINGERING, S.LINGERING),
    (S.LINGERING, S.ABANDONED),
    (S.LINGERING, S.FAILED),
    (S.LINGERING, S.IRREVOCABLE),
    (S.FAILED, S.ABANDONED),
    (S.IRREVOCABLE, S.REVOKING),
    (S.IRREVOCABLE, S.REVOKED),
}
TIMING = Timing()


def lease(state: LeaseState = S.ACTIVE, **given: object) -> Lease:
    """Return a lease made at 0 that ends at 60, and at 100 at the latest."""
    values = {
        "id": "lea_1",
        "workspace": "wsp_1",
        "path": "app/creds/reader/lea_1",
        "source": "src_1",
        "role": "cro_1",
        "account": "kt_reader_1",
        "state": state,
        "principal": "prn_1",
        "subject": "",
        "login_role": None,
        "ttl_seconds": 60,
        "created_at": 0.0,
        "expires_at": 60.0,
        "max_expires_at": 100.0,
        "due_at": 60.0,
        "claimed_until": 0.0,
        "attempts": 0,
        "last_error": None,
        "revoke_reason": None,
        "revoked_at": None,
        "revision": 1,
    }
    return Lease(**(values | given))  # type: ignore[arg-type]


def role(ttl: int = 60, most: int = 100) -> Role:
    return Role("cro_1", "wsp_1", "src_1", "app", "reader", {}, ttl, most, 10, 0.0, "prn_1", 0.0, 0.0, 1)


@pytest.mark.parametrize(("was", "becomes"), list(itertools.product(LeaseState, LeaseState)))
def test_exactly_the_transitions_of_the_table_are_allowed(was: LeaseState, becomes: LeaseState) -> None:
    if (was, becomes) in ALLOWED:
        require_transition(was, becomes)
    else:
        with pytest.raises(BrokenInvariantError):
            require_transition(was, becomes)


def test_every_state_is_live_or_over_and_every_live_one_comes_to_an_end() -> None:
    assert {*LIVE, *OVER} == set(LeaseState) == set(TRANSITIONS)
    for state in LIVE:
        reached = {state}
        for _ in LeaseState:
            reached |= {following for one in reached for following in TRANSITIONS[one]}
        assert reached & OVER


@given(st.sampled_from([S.INTENT, S.ACTIVE]), st.lists(st.booleans(), max_size=40), st.floats(0, 1))
def test_whatever_fails_a_lease_ends_or_waits_for_a_person(state: LeaseState, drops: list[bool], chance: float) -> None:
    """Never is a lease over while its last drop failed, and never is it forgotten."""
    current, attempts, now = when_due(lease(state)), 0, 60.0
    require_transition(state, current)
    for dropped in drops:
        if dropped:
            step = after_drop(current, now, TIMING)
        else:
            step = after_failure(current, attempts + 1, "down", now, chance=chance, timing=TIMING)
        require_transition(current, step.state)
        assert (step.state in OVER) <= dropped
        assert (step.due_at is None) == (step.state in {*OVER, S.IRREVOCABLE})
        if step.due_at is None:
            return
        assert step.due_at >= now
        current, attempts, now = step.state, step.attempts, step.due_at


@given(st.integers(1, 5), st.floats(0, 1))
def test_pauses_double_within_half_of_their_length(attempts: int, chance: float) -> None:
    step = after_failure(S.REVOKING, attempts, "down", 0.0, chance=chance, timing=TIMING)
    middle = TIMING.first_pause * 2 ** (attempts - 1)
    assert step.due_at is not None
    assert middle * 0.5 <= step.due_at <= middle * 1.5


@pytest.mark.parametrize("state", [S.INTENT, S.ACTIVE, S.REVOKED, S.FAILED, S.IRREVOCABLE])
def test_nothing_is_dropped_in_a_state_that_is_not_ending(state: LeaseState) -> None:
    with pytest.raises(BrokenInvariantError):
        after_drop(state, 0.0, TIMING)


@given(st.integers(1, 10_000), st.floats(0, 59.9))
def test_a_renewal_never_passes_the_most(increment: int, now: float) -> None:
    assert renewed(lease(), increment, now) == min(now + increment, 100.0)


@pytest.mark.parametrize("state", [state for state in LeaseState if state is not S.ACTIVE])
def test_only_an_active_lease_is_renewed(state: LeaseState) -> None:
    with pytest.raises(ConflictError):
        renewed(lease(state), 10, 0.0)
    with pytest.raises(ConflictError, match="is over"):
        renewed(lease(), 10, 60.0)


def test_a_new_lease_has_the_roles_time_unless_another_is_asked_for() -> None:
    assert ends(role(), None, 1, 0.0) == (60.0, 100.0)
    assert ends(role(), 100, 1, 0.0) == (100.0, 100.0)
    with pytest.raises(InputError):
        ends(role(), 101, 1, 0.0)
    with pytest.raises(InputError):
        ends(role(), 9, 10, 0.0)


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True))
def test_an_account_name_fits_every_system(name: str) -> None:
    made = account_name(name, "A" * 14)
    assert len(made) <= 32
    assert made.startswith("kt_")
    assert all(one.isalnum() or one == "_" for one in made)


def test_what_a_provider_said_is_one_line_without_secrets() -> None:
    """An error is kept and shown: it holds neither password nor anything that breaks a line or a terminal."""
    word = "".join(("pass", "word", "-1"))
    said = public_error(f"syntax error near '{word}'\n\x1b[31mLINE 1\u202e {word}" + "x" * 400, [word, ""])
    assert word not in said
    assert len(said) <= 300
    assert said.isprintable()
    assert said.startswith("syntax error near '[redacted]'")


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("CREATE ROLE {{name}} PASSWORD {{password}}", "CREATE ROLE \"kt_a\" PASSWORD 'p/='"),
        ("CREATE ROLE \"{{name}}\" PASSWORD '{{password}}'", "CREATE ROLE \"kt_a\" PASSWORD 'p/='"),
        ("SELECT '{{ name }}'", "SELECT 'kt_a'"),
        ("GRANT ALL TO `{{name}}`", "GRANT ALL TO `kt_a`"),
    ],
)
def test_a_placeholder_is_quoted_once(template: str, rendered: str) -> None:
    check([template], "config.creation", knows=("name", "password"))
    assert render(template, {"name": "kt_a", "password": "p/="}, name_quote='"') == rendered


@given(st.text(min_size=1, max_size=20))
def test_a_value_that_could_end_a_quotation_is_never_put_in(value: str) -> None:
    """The second line of defence: our own values are letters and digits."""
    try:
        rendered = render("SELECT {{name}}", {"name": value}, name_quote='"')
    except BrokenInvariantError:
        return
    assert not set(value) & set("\"'`\\\n\x00")
    assert rendered == f'SELECT "{value}"'


@pytest.mark.parametrize("template", ["{{nothing}}", "'{{name}}", '{{name}}"', "{{}}", "{{name}'}}"])
def test_a_template_that_is_wrong_is_refused_when_the_role_is_made(template: str) -> None:
    with pytest.raises(InputError) as refused:
        check([template], "config.creation", knows=("name",), needs=("name",))
    assert refused.value.field is not None
    assert refused.value.field.startswith("config.creation")

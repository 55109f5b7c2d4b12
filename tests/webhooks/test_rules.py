from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import InputError
from keyturn.webhooks import rules, signature
from keyturn.webhooks.model import Answer
from keyturn.wire.actions import Action
from keyturn.wire.webhooks import EVENT_TYPES, DeliveryState

NOW = 1_767_225_600.0


def test_the_signature_is_the_one_the_standard_publishes() -> None:
    """The example of the Standard Webhooks reference libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert signature.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_secret_is_written_as_the_standard_says_and_masked() -> None:
    """The secret is shown where it is revealed, and nowhere else."""
    secret = signature.encode_secret(bytes(range(32)))
    assert secret.reveal() == "whsec_" + base64.b64encode(bytes(range(32))).decode()
    assert "AAEC" not in repr(secret)


def test_every_secret_that_counts_signs() -> None:
    found = dict(signature.headers([b"new", b"old"], "msg_1", 7, b"{}"))
    assert found["webhook-signature"].split(" ") == [
        signature.sign(b"new", "msg_1", 7, b"{}"),
        signature.sign(b"old", "msg_1", 7, b"{}"),
    ]


def test_what_reads_is_no_event() -> None:
    assert {"key.issue", "key.revoke", "grant.revoke", "system.alarm", "quota.credit"} <= EVENT_TYPES
    assert not {"key.read", "key.verify", "audit.export", "grant.explain", "auth.refused"} & EVENT_TYPES


def test_a_denied_operation_is_no_event_and_an_alarm_is_one() -> None:
    assert rules.is_event(Action.KEY_REVOKE, "allowed")
    assert not rules.is_event(Action.KEY_REVOKE, "denied")
    assert not rules.is_event(Action.KEY_READ, "allowed")
    assert rules.is_event(Action.SYSTEM_ALARM, "failed")


def test_patterns_that_no_event_matches_are_refused() -> None:
    assert rules.check_patterns(("key.*", "*", "key.*")) == ("key.*", "*")
    for pattern in ("keys.*", "key.read", "key", "key.*.x", "ke*", ""):
        with pytest.raises(InputError) as caught:
            rules.check_patterns((pattern,))
        assert caught.value.field == "events"


@given(st.integers(1, 9), st.floats(0, 1))
def test_waits_grow_and_keep_within_a_fifth(tries: int, chance: float) -> None:
    judged = rules.judge(Answer(1, 500), tries=tries, failing_since=None, now=NOW, chance=chance)
    wait = judged.next_at - NOW
    planned = rules.WAITS_SECONDS[tries - 1]
    assert judged.state is DeliveryState.PENDING
    assert 0.79 * planned <= wait <= 1.21 * planned


@pytest.mark.parametrize("status", [None, 199, 301, 307, 400, 404, 429, 500, 503])
def test_only_2xx_is_success(status: int | None) -> None:
    judged = rules.judge(Answer(1, status), tries=1, failing_since=None, now=NOW, chance=0.5)
    assert (judged.state, judged.disable) == (DeliveryState.PENDING, None)


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_2xx_is_success(status: int) -> None:
    judged = rules.judge(Answer(1, status), tries=3, failing_since=NOW - 1e9, now=NOW, chance=0.5)
    assert (judged.state, judged.disable) == (DeliveryState.DELIVERED, None)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("120", 120),
        (" 5 ", 5),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("-5", 0),
        ("soon", 0),
        ("99999999999999999999", 0),
        ("Thu, 99 Jan 2026 00:02:00 GMT", 0),
        ("\x00", 0),
    ],
)
def test_retry_after_is_read_in_both_forms(value: str | None, seconds: float) -> None:
    assert rules.retry_after_seconds(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_breaks_the_dispatcher(value: str) -> None:
    assert rules.retry_after_seconds(value, NOW) >= 0


def test_an_excerpt_holds_no_credential_and_no_control_character() -> None:
    """What a receiver echoes is scrubbed before it is stored."""
    bearer = "Bearer " + "abcdefgh" * 4
    shown = rules.excerpt(f"no\x00good\r\n\x1b[31m {bearer} end".encode() + b"\xff")
    assert shown is not None
    assert "abcdefgh" not in shown
    assert shown.isprintable()
    assert rules.excerpt(b"x" * 10_000) == "x" * rules.EXCERPT_LENGTH_MAX
    assert rules.excerpt(b" \r\n") is None

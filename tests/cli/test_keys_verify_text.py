"""How a verdict is laid out for people."""

from keyturn.cli.keys import _verdict


def test_limits_and_quotas_are_said_in_words() -> None:
    answer = {
        "valid": False,
        "code": "RATE_LIMITED",
        "limits": [
            {
                "name": "burst",
                "limit": 3,
                "window_seconds": 60,
                "remaining": 0,
                "reset_seconds": 52.06,
                "exceeded": True,
            },
            {"name": "tiny", "limit": 2, "window_seconds": 60, "remaining": 1, "reset_seconds": 0.0, "shadow": True},
        ],
        "quotas": [{"name": "monthly", "remaining": 4, "resets_at": "2026-12-01T00:00:00.000Z"}],
        "retry_after_seconds": 12.06,
    }
    lines = dict(line.split(":", 1) for line in _verdict(answer).splitlines())
    assert lines["limits"].strip() == "burst 0 of 3 left, whole in 53 s, exceeded; tiny 1 of 2 left, shadow"
    assert lines["quotas"].strip() == "monthly 4 left, until 2026-12-01T00:00:00.000Z"
    assert lines["retry_after_seconds"].strip() == "13"

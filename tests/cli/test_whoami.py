from typing import Any

from keyturn.cli.session import describe


def who(**given: Any) -> dict[str, Any]:
    """An answer of the server."""
    unconditional: dict[str, Any] = {
        "environments": [],
        "cidrs": [],
        "not_before": None,
        "not_after": None,
        "unknown": False,
    }
    held = {"id": "grt_1", "subject": "prn_1", "actions": ["key.read", "key.issue"], "resource": "key/orders/*"}
    windowed = unconditional | {"environments": ["production"], "not_after": "2027-01-01T00:00:00.000Z"}
    return {
        "principal": "prn_1",
        "kind": "service",
        "name": "ci",
        "workspace": "wsp_1",
        "workspace_name": "default",
        "token_id": "tok_1",
        "scopes": [],
        "resources": [],
        "grants": [
            held | {"conditions": unconditional},
            held | {"id": "grt_2", "subject": "rol_1", "actions": ["*"], "conditions": windowed},
        ],
    } | given


def test_grants_are_shown_as_a_table_and_not_as_json() -> None:
    shown = describe(who())
    assert "{" not in shown
    assert "ci (service prn_1)" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["ACTIONS", "RESOURCE", "WHEN", "THROUGH"] in rows
    assert ["key.read,", "key.issue", "key/orders/*", "always", "itself"] in rows
    assert "environments production; not_after 2027-01-01T00:00:00.000Z  rol_1" in shown


def test_a_condition_that_this_release_does_not_know_is_told() -> None:
    (grant, _) = who()["grants"]
    unknown = grant | {"conditions": grant["conditions"] | {"unknown": True}}
    assert "never a condition is not known here" in describe(who(grants=[unknown]))


def test_bounds_and_missing_grants_are_told() -> None:
    shown = describe(who(scopes=["key.read"], resources=["key/a/*"], grants=[]))
    assert "key.read" in shown
    assert "key/a/*" in shown
    assert shown.endswith("(none)")


def test_nothing_in_a_name_reaches_the_terminal_as_a_command() -> None:
    """A principal is named by whoever creates it."""
    assert "\x1b" not in describe(who(name="a\x1b[2Jb"))

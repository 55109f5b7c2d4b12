import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel.tokenformat import mint
from keyturn.usage import rules
from keyturn.wire.usage import Period


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::5", "2001:db8:1::/48"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("192.0.2.0/24", None),
        ("not an address", None),
        ("", None),
        (None, None),
    ],
)
def test_only_the_network_of_a_client_is_stored(ip: str | None, network: str | None) -> None:
    assert rules.ip_network(ip) == network


@pytest.mark.parametrize(
    ("method", "path", "stored"),
    [
        ("get", "/orders", "GET /orders"),
        ("GET", "/orders?token=hidden#part", "GET /orders"),
        ("GET", "/orders#token", "GET /orders"),
        (None, "/orders", "/orders"),
        ("DELETE", None, "DELETE"),
        (None, None, None),
        ("GET", "?only=query", "GET"),
    ],
)
def test_an_endpoint_is_stored_without_its_query(method: str | None, path: str | None, stored: str | None) -> None:
    """A query string may hold credentials, so it is dropped before anything is kept."""
    assert rules.endpoint(method, path) == stored


def test_a_credential_in_a_path_or_user_agent_is_not_stored() -> None:
    """Whatever a client puts there, no key reaches the usage tables."""
    key = mint("acme", "live").key.reveal()
    assert key not in (rules.endpoint("GET", f"/callback/{key}/x") or "")
    assert key not in (rules.user_agent(f"tool/1 {key}") or "")


def test_a_credential_that_is_cut_off_is_not_stored_in_part() -> None:
    """Text is scrubbed before it is cut, or the first half of a key would survive."""
    key = mint("acme", "live").key.reveal()
    agent = "x" * (rules.USER_AGENT_CHARS_MAX - 40) + " " + key
    assert key[:30] not in (rules.user_agent(agent) or "")


@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=40), st.text(max_size=400))
def test_whatever_is_told_is_stored_short_and_printable(ip: str, agent: str, method: str, path: str) -> None:
    caller, network, stored_agent, called = rules.describe(ip, agent, method, path)
    assert caller == rules.describe(ip, agent, method, path)[0]
    assert caller != rules.OTHER
    for stored, limit in ((network, 64), (stored_agent, rules.USER_AGENT_CHARS_MAX), (called, 256)):
        if stored is not None:
            assert 0 < len(stored) <= limit
            assert stored.isprintable()


def test_buckets_begin_in_utc() -> None:
    at = 1_767_312_123.9
    assert rules.start_of(Period.MINUTE, at) % 60 == 0
    assert rules.start_of(Period.HOUR, at) % 3600 == 0
    assert rules.start_of(Period.DAY, at) % 86_400 == 0
    assert 0 <= at - rules.start_of(Period.DAY, at) < 86_400

"""The shipped configurations, each run by its real program in front of a real Keyturn."""

import json

import pytest

from keyturn.http.identity import IDENTITY_HEADERS
from keyturn.testing.waiting import eventually
from tests.gateways.stack import Control, Gateway, seen, seen_headers

pytestmark = pytest.mark.slow


def test_an_admitted_key_reaches_the_application_as_an_identity(gateway: Gateway, control: Control) -> None:
    issued = control.issue(owner="Zoë / web", scopes=["orders:read", "invoices:*"])
    found = seen_headers(gateway.get("/anything?a=1", issued["key"]))
    assert {name: found.get(name.lower()) for name in IDENTITY_HEADERS} == {
        "X-Keyturn-Key-Id": [issued["id"]],
        "X-Keyturn-Owner": ["Zo%C3%AB%20/%20web"],
        "X-Keyturn-Keyspace": ["orders"],
        "X-Keyturn-Environment": ["production"],
        "X-Keyturn-Scopes": ["orders:read invoices:*"],
        "X-Keyturn-Plan": None,
        "X-Keyturn-Code": ["VALID"],
        "X-Consumer-Username": ["Zo%C3%AB%20/%20web"],
        "X-Credential-Identifier": [issued["id"]],
    }


def test_the_request_itself_arrives_as_it_was_sent(gateway: Gateway, control: Control) -> None:
    key = control.issue()["key"]
    posted = gateway.request("POST", "/a%20b?c=%2F", [("Authorization", f"Bearer {key}")], b"the body")
    assert {name: seen(posted)[name] for name in ("method", "path", "body")} == {
        "method": "POST",
        "path": "/a%20b?c=%2F",
        "body": "the body",
    }
    chunked = [("Authorization", f"Bearer {key}"), ("Transfer-Encoding", "chunked")]
    assert seen(gateway.request("POST", "/", chunked, b"8\r\nthe body\r\n0\r\n\r\n"))["body"] == "the body"


def test_a_question_about_a_resource_is_checked_as_a_request_for_it(gateway: Gateway, control: Control) -> None:
    other = control.issue(scopes=["invoices:read"])["key"]
    asked = [("/", [("Authorization", f"Bearer {other}")]), ("/orders/1", [("Authorization", f"Bearer {other}")])]
    answers = [gateway.request("HEAD", path, headers) for path, headers in [*asked, ("/", [])]]
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b""), (403, b""), (401, b"")]


def test_the_key_and_the_token_stay_at_the_gateway(gateway: Gateway, control: Control) -> None:
    """What the application does not need it cannot leak."""
    key = control.issue()["key"]
    for presented in (("Authorization", f"Bearer {key}"), ("X-API-Key", key)):
        answer = gateway.request("GET", "/", [presented])
        assert answer.status_code == 200
        assert key not in answer.text
        assert control.token not in answer.text
    assert control.token not in gateway.log()


def test_a_request_without_a_key_is_challenged(gateway: Gateway) -> None:
    answer = gateway.get("/")
    assert answer.status_code == 401
    assert answer.headers.get_list("www-authenticate") == ['Bearer realm="keyturn"']
    assert answer.json()["code"] == "missing_key"
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_key_is_told_from_a_missing_one(gateway: Gateway) -> None:
    answer = gateway.get("/", "no-such-key")
    assert answer.status_code == 401
    assert answer.headers.get_list("www-authenticate") == ['Bearer realm="keyturn", error="invalid_token"']
    assert answer.json()["code"] == "not_found"


def test_a_key_without_the_scope_is_forbidden(gateway: Gateway, control: Control) -> None:
    reader, other = control.issue(scopes=["orders:read"])["key"], control.issue(scopes=["invoices:read"])["key"]
    assert gateway.get("/orders/1", reader).status_code == 200
    answer = gateway.get("/orders/1", other)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_permissions")
    challenge = 'Bearer realm="keyturn", error="insufficient_scope", scope="orders:read"'
    assert answer.headers.get_list("www-authenticate") == [challenge]
    assert gateway.get("/", other).status_code == 200


def test_a_revoked_key_is_refused_at_once(gateway: Gateway, control: Control) -> None:
    issued = control.issue()
    assert gateway.get("/", issued["key"]).status_code == 200
    eventually(lambda: control.post(f"keys/{issued['id']}/revoke", reason="key_compromise")["effective"])
    answer = gateway.get("/", issued["key"])
    assert (answer.status_code, answer.json()["code"]) == (401, "revoked")


def test_a_limit_reaches_the_client_with_the_time_to_wait(gateway: Gateway, control: Control) -> None:
    """429 survives every gateway, with Retry-After and the RateLimit fields, each of them once.

    On the answer to an admitted request Traefik cannot put them: there the application gets them.
    """
    key = control.issue(limits=[{"name": "burst", "limit": 2, "window_seconds": 3600}])["key"]
    for remaining in (1, 0):
        admitted = gateway.get("/", key)
        assert admitted.status_code == 200
        if gateway.name == "traefik":
            told = seen_headers(admitted)
        else:
            told = {name: admitted.headers.get_list(name) for name in ("ratelimit", "ratelimit-policy")}
        assert told["ratelimit-policy"] == ['"burst";q=2;w=3600']
        (standing,) = told["ratelimit"]
        assert standing.startswith(f'"burst";r={remaining};t=')
    answer = gateway.get("/", key)
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.headers["content-type"] == "application/problem+json"
    (wait,) = answer.headers.get_list("retry-after")
    assert 1700 <= int(wait) <= 1800
    assert answer.headers.get_list("ratelimit-policy") == ['"burst";q=2;w=3600']
    (standing,) = answer.headers.get_list("ratelimit")
    assert standing.startswith('"burst";r=0;t=')


def test_a_part_of_a_site_charges_what_its_configuration_says(gateway: Gateway, control: Control) -> None:
    key = control.issue(limits=[{"name": "units", "limit": 25, "window_seconds": 3600}])["key"]
    assert [gateway.get(path, key).status_code for path in ("/reports/a", "/", "/reports/b", "/reports/c", "/")] == [
        *(200, 200, 200, 429, 200),
    ]


def test_a_quota_that_is_used_up_is_a_429(gateway: Gateway, control: Control) -> None:
    key = control.issue(quotas=[{"name": "monthly", "amount": 1, "period": "month"}])["key"]
    assert gateway.get("/", key).status_code == 200
    answer = gateway.get("/", key)
    assert (answer.status_code, answer.json()["code"]) == (429, "usage_exceeded")


def test_the_plan_of_a_key_reaches_the_application(gateway: Gateway, control: Control) -> None:
    """Also where a client sends another one."""
    plan = f"plan-{gateway.name}"
    control.post("plans", name=plan, scopes=["orders:read"])
    key = control.issue(plan=plan)["key"]
    found = seen_headers(gateway.get("/orders/1", key, ("X-Keyturn-Plan", "forged"), ("X-Keyturn-Scopes", "admin:*")))
    assert (found["x-keyturn-plan"], found["x-keyturn-scopes"]) == ([plan], ["orders:read"])


def test_a_refusal_of_the_application_is_passed_on(gateway: Gateway, control: Control) -> None:
    key = control.issue()["key"]
    for status in (401, 403, 429, 500):
        answer = gateway.get("/", key, ("X-Answer", str(status)))
        assert answer.status_code == status
        assert json.loads(answer.text)["method"] == "GET"


def test_nothing_passes_while_keyturn_does_not_answer(gateway: Gateway, control: Control) -> None:
    """A server that accepts the connection and is silent admits no one, and keeps nobody waiting for ever."""
    key = control.issue()["key"]
    control.server.pause()
    try:
        answer = gateway.get("/", key)
    finally:
        control.server.resume()
    assert answer.status_code == 503


def test_nothing_passes_while_keyturn_is_away(gateway: Gateway, control: Control) -> None:
    """A gateway that cannot ask denies."""
    key = control.issue()["key"]
    assert gateway.get("/", key).status_code == 200
    control.server.kill9()
    try:
        answer = gateway.get("/", key)
        assert answer.status_code == 503
        assert "authorization" not in answer.text
    finally:
        control.server.restart()
    assert gateway.get("/", key).status_code == 200

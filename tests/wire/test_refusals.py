import json

import pytest

from keyturn.wire.refusals import QUOTA_EXCEEDED, missing_key, refusal_of, status_of
from keyturn.wire.verification import Code


def test_every_code_but_valid_refuses() -> None:
    assert [code for code in Code if status_of(code) < 400] == [Code.VALID]


@pytest.mark.parametrize("code", ["", "valid", "VALID ", "SOMETHING_NEWER"])
def test_an_unknown_code_refuses(code: str) -> None:
    assert status_of(code) == 403
    assert refusal_of(code, realm="api").status == 403


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.EXPIRED, Code.NOT_YET_VALID, Code.DISABLED, Code.REVOKED])
def test_a_key_that_is_not_valid_is_challenged(code: Code) -> None:
    refused = refusal_of(code, realm="orders")
    assert refused.status == 401
    assert ("WWW-Authenticate", 'Bearer realm="orders", error="invalid_token"') in refused.headers


def test_a_missing_scope_is_named_in_the_challenge_without_breaking_out_of_it() -> None:
    refused = refusal_of(Code.INSUFFICIENT_PERMISSIONS, realm="api", scopes='orders:read", x="\r\ny')
    assert refused.status == 403
    challenge = 'Bearer realm="api", error="insufficient_scope", scope="orders:read, x=y"'
    assert ("WWW-Authenticate", challenge) in refused.headers


def test_a_limit_says_when_to_come_back_and_which_policy_was_violated() -> None:
    refused = refusal_of(Code.RATE_LIMITED, realm="api", retry_after_seconds=1.2, violated=("burst",))
    assert refused.status == 429
    assert ("Retry-After", "2") in refused.headers
    problem = json.loads(refused.body)
    assert problem["type"] == QUOTA_EXCEEDED
    assert problem["violated-policies"] == ["burst"]
    assert problem["code"] == "rate_limited"


def test_a_wait_that_does_not_help_is_not_suggested() -> None:
    assert "Retry-After" not in dict(refusal_of(Code.USAGE_EXCEEDED, realm="api", retry_after_seconds=0).headers)


def test_fields_that_say_when_to_come_back_are_not_repeated() -> None:
    fields = (("RateLimit", '"burst";r=0;t=3'), ("retry-after", "3"))
    refused = refusal_of(Code.RATE_LIMITED, realm="api", retry_after_seconds=3, fields=fields)
    assert [value for name, value in refused.headers if name.lower() == "retry-after"] == ["3"]


def test_what_could_not_be_decided_is_unavailable_and_never_cached() -> None:
    refused = refusal_of(Code.UNAVAILABLE, realm="api")
    assert refused.status == 503
    assert dict(refused.headers)["Retry-After"] == "1"
    assert dict(refused.headers)["Cache-Control"] == "no-store"


def test_a_request_without_a_key_is_asked_for_one() -> None:
    asked = missing_key("api")
    assert asked.status == 401
    assert dict(asked.headers)["WWW-Authenticate"] == 'Bearer realm="api"'
    assert json.loads(asked.body)["code"] == "missing_key"

"""What a JSON Web Token has to be to let anybody in."""

import json
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from structlog.testing import capture_logs

from keyturn.errors import InputError, ThrottledError, UnauthenticatedError
from tests.logins.gate import Gate
from tests.logins.issuer import AUDIENCE, b64, hmac_signed, new_key, signed

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


async def refused(gate: Gate, token: str, **given: Any) -> str:
    """Log in by a token that must not let in; return the reason in the log."""
    with capture_logs() as logs, pytest.raises(UnauthenticatedError) as caught:
        await gate.by_jwt(token, **given)
    assert caught.value.code == "login_refused"
    assert str(caught.value) == "the login was refused"
    assert not any(len(part) > 20 and part in repr(logs) for part in token.split("."))
    [line] = [one for one in logs if one["event"] == "a login was refused"]
    return str(line["reason"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_each_algorithm_lets_in_as_the_principal_of_the_role(lone_gate: Gate, algorithm: str) -> None:
    issuer = lone_gate.issuer(algorithm)
    role = await lone_gate.ready(issuer)

    answer = await lone_gate.by_jwt(issuer.token())

    who = await lone_gate.whoami(answer)
    assert (who.principal, who.kind, who.name) == (role.principal, "service", "deployer")
    assert answer.subject == "repo:acme/payments:ref:refs/heads/main"
    assert answer.metadata["repository"] == "acme/payments"
    assert (answer.ttl_seconds, answer.renewable, answer.again) == (900, True, False)


async def test_every_fault_of_a_claim_is_refused_alike_and_named_in_the_log(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    await lone_gate.ready(issuer)
    now = int(issuer.now)
    faults: list[tuple[dict[str, Any], str]] = [
        ({"iss": "https://issuer.example.com/"}, "issuer"),
        ({"iss": ["https://issuer.example.com"]}, "issuer"),
        ({"iss": "https://issuer.ex\u0430mple.com"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"aud": "https://other.example.com"}, "audience"),
        ({"aud": ["https://other.example.com"]}, "audience"),
        ({"aud": [AUDIENCE, 7]}, "audience"),
        ({"aud": None}, "audience"),
        ({"exp": None}, "exp_missing"),
        ({"exp": now - 31}, "expired"),
        ({"exp": now + 10 * 365 * 86_400}, "exp_too_far"),
        ({"exp": 10**400}, "exp_too_far"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": -1}, "exp"),
        ({"nbf": now + 61}, "nbf_ahead"),
        ({"iat": now + 61}, "iat_ahead"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": "repo:acme\u202epayments"}, "sub"),
        ({"sub": 7}, "sub"),
        ({"repository_id": "123456"}, "claim:repository_id"),
        ({"repository_id": None}, "claim:repository_id"),
        ({"repository_id": {"id": "12345"}}, "claim:repository_id"),
        ({"repository_id": "\uff11\uff12\uff13\uff14\uff15"}, "claim:repository_id"),
    ]
    for changed, reason in faults[:20]:
        assert await refused(lone_gate, issuer.token(**changed)) == reason, changed
    lone_gate.clock.advance(60)
    for changed, reason in faults[20:]:
        assert await refused(lone_gate, issuer.token(**changed)) == reason, changed
    assert len(lone_gate.failures.seen) == len(faults)


async def test_skew_is_forgiven_up_to_the_leeway_and_a_number_matches_as_json_writes_it(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    await lone_gate.ready(issuer)
    now = int(issuer.now)

    await lone_gate.by_jwt(issuer.token(exp=now - 25))
    await lone_gate.by_jwt(issuer.token(nbf=now + 25, repository_id=12345))
    await lone_gate.by_jwt(issuer.token(repository_id=["7", "12345"]))


async def test_no_symmetric_and_no_absent_signature_lets_in(lone_gate: Gate) -> None:
    """`alg: none`, and the public key taken for a secret: the classic ways in."""
    issuer = lone_gate.issuer("RS256")
    await lone_gate.ready(issuer)
    key = issuer.keys[issuer.current]
    assert isinstance(key, RSAKey)
    unsigned = f"{b64(json.dumps({'alg': 'none'}).encode())}.{b64(json.dumps(issuer.claims()).encode())}."

    assert await refused(lone_gate, unsigned) == "not_a_jwt"
    for name in ("none", "None", "NONE", "nOnE"):
        token = f"{b64(json.dumps({'alg': name}).encode())}.{b64(json.dumps(issuer.claims()).encode())}.AA"
        assert await refused(lone_gate, token) == "algorithm"
    for public in (key.as_pem(private=False), json.dumps(key.as_dict(private=False)).encode()):
        for name in ("HS256", "HS384"):
            header = {"alg": name, "kid": issuer.current}
            assert await refused(lone_gate, hmac_signed(public, header, issuer.claims())) == "algorithm"
        confused = hmac_signed(public, {"alg": "RS256", "kid": issuer.current}, issuer.claims())
        assert await refused(lone_gate, confused) == "signature"


async def test_a_key_is_used_for_the_algorithms_of_its_type_alone(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer("RS256")
    await lone_gate.ready(issuer)
    elliptic = new_key("ES256")

    as_rsa = signed(elliptic, {"alg": "ES256", "kid": issuer.current}, issuer.claims())
    other_use = signed(issuer.keys[issuer.current], {"alg": "PS256", "kid": issuer.current}, issuer.claims())

    assert await refused(lone_gate, as_rsa) == "no_key"
    assert await refused(lone_gate, other_use) == "no_key"


async def test_keys_that_the_header_brings_mean_nothing(lone_gate: Gate) -> None:
    """`jku`, `x5u` and `jwk` name the attacker's own keys, and a key id is a text to compare, not a path."""
    issuer = lone_gate.issuer()
    await lone_gate.ready(issuer)
    own = new_key("ES256")
    public = own.as_dict(private=False)

    for header in (
        {"jku": "https://attacker.example.com/jwks"},
        {"x5u": "https://attacker.example.com/chain"},
        {"jwk": public},
        {"x5c": ["MIIB"]},
    ):
        head = {"alg": "ES256", "kid": issuer.current} | header
        assert await refused(lone_gate, signed(own, head, issuer.claims())) == "signature"
    for kid in ("../../../../dev/null", "https://attacker.example.com/key", "' OR 1=1 --", "key-1\0", "x" * 512):
        assert await refused(lone_gate, signed(own, {"alg": "ES256", "kid": kid}, issuer.claims())) == "no_key"
    for wrong in (7, ["key-1"], "x" * 513):
        assert await refused(lone_gate, signed(own, {"alg": "ES256", "kid": wrong}, issuer.claims())) == "kid"


async def test_a_token_that_says_it_is_of_another_kind_is_refused(lone_gate: Gate) -> None:
    """An issuer signs logout tokens and security events with the same key; none of them says who somebody is."""
    issuer = lone_gate.issuer()
    await lone_gate.ready(issuer)

    for kind in ("logout+jwt", "secevent+jwt", "dpop+jwt", "application/secevent+jwt", "", 7, ["JWT"], "\uff2aWT"):
        assert await refused(lone_gate, issuer.token(header={"typ": kind})) == "typ"
    for number, good in enumerate(("JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE", None)):
        await lone_gate.by_jwt(issuer.token(header={"typ": good}, jti=str(number)))


async def test_what_is_not_exactly_a_token_is_refused(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    await lone_gate.ready(issuer)
    key, head = issuer.keys[issuer.current], {"alg": "ES256", "kid": issuer.current}
    good = issuer.token()
    claims = json.dumps(issuer.claims())
    twice = (claims[:-1] + ', "sub": "repo:other/one:ref:x"}').encode()
    deep = b'{"a":' * 40 + b"1" + b"}" * 40

    assert await refused(lone_gate, signed(key, head, twice)) == "claims"
    assert await refused(lone_gate, signed(key, head, b"[]")) == "claims"
    assert await refused(lone_gate, signed(key, head, b'{"exp": NaN}')) == "claims"
    assert await refused(lone_gate, signed(key, head, b"\xff")) == "claims"
    assert await refused(lone_gate, signed(key, head, deep)) == "claims"
    assert await refused(lone_gate, signed(key, head | {"crit": ["exp"]}, issuer.claims())) == "header"
    assert await refused(lone_gate, signed(key, head | {"b64": False}, issuer.claims())) == "header"
    for text in ("a", "a.b", f"{good}.x", good + "=", f" {good}", good + "\n", "a.b.c", "x" * 20_000):
        assert await refused(lone_gate, text) in ("not_a_jwt", "header")
    assert await refused(lone_gate, good[:-6] + ("AAAAAA" if not good.endswith("AAAAAA") else "BBBBBB")) == "signature"


async def test_a_token_of_another_key_is_refused(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    await lone_gate.ready(issuer)

    forged = signed(new_key("ES256"), {"alg": "ES256", "kid": issuer.current}, issuer.claims())

    assert await refused(lone_gate, forged) == "signature"
    assert await lone_gate.count_tokens() == 0


async def test_an_unknown_method_role_or_workspace_answers_as_a_bad_token_does(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    await lone_gate.ready(issuer)
    token = issuer.token()

    assert await refused(lone_gate, token, method="nothing") == "no_method"
    assert await refused(lone_gate, token, role="nothing") == "no_role"
    assert await refused(lone_gate, token, role="Deploy\u202e") == "no_role"


async def test_a_single_use_token_logs_in_once(gate: Gate) -> None:
    issuer = gate.issuer()
    binding = {"audiences": [AUDIENCE], "claims": {"repository_id": "12345"}, "single_use": True}
    await gate.ready(issuer, jwt=binding)
    token = issuer.token(jti="the only one")

    await gate.by_jwt(token)

    assert await refused(gate, token) == "used_before"
    again = signed(issuer.keys[issuer.current], {"alg": "ES256"}, issuer.claims(jti="the only one"))
    assert await refused(gate, again) == "used_before"
    assert await refused(gate, issuer.token(jti=None)) == "jti"
    await gate.by_jwt(issuer.token(jti="another"))


async def test_who_fails_too_often_has_to_wait_and_others_do_not(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    await lone_gate.ready(issuer)
    for _ in range(30):
        await refused(lone_gate, issuer.token(aud="x"))

    with pytest.raises(ThrottledError):
        await lone_gate.by_jwt(issuer.token())
    await lone_gate.by_jwt(issuer.token(), ip="198.51.100.1")
    lone_gate.clock.advance(5)
    await lone_gate.by_jwt(issuer.token())


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"jwt": {"audiences": [], "claims": {"sub": "x"}}}, "jwt.audiences"),
        ({"jwt": {"audiences": ["x"], "claims": {}}}, "jwt.claims"),
        ({"jwt": {"audiences": ["x"], "claims": {"sub": "a*b"}}}, "jwt.claims.sub"),
        ({"jwt": {"audiences": ["x"], "claims": {"sub": "**"}}}, "jwt.claims.sub"),
        ({}, "jwt"),
        ({"approle": {}}, "approle"),
    ],
)
async def test_a_role_that_binds_nothing_is_no_role(lone_gate: Gate, given: dict[str, Any], field: str) -> None:
    issuer = lone_gate.issuer()
    await lone_gate.ready(issuer)

    with pytest.raises(InputError) as caught:
        await lone_gate.role(name="other", **given)

    assert caught.value.field == field


async def test_patterns_match_a_beginning_and_pointers_reach_inside(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    claims = {"sub": "repo:acme/payments:*", "/kubernetes.io/namespace": ["prod", "stage"]}
    await lone_gate.ready(issuer, jwt={"audiences": [AUDIENCE], "claims": claims})

    await lone_gate.by_jwt(issuer.token(**{"kubernetes.io": {"namespace": "stage"}}))

    wrong = issuer.token(sub="repo:acme/payments-evil:ref:x", **{"kubernetes.io": {"namespace": "stage"}})
    assert await refused(lone_gate, wrong) == "claim:sub"
    assert (
        await refused(lone_gate, issuer.token(header={}, **{"kubernetes.io": "stage"}))
        == "claim:/kubernetes.io/namespace"
    )


async def test_presets_warn_of_what_names_no_workload(lone_gate: Gate) -> None:
    await lone_gate.service()
    method = await lone_gate.method("github", kind=None, preset="github-actions")
    assert method.options["issuer"] == "https://token.actions.githubusercontent.com"
    assert list(method.options["algorithms"]) == ["RS256"]

    async def warned(name: str, claims: dict[str, Any]) -> tuple[str, ...]:
        return (await lone_gate.role("github", name, jwt={"audiences": ["x"], "claims": claims})).warnings

    assert await warned("a", {"repository_id": "12345", "ref": "refs/heads/main"}) == ()
    assert "no claim names one workload" in (await warned("b", {"ref": "refs/heads/main"}))[0]
    assert "repository is a name" in (await warned("c", {"repository": "acme/x", "sub": "repo:acme/x:y"}))[0]
    assert "any text" in (await warned("d", {"sub": "*"}))[1]


async def test_a_preset_never_lends_its_keys_to_another_issuer(lone_gate: Gate) -> None:
    with pytest.raises(InputError, match="one source"):
        await lone_gate.method(kind=None, preset="github-actions", jwt={"issuer": "https://attacker.example.com"})

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from keyturn.errors import InputError, StaleError, ThrottledError
from keyturn.http.forward_auth import ForwardAuthLane
from keyturn.http.lanes import Gate
from keyturn.keys.verification import VerifyService
from keyturn.wire.verification import Code, LimitReport, VerifyResponse
from tests.http.verdicts import GATEWAY_TOKEN, KEY, LIMITED, Verdicts, denied

TOKEN = {"X-Keyturn-Token": GATEWAY_TOKEN}
BEARER = {"Authorization": f"Bearer {KEY}"}
ASKING = {**TOKEN, **BEARER}
STATUS = {
    "NOT_FOUND": 401,
    "EXPIRED": 401,
    "REVOKED": 401,
    "DISABLED": 401,
    "NOT_YET_VALID": 401,
    "FORBIDDEN": 403,
    "INSUFFICIENT_PERMISSIONS": 403,
    "RATE_LIMITED": 429,
    "USAGE_EXCEEDED": 429,
    "UNAVAILABLE": 503,
}


async def _no_router(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def asking(
    verdicts: Verdicts, *, peer: str = "192.0.2.1", trusted: str = "192.0.2.0/24", draining: bool = False
) -> AsyncIterator[httpx.AsyncClient]:
    stopping = asyncio.Event()
    if draining:
        stopping.set()
    lane: Any = ForwardAuthLane(
        cast("VerifyService", verdicts), trusted_proxies=(ipaddress.ip_network(trusted),), draining=stopping
    )
    gate: Any = Gate(_no_router, None, forward_auth=lane, draining=stopping)
    transport = httpx.ASGITransport(app=gate, client=(peer, 4711), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://keyturn.test") as client:
        yield client


@pytest.fixture
def verdicts() -> Verdicts:
    return Verdicts()


@pytest.fixture
async def client(verdicts: Verdicts) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(verdicts) as one:
        yield one


def test_every_verdict_has_its_status_here() -> None:
    assert {*STATUS, "VALID"} == set(Code)


@pytest.mark.parametrize("path", ["/auth/nginx", "/auth/traefik", "/auth/envoy/orders"])
@pytest.mark.parametrize("from_memory", [True, False])
async def test_an_admitted_key_is_an_identity(
    client: httpx.AsyncClient, verdicts: Verdicts, path: str, *, from_memory: bool
) -> None:
    verdicts.from_memory = from_memory
    for _ in range(2):
        answer = await client.get(path, headers=ASKING)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["cache-control"] == "no-store"
        told = {name: value for name, value in answer.headers.items() if name.startswith(("x-k", "x-c"))}
        told.pop("x-content-type-options")
        assert told == {
            "x-keyturn-key-id": "key_1",
            "x-keyturn-owner": "team-web",
            "x-keyturn-keyspace": "orders",
            "x-keyturn-environment": "production",
            "x-keyturn-scopes": "orders:read invoices:*",
            "x-keyturn-code": "VALID",
            "x-consumer-username": "team-web",
            "x-credential-identifier": "key_1",
        }


@pytest.mark.parametrize(("code", "status"), STATUS.items())
async def test_a_refusal_has_the_status_the_client_gets(
    client: httpx.AsyncClient, verdicts: Verdicts, code: str, status: int
) -> None:
    """Who the key belongs to is told to nobody whose key is refused."""
    verdicts.answer = denied(code)
    for path in ("/auth/traefik", "/auth/envoy/a"):
        answer = await client.get(path, headers=ASKING)
        assert answer.status_code == status
        assert answer.headers["x-keyturn-code"] == code
        assert (answer.json()["status"], answer.json()["code"]) == (status, code.lower())
        assert "team-web" not in f"{answer.headers}{answer.text}"
        assert ("www-authenticate" in answer.headers) == (status == 401 or code == "INSUFFICIENT_PERMISSIONS")


@pytest.mark.parametrize(("code", "status"), STATUS.items())
async def test_nginx_is_told_by_headers_what_it_would_not_pass_on(
    client: httpx.AsyncClient, verdicts: Verdicts, code: str, status: int
) -> None:
    verdicts.answer = denied(code)
    answer = await client.get("/auth/nginx", headers=ASKING)
    assert answer.status_code == (status if status in {401, 403} else 403)
    assert (answer.headers["x-keyturn-status"], answer.content) == (str(status), b"")
    assert f'"code":"{code.lower()}"' in answer.headers["x-keyturn-problem"]


async def test_a_limit_says_when_to_come_back(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    verdicts.answer = LIMITED
    answer = await client.get("/auth/traefik", headers=ASKING)
    assert (answer.status_code, answer.headers.get_list("retry-after")) == (429, ["13"])
    assert answer.headers["ratelimit-policy"] == '"burst";q=10;w=60, "daily";q=1000;w=86400'
    assert answer.headers["ratelimit"] == '"burst";r=0;t=13, "daily";r=7;t=300'
    assert answer.json()["violated-policies"] == ["burst"]
    for_nginx = await client.get("/auth/nginx", headers=ASKING)
    assert (for_nginx.status_code, for_nginx.headers["x-keyturn-status"]) == (403, "429")
    assert for_nginx.headers["retry-after"] == "13"


async def test_an_admitted_key_learns_how_its_limits_stand(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    for remaining in (7, 6):
        report = LimitReport(name="daily", limit=10, window_seconds=60, remaining=remaining, reset_seconds=5.0)
        verdicts.answer = VerifyResponse(valid=True, code="VALID", version_id="ver_1", limits=(report,))
        answer = await client.get("/auth/nginx", headers=ASKING)
        assert answer.headers["ratelimit"] == f'"daily";r={remaining};t=5'


async def test_an_answer_that_changes_is_encoded_anew(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    await client.get("/auth/traefik", headers=ASKING)
    verdicts.answer = VerifyResponse(valid=True, code="VALID", version_id="ver_1", owner="Zoë 100%")
    answer = await client.get("/auth/traefik", headers=ASKING)
    assert answer.headers["x-keyturn-owner"] == "Zo%C3%AB%20100%25"
    assert "x-keyturn-key-id" not in answer.headers


# --- the gateway itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Keyturn-Token": "another"}, {"X-Keyturn-Token": "two words"}, {"X-Keyturn-Token": "\xe4"}],
    ids=["none", "unknown", "junk", "not ASCII"],
)
@pytest.mark.parametrize("path", ["/auth/nginx", "/auth/traefik", "/auth/envoy/a"])
async def test_a_gateway_without_a_valid_token_admits_nobody(
    client: httpx.AsyncClient, verdicts: Verdicts, path: str, headers: dict[str, str]
) -> None:
    """It is no client's fault, so no client is told that its key is wrong."""
    sent = [(name.encode(), value.encode("latin-1")) for name, value in {**BEARER, **headers}.items()]
    answer = await client.get(path, headers=sent)
    assert answer.headers["x-keyturn-status"] == "503"
    assert answer.status_code == (403 if path == "/auth/nginx" else 503)
    assert "gateway_token" in answer.text + answer.headers.get("x-keyturn-problem", "")
    assert "www-authenticate" not in answer.headers
    assert verdicts.asked == []


async def test_a_token_in_the_query_is_not_read(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    """What stands in a URL stands in logs."""
    for name in ("token", "X-Keyturn-Token", "access_token"):
        answer = await client.get(f"/auth/traefik?{name}={GATEWAY_TOKEN}", headers=BEARER)
        assert answer.status_code == 503
    assert verdicts.asked == []


async def test_the_key_of_a_client_is_no_token_of_a_gateway(client: httpx.AsyncClient) -> None:
    """A management token that a client presents as its key proves nothing about the gateway."""
    answer = await client.get("/auth/traefik", headers={"Authorization": f"Bearer {GATEWAY_TOKEN}"})
    assert answer.status_code == 503


async def test_two_tokens_are_none(client: httpx.AsyncClient) -> None:
    sent = [("X-Keyturn-Token", GATEWAY_TOKEN), ("X-Keyturn-Token", "another"), *BEARER.items()]
    assert (await client.get("/auth/traefik", headers=sent)).status_code == 503


@pytest.mark.parametrize(
    "query",
    [
        *("unknown=1", "scopes=", "scopes=a&scopes=b", "scopes", "scopes=%ff", "keyspace=a&&", "on_unavailable=allow"),
        *("cost=-1", "cost=1.5", "cost=9999999", "header=a%0ab", "basic=yes"),
    ],
)
async def test_options_that_are_not_understood_admit_nobody(
    client: httpx.AsyncClient, verdicts: Verdicts, query: str
) -> None:
    """An option that is misspelled must not silently ask for less."""
    answer = await client.get(f"/auth/traefik?{query}", headers=ASKING)
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_options")
    by_header = await client.get("/auth/envoy/a", headers={**ASKING, "X-Keyturn-Options": query})
    assert by_header.status_code == 503
    assert verdicts.asked == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("expected a scope name at position 0"), "gateway_options"),
        (StaleError("not fresh"), "stale"),
        (ThrottledError("too many attempts", retry_after_seconds=2.0), "throttled"),
    ],
)
async def test_what_fails_is_unavailable(
    client: httpx.AsyncClient, verdicts: Verdicts, error: Exception, code: str
) -> None:
    verdicts.answer = error
    answer = await client.get("/auth/traefik", headers=ASKING)
    assert (answer.status_code, answer.json()["code"], answer.json()["status"]) == (503, code, 503)


async def test_our_own_bug_admits_nobody_and_says_nothing(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    verdicts.answer = RuntimeError("inner detail")
    answer = await client.get("/auth/traefik", headers=ASKING)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "inner detail" not in answer.text
    assert (await client.get("/auth/nginx", headers=ASKING)).status_code == 403


# --- what is asked ---------------------------------------------------------------------------------------------------


async def test_options_become_the_question(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    query = "keyspace=orders&cost=5&scopes=orders%3Aread+invoices%3Aread"
    for path, headers in ((f"/auth/nginx?{query}", {}), ("/auth/envoy/a?b=c", {"X-Keyturn-Options": query})):
        assert (await client.get(path, headers={**ASKING, **headers})).status_code == 200
        asked = verdicts.last
        assert (asked["key"], asked["keyspace"], asked["cost"]) == (KEY, "orders", 5)
        assert asked["scopes"] == "orders:read AND invoices:read"
    await client.get("/auth/nginx?scopes=a:b+OR+(c:d+and+e:f)", headers=ASKING)
    assert verdicts.last["scopes"] == "a:b OR (c:d and e:f)"


async def test_only_envoy_takes_options_from_a_header(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    """The other gateways hand on the headers of the client."""
    await client.get("/auth/traefik?keyspace=orders", headers={**ASKING, "X-Keyturn-Options": "keyspace=other"})
    assert verdicts.last["keyspace"] == "orders"


async def test_options_that_are_there_twice_admit_nobody(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    """One of the two could be the client's."""
    twice = [*ASKING.items(), ("X-Keyturn-Options", "keyspace=orders"), ("X-Keyturn-Options", "keyspace=orders")]
    answer = await client.get("/auth/envoy/a", headers=twice)
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_options")
    assert verdicts.asked == []


async def test_each_dialect_tells_the_original_request(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    original = {"X-Original-Method": "PUT", "X-Original-URI": "/a%2Fb?secret=1"}
    forwarded = {"X-Forwarded-Method": "PATCH", "X-Forwarded-Uri": "/c?secret=1"}
    both = {**ASKING, **original, **forwarded}
    await client.get("/auth/nginx", headers=both)
    assert (verdicts.last["method"], verdicts.last["path"]) == ("PUT", "/a%2Fb")
    await client.get("/auth/traefik", headers=both)
    assert (verdicts.last["method"], verdicts.last["path"]) == ("PATCH", "/c")
    await client.request("DELETE", "/auth/envoy/d%2Fe?secret=1", headers=both)
    assert (verdicts.last["method"], verdicts.last["path"]) == ("DELETE", "/d%2Fe")
    await client.get("/auth/envoy", headers=both)
    assert verdicts.last["path"] == "/"


async def test_what_is_told_twice_or_at_length_is_not_told(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    """A restriction whose input is absent denies; one of two values could be the client's."""
    twice = [*ASKING.items(), ("X-Forwarded-Uri", "/a"), ("X-Forwarded-Uri", "/b"), ("X-Forwarded-Method", "G" * 40)]
    await client.get("/auth/traefik", headers=twice)
    assert "path" not in verdicts.last
    assert "method" not in verdicts.last
    await client.get("/auth/traefik", headers={**ASKING, "X-Forwarded-Uri": "/" + "a" * 9000})
    assert "path" not in verdicts.last


async def test_origin_and_user_agent_are_those_of_the_client(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    sent = {**ASKING, "Origin": "https://app.example", "User-Agent": "a" * 2000}
    await client.get("/auth/traefik", headers=sent)
    assert (verdicts.last["origin"], verdicts.last["user_agent"]) == ("https://app.example", "a" * 1024)
    await client.get("/auth/traefik", headers={**ASKING, "Referer": "https://app.example/x"})
    assert verdicts.last["origin"] == "https://app.example/x"


@pytest.mark.parametrize(
    ("peer", "forwarded", "told"),
    [
        ("192.0.2.1", ["198.51.100.7"], "198.51.100.7"),
        ("192.0.2.1", ["203.0.113.9, 198.51.100.7, 192.0.2.5"], "198.51.100.7"),
        ("192.0.2.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("192.0.2.1", ["192.0.2.77"], "192.0.2.77"),
        ("::ffff:192.0.2.1", ["198.51.100.7"], "198.51.100.7"),
        ("192.0.2.1", [], None),
        ("192.0.2.1", ["198.51.100.7, unknown"], None),
        ("10.0.0.1", ["198.51.100.7"], None),
    ],
    ids=["one", "chain", "two headers", "listed too", "dual stack", "nobody says", "no address", "peer not listed"],
)
async def test_the_address_is_told_by_listed_proxies_only(peer: str, forwarded: list[str], told: str | None) -> None:
    """Never the address of the gateway itself, which would stand for every client."""
    verdicts = Verdicts()
    async with asking(verdicts, peer=peer) as client:
        sent = [*ASKING.items(), *(("X-Forwarded-For", one) for one in forwarded)]
        assert (await client.get("/auth/traefik", headers=sent)).status_code == 200
    assert verdicts.last.get("ip") == told
    assert verdicts.callers == [(GATEWAY_TOKEN, peer.removeprefix("::ffff:"))]


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", BEARER),
        ("", {"Authorization": f"bearer  {KEY} "}),
        ("", {"X-API-Key": KEY}),
        ("", {"X-API-Key": KEY, **_basic("somebody", "else")}),
        ("?header=X-Orders-Key", {"X-Orders-Key": KEY, **BEARER, "X-API-Key": "other"}),
        ("?header=authorization", {**BEARER, "X-API-Key": "other"}),
        ("?basic=username", _basic(KEY, "")),
        ("?basic=password", _basic("user", KEY)),
    ],
)
async def test_a_key_is_found_where_it_is_looked_for(
    client: httpx.AsyncClient, verdicts: Verdicts, query: str, headers: dict[str, str]
) -> None:
    assert (await client.get(f"/auth/traefik{query}", headers={**TOKEN, **headers})).status_code == 200
    assert verdicts.last["key"] == KEY


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", []),
        ("", [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")]),
        ("", [("Authorization", f"Bearer {KEY}"), ("X-API-Key", KEY)]),
        ("", [("X-API-Key", KEY), ("X-API-Key", "other")]),
        ("", [("X-API-Key", f"{KEY}, other")]),
        ("", [("X-API-Key", "")]),
        ("", [("X-API-Key", "a" * 513)]),
        ("", [("Authorization", "Bearer")]),
        ("", [("Authorization", KEY)]),
        ("", list(_basic(KEY, "").items())),
        ("?header=X-Orders-Key", list(BEARER.items())),
        ("?basic=username", [("Authorization", "Basic ***")]),
        ("?basic=username", [*_basic(KEY, "").items(), ("X-API-Key", KEY)]),
    ],
)
async def test_no_key_and_two_keys_are_the_same(
    client: httpx.AsyncClient, verdicts: Verdicts, query: str, headers: list[tuple[str, str]]
) -> None:
    """Gateway and application may never each read another one of two."""
    answer = await client.get(f"/auth/traefik{query}", headers=[*TOKEN.items(), *headers])
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_key")
    assert answer.headers["www-authenticate"] == 'Bearer realm="keyturn"'
    assert verdicts.asked == []


# --- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PROPFIND"])
async def test_every_method_is_answered_and_no_body_is_read(
    client: httpx.AsyncClient, verdicts: Verdicts, method: str
) -> None:
    answer = await client.request(method, "/auth/traefik", headers=ASKING, content=b"x" * 100_000)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    verdicts.answer = denied("REVOKED")
    refused = await client.request(method, "/auth/traefik", headers=ASKING)
    assert (refused.status_code, bool(refused.content)) == (401, method != "HEAD")
    assert "connection" not in refused.headers


@pytest.mark.parametrize("path", ["/auth/nginx/", "/auth/other", "/auth/", "/auth/envoyer", "/auth/traefik/x"])
async def test_other_paths_are_nobodys(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path, headers=ASKING)).status_code == 404


async def test_a_stopping_server_lets_go_of_the_gateway(verdicts: Verdicts) -> None:
    async with asking(verdicts, draining=True) as client:
        assert (await client.get("/auth/nginx", headers=ASKING)).headers["connection"] == "close"

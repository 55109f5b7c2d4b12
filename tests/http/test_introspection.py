import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from keyturn.errors import StaleError
from keyturn.http import introspection
from keyturn.http.app import create_app
from keyturn.http.edge import EdgeSettings
from keyturn.http.lanes import Gate
from keyturn.wire.verification import Code, VerifyResponse
from tests.http.verdicts import GATEWAY_TOKEN, KEY, LIMITED, Verdicts, denied

FORM = "application/x-www-form-urlencoded"
PATH = "/oauth/introspect"


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


BEARER = {"Authorization": f"Bearer {GATEWAY_TOKEN}"}


@pytest.fixture
def verdicts() -> Verdicts:
    return Verdicts()


@pytest.fixture
async def client(verdicts: Verdicts) -> AsyncIterator[httpx.AsyncClient]:
    router: Any = create_app(
        {"verification": verdicts}, EdgeSettings(), protected=[], public=list(introspection.ROUTES)
    )
    gate: Any = Gate(router, None, draining=asyncio.Event())
    transport = httpx.ASGITransport(app=gate, client=("192.0.2.1", 4711), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://keyturn.test") as one:
        yield one


async def ask(
    client: httpx.AsyncClient, body: str | bytes, headers: dict[str, str] | None = None, media: str = FORM
) -> httpx.Response:
    given = {"Content-Type": media, **(BEARER if headers is None else headers)}
    return await client.post(PATH, content=body, headers=given)


async def test_an_active_token_is_described(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    verdicts.answer = VerifyResponse(
        valid=True,
        code="VALID",
        key_id="key_1",
        version_id="ver_1",
        keyspace="orders",
        owner="team-web",
        environment="production",
        scopes=("orders:read", "invoices:*"),
        expires_at="2027-01-01T00:00:00.500Z",
        metadata={"internal": "note"},
    )
    answer = await ask(client, f"token={KEY}&token_type_hint=access_token")
    assert answer.status_code == 200
    assert answer.json() == {
        "active": True,
        "scope": "orders:read invoices:*",
        "client_id": "key_1",
        "username": "team-web",
        "token_type": "api_key",
        "exp": 1798761600,
        "sub": "team-web",
        "jti": "ver_1",
        "keyspace": "orders",
        "environment": "production",
    }
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert answer.headers["content-type"] == "application/json"
    assert verdicts.last == {"key": KEY}
    assert verdicts.callers == [(GATEWAY_TOKEN, "192.0.2.1")]


@pytest.mark.parametrize("code", sorted(set(Code) - {Code.VALID, Code.UNAVAILABLE}))
async def test_whatever_refuses_a_key_makes_it_inactive(
    client: httpx.AsyncClient, verdicts: Verdicts, code: str
) -> None:
    """Nothing more is said about a token that is not active, as RFC 7662 asks."""
    verdicts.answer = denied(code)
    answer = await ask(client, f"token={KEY}")
    assert (answer.status_code, answer.json()) == (200, {"active": False})


async def test_a_limit_says_when_to_come_back(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    verdicts.answer = LIMITED
    answer = await ask(client, f"token={KEY}")
    assert (answer.json(), answer.headers["retry-after"]) == ({"active": False}, "13")


async def test_no_verdict_is_no_answer(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    """Inactive would be a verdict."""
    for failure in (denied("UNAVAILABLE"), StaleError("not fresh")):
        verdicts.answer = failure
        answer = await ask(client, f"token={KEY}")
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "1"


async def test_an_introspection_charges_what_it_is_told_to(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    await ask(client, f"token={KEY}")
    assert verdicts.asked[-1].cost == 1
    await ask(client, f"token={KEY}&cost=0")
    assert verdicts.asked[-1].cost == 0


@pytest.mark.parametrize("headers", [BEARER, _basic("anything", GATEWAY_TOKEN), _basic("", GATEWAY_TOKEN)])
async def test_both_ways_to_authenticate(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await ask(client, f"token={KEY}", headers)).json()["active"] is True


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer another"},
        {"Authorization": "Basic ***"},
        {"Authorization": GATEWAY_TOKEN},
        _basic(GATEWAY_TOKEN, ""),
        _basic("anything", "another"),
        _basic("anything", "two words"),
    ],
)
async def test_nobody_else_learns_about_a_token(
    client: httpx.AsyncClient, verdicts: Verdicts, headers: dict[str, str]
) -> None:
    answer = await ask(client, f"token={KEY}", headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"] == 'Bearer realm="keyturn", Basic realm="keyturn"'
    assert verdicts.asked == []


async def test_credentials_in_the_form_are_not_read(client: httpx.AsyncClient) -> None:
    body = f"token={KEY}&client_id=anything&client_secret={GATEWAY_TOKEN}"
    assert (await ask(client, body, {})).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        "",
        "token=",
        "token_type_hint=access_token",
        f"token={KEY}&token={KEY}",
        f"token={KEY}&other=1&other=2",
        f"token={KEY}&%74oken=second",
        "token",
        f"token={KEY}&&",
        f"token={KEY}&=1",
        "token=%zz",
        "token=%ff",
        "token=a%00b",
        "token=a b",
        "token=" + "a" * 513,
        f"token={KEY}&cost=-1",
        f"token={KEY}&cost=many",
        "token=\xe4",
        '{"token": "a"}',
    ],
)
async def test_a_form_that_is_not_well_formed_is_refused(
    client: httpx.AsyncClient, verdicts: Verdicts, body: str
) -> None:
    """Two programs may read a sloppy form differently."""
    answer = await ask(client, body.encode("latin-1"))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert KEY not in answer.text
    assert verdicts.asked == []


@pytest.mark.parametrize("media", ["application/json", "text/plain", "", f"{FORM}; charset=latin-1"])
async def test_a_body_of_another_type_is_refused(client: httpx.AsyncClient, media: str) -> None:
    answer = await ask(client, f"token={KEY}", media=media)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_the_charset_may_be_said(client: httpx.AsyncClient) -> None:
    assert (await ask(client, f"token={KEY}", media=f"{FORM}; charset=UTF-8")).json()["active"] is True


async def test_a_body_has_a_bound(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "token=" + "a" * 20_000)
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")


async def test_a_token_is_never_read_from_the_query(client: httpx.AsyncClient, verdicts: Verdicts) -> None:
    answer = await client.get(PATH, params={"token": KEY}, headers=BEARER)
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert verdicts.asked == []

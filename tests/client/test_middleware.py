"""One contract for all frameworks: each protects the same application, before the real framework and a real server."""

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import django
import httpx
import pytest
from fastapi import Depends, FastAPI
from flask import Flask, g

from keyturn.client import AsyncKeyturn, Keyturn, Verification
from keyturn.client.middleware import asgi, wsgi
from keyturn.client.middleware import fastapi as for_fastapi
from keyturn.client.middleware import flask as for_flask
from keyturn.client.middleware.protection import Call, Protection, Question
from keyturn.errors import ConfigError
from keyturn.testing.server import RunningServer
from keyturn.wire.keys import CreateKeyspace, IssueKey
from keyturn.wire.policy import Restrictions
from keyturn.wire.refusals import Refusal
from keyturn.wire.rules import LimitInput

Get = Callable[..., httpx.Response]
PROXIES = ["10.0.0.0/8", "127.0.0.0/8"]
OPTIONS: dict[str, Any] = {"exempt": ["/health"], "trusted_proxies": PROXIES, "realm": "orders"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path_factory.mktemp("middleware") / "data") as running:
        with Keyturn(running.url, running.admin_token) as keyturn:
            keyturn.create_keyspace(CreateKeyspace(name="orders", prefix="acme", environment="development"))
        yield running


@pytest.fixture
def keyturn(server: RunningServer) -> Iterator[Keyturn]:
    with Keyturn(server.url, server.admin_token) as client:
        yield client


def new_key(keyturn: Keyturn, **more: Any) -> str:
    made = keyturn.issue(IssueKey(keyspace="orders", owner="alice", purpose="tests", **more))
    assert made.key is not None
    return made.key


# --- the same application, five times ----------------------------------------------------------------------------


def on_asgi(url: str, token: str) -> Get:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        verdict = scope.get("state", {}).get("keyturn")
        body = json.dumps({"owner": verdict.owner if verdict else None}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def build(verifier: AsyncKeyturn) -> Any:
        return asgi.KeyturnMiddleware(app, verifier, scopes="orders:read", **OPTIONS)

    return _asgi_get(build, url, token)


def on_fastapi(url: str, token: str) -> Get:
    def build(verifier: AsyncKeyturn) -> Any:
        protect = for_fastapi.Protect(verifier, scopes="orders:read", **OPTIONS)
        depends = Depends(protect)
        app = FastAPI()

        @app.get("/orders")
        async def orders(key: Verification = depends) -> dict[str, Any]:
            return {"owner": key.owner}

        @app.get("/health", dependencies=[Depends(protect)])
        async def health() -> dict[str, Any]:
            return {"owner": None}

        return app

    return _asgi_get(build, url, token)


def _asgi_get(build: Callable[[AsyncKeyturn], Any], url: str, token: str) -> Get:
    async def ask(path: str, headers: Mapping[str, str]) -> httpx.Response:
        async with AsyncKeyturn(url, token, timeout_seconds=20) as verifier:
            transport = httpx.ASGITransport(build(verifier), client=("127.0.0.1", 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
                return await client.get(path, headers=headers)

    return lambda path="/orders", **headers: asyncio.run(ask(path, _named(headers)))


def on_wsgi(url: str, token: str) -> Get:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        verdict = environ.get("keyturn.verification")
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"owner": verdict.owner if verdict else None}).encode()]

    def build(verifier: Keyturn) -> Any:
        return wsgi.KeyturnMiddleware(app, verifier, scopes="orders:read", **OPTIONS)

    return _wsgi_get(build, url, token)


def on_flask(url: str, token: str) -> Get:
    def build(verifier: Keyturn) -> Any:
        app = Flask("orders")
        protect = for_flask.Protect(verifier, **OPTIONS)
        protect.init_app(app)

        @app.get("/orders")
        @protect.requires("orders:read")
        def orders() -> dict[str, Any]:
            return {"owner": g.keyturn.owner}

        @app.get("/health")
        def health() -> dict[str, Any]:
            return {"owner": None}

        return app

    return _wsgi_get(build, url, token)


def on_django(url: str, token: str) -> Get:
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="orders_urls", SECRET_KEY="x" * 50, MIDDLEWARE=[])
        django.setup()

    def build(verifier: Keyturn) -> Any:
        from django.core.handlers.wsgi import WSGIHandler
        from django.http import HttpRequest, JsonResponse
        from django.test.utils import override_settings
        from django.urls import path

        from keyturn.client.middleware.django import requires

        @requires("orders:read", realm="orders")
        def orders(request: HttpRequest) -> Any:
            return JsonResponse({"owner": request.keyturn.owner})

        def health(_request: HttpRequest) -> Any:
            return JsonResponse({"owner": None})

        urls = types.ModuleType("orders_urls")
        urls.urlpatterns = [path("orders", orders), path("health", health)]  # type: ignore[attr-defined]
        given = {name.upper(): value for name, value in OPTIONS.items()} | {"VERIFIER": verifier}
        middleware = ["keyturn.client.middleware.django.KeyturnMiddleware"]

        def app(environ: Any, start_response: Any) -> Any:
            with override_settings(KEYTURN=given, MIDDLEWARE=middleware, ROOT_URLCONF=urls):
                return WSGIHandler()(environ, start_response)

        return app

    return _wsgi_get(build, url, token)


def _wsgi_get(build: Callable[[Keyturn], Any], url: str, token: str) -> Get:
    def get(path: str = "/orders", **headers: str) -> httpx.Response:
        with Keyturn(url, token, timeout_seconds=20) as verifier:
            transport = httpx.WSGITransport(build(verifier), remote_addr="127.0.0.1")
            with httpx.Client(transport=transport, base_url="http://app") as client:
                return client.get(path, headers=_named(headers))

    return get


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


FRAMEWORKS = [on_asgi, on_fastapi, on_wsgi, on_flask, on_django]


@pytest.fixture(params=FRAMEWORKS, ids=lambda one: one.__name__.removeprefix("on_"))
def framework(request: pytest.FixtureRequest) -> Callable[[str, str], Get]:
    chosen: Callable[[str, str], Get] = request.param
    return chosen


@pytest.fixture
def get(framework: Callable[[str, str], Get], server: RunningServer) -> Get:
    return framework(server.url, server.admin_token)


# --- the contract ------------------------------------------------------------------------------------------------


def test_an_admitted_key_reaches_the_application_with_its_verdict(get: Get, keyturn: Keyturn) -> None:
    key = new_key(keyturn, scopes=("orders:read",))
    for headers in ({"authorization": f"Bearer {key}"}, {"x_api_key": key}):
        answer = get(**headers)
        assert (answer.status_code, answer.json()) == (200, {"owner": "alice"})


def test_no_key_is_asked_for_one(get: Get) -> None:
    answer = get()
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="orders"'


def test_an_exempt_path_needs_no_key(get: Get) -> None:
    assert get("/health").json() == {"owner": None}


def test_a_wrong_key_is_challenged_and_not_repeated_to_the_caller(get: Get, keyturn: Keyturn) -> None:
    key = new_key(keyturn)
    for wrong in ("junk", key[:-1] + ("0" if key[-1] != "0" else "1"), "x" * 600):
        answer = get(authorization=f"Bearer {wrong}")
        assert answer.status_code == 401
        assert wrong not in answer.text


def test_two_keys_that_differ_are_refused(get: Get, keyturn: Keyturn) -> None:
    key = new_key(keyturn, scopes=("orders:read",))
    assert get(authorization=f"Bearer {key}", x_api_key=new_key(keyturn, scopes=("orders:read",))).status_code == 401
    assert get(authorization=f"Bearer {key}", x_api_key=key).status_code == 200


def test_a_key_without_the_scope_is_told_what_it_lacks(get: Get, keyturn: Keyturn) -> None:
    answer = get(x_api_key=new_key(keyturn))
    assert answer.status_code == 403
    assert 'error="insufficient_scope", scope="orders:read"' in answer.headers["www-authenticate"]


def test_a_revoked_key_is_refused_at_once(get: Get, keyturn: Keyturn) -> None:
    made = keyturn.issue(IssueKey(keyspace="orders", owner="alice", purpose="tests", scopes=("orders:read",)))
    assert made.key is not None
    assert get(x_api_key=made.key).status_code == 200
    keyturn.revoke(made.id)
    assert get(x_api_key=made.key).status_code == 401


def test_the_address_of_the_caller_counts_as_far_as_listed_proxies_vouch_for_it(get: Get, keyturn: Keyturn) -> None:
    key = new_key(keyturn, scopes=("orders:read",), restrictions=Restrictions(cidrs=("192.0.2.0/24",)))
    assert get(x_api_key=key, x_forwarded_for="192.0.2.7, 10.1.2.3").status_code == 200
    assert get(x_api_key=key, x_forwarded_for="192.0.2.7, 203.0.113.9").status_code == 403
    assert get(x_api_key=key).status_code == 403


def test_a_limit_refuses_with_when_to_come_back(get: Get, keyturn: Keyturn) -> None:
    limits = (LimitInput(name="burst", limit=2, window_seconds=3600),)
    key = new_key(keyturn, scopes=("orders:read",), limits=limits)
    admitted = [get(x_api_key=key) for _ in range(2)]
    assert [answer.status_code for answer in admitted] == [200, 200]
    assert admitted[0].headers["ratelimit-policy"] == '"burst";q=2;w=3600'
    refused = get(x_api_key=key)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 1000
    assert refused.headers["ratelimit"].startswith('"burst";r=0')


def test_a_server_that_cannot_be_asked_refuses_everything(
    framework: Callable[[str, str], Get], keyturn: Keyturn
) -> None:
    """There is no way through but a verdict that admits."""
    get = framework("http://127.0.0.1:9", "token")
    answer = get(x_api_key=new_key(keyturn, scopes=("orders:read",)))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def test_a_token_that_may_not_verify_refuses_everything(
    framework: Callable[[str, str], Get], server: RunningServer, keyturn: Keyturn
) -> None:
    get = framework(server.url, "kt_mgmt_nothing")
    assert get(x_api_key=new_key(keyturn, scopes=("orders:read",))).status_code == 503


# --- the core ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"scopes": "a AND"}, {"trusted_proxies": ["10.0.0.0/33"]}, {"realm": 'a"b'}, {"realm": "a\nb"}],
)
def test_a_mistake_in_the_set_up_is_found_at_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Protection(**options)


def test_an_awaited_client_is_refused_by_a_synchronous_application() -> None:
    with pytest.raises(ConfigError, match="AsyncKeyturn"):
        wsgi.KeyturnMiddleware(lambda *_: [], AsyncKeyturn("http://127.0.0.1:9", "token"))  # type: ignore[arg-type]


def test_exempt_paths_are_whole_or_begin_alike() -> None:
    protection = Protection(exempt=["/health", "/public/*"])
    exempt = {path for path in ("/health", "/healthy", "/public/a", "/public", "/") if protection.is_exempt(path)}
    assert exempt == {"/health", "/public/a"}


@pytest.mark.parametrize("header", ["Bearer  ", "Bearer a b", "Basic abc", "Bearer é", ""])
def test_what_is_no_key_is_not_asked_about(header: str) -> None:
    call = Call("GET", "/", {"authorization": header}, "127.0.0.1")
    assert isinstance(Protection().question(call), Refusal)


def test_what_is_too_long_to_tell_is_not_told() -> None:
    headers = {"x-api-key": "k", "origin": "o" * 3000, "user-agent": "u" * 2000}
    asked = Protection().question(Call("M" * 40, "/" * 9000, headers, "127.0.0.1"))
    assert isinstance(asked, Question)
    told = {name: value for name, value in asked.call.items() if value is not None}
    assert told == {"ip": "127.0.0.1", "cost": 1, "user_agent": "u" * 1024}
    assert "k" not in repr(asked).replace("keyspace", "").replace("Question", "")[:20]

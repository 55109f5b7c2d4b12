"""The shipped configurations, each run by its real program in front of a real Keyturn."""

import json
import re
import shutil
from pathlib import Path

import pytest

from keyturn.http.identity import IDENTITY_HEADERS
from keyturn.testing.waiting import eventually
from tests.gateways import programs
from tests.gateways.programs import STARTERS, absence, program
from tests.gateways.stack import EXAMPLES, Control, Gateway, running_gateway, seen, seen_headers

pytestmark = pytest.mark.slow
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "gateways.md"


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


def test_headers_that_are_large_neither_admit_nor_blame_the_key(gateway: Gateway, control: Control) -> None:
    """Some gateways take them and some do not; none hands a client what Keyturn thinks of them."""
    key, other = control.issue()["key"], control.issue(scopes=["invoices:read"])["key"]
    for size in (3_000, 12_000, 50_000):
        large = ("Cookie", "a" * size)
        assert gateway.get("/", key, large).status_code in {200, 400, 413, 431}
        assert gateway.get("/orders/1", other, large).status_code in {400, 403, 413, 431}
    assert gateway.get("/", key, ("Cookie", "a" * 3_000)).status_code == 200


def test_the_key_and_the_token_stay_at_the_gateway(gateway: Gateway, control: Control) -> None:
    """What the application does not need it cannot leak."""
    key = control.issue()["key"]
    for presented in (("Authorization", f"Bearer {key}"), ("X-API-Key", key)):
        answer = gateway.request("GET", "/", [presented])
        assert answer.status_code == 200
        assert key not in answer.text
        assert control.token not in answer.text
    assert control.token not in gateway.log()


@pytest.mark.parametrize("name", IDENTITY_HEADERS)
def test_no_client_can_say_who_it_is(gateway: Gateway, control: Control, name: str) -> None:
    """An identity that a client made up is removed, also where the answer about its key has none to put there."""
    key = control.issue()["key"]
    forged = [(name, "forged"), (name.lower(), "forged"), (name.upper(), "forged")]
    answer = gateway.get("/", key, *forged)
    assert "forged" not in answer.text
    assert ("x-keyturn-plan" in seen_headers(answer)) is False


@pytest.mark.parametrize(
    "name",
    [
        *("X_Keyturn_Owner", "x-keyturn_owner", "X_KEYTURN-KEY_ID", "X-Consumer_Username", "X.Keyturn.Owner"),
        *("x-keyturn.scopes", "X~KEYTURN~PLAN", "X!Keyturn_Code", "x-consumer.username", "X-Credential+Identifier"),
    ],
)
def test_no_client_can_say_it_in_another_spelling(gateway: Gateway, control: Control, name: str) -> None:
    """Applications behind WSGI, CGI and PHP read `_` or `.` in the name of a header as `-`."""
    answer = gateway.get("/", control.issue()["key"], (name, "forged"))
    assert answer.status_code in {200, 400, 401, 403}
    assert "forged" not in answer.text


@pytest.mark.parametrize("options", [["close", *IDENTITY_HEADERS], ["X-Keyturn-Token", "X-Keyturn-Options"]])
def test_no_client_can_take_an_identity_off(gateway: Gateway, control: Control, options: list[str]) -> None:
    """A proxy removes what `Connection` names, and could remove what was added for the application."""
    issued = control.issue(scopes=["orders:read"])
    for named in ([("Connection", ", ".join(options))], [("Connection", option) for option in options]):
        answer = gateway.get("/orders/1", issued["key"], *named)
        assert answer.status_code in {200, 400, 403}
        if answer.status_code == 200:
            found = seen_headers(answer)
            assert (found["x-keyturn-key-id"], found["x-credential-identifier"]) == ([issued["id"]], [issued["id"]])
            assert "x-" not in " ".join(found.get("connection", [])).lower()


def test_no_client_can_take_off_what_restricts_it(gateway: Gateway, control: Control) -> None:
    """Nor have the gateway ask without the address, method and path of the request."""
    elsewhere = control.issue(restrictions={"cidrs": ["198.51.100.0/24"]})["key"]
    open_only = control.issue(restrictions={"endpoints": [{"methods": ["GET"], "path": "/open/*"}]})["key"]
    named = "X-Forwarded-For, X-Forwarded-Uri, X-Forwarded-Method, X-Original-URI, X-Original-Method"
    for key in (elsewhere, open_only):
        assert gateway.get("/closed", key, ("Connection", named)).status_code in {400, 403}


@pytest.mark.parametrize("wanted", ["h2c", "websocket, h2c", "h2c, websocket"])
def test_no_upgrade_opens_a_tunnel_past_the_check(gateway: Gateway, control: Control, wanted: str) -> None:
    """Of what is sent as HTTP/2 within an upgraded connection the gateway would see the first request only."""
    upgrade = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", wanted), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]
    answer = gateway.get("/", control.issue()["key"], *upgrade)
    assert answer.status_code in {200, 400, 403}
    if answer.status_code == 200:
        assert "upgrade" not in seen_headers(answer)


def test_a_websocket_needs_a_key(gateway: Gateway, control: Control) -> None:
    handshake = [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), *handshake]
    assert gateway.get("/", None, *upgrade).status_code in {401, 403}
    assert gateway.get("/orders/1", control.issue(scopes=["other:read"])["key"], *upgrade).status_code == 403


def test_what_is_asked_is_said_by_the_configuration_alone(gateway: Gateway, control: Control) -> None:
    other = control.issue(scopes=["invoices:read"])["key"]
    for query, headers in (
        ("?keyspace=orders", []),
        ("?keyspace=orders&scopes=invoices:read", [("X-Keyturn-Options", "keyspace=orders")]),
        ("", [("X-Keyturn-Options", "keyspace=orders"), ("X_Keyturn.Options", "cost=0")]),
        ("", [("X-Keyturn-Token", control.server.admin_token), ("X-Keyturn-Options", "scopes=invoices:read")]),
    ):
        assert gateway.get(f"/orders/1{query}", other, *headers).status_code == 403


def test_a_request_without_a_key_is_challenged(gateway: Gateway) -> None:
    answer = gateway.get("/")
    assert answer.status_code == 401
    assert answer.headers.get_list("www-authenticate") == ['Bearer realm="keyturn"']
    assert answer.json()["code"] == "missing_key"
    assert answer.headers["content-type"] == "application/problem+json"


def test_two_keys_are_refused(gateway: Gateway, control: Control) -> None:
    """Gateway and application could each read another one."""
    first, second = control.issue()["key"], control.issue()["key"]
    assert gateway.get("/", first, ("X-API-Key", second)).status_code == 401
    assert gateway.request("GET", "/", [("X-API-Key", first), ("X-API-Key", second)]).status_code == 401


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


@pytest.mark.parametrize(
    "path",
    [
        *("/%6frders/1", "//orders/1", "/x/../orders/1", "/x/%2e%2e/orders/1", "/./orders/1", "/x/..%2forders/1"),
        *("/orders%2f1", "/%2Forders/1", "/x\\..\\orders/1", "/x%5c..%5corders/1", "/orders%00/1", "/x#/../orders/1"),
        *("/orders;a=b/1", "/orders%3ba=b/1", "/x/..;/orders/1", "/.;/orders/1", "/%256frders/1", "/x/%252e./orders/1"),
    ],
)
def test_no_spelling_of_a_path_gets_around_its_scope(gateway: Gateway, control: Control, path: str) -> None:
    """Gateway and application may not take one path for two."""
    other = control.issue(scopes=["invoices:read"])["key"]
    assert gateway.get(path, other).status_code in {400, 403, 404}
    site = f"http://127.0.0.1:{gateway.port}"
    assert gateway.get(f"{site}{path}", other).status_code in {400, 403, 404}


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


def test_method_and_path_are_those_of_the_client(gateway: Gateway, control: Control) -> None:
    """A client cannot say that it asked for something else."""
    key = control.issue(restrictions={"endpoints": [{"methods": ["GET"], "path": "/open/*"}]})["key"]
    lies = [
        ("X-Original-Method", "GET"),
        ("X-Original-URI", "/open/a"),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Uri", "/open/a"),
    ]
    assert gateway.get("/open/a?b=c", key).status_code == 200
    assert gateway.get("/closed", key, *lies).status_code == 403
    assert gateway.request("POST", "/open/a", [("Authorization", f"Bearer {key}"), *lies], b"").status_code == 403
    assert gateway.get("/open/../closed", key).status_code in {400, 403}


def test_the_address_is_that_of_the_client(gateway: Gateway, control: Control) -> None:
    """A client cannot say that it is elsewhere, not even from the machine of the gateway."""
    elsewhere = control.issue(restrictions={"cidrs": ["198.51.100.0/24"]})["key"]
    for source, other in (("127.0.0.1", "127.0.0.9"), ("127.0.0.9", "127.0.0.1")):
        for said in ("198.51.100.7", other):
            lies = [("X-Forwarded-For", said), ("X-Forwarded-For", said), ("X-Real-IP", said)]
            lies += [("Forwarded", f"for={said}"), ("X-Envoy-External-Address", said)]
            for network, status in ((f"{source}/32", 200), (f"{other}/32", 403), ("198.51.100.0/24", 403)):
                key = control.issue(restrictions={"cidrs": [network]})["key"]
                sent = [("Authorization", f"Bearer {key}"), *lies]
                assert gateway.request("GET", "/", sent, source=source).status_code == status
    assert gateway.get("/", elsewhere).json()["code"] == "forbidden"


def test_a_refusal_of_the_application_is_passed_on(gateway: Gateway, control: Control) -> None:
    key = control.issue()["key"]
    for status in (401, 403, 429, 500):
        answer = gateway.get("/", key, ("X-Answer", str(status)))
        assert answer.status_code == status
        assert json.loads(answer.text)["method"] == "GET"


def test_nobody_outside_asks_about_keys_through_the_gateway(gateway: Gateway, control: Control) -> None:
    """The location that nginx asks is for nginx alone; without a key no path but the protected ones is there."""
    del control
    for path in ("/_keyturn", "/auth/nginx", "/auth/traefik", "/api/v1/verify"):
        assert gateway.get(path).status_code in {401, 404}


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


def test_nothing_passes_while_the_authorizer_of_apache_is_away(control: Control, application: int) -> None:
    """Between Apache and Keyturn stands one more program."""
    if program("apache2") is None:
        pytest.skip("apache2 is not installed; .ci/run installs it")

    def start(made: Gateway) -> None:
        STARTERS["apache2"](made, control.server.port, application, control.token)

    key = control.issue()["key"]
    with running_gateway("apache2", start) as gateway:
        assert gateway.get("/", key).status_code == 200
        authorizer = gateway.children[0]
        authorizer.kill()
        authorizer.wait()
        answer = gateway.get("/", key)
        assert answer.status_code >= 500
        assert answer.headers["content-type"].startswith("text/html")


def test_the_guide_lets_browsers_ask_ahead(
    control: Control, application: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preflight is answered, and nothing else gets past the check by it."""
    if program("nginx") is None:
        pytest.skip("nginx is not installed; .ci/run installs it")
    for_server, for_location = re.findall(r"^```nginx\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    shutil.copytree(EXAMPLES / "nginx", tmp_path / "nginx")
    site = tmp_path / "nginx" / "site.conf"
    text = site.read_text().replace(
        "    include keyturn/server.conf;\n", f"    include keyturn/server.conf;\n{for_server}"
    )
    site.write_text(text.replace("    location / {\n", f"    location / {{\n{for_location}"))
    monkeypatch.setattr(programs, "EXAMPLES", tmp_path)

    def start(made: Gateway) -> None:
        programs.start_nginx(made, control.server.port, application, control.token)

    key = control.issue(limits=[{"name": "burst", "limit": 1, "window_seconds": 3600}])["key"]
    with running_gateway("nginx", start) as gateway:
        preflight = gateway.request("OPTIONS", "/", [("Origin", "https://app.example")])
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert [gateway.get("/", key).status_code for _ in range(2)] == [200, 429]
        assert gateway.get("/").status_code == 401
        assert gateway.request("OPTIONS", "/orders/1").status_code == 401


@pytest.mark.parametrize("name", sorted(STARTERS))
def test_a_gateway_with_a_wrong_token_blames_no_client(name: str, control: Control, application: int) -> None:
    """A client that is told 401 throws away a good key."""
    if (reason := absence(name)) is not None:
        pytest.skip(reason)

    def start(made: Gateway) -> None:
        STARTERS[name](made, control.server.port, application, f"{control.token[:-1]}~")

    with running_gateway(name, start) as gateway:
        answer = gateway.get("/", control.issue()["key"])
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers.get_list("retry-after") == ["1"]
        assert answer.json()["status"] == 503
        assert "www-authenticate" not in answer.headers

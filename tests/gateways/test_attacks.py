"""What a client tries against the shipped configurations, each run by its real program."""

import httpx
import pytest

from keyturn.http.identity import IDENTITY_HEADERS
from tests.gateways.stack import Control, Gateway, seen_headers

pytestmark = pytest.mark.slow


def test_headers_that_are_large_neither_admit_nor_blame_the_key(gateway: Gateway, control: Control) -> None:
    """Some gateways take them and some do not; none hands a client what Keyturn thinks of them."""
    key, other = control.issue()["key"], control.issue(scopes=["invoices:read"])["key"]
    for size in (3_000, 12_000, 50_000):
        large = ("Cookie", "a" * size)
        assert gateway.get("/", key, large).status_code in {200, 400, 413, 431}
        assert gateway.get("/orders/1", other, large).status_code in {400, 403, 413, 431}
    assert gateway.get("/", key, ("Cookie", "a" * 3_000)).status_code == 200


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


def test_no_client_can_say_it_in_a_trailer(gateway: Gateway, control: Control) -> None:
    """None arrives among the headers; HAProxy alone hands on the trailer itself, as the guide says."""
    sent = [("Transfer-Encoding", "chunked"), ("Trailer", "X-Keyturn-Owner")]
    key = ("Authorization", f"Bearer {control.issue(owner='team-web')['key']}")
    body = b"2\r\nhi\r\n0\r\nX-Keyturn-Owner: forged\r\nX-Keyturn-Plan: forged\r\n\r\n"
    answer = gateway.request("POST", "/", [key, *sent], body)
    found = seen_headers(answer)
    assert (found["x-keyturn-owner"], "x-keyturn-plan" in found) == (["team-web"], False)
    assert ("forged" in answer.text) is (gateway.name == "haproxy")


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


def test_http_2_is_checked_as_http_1_is(gateway: Gateway, control: Control) -> None:
    issued = control.issue(scopes=["invoices:read"])
    bearer = ("Authorization", f"Bearer {issued['key']}")
    if gateway.name in {"apache2", "nginx"}:
        with pytest.raises(httpx.TransportError):
            gateway.over_http2("/", bearer)
        return
    assert gateway.over_http2("/").status_code == 401
    for path in ("/orders/1", "/x/../orders/1", "//orders/1", "/%6frders/1", "/orders;a=b/1"):
        assert gateway.over_http2(path, bearer, ("X-Keyturn-Options", "keyspace=orders")).status_code in {400, 403}
    forged = [("X-Keyturn-Owner", "forged"), ("X-Keyturn-Plan", "forged"), ("X.Keyturn.Owner", "forged")]
    answer = gateway.over_http2("/", bearer, *forged)
    assert seen_headers(answer)["x-keyturn-key-id"] == [issued["id"]]
    assert "forged" not in answer.text


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


def test_two_keys_are_refused(gateway: Gateway, control: Control) -> None:
    """Gateway and application could each read another one."""
    first, second = control.issue()["key"], control.issue()["key"]
    assert gateway.get("/", first, ("X-API-Key", second)).status_code == 401
    assert gateway.request("GET", "/", [("X-API-Key", first), ("X-API-Key", second)]).status_code == 401


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
    gateway_itself, another, elsewhere = "127.0.0.1", "127.0.0.9", "198.51.100.7"
    keys = {
        address: control.issue(restrictions={"cidrs": [f"{address}/32"]})["key"]
        for address in (gateway_itself, another, elsewhere)
    }
    for source, other in ((gateway_itself, another), (another, gateway_itself)):
        for said in (elsewhere, other):
            lies = [("X-Forwarded-For", said), ("X-Forwarded-For", said), ("X-Real-IP", said)]
            lies += [("Forwarded", f"for={said}"), ("X-Envoy-External-Address", said)]
            for address, key in keys.items():
                answer = gateway.request("GET", "/", [("Authorization", f"Bearer {key}"), *lies], source=source)
                assert answer.status_code == (200 if address == source else 403)
    assert gateway.get("/", keys[elsewhere]).json()["code"] == "forbidden"


def test_nobody_outside_asks_about_keys_through_the_gateway(gateway: Gateway, control: Control) -> None:
    """The location that nginx asks is for nginx alone; without a key no path but the protected ones is there."""
    del control
    for path in ("/_keyturn", "/auth/nginx", "/auth/traefik", "/api/v1/verify"):
        assert gateway.get(path).status_code in {401, 404}

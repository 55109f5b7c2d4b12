"""The surface as bytes: what other clients than `hvac` send, headers, refusals, metrics."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from keyturn.testing.server import RunningServer

DENIED = {"errors": ["permission denied"]}


@pytest.mark.parametrize(
    "target",
    [
        "/v1/secret/data/a%2Fb",
        "/v1/secret/data/%2e%2e/%2e%2e/sys/health",
        "/v1/secret//data/b",
        "/v1/secret/data/a%00b",
        "/v1/secret/data/a%zz",
        "/v1/secret/data/%FF",
        "/v1/secret/data/a?version=-1",
        "/v1/secret/data/a?version=two",
        "/v1/secret/data/a?list=maybe",
        "/v1/secret/data/p%D0%B0yments",
    ],
)
def test_a_target_that_is_not_plain_is_refused(raw: httpx.Client, target: str) -> None:
    answer = raw.request("GET", httpx.URL(raw.base_url.join("/").copy_with(raw_path=target.encode())))
    assert answer.status_code == 400
    assert list(answer.json()) == ["errors"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"', b"\xff", b'{"data":{"a":"\\u0000"}}', b"[" * 5000])
def test_a_body_that_cannot_be_read_is_a_bad_request(raw: httpx.Client, body: bytes) -> None:
    answer = raw.put("/v1/secret/data/surface/a", content=body)
    assert answer.status_code == 400
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": None},
        {"data": "text"},
        {"data": {"": 1}},
        {"data": {"a": 1}, "options": {"cas": "x"}},
        {"data": {"a": 1}, "options": {"cas": -1}},
        {"data": {"a": 1}, "options": {"cas": True}},
        {"data": {"a": 1}, "options": []},
        {"data": {str(n): n for n in range(600)}},
    ],
)
def test_a_write_that_is_none_is_refused(raw: httpx.Client, body: dict[str, Any]) -> None:
    answer = raw.post("/v1/secret/data/surface/a", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"]
    assert raw.get("/v1/secret/data/surface/a").status_code == 404


def test_a_body_that_is_too_large_is_refused_before_it_is_kept(raw: httpx.Client, server: RunningServer) -> None:
    big = raw.post("/v1/secret/data/surface/big", json={"data": {"a": "x" * 1_100_000}})
    assert big.status_code == 413
    assert raw.post("/v1/secret/data/surface/big", content=b"x" * 5_000_000).status_code == 413
    # Without a token much less is read.
    stranger = httpx.post(f"{server.url}/v1/auth/approle/login", content=b'{"role_id":"' + b"x" * 70_000, timeout=120)
    assert stranger.status_code == 413


def test_what_a_path_does_not_have_is_405_and_what_is_not_there_is_404(raw: httpx.Client) -> None:
    answer = raw.delete("/v1/sys/seal-status")
    assert (answer.status_code, answer.json()) == (405, {"errors": ["unsupported operation"]})
    assert answer.headers["allow"] == "GET, HEAD"
    assert raw.request("SCAN", "/v1/secret/metadata/a").status_code == 405
    assert raw.options("/v1/secret/data/a").status_code == 405
    for path in ("/v1/", "/v1/sys/policies/acl/x", "/v1/transit/encrypt/x", "/v1/secret/plain"):
        answer = raw.get(path)
        assert answer.status_code == 404
        assert "no handler for route" in answer.json()["errors"][0]


def test_every_answer_has_the_headers_of_the_interface(raw: httpx.Client) -> None:
    for path, status in (("/v1/sys/health", 200), ("/v1/secret/data/surface/nothing", 404), ("/v1/nothing", 404)):
        answer = raw.get(path, headers={"X-Request-Id": "req-of-mine"})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == "req-of-mine"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    head = raw.head("/v1/sys/health")
    assert (head.status_code, head.content) == (200, b"")
    nothing = raw.delete("/v1/secret/data/surface/nothing")
    assert (nothing.status_code, nothing.content) == (204, b"")


def test_post_and_put_are_alike_and_a_patch_says_what_it_is(raw: httpx.Client) -> None:
    for number, method in enumerate(("POST", "PUT"), 1):
        body = {"data": {"a": number, "b": {"c": 1, "d": 2}}}
        answer = raw.request(method, "/v1/secret/data/surface/alike", json=body)
        assert answer.json()["data"]["version"] == number
    merge = {"Content-Type": "application/merge-patch+json"}
    change = b'{"data":{"a":null,"b":{"c":3,"d":null}},"options":{"cas":2}}'
    assert raw.patch("/v1/secret/data/surface/alike", content=change).status_code == 415
    patched = raw.patch("/v1/secret/data/surface/alike", content=change, headers=merge)
    assert patched.json()["data"]["version"] == 3
    assert raw.get("/v1/secret/data/surface/alike").json()["data"]["data"] == {"b": {"c": 3}}
    stale = raw.patch("/v1/secret/data/surface/alike", content=change, headers=merge)
    assert stale.json() == {"errors": ["check-and-set parameter did not match the current version"]}
    absent = raw.patch("/v1/secret/data/surface/nothing", content=b'{"data":{"a":1}}', headers=merge)
    assert (absent.status_code, absent.json()) == (404, {"errors": []})


def test_custom_metadata_is_merged_by_a_patch(raw: httpx.Client) -> None:
    path = "/v1/secret/metadata/surface/told"
    merge = {"Content-Type": "application/merge-patch+json"}
    assert raw.post(path, json={"custom_metadata": {"a": "1", "b": "2"}}).status_code == 204
    change = b'{"custom_metadata":{"a":null,"c":"3"}}'
    assert raw.patch(path, content=change, headers=merge).status_code == 204
    shown = raw.get(path).json()["data"]
    assert shown["custom_metadata"] == {"b": "2", "c": "3"}
    assert (shown["current_version"], shown["versions"]) == (0, {})
    assert raw.get("/v1/secret/data/surface/told").json() == {"errors": []}
    bad = raw.post(path, json={"custom_metadata": {"a": "x" * 600}})
    assert bad.status_code == 400
    assert "custom_metadata validation failed" in bad.json()["errors"][0]


def test_the_names_of_fields_are_told_without_their_values(raw: httpx.Client) -> None:
    raw.post("/v1/secret/data/surface/keys", json={"data": {"user": "u", "password": "p"}})
    told = raw.get("/v1/secret/subkeys/surface/keys").json()["data"]
    assert told["subkeys"] == {"password": None, "user": None}
    assert told["metadata"]["version"] == 1
    raw.delete("/v1/secret/data/surface/keys")
    gone = raw.get("/v1/secret/subkeys/surface/keys")
    assert (gone.status_code, gone.json()["data"]["subkeys"]) == (404, None)


def test_without_a_token_everything_but_the_open_routes_is_denied(server: RunningServer) -> None:
    for method, path in (
        ("GET", "/v1/secret/data/a"),
        ("PUT", "/v1/secret/data/a"),
        ("GET", "/v1/production/data/a"),
        ("LIST", "/v1/secret/metadata/"),
        ("GET", "/v1/sys/mounts"),
        ("GET", "/v1/sys/internal/ui/mounts/secret/a"),
        ("POST", "/v1/sys/capabilities-self"),
        ("GET", "/v1/secret/config"),
    ):
        for headers in ({}, {"X-Vault-Token": "hvs.nothing"}):
            answer = httpx.request(
                method, server.url + path, json={"paths": ["a"], "data": {}}, headers=headers, timeout=120
            )
            assert (answer.status_code, answer.json()) == (403, DENIED), (method, path)


def test_requests_are_counted_by_route_and_never_by_path(raw: httpx.Client, server: RunningServer) -> None:
    raw.get("/v1/secret/data/surface/counted-path")
    text = httpx.get(f"{server.url}/metrics", timeout=120).text
    assert 'method="GET",route="/v1/{mount}/data/{path}",status="404"' in text
    assert "counted-path" not in text


def test_the_document_of_the_native_interface_does_not_list_it(server: RunningServer) -> None:
    paths = httpx.get(f"{server.url}/api/v1/openapi.json", timeout=120).json()["paths"]
    assert not [path for path in paths if path.startswith("/v1/")]


def test_every_read_is_on_record_before_the_value_leaves(raw: httpx.Client, native: Callable[..., Any]) -> None:
    raw.post("/v1/secret/data/surface/logged", json={"data": {"token": "very-" + "private"}})
    raw.get("/v1/secret/data/surface/logged", headers={"X-Request-Id": "read-1"})
    leaves = native("GET", "/audit?limit=200&action=secret.reveal")["items"]
    found = [leaf for leaf in leaves if leaf["request_id"] == "read-1"]
    assert [leaf["resource"] for leaf in found] == ["secret/production/surface/logged"]
    assert "very-private" not in str(native("GET", "/audit?limit=200"))


def test_no_value_and_no_token_is_in_the_log(raw: httpx.Client, server: RunningServer) -> None:
    raw.post("/v1/secret/data/surface/quiet", json={"data": {"a": "never-" + "logged"}, "options": {"cas": "zzz"}})
    raw.put("/v1/secret/data/surface/quiet", content=b'{"data": {"a": "never-' + b'logged"')
    raw.get("/v1/secret/data/surface/quiet", headers={"X-Vault-Token": "hvs." + "a-stolen-one"})
    logs = server.logs()
    assert "never-logged" not in logs
    assert "a-stolen-one" not in logs

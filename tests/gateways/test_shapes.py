"""Traefik, Caddy and Envoy: requests in the form their documentation gives, to a real Keyturn; and their examples."""

import contextlib
import http.client
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.http.gateway_options import parse_options
from keyturn.http.identity import IDENTITY_HEADERS
from tests.gateways.stack import EXAMPLES, Control

SHAPES = sorted((Path(__file__).parent / "shapes").glob("*.json"))
FILES = {"traefik": "traefik/dynamic.yml", "caddy": "caddy/Caddyfile", "envoy": "envoy/envoy.yaml"}


def _ask(control: Control, shape: Path, key: str) -> httpx.Response:
    request = json.loads(shape.read_text())["request"]
    connection = http.client.HTTPConnection("127.0.0.1", control.server.port, timeout=120)
    with contextlib.closing(connection):
        connection.putrequest(request["method"], request["target"], skip_host=True, skip_accept_encoding=True)
        for name, value in request["headers"]:
            connection.putheader(name, value.format(key=key, token=control.token))
        connection.endheaders()
        answer = connection.getresponse()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=lambda path: path.stem)
def test_each_recorded_request_is_understood(control: Control, shape: Path) -> None:
    """Method, path and address of the client come from where that gateway puts them."""
    right = control.issue(
        scopes=["orders:read"],
        restrictions={"cidrs": ["198.51.100.0/24"], "endpoints": [{"methods": ["POST"], "path": "/orders/*"}]},
    )
    answer = _ask(control, shape, right["key"])
    assert (answer.status_code, answer.headers["x-keyturn-key-id"]) == (200, right["id"])
    refused = {
        401: "no-such-key",
        403: control.issue(scopes=["orders:read"], restrictions={"cidrs": ["203.0.113.0/24"]})["key"],
    }
    for status, key in refused.items():
        answer = _ask(control, shape, key)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    elsewhere = control.issue(
        scopes=["orders:read"], restrictions={"endpoints": [{"methods": ["GET"], "path": "/orders/*"}]}
    )
    assert _ask(control, shape, elsewhere["key"]).status_code == 403
    assert _ask(control, shape, control.issue(scopes=["other:read"])["key"]).status_code == 403


@pytest.mark.parametrize("gateway", sorted(FILES))
def test_each_example_names_every_identity_header(gateway: str) -> None:
    """A header that is not removed is one that a client can make up."""
    text = (EXAMPLES / FILES[gateway]).read_text().lower()
    times = {"traefik": 2, "caddy": 1, "envoy": 1}[gateway]
    assert {name: text.count(name.lower()) >= times for name in IDENTITY_HEADERS} == dict.fromkeys(
        IDENTITY_HEADERS, True
    )


@pytest.mark.parametrize("gateway", sorted(FILES))
def test_each_example_asks_with_options_that_are_understood(gateway: str) -> None:
    written = re.findall(r"keyspace=orders[^\"\s]*", (EXAMPLES / FILES[gateway]).read_text())
    assert written
    assert {parse_options(found.encode()).keyspace for found in written} == {"orders"}


@pytest.mark.parametrize("name", ["traefik/dynamic.yml", "envoy/envoy.yaml"])
def test_the_examples_in_yaml_are_well_formed(name: str) -> None:
    yaml: Any = pytest.importorskip("yaml")
    document = yaml.safe_load((EXAMPLES / name).read_text())
    assert document


def test_envoy_fails_closed() -> None:
    text = (EXAMPLES / "envoy" / "envoy.yaml").read_text()
    assert "failure_mode_allow: false" in text
    assert "status_on_error: { code: ServiceUnavailable }" in text

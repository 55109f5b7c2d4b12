"""The shipped configurations as they are changed or broken where they run: a proxy in front, a wrong token."""

import re
import shutil
from pathlib import Path

import pytest

from tests.gateways import programs
from tests.gateways.programs import STARTERS, absence, program
from tests.gateways.stack import EXAMPLES, Control, Gateway, running_gateway

pytestmark = pytest.mark.slow
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "gateways.md"


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


_BEHIND_ANOTHER_PROXY = {
    "envoy": [("envoy.yaml", "use_remote_address: true", "use_remote_address: true\n{indent}xff_num_trusted_hops: 1")],
    "nginx": [
        (
            "site.conf",
            "include keyturn/server.conf;",
            "include keyturn/server.conf;\n{indent}set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;",
        ),
    ],
    "traefik": [
        ("dynamic.yml", "trustForwardHeader: false", "trustForwardHeader: true"),
        (
            "traefik.yml",
            'address: "127.0.0.1:8000"',
            'address: "127.0.0.1:8000"\n{indent}forwardedHeaders: {{ trustedIPs: ["127.0.0.1/32"] }}',
        ),
    ],
}


@pytest.mark.parametrize("name", sorted(_BEHIND_ANOTHER_PROXY))
def test_behind_another_proxy_the_address_is_what_that_one_says(
    name: str, control: Control, application: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else is: not the method or the path, which the proxy may hand on as the client made them up."""
    if (reason := absence(name)) is not None:
        pytest.skip(reason)
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    for file, old, new in _BEHIND_ANOTHER_PROXY[name]:
        path = tmp_path / name / file
        text = path.read_text()
        (indent, *_) = re.findall(rf"^( *){re.escape(old)}", text, re.MULTILINE)
        path.write_text(text.replace(old, new.format(indent=indent)))
    monkeypatch.setattr(programs, "EXAMPLES", tmp_path)

    def start(made: Gateway) -> None:
        STARTERS[name](made, control.server.port, application, control.token)

    endpoints = [{"methods": ["GET"], "path": "/open/*"}]
    key = control.issue(restrictions={"cidrs": ["203.0.113.7/32"], "endpoints": endpoints})["key"]
    said, lies = ("X-Forwarded-For", "203.0.113.7"), [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/open/a")]
    with running_gateway(name, start) as gateway:
        assert gateway.get("/open/a", key, said).status_code == 200
        assert gateway.get("/open/a", key, ("X-Forwarded-For", "203.0.113.8")).status_code == 403
        assert gateway.get("/closed", key, said, *lies).status_code == 403
        headers = [("Authorization", f"Bearer {key}"), said, *lies]
        assert gateway.request("POST", "/open/a", headers, b"").status_code == 403


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

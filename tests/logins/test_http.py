"""Logins on a running server: from the outside, by HTTP and by the command line."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from keyturn.testing.server import RunningServer
from tests.logins.issuer import AUDIENCE, Issuer
from tests.logins.test_certificates import HEADER, Authority

pytestmark = pytest.mark.slow


class Client:
    """Requests to one server."""

    def __init__(self, server: RunningServer, token: str | None = None) -> None:
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._url = f"{server.url}/api/v1"

    def post(self, path: str, body: Any = None, *, status: int = 201, headers: dict[str, str] | None = None) -> Any:
        held = {**self._headers, **(headers or {})}
        answer = httpx.post(self._url + path, json=body or {}, headers=held, timeout=120)
        assert answer.status_code == status, answer.text
        return answer.json()

    def patch(self, path: str, body: Any) -> Any:
        answer = httpx.patch(self._url + path, json=body, headers=self._headers, timeout=120)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str, *, status: int = 200) -> Any:
        answer = httpx.get(self._url + path, headers=self._headers, timeout=120)
        assert answer.status_code == status, answer.text
        return answer.json()


def opened(server: RunningServer, issuer: Issuer) -> Client:
    """Make a service that may verify keys, a method and a role."""
    admin = Client(server, server.admin_token)
    made = admin.post("/principals", {"kind": "service", "name": "deployer"})
    admin.post("/grants", {"principal": made["id"], "actions": ["key.verify"], "resource": "key/*"})
    admin.post("/login-methods", {"name": "ci", "kind": "jwt", "jwt": {"issuer": issuer.url, "jwks": issuer.key_set()}})
    binding = {"audiences": [AUDIENCE], "claims": {"repository_id": "12345"}}
    admin.post("/login-methods/ci/roles", {"name": "deploy", "principal": "deployer", "jwt": binding})
    return admin


def test_a_login_token_verifies_keys_until_the_very_commit_that_ends_it(
    start_server: Callable[..., RunningServer], server_database_url: str | None
) -> None:
    """Verification answers from memory, and a login token is never answered for from memory."""
    issuer = Issuer(time.time())
    server = start_server(server_database_url)
    admin = opened(server, issuer)
    admin.post("/keyspaces", {"name": "orders", "prefix": "acme", "environment": "production"})
    key = admin.post("/keys", {"keyspace": "orders", "owner": "team", "purpose": "tests"})["key"]
    asked = {"method": "ci", "role": "deploy", "jwt": issuer.token()}
    first = Client(server).post("/login", asked, status=200)
    job = Client(server, first["token"])

    for _ in range(20):
        assert job.post("/verify", {"key": key}, status=200)["code"] == "VALID"
    assert job.get("/login-tokens/self")["id"] == first["token_id"]
    admin.post(f"/login-tokens/{first['token_id']}/revoke", status=200)
    for _ in range(5):
        job.post("/verify", {"key": key}, status=401)

    second = Client(server).post("/login", asked, status=200)
    assert second["token_id"] != first["token_id"]
    job = Client(server, second["token"])
    assert job.post("/verify", {"key": key}, status=200)["code"] == "VALID"
    admin.patch("/login-methods/ci", {"state": "disabled"})
    job.post("/verify", {"key": key}, status=401)
    job.get("/whoami", status=401)


def test_the_log_says_why_and_the_answer_and_the_log_hold_no_secret(start_server: Callable[..., RunningServer]) -> None:
    issuer = Issuer(time.time())
    server = start_server()
    opened(server, issuer)
    bad, good = issuer.token(aud="somebody else"), issuer.token()

    answer = Client(server).post("/login", {"method": "ci", "role": "deploy", "jwt": bad}, status=401)
    unknown = Client(server).post("/login", {"method": "ci", "role": "nothing", "jwt": good}, status=401)
    admitted = Client(server).post("/login", {"method": "ci", "role": "deploy", "jwt": good}, status=200)
    malformed = Client(server).post("/login", {"method": "ci", "role": "deploy", "jwt": good, "x": 1}, status=400)

    without = [{name: value for name, value in one.items() if name != "instance"} for one in (answer, unknown)]
    assert without[0] == without[1]
    assert answer["code"] == "login_refused"
    logs = server.logs()
    assert '"reason": "audience"' in logs
    assert answer["instance"].rpartition(":")[2] in logs
    for secret in (bad, good, admitted["token"]):
        assert secret not in logs
        assert secret not in json.dumps([answer, unknown, malformed])


def test_a_certificate_comes_from_a_listed_proxy_alone(start_server: Callable[..., RunningServer]) -> None:
    authority = Authority()
    body = {
        "methods": {"name": "mtls", "kind": "certificate", "certificate": {"ca_pem": authority.pem}},
        "role": {"name": "deploy", "principal": "deployer", "certificate": {"subjects": ["payments"]}},
    }
    headers = {HEADER: quote(authority.issue(days=4000))}
    asked = {"method": "mtls", "role": "deploy"}
    for proxies, status in (("127.0.0.1/32", 200), ("198.51.100.0/24", 401), ("", 401)):
        server = start_server(env={"KEYTURN_TRUSTED_PROXIES": proxies})
        admin = Client(server, server.admin_token)
        admin.post("/principals", {"kind": "service", "name": "deployer"})
        admin.post("/login-methods", body["methods"])
        admin.post("/login-methods/mtls/roles", body["role"])
        Client(server).post("/login", asked, status=status, headers=headers)
        server.stop()


def test_everything_about_an_approle_by_http(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    admin = Client(server, server.admin_token)
    admin.post("/principals", {"kind": "service", "name": "deployer"})
    admin.post("/login-methods", {"name": "approle", "kind": "approle"})
    role = admin.post("/login-methods/approle/roles", {"name": "app", "principal": "deployer"})
    path = "/login-methods/approle/roles/app/secret-ids"
    wrapped = admin.post(f"{path}/wrapped", {"wrap_ttl_seconds": 600})
    held = Client(server).post("/wraps/open", {"token": wrapped["token"]}, status=200)["data"]
    Client(server).post("/wraps/open", {"token": wrapped["token"]}, status=410)

    asked = {"method": "approle", "role_id": role["role_id"], "secret_id": held["secret_id"]}
    answer = Client(server).post("/login", asked, status=200)
    job = Client(server, answer["token"])

    assert job.get("/whoami")["name"] == "deployer"
    assert admin.post(f"{path}/lookup", {"secret_id": held["secret_id"]}, status=200)["id"] == held["id"]
    assert admin.get(f"{path}/{held['id']}")["last_used_at"] is not None
    assert job.post("/login-tokens/self/renew", {"ttl_seconds": 60}, status=200)["ttl_seconds"] == 60
    job.post("/login-tokens", {}, status=403)
    admin.post(f"{path}/{held['id']}/revoke", status=200)
    Client(server).post("/login", asked, status=401)
    job.post("/login-tokens/self/revoke", status=200)
    job.get("/whoami", status=401)
    admin.post("/login-methods/approle/delete", status=200)
    assert admin.get("/login-methods")["items"] == []


def _run(server: RunningServer, home: Path, *argv: str, given: str = "", token: bool = True) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    environment |= {"KEYTURN_URL": server.url, "HOME": str(home)}
    if token:
        environment["KEYTURN_TOKEN"] = server.admin_token
    done = subprocess.run(
        [sys.executable, "-m", "keyturn", *argv],
        input=given,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_workload_logs_in_by_the_command_line(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    issuer = Issuer(time.time())
    server = start_server()
    opened(server, issuer)

    login = ("login", "--method", "ci", "--role", "deploy", "--jwt-file", "-", "--json")
    saved = json.loads(_run(server, tmp_path, *login, given=issuer.token() + "\n", token=False))
    shown = json.loads(_run(server, tmp_path, "login-tokens", "show", "--json", token=False))
    _run(server, tmp_path, *login, "--token-file", str(tmp_path / "token"), given=issuer.token(), token=False)

    assert saved["profile"] == "default"
    assert "token" not in saved
    assert shown["id"] == saved["token_id"]
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    listed = _run(server, tmp_path, "login-tokens", "list")
    assert "repo:acme/payments" in listed
    warned = ("login-roles", "create", "ci", "weak", "--principal", "deployer", "--audience", "x", "--claim", "sub=*")
    assert "any text" in _run(server, tmp_path, *warned)
    assert "ci" in _run(server, tmp_path, "login-methods", "list")


@pytest.mark.postgres
def test_many_logins_at_once_on_two_nodes_take_exactly_the_uses(
    start_server: Callable[..., RunningServer], migrated_postgres_url: str, tmp_path: Path
) -> None:
    """Two servers on one database, many clients: a secret-id for seven logins lets seven in."""
    one = start_server(migrated_postgres_url, data_dir=tmp_path / "one")
    other = start_server(migrated_postgres_url, data_dir=tmp_path / "one-too", env=_same_root_key(tmp_path / "one"))
    admin = Client(one, one.admin_token)
    admin.post("/principals", {"kind": "service", "name": "deployer"})
    admin.post("/login-methods", {"name": "approle", "kind": "approle"})
    role = admin.post("/login-methods/approle/roles", {"name": "app", "principal": "deployer"})
    secret = admin.post("/login-methods/approle/roles/app/secret-ids", {"uses": 7})
    asked = {"method": "approle", "role_id": role["role_id"], "secret_id": secret["secret_id"]}

    async def all_at_once() -> list[int]:
        async with httpx.AsyncClient(timeout=120) as client:
            places = [f"{server.url}/api/v1/login" for server in (one, other) for _ in range(12)]
            answers = await asyncio.gather(*(client.post(place, json=asked) for place in places))
            return [answer.status_code for answer in answers]

    statuses = asyncio.run(all_at_once())

    assert sorted(statuses) == [200] * 7 + [401] * 17


@pytest.mark.postgres
def test_one_assertion_logs_in_once_and_a_cap_holds_on_two_nodes(
    start_server: Callable[..., RunningServer], migrated_postgres_url: str, tmp_path: Path
) -> None:
    """A stolen single-use token sent to both servers at once lets one in; so many tokens and no more are live."""
    one = start_server(migrated_postgres_url, data_dir=tmp_path / "one")
    other = start_server(migrated_postgres_url, data_dir=tmp_path / "one-too", env=_same_root_key(tmp_path / "one"))
    issuer = Issuer(time.time())
    admin = opened(one, issuer)
    binding = {"audiences": [AUDIENCE], "claims": {"repository_id": "12345"}}
    once = {"name": "once", "principal": "deployer", "jwt": binding | {"single_use": True}}
    admin.post("/login-methods/ci/roles", once)
    admin.post("/login-methods/ci/roles", {"name": "few", "principal": "deployer", "jwt": binding, "tokens_max": 3})
    token = issuer.token()

    async def all_at_once(role: str, tokens: list[str]) -> list[int]:
        async with httpx.AsyncClient(timeout=120) as client:
            asked = [{"method": "ci", "role": role, "jwt": one} for one in tokens]
            places = [f"{server.url}/api/v1/login" for server in (one, other)]
            sent = (client.post(places[n % 2], json=body) for n, body in enumerate(asked))
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    assert sorted(asyncio.run(all_at_once("once", [token] * 12))) == [200] + [401] * 11
    different = [issuer.token(jti=f"few-{number}") for number in range(12)]
    assert sorted(asyncio.run(all_at_once("few", different))) == [200] * 3 + [409] * 9


def test_a_network_is_what_the_connection_says_unless_a_listed_proxy_speaks(
    start_server: Callable[..., RunningServer],
) -> None:
    """A client names itself whatever it likes in X-Forwarded-For: it counts from a listed proxy alone."""
    issuer = Issuer(time.time())
    binding = {"audiences": [AUDIENCE], "claims": {"repository_id": "12345"}}
    office = {"name": "office", "principal": "deployer", "jwt": binding, "cidrs": ["203.0.113.0/24"]}
    asked = {"method": "ci", "role": "office", "jwt": issuer.token()}
    for proxies, status in (("", 401), ("127.0.0.1/32", 200)):
        server = start_server(env={"KEYTURN_TRUSTED_PROXIES": proxies})
        opened(server, issuer).post("/login-methods/ci/roles", office)
        said = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Real-IP": "203.0.113.9"}
        one = {"X-Forwarded-For": "203.0.113.9"}
        Client(server).post("/login", asked, status=status, headers=said if status == 401 else one)
        Client(server).post("/login", asked, status=401, headers={"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})
        Client(server).post("/login", asked, status=401)
        server.stop()


def test_a_flood_of_failures_writes_nothing_and_is_slowed_down(start_server: Callable[..., RunningServer]) -> None:
    """Whoever has no credential moves neither the log nor the database, and memory stays within bounds."""
    server = start_server()
    issuer = Issuer(time.time())
    admin = opened(server, issuer)
    forged = issuer.token(aud="somebody else")

    async def flood() -> list[int]:
        async with httpx.AsyncClient(timeout=120) as client:
            asked = ({"method": "ci", "role": f"role-{number}", "jwt": forged} for number in range(400))
            sent = (client.post(f"{server.url}/api/v1/login", json=body) for body in asked)
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    statuses = asyncio.run(flood())

    assert set(statuses) <= {401, 429}
    assert 429 in statuses
    assert [leaf for leaf in admin.get("/audit?limit=200")["items"] if leaf["action"] == "auth.login"] == []


def _same_root_key(folder: Path) -> dict[str, str]:
    return {"KEYTURN_KEK_PATH": str(folder / "kek")}

"""Leases over HTTP and on the command line, with a real server and a real PostgreSQL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from keyturn.cli.main import cli
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer
from tests.faults.system import API, client_of

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(
        tmp_path_factory.mktemp("leases") / "data", env={"KEYTURN_SOURCE_ALLOW": "127.0.0.1/32"}
    ) as running:
        yield running


@pytest.fixture
def run(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.setenv("KEYTURN_URL", server.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(server.data_dir / "admin-token"))

    def call(*arguments: str, given: str | None = None) -> Result:
        return CliRunner().invoke(cli, list(arguments), input=given)

    return call  # type: ignore[return-value]


def accounts(postgres: PostgresServer, role: str) -> list[str]:
    found = postgres.query(rf"SELECT rolname FROM pg_roles WHERE rolname LIKE 'kt\_{role}\_%'")
    return found.splitlines()


def test_the_command_line_makes_renews_and_revokes_a_credential(
    run: object, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """The password of the source is on stdin or in a file, never an argument, and in no output."""
    assert callable(run)
    parts = urlsplit(postgres_server.url())
    password = parts.password or ""
    settings = ["--set", "host=127.0.0.1", "--set", f"port={postgres_server.port}", "--set", "tls=disable"]
    settings += ["--set", f"username={parts.username}"]
    refused = run("credential-sources", "create", "cli", "postgresql", *settings, "--set", "password=oops")
    assert refused.exit_code != 0
    assert "never given as an argument" in str(refused.exception)
    made = run("credential-sources", "create", "cli", "postgresql", *settings, "--set", "password=-", given=password)
    assert made.exit_code == 0, made.output
    assert password not in made.output
    assert run("credential-sources", "check", "cli").exit_code == 0
    held = tmp_path / "password"
    held.write_text(password + "\n")
    changed = run("credential-sources", "update", "cli", *settings, "--set", f"password=@{held}")
    assert changed.exit_code == 0, changed.output
    role = run("credential-roles", "create", "cli", "cliread", "--ttl-seconds", "60", "--max-ttl-seconds", "90")
    assert role.exit_code == 0, role.output
    lease = json.loads(run("leases", "create", "cli", "cliread", "--json").output)
    assert accounts(postgres_server, "cliread") == [lease["fields"]["username"]]
    renewed = json.loads(run("leases", "renew", lease["lease_id"], "--increment-seconds", "500", "--json").output)
    assert 80 <= renewed["ttl_seconds"] <= 90
    assert lease["id"] in run("leases", "list", "--state", "active", "--json").output
    assert json.loads(run("leases", "show", lease["id"], "--json").output)["state"] == "active"
    assert run("leases", "revoke", lease["lease_id"]).exit_code == 0
    assert accounts(postgres_server, "cliread") == []
    assert json.loads(run("leases", "irrevocable", "--json").output)["items"] == []
    assert run("leases", "revoke-prefix", "cli").exit_code == 0
    assert run("credential-roles", "delete", "cli", "cliread").exit_code == 0
    assert run("credential-sources", "delete", "cli").exit_code == 0


def test_the_routes_answer_as_described(server: RunningServer, postgres_server: PostgresServer) -> None:
    parts = urlsplit(postgres_server.url())
    connection = {
        "host": "127.0.0.1",
        "port": postgres_server.port,
        "username": parts.username,
        "password": parts.password,
        "tls": "disable",
    }
    with client_of(server) as client:
        body = {"name": "web", "kind": "postgresql", "connection": connection}
        wrong = {**body, "connection": {**connection, "port": "no"}}
        refused = client.post(f"{API}/credential-sources", json=wrong)
        assert (refused.status_code, refused.json()["field"]) == (400, "connection.port")
        made = client.post(f"{API}/credential-sources", json=body, headers={"Idempotency-Key": "one"})
        assert made.status_code == 201, made.text
        assert str(parts.password) not in made.text
        again = client.post(f"{API}/credential-sources", json=body, headers={"Idempotency-Key": "one"})
        assert again.json() == made.json()
        moved = {"connection": {**{k: v for k, v in connection.items() if k != "password"}, "host": "localhost"}}
        stolen = client.patch(f"{API}/credential-sources/web", json=moved)
        assert (stolen.status_code, stolen.json()["field"]) == (400, "connection")
        role = {"name": "webread", "config": {"creation": ["CREATE ROLE {{nobody}}"]}}
        refused = client.post(f"{API}/credential-sources/web/roles", json=role)
        assert (refused.status_code, refused.json()["field"]) == (400, "config.creation[0]")
        made = client.post(f"{API}/credential-sources/web/roles", json={"name": "webread", "config": {}})
        assert made.status_code == 201, made.text
        lease = client.post(f"{API}/credential-sources/web/roles/webread/leases", json={"ttl_seconds": 1})
        assert lease.status_code == 201, lease.text
        found = client.get(f"{API}/leases", params={"prefix": "web/creds/webread"}).json()["items"]
        assert [one["id"] for one in found] == [lease.json()["id"]]
        assert lease.json()["fields"]["password"] not in json.dumps(found)
        for _ in range(400):
            if client.get(f"{API}/leases/{lease.json()['id']}").json()["state"] == "revoked":
                break
        assert accounts(postgres_server, "webread") == []
        done = client.post(f"{API}/leases/revoke-prefix", json={"prefix": "web"})
        assert (done.status_code, done.json()["count"]) == (202, 0)
        text = client.get("/metrics").text
        assert re.search(r'^keyturn_leases\{[^}]*state="irrevocable"[^}]*\} 0', text, re.MULTILINE)
    assert lease.json()["fields"]["password"] not in server.logs()


def test_a_source_that_stands_still_is_an_answer_in_time_and_leaves_nothing(server: RunningServer) -> None:
    with PostgresServer.start(fsync=False) as postgres, client_of(server, seconds=60) as client:
        parts = urlsplit(postgres.url())
        connection = {
            "host": "127.0.0.1",
            "port": postgres.port,
            "username": parts.username,
            "password": parts.password,
            "tls": "disable",
        }
        body = {"name": "still", "kind": "postgresql", "connection": connection}
        assert client.post(f"{API}/credential-sources", json=body).status_code == 201
        path = f"{API}/credential-sources/still/roles"
        assert client.post(path, json={"name": "stillread", "config": {}}).status_code == 201
        postgres.pause()
        refused = client.post(f"{path}/stillread/leases", json={})
        assert (refused.status_code, refused.json()["code"]) == (503, "provider_failed")
        assert not client.post(f"{API}/credential-sources/still/check", json={}).json()["reachable"]
        postgres.resume()
        (one,) = client.get(f"{API}/leases", params={"prefix": "still"}).json()["items"]
        assert one["state"] in {"abandoned", "lingering"}
        assert accounts(postgres, "stillread") == []

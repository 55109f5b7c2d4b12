"""Delivery from a real server: the commands as they are typed, and what the server has on record afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.client import Keyturn
from keyturn.kernel.secret import random_base62
from keyturn.testing.server import RunningServer
from keyturn.wire.secrets import PutSecret
from tests.delivery.conftest import Command
from tests.delivery.test_run import PAYMENTS, lines, python

Run = Callable[..., Any]
STRIPE = "production/payments/stripe"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path_factory.mktemp("delivery") / "data") as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Keyturn]:
    with Keyturn(server.url, server.admin_token) as keyturn:
        yield keyturn


@pytest.fixture
def environment(server: RunningServer, environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "KEYTURN_URL": server.url, "KEYTURN_TOKEN": server.admin_token}


def service(server: RunningServer, *resources: str) -> str:
    """Return the token of a service that may read and list these."""
    with httpx.Client(
        base_url=f"{server.url}/api/v1", headers={"Authorization": f"Bearer {server.admin_token}"}, timeout=120
    ) as http:

        def post(path: str, **body: Any) -> Any:
            answer = http.post(path, json=body)
            assert answer.is_success, answer.text
            return answer.json()

        principal = post("/principals", kind="service", name="app-" + random_base62(8).lower())["id"]
        for resource in resources:
            post("/grants", principal=principal, actions=["secret.read", "secret.list"], resource=resource)
        token: str = post(f"/principals/{principal}/tokens", name="run")["token"]
        return token


def test_a_service_gets_its_own_secrets_and_the_reads_are_on_record(
    server: RunningServer, client: Keyturn, keyturn: Run
) -> None:
    client.put_secret(STRIPE, PutSecret(fields={"key": "k-1"}))
    client.put_secret("production/other/x", PutSecret(fields={"other": "not for payments"}))
    token = service(server, "secret/production/payments/*")
    show = "import os; print(os.environ['KEY'], 'OTHER' in os.environ)"
    done = keyturn("run", *PAYMENTS, *python(show), env={"KEYTURN_TOKEN": token})
    assert done.stdout.split() == [b"k-1", b"False"], done.stderr
    refused = keyturn("run", "--secret", "production/other/x", *python(show), env={"KEYTURN_TOKEN": token})
    assert (refused.returncode in {3, 4}, refused.stdout) == (True, b"")
    readers = json.loads(keyturn("secrets", "readers", STRIPE, "--json").stdout)
    assert [one["version"] for one in readers["items"] if one["principal_name"].startswith("app-")] == [1]


def test_a_put_restarts_the_program(server: RunningServer, client: Keyturn, start: Command) -> None:
    client.put_secret(STRIPE, PutSecret(fields={"key": "before"}))
    program = "import os, time; print(os.environ['KEY'], flush=True); time.sleep(60)"
    way = ("--watch", "restart", *python(program))
    token = service(server, "secret/production/payments/*")
    printed = lines(start("run", *PAYMENTS, *way, env={"KEYTURN_TOKEN": token}))
    assert next(printed) == "before"
    client.put_secret(STRIPE, PutSecret(fields={"key": "after"}))
    assert next(printed) == "after"


def test_an_outage_of_the_server_is_bridged(tmp_path: Path, keyturn: Run) -> None:
    with RunningServer.start(tmp_path / "own") as server:
        given = {"KEYTURN_URL": server.url, "KEYTURN_TOKEN": server.admin_token}
        with Keyturn(server.url, server.admin_token) as client:
            client.put_secret(STRIPE, PutSecret(fields={"key": "kept"}))
        ways = ("run", *PAYMENTS, "--offline-cache", "copy", *python("import os; print(os.environ['KEY'])"))
        assert keyturn(*ways, env=given).stdout == b"kept\n"
        server.kill9()
        done = keyturn(*ways, env=given)
        assert (done.stdout, b"using the offline copy" in done.stderr) == (b"kept\n", True)


def test_a_file_is_imported_compared_and_exported(client: Keyturn, keyturn: Run, tmp_path: Path) -> None:
    shared, other = random_base62(24), random_base62(24)
    client.put_secret("staging/shop/app", PutSecret(fields={"TOKEN": shared}))
    file = tmp_path / ".env"
    file.write_text(f"API_TOKEN={shared}\nexport DB_PASSWORD='changeme'\nOTHER_KEY=\"{other}\"\nPORT=80\n")
    file.chmod(0o644)
    target = ("--to", "production/shop/app")
    dry = keyturn("secrets", "import", ".env", *target, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert [one.path for one in client.secrets("production/shop")] == []
    done = keyturn("secrets", "import", ".env", *target, "--json")
    answer = json.loads(done.stdout)
    assert answer["secrets"] == [
        {
            "path": "production/shop/app",
            "fields": ["API_TOKEN", "DB_PASSWORD", "OTHER_KEY", "PORT"],
            "new": ["API_TOKEN", "DB_PASSWORD", "OTHER_KEY", "PORT"],
            "dropped": [],
            "version": 1,
        }
    ]
    remarks = {(one["name"], one["kind"]) for one in answer["remarks"]}
    assert remarks == {(".env", "open"), ("DB_PASSWORD", "weak"), ("production/shop/app#API_TOKEN", "shared")}
    assert keyturn("secrets", "diff", ".env", "production/shop/app").returncode == 0
    file.write_text(f"API_TOKEN={shared}\nOTHER_KEY=changed\nNEW=1\n")
    differs = keyturn("secrets", "diff", ".env", "production/shop/app")
    assert (differs.returncode, differs.stdout) == (1, b"+ NEW\n- DB_PASSWORD\n- PORT\n~ OTHER_KEY\n")
    refused = keyturn("secrets", "import", ".env", *target)
    assert (refused.returncode, b"--merge keeps them" in refused.stderr) == (2, True)
    assert keyturn("secrets", "import", ".env", *target, "--merge").returncode == 0
    merged = set(client.read_secret("production/shop/app").fields)
    assert merged == {"API_TOKEN", "DB_PASSWORD", "OTHER_KEY", "PORT", "NEW"}
    assert keyturn("secrets", "import", ".env", *target, "--replace").returncode == 0
    written = keyturn("secrets", "export", "production/shop/app", "-o", "out.env")
    assert (tmp_path / "out.env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out.env").read_text() == f"API_TOKEN={shared}\nOTHER_KEY=changed\nNEW=1\n"
    for shown in (dry, done, differs, refused, written):
        assert shared.encode() not in shown.stdout + shown.stderr
        assert other.encode() not in shown.stdout + shown.stderr
    as_json = keyturn("secrets", "export", "production/shop/app", "--format", "json")
    assert json.loads(as_json.stdout) == {"API_TOKEN": shared, "NEW": "1", "OTHER_KEY": "changed"}


def test_each_name_can_be_a_secret_of_its_own(client: Keyturn, keyturn: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A_TOKEN=one\nB_TOKEN=two\n")
    assert keyturn("secrets", "import", ".env", "--to", "staging/each", "--each").returncode == 0
    found = {one.path: client.read_secret(one.path).fields for one in client.secrets("staging/each")}
    assert found == {"staging/each/A_TOKEN": {"value": "one"}, "staging/each/B_TOKEN": {"value": "two"}}


def test_a_template_is_filled_checked_and_followed(
    client: Keyturn, keyturn: Run, start: Command, tmp_path: Path
) -> None:
    client.put_secret("staging/db", PutSecret(fields={"password": 'p"w'}))
    file = tmp_path / "app.json.tmpl"
    file.write_text('{"password": {{ secret "staging/db" "password" | json }}}\n')
    assert json.loads(keyturn("template", "render", file.name).stdout) == {"password": 'p"w'}
    checked = keyturn("template", "render", file.name, "--check")
    assert (checked.returncode, b'p"w' in checked.stdout) == (0, False)
    process = start("template", "render", file.name, "-o", "app.json", "--watch")
    out = tmp_path / "app.json"
    assert process.stderr is not None
    assert process.stderr.readline() == b"wrote app.json\n"
    assert (json.loads(out.read_text()), out.stat().st_mode & 0o777) == ({"password": 'p"w'}, 0o600)
    client.put_secret("staging/db", PutSecret(fields={"password": "new"}))
    assert process.stderr.readline() == b"wrote app.json\n"
    assert json.loads(out.read_text()) == {"password": "new"}
    file.write_text('x\n{{ secret "staging/db" "user" }}')
    missing = keyturn("template", "render", file.name, "--check")
    assert (missing.returncode, b"line 2, column 1" in missing.stderr) == (3, True)


def test_the_commands_start_without_the_libraries_of_the_server() -> None:
    program = (
        "import sys\n"
        "import keyturn.cli.run, keyturn.cli.dotenv, keyturn.cli.templates, keyturn.delivery.supervision\n"
        "print([one for one in ('sqlalchemy', 'litestar', 'httpx', 'structlog') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

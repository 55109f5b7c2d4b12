"""Every operation against its own description: generated requests, right and wrong ones, to a real server."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.testing.server import RunningServer

pytestmark = pytest.mark.slow

EXAMPLES_MAX = 6
HELD = "^/api/v1/(approval|credential|guard|lease|login|root-key|secret|workspace-key|wrap)"
"""Paths of what is held, so that the parts can run side by side."""
LEAKS = "^/api/v1/(decoy|finding|leak)"
"""Paths of what has leaked."""


def _create_one_of_each(server: RunningServer) -> dict[str, dict[str, str]]:
    """Return, by the beginning of a path, the parameters that name something which exists and is not needed."""
    with httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {server.admin_token}"}, timeout=120
    ) as client:

        def create(path: str, **body: object) -> dict[str, Any]:
            answer = client.post(f"/api/v1/{path}", json=body)
            assert answer.status_code == 201, answer.text
            made: dict[str, Any] = answer.json()
            return made

        create("plans", name="some-plan")
        create("keyspaces", name="some-api", prefix="acme", environment="dev")
        create("workspaces", name="some-workspace")
        create("roles", name="some-role")
        create("webhooks", name="some-hook", url="https://hooks.example.invalid/")
        key = create("keys", keyspace="some-api", owner="alice", purpose="test")
        principal = create("principals", kind="user", name="somebody")
        token = create(f"principals/{principal['id']}/tokens", name="some-token")
        path = "production/some/secret"
        written = client.put(f"/api/v1/secrets/{path}", json={"fields": {"key": "one"}})
        assert written.status_code in {200, 201}, written.text
        guard = create("guards", pattern="production/guarded/*")
        service = create("principals", kind="service", name="some-service")
        create("login-methods", name="some-method", kind="approle")
        create("login-methods/some-method/roles", name="some-role", principal=service["id"], approle={})
        secret_id = create("login-methods/some-method/roles/some-role/secret-ids")
        connection = {"host": "127.0.0.1", "username": "x", "password": "x", "database": "x"}
        create("credential-sources", name="some-source", kind="postgresql", connection=connection, check=False)
        create("credential-sources/some-source/roles", name="some-role", config={})
        place = {"path": "some/file"}
        found = {"rule": "some-rule", "digest": "0" * 64, "length": 20, "place": place}
        reported = create("findings", source="x", kind="folder", started_at="2026-01-02T03:04:05Z", findings=[found])
        create("leak-policies", name="some-policy", position=1, action="notify")
    return {
        "keyspaces": {"name": "some-api"},
        "plans": {"name": "some-plan"},
        "owners": {"name": "alice"},
        "workspaces": {"name": "some-workspace"},
        "roles": {"name": "some-role", "principal_id": principal["id"]},
        "webhooks": {"name": "some-hook"},
        "keys": {"key_id": key["id"]},
        "principals": {"principal_id": principal["id"], "token_id": token["id"]},
        "secret(s|-[a-z]+)": {"path": path},
        "guards": {"guard_id": guard["id"]},
        "login-methods": {"method": "some-method", "role": "some-role", "secret_id": secret_id["id"]},
        "findings": {"finding_id": reported["findings"][0]["id"]},
        "leak-policies": {"name": "some-policy"},
        "credential-sources": {"source": "some-source", "role": "some-role"},
    }


def _configuration(existing: dict[str, dict[str, str]]) -> str:
    lines: list[str] = []
    for path, parameters in existing.items():
        given = ", ".join(f'"path.{name}" = "{value}"' for name, value in parameters.items())
        lines += ["[[operations]]", f'include-path-regex = "^/api/v1/{path}/"', f"parameters = {{ {given} }}", ""]
    return "\n".join(lines)


@pytest.mark.parametrize("paths", [None, HELD, LEAKS], ids=["issued", "held", "leaks"])
@pytest.mark.parametrize("aimed", [False, True], ids=["anything", "existing things"])
def test_every_operation_keeps_its_word(
    start_server: Callable[..., RunningServer], tmp_path: Path, *, aimed: bool, paths: str | None
) -> None:
    """No generated request, valid or not, is answered by a 5xx or by anything the document does not say.

    What does not exist is asked for with generated requests only; every bound of every field is tried on what does.

    Left out is the check that all a schema allows is accepted: a cursor nobody handed out, a revision that is not
    current and two fields that exclude each other cannot be said in a schema.  Left out are the paths that gateways
    ask: there 503 is the answer to a caller that is no gateway.
    """
    server = start_server(env={"KEYTURN_SOURCE_ALLOW": "127.0.0.1/32"})
    config = tmp_path / "schemathesis.toml"
    config.write_text(_configuration(_create_one_of_each(server)) if aimed else "")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
        f"{server.url}/api/v1/openapi.json",
        *("--header", f"Authorization: Bearer {server.admin_token}"),
        *(
            "--phases",
            "coverage,fuzzing" if aimed else "fuzzing",
            "--max-examples",
            str(EXAMPLES_MAX),
            "--generation-database",
            "none",
        ),
        *(("--include-path-regex", paths) if paths else ("--exclude-path-regex", f"^/auth/|{HELD}|{LEAKS}")),
        *("--exclude-checks", "positive_data_acceptance", "--continue-on-failure", "--no-color"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "request failed" not in server.logs()

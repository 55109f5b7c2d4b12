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
"""Paths of what is held, so that the two halves can run side by side."""


def _create_one_of_each(server: RunningServer) -> dict[str, dict[str, str]]:
    """Return, by the beginning of a path, the parameters that name something which exists and is not needed."""
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.admin_token}"}) as client:

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
    return {
        "keyspaces": {"name": "some-api"},
        "plans": {"name": "some-plan"},
        "owners": {"name": "alice"},
        "workspaces": {"name": "some-workspace"},
        "roles": {"name": "some-role", "principal_id": principal["id"]},
        "webhooks": {"name": "some-hook"},
        "keys": {"key_id": key["id"]},
        "principals": {"principal_id": principal["id"], "token_id": token["id"]},
    }


def _configuration(existing: dict[str, dict[str, str]]) -> str:
    lines: list[str] = []
    for path, parameters in existing.items():
        given = ", ".join(f'"path.{name}" = "{value}"' for name, value in parameters.items())
        lines += ["[[operations]]", f'include-path-regex = "^/api/v1/{path}/"', f"parameters = {{ {given} }}", ""]
    return "\n".join(lines)


@pytest.mark.parametrize("held", [False, True], ids=["issued", "held"])
@pytest.mark.parametrize("aimed", [False, True], ids=["anything", "existing things"])
def test_every_operation_keeps_its_word(
    start_server: Callable[..., RunningServer], tmp_path: Path, *, aimed: bool, held: bool
) -> None:
    """No generated request, valid or not, is answered by a 5xx or by anything the document does not say.

    Left out is the check that all a schema allows is accepted: a cursor nobody handed out, a revision that is not
    current and two fields that exclude each other cannot be said in a schema.  Left out are the paths that gateways
    ask: there 503 is the answer to a caller that is no gateway.
    """
    server = start_server()
    config = tmp_path / "schemathesis.toml"
    config.write_text(_configuration(_create_one_of_each(server)) if aimed else "")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
        f"{server.url}/api/v1/openapi.json",
        *("--header", f"Authorization: Bearer {server.admin_token}"),
        *("--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES_MAX), "--generation-database", "none"),
        *(("--include-path-regex", HELD) if held else ("--exclude-path-regex", f"^/auth/|{HELD}")),
        *("--exclude-checks", "positive_data_acceptance", "--continue-on-failure", "--no-color"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "request failed" not in server.logs()

"""The command line of OpenBao or Vault itself, where it is installed, against a real server."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyturn.testing.server import RunningServer

PROGRAM = shutil.which("bao") or shutil.which("vault")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs `bao` or `vault` on the PATH")

Program = Callable[..., Any]


@pytest.fixture
def program(server: RunningServer, tmp_path: Path) -> Program:
    """Run the program as the administrator; returns what it printed as JSON, or the text of its error."""

    def run(*arguments: str, code: int = 0, token: str = server.admin_token, form: bool = True) -> Any:
        address, held = (
            ("BAO_ADDR", "BAO_TOKEN") if PROGRAM and PROGRAM.endswith("bao") else ("VAULT_ADDR", "VAULT_TOKEN")
        )
        environment = {address: server.url, held: token, "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        if form:
            environment[address.replace("ADDR", "FORMAT")] = "json"
        command = [str(PROGRAM), *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == code, (arguments, ended.stdout, ended.stderr)
        if code or not form:
            return ended.stdout + ended.stderr
        return json.loads(ended.stdout) if ended.stdout.strip() else None

    return run


def test_status_is_that_of_an_open_server(program: Program) -> None:
    told = program("status")
    assert (told["initialized"], told["sealed"]) == (True, False)
    assert "Success" in program("login", "-no-store", program("token", "lookup")["data"]["id"], form=False)


def test_a_secret_lives_through_every_command(program: Program) -> None:
    assert program("kv", "put", "secret/real/a", "key=one", "region=eu")["data"]["version"] == 1
    assert "did not match" in program("kv", "put", "-cas=0", "secret/real/a", "key=x", code=2)
    assert program("kv", "put", "-cas=1", "-mount=secret", "real/a", "key=two")["data"]["version"] == 2
    assert program("kv", "patch", "secret/real/a", "region=us")["data"]["version"] == 3
    assert program("kv", "get", "secret/real/a")["data"]["data"] == {"key": "two", "region": "us"}
    assert program("kv", "get", "-field=key", "-version=1", "secret/real/a", form=False) == "one"
    assert program("kv", "list", "secret/real") == ["a"]
    program("kv", "delete", "secret/real/a", form=False)
    assert program("kv", "get", "secret/real/a")["data"]["metadata"]["deletion_time"]
    program("kv", "undelete", "-versions=3", "secret/real/a", form=False)
    program("kv", "destroy", "-versions=1", "secret/real/a", form=False)
    program("kv", "metadata", "put", "-custom-metadata=team=core", "secret/real/a", form=False)
    told = program("kv", "metadata", "get", "secret/real/a")["data"]
    assert told["custom_metadata"] == {"team": "core"}
    assert {number: one["destroyed"] for number, one in told["versions"].items()} == {"1": True, "2": False, "3": False}
    assert program("kv", "rollback", "-version=2", "secret/real/a")["data"]["version"] == 4
    program("kv", "metadata", "delete", "secret/real/a", form=False)
    assert "No value found" in program("kv", "get", "secret/real/a", code=2)


def test_a_service_logs_in_by_a_wrapped_secret_id(program: Program) -> None:
    program("auth", "enable", "approle", form=False)
    program("write", "auth/approle/role/real", "token_policies=secret.read", "token_ttl=5m", form=False)
    role_id = program("read", "auth/approle/role/real/role-id")["data"]["role_id"]
    wrapped = program("write", "-wrap-ttl=60s", "-f", "auth/approle/role/real/secret-id")["wrap_info"]["token"]
    secret_id = program("unwrap", token=wrapped)["data"]["secret_id"]
    assert "was opened" in program("unwrap", token=wrapped, code=2)
    token = program("write", "auth/approle/login", f"role_id={role_id}", f"secret_id={secret_id}")["auth"][
        "client_token"
    ]
    assert program("token", "lookup", token=token)["data"]["type"] == "service"
    assert program("token", "renew", "-increment=10m", token=token)["auth"]["lease_duration"] > 300
    assert "permission denied" in program("kv", "put", "secret/real/b", "key=x", token=token, code=2)
    program("token", "revoke", "-self", token=token, form=False)
    assert "permission denied" in program("token", "lookup", token=token, code=2)


def test_a_namespace_is_the_workspace_of_the_token(program: Program) -> None:
    program("kv", "put", "-namespace=default", "secret/real/c", "key=x")
    assert "not the workspace" in program("kv", "get", "-namespace=other", "secret/real/c", code=2)


def test_a_mount_is_enabled_before_it_is_written_to(program: Program) -> None:
    program("secrets", "enable", "-path=real-new", "kv-v2", form=False)
    program("kv", "enable-versioning", "real-new", form=False)
    program("kv", "put", "real-new/a", "key=x")
    assert "real-new/" in program("secrets", "list")
    assert "KV version 2" in program("secrets", "enable", "transit", form=False, code=2)


def test_leases_that_are_not_there_are_said_so(program: Program) -> None:
    assert "invalid lease" in program("lease", "lookup", "x/creds/y/z", code=2)
    program("lease", "revoke", "-prefix", "x/creds", form=False)

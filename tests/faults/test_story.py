"""The story of one key, from its issue to its revocation, as a user lives it: over HTTP, and on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.system import API, Start, client_of, new_key, new_keyspace, verdict, verified_log

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Run = Callable[..., tuple[int, Any]]


def test_the_story_over_http(start_server: Start, server_database_url: str | None) -> None:
    server = start_server(server_database_url)
    with client_of(server) as client:
        new_keyspace(client)
        issued = new_key(client)
        path = f"{API}/keys/{issued['id']}"
        assert verdict(client, issued["key"]) == "VALID"

        rotated = client.post(f"{path}/rotate", json={"overlap_seconds": 600}).json()
        assert rotated["id"] == issued["id"]
        assert rotated["key"] != issued["key"]
        for secret, version, address in (
            (issued["key"], issued["version_id"], "192.0.2.7"),
            (rotated["key"], rotated["version_id"], "198.51.100.9"),
        ):
            asked = {"key": secret, "ip": address, "user_agent": "shop/1", "method": "GET", "path": "/orders"}
            found = client.post(f"{API}/verify", json=asked).json()
            assert (found["valid"], found["version_id"]) == (True, version)

        def callers() -> dict[str, set[str]]:
            versions = client.get(path).json()["versions"]
            return {one["id"]: {str(caller["ip_network"]) for caller in one["callers"]} for one in versions}

        def usage_tells_both_apart() -> bool:
            seen = callers()
            old, new = seen[issued["version_id"]], seen[rotated["version_id"]]
            return any("192.0.2" in ip for ip in old) and any("198.51.100" in ip for ip in new)

        assert until(usage_tells_both_apart), callers()
        used = {item["version_id"] for item in client.get(f"{path}/usage").json()["items"]}
        assert used == {issued["version_id"], rotated["version_id"]}

        refused = client.post(f"{path}/retire", json={"silent_seconds": 3600})
        assert refused.status_code == 409, "the old secret is still in use"
        retired = client.post(f"{path}/retire", json={"silent_seconds": 0})
        assert retired.json()["effective"] is True, retired.text
        assert verdict(client, issued["key"]) == "REVOKED"
        assert verdict(client, rotated["key"]) == "VALID"

        assert client.post(f"{path}/disable", json={}).json()["effective"] is True
        assert verdict(client, rotated["key"]) == "DISABLED"
        assert client.post(f"{path}/enable", json={}).status_code == 200
        assert until(lambda: verdict(client, rotated["key"]) == "VALID")

        assert client.post(f"{path}/revoke", json={"reason": "superseded"}).json()["effective"] is True
        assert verdict(client, rotated["key"]) == "REVOKED"
        assert client.post(f"{path}/enable", json={}).status_code == 409

        key = client.get(f"{API}/audit/public-key").json()["verifier_key"]
        report = verified_log(client, key)
        assert report.ok, report.findings
        leaves = client.get(f"{API}/audit", params={"resource": f"key/*/{issued['id']}"}).json()["items"]
        actions = [leaf["action"] for leaf in leaves]
        for action in ("key.issue", "key.rotate", "key.retire", "key.disable", "key.enable", "key.revoke"):
            assert action in actions
    assert server.stop() == 0


def test_the_story_on_the_command_line(start_server: Start, server_database_url: str | None, tmp_path: Path) -> None:
    run = _shell(start_server(server_database_url))
    assert run("keyspaces", "create", "orders", "--prefix", "acme", "--environment", "dev")[0] == 0
    issued = run("keys", "issue", "orders", "--owner", "alice", "--purpose", "story")[1]
    assert run("keys", "verify", stdin=issued["key"])[0] == 0
    public_key, checkpoint = tmp_path / "public-key", tmp_path / "checkpoint"
    public_key.write_text(run("audit", "public-key")[1]["verifier_key"])
    code, report = run("audit", "verify", "--public-key", str(public_key), "--save-checkpoint", str(checkpoint))
    assert (code, report["ok"]) == (0, True)

    rotated = run("keys", "rotate", issued["id"], "--overlap-seconds", "600")[1]
    assert run("keys", "verify", stdin=issued["key"])[1]["version_id"] == issued["version_id"]
    assert run("keys", "verify", stdin=rotated["key"])[1]["version_id"] == rotated["version_id"]

    def both_are_used() -> bool:
        shown = run("keys", "show", issued["id"])[1]
        return all(version["last_used"] for version in shown["versions"])

    assert until(both_are_used)
    assert run("keys", "retire", issued["id"], "--silent-seconds", "0")[1]["effective"] is True
    code, found = run("keys", "verify", stdin=issued["key"])
    assert (code, found["code"]) == (1, "REVOKED")
    assert run("keys", "disable", issued["id"])[1]["effective"] is True
    assert run("keys", "verify", stdin=rotated["key"])[1]["code"] == "DISABLED"
    assert run("keys", "enable", issued["id"])[0] == 0
    assert until(lambda: run("keys", "verify", stdin=rotated["key"])[0] == 0)
    revoked = run("keys", "revoke", issued["id"], "--reason", "key_compromise")[1]
    assert (revoked["state"], revoked["effective"]) == ("revoked", True)
    assert run("keys", "verify", stdin=rotated["key"])[1]["code"] == "REVOKED"

    code, report = run("audit", "verify", "--public-key", str(public_key), "--since", str(checkpoint))
    assert (code, report["ok"], report["key_pinned"]) == (0, True, True)
    exported = tmp_path / "log.jsonl"
    assert run("audit", "export", "--output", str(exported))[0] == 0
    offline = ("audit", "verify", "--export", str(exported), "--public-key", str(public_key))
    assert run(*offline)[1]["ok"] is True
    exported.write_text(exported.read_text().replace("key.revoke", "key.enable"))
    code, report = run(*offline)
    assert (code, report["findings"][0]["kind"]) == (1, "altered")


def _shell(server: RunningServer) -> Run:
    settings = {"KEYTURN_URL": server.url, "KEYTURN_TOKEN_FILE": str(server.data_dir / "admin-token")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")} | settings

    def run(*arguments: str, stdin: str = "") -> tuple[int, Any]:
        command = [sys.executable, "-m", "keyturn", *arguments, "--json"]
        done = subprocess.run(
            command, env=environment, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return run

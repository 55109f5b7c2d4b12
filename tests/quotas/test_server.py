"""Quotas over HTTP on a real server, through a kill and a restart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from keyturn.cli.main import main
from keyturn.testing.server import RunningServer

KEYSPACE = {"name": "orders", "prefix": "acme", "environment": "production"}
KEY = {"keyspace": "orders", "owner": "billing", "purpose": "tests"}


class Caller:
    """Speaks to a server as its administrator."""

    def __init__(self, server: RunningServer) -> None:
        headers = {"Authorization": f"Bearer {server.admin_token}"}
        self.client = httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, timeout=120)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.close()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.client.post(path, json=body)
        assert answer.status_code < 300, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def balance(self, key: str, quota: str) -> dict[str, Any]:
        items = self.client.get("/quotas", params={"key": key}).json()["items"]
        return next(one for one in items if one["quota"] == quota)

    def verify(self, key: str, times: int = 1) -> list[str]:
        return [self.post("/verify", {"key": key})["code"] for _ in range(times)]


@pytest.mark.slow
def test_a_server_that_is_killed_admits_the_rest_and_no_more(
    start_server: Callable[..., RunningServer], server_database_url: str | None, tmp_path: Path
) -> None:
    server = start_server(server_database_url, data_dir=tmp_path / "data")
    with Caller(server) as caller:
        caller.post("/keyspaces", KEYSPACE)
        made = caller.post("/keys", KEY | {"quotas": [{"name": "credits", "amount": 60, "period": "none"}]})
        assert caller.verify(made["key"], 13) == ["VALID"] * 13
    server.kill9()
    server.restart()
    with Caller(server) as caller:
        assert caller.verify(made["key"], 50) == ["VALID"] * 47 + ["USAGE_EXCEEDED"] * 3
        caller.post("/quotas/top-up", {"quota": "credits", "units": 2, "key": made["id"]})
        assert caller.verify(made["key"], 4) == ["VALID"] * 2 + ["USAGE_EXCEEDED"] * 2
        caller.post("/quotas/set", {"quota": "credits", "units": 1, "key": made["id"]})
        assert caller.verify(made["key"], 2) == ["VALID", "USAGE_EXCEEDED"]
    server.restart()
    with Caller(server) as caller:
        balance = caller.balance(made["id"], "credits")
    assert (balance["granted"], balance["spent"], balance["leased"], balance["stranded"]) == (63, 63, 0, 0)


@pytest.mark.slow
def test_the_command_line_looks_at_balances_and_changes_them(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server()
    monkeypatch.setenv("KEYTURN_URL", server.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(server.data_dir / "admin-token"))
    with Caller(server) as caller:
        caller.post("/keyspaces", KEYSPACE)
        key = caller.post("/keys", KEY | {"quotas": [{"name": "credits", "amount": 60, "period": "none"}]})["id"]

    def run(*argv: str) -> Any:
        assert main(["quotas", argv[0], "--json", *argv[1:]]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    assert run("list", "--key", key)["items"][0]["state"] == "unused"
    assert run("top-up", "credits", "--key", key, "--note", "refund", "--", "-10")["available"] == 50
    assert run("set", "credits", "7", "--key", key)["available"] == 7
    assert run("credit", "credits", "--key", key)["stranded"] == 0
    assert [line["kind"] for line in run("ledger", "credits", "--key", key)["items"]] == ["set", "top_up", "grant"]
    assert main(["quotas", "list"]) == 2
    assert main(["quotas", "credit", "credits", "--key", key, "--units", "3"]) != 0

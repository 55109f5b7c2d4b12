"""`keyturn usage` against a real server, as an operator types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from keyturn.cli.main import main
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.system import API, client_of, new_keyspace

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with RunningServer.start(tmp_path_factory.mktemp("usage") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def key(server: RunningServer) -> str:
    """A key that was verified five times; its id."""
    with client_of(server) as client:
        new_keyspace(client, "orders")
        made = client.post(f"{API}/keys", json={"keyspace": "orders", "owner": "billing", "purpose": "tests"}).json()
        for number in range(5):
            body = {"key": made["key"], "method": "GET", "path": f"/orders?n={number}", "ip": "192.0.2.1"}
            answer = client.post(f"{API}/verify", json={**body, "user_agent": "tool/1", "country": "SE"})
            assert answer.json()["valid"], answer.text

        def stored() -> bool:
            return bool(client.get(f"{API}/usage").json()["totals"] == {"VALID": 5})

        assert until(stored)
        # Who used it last is written with the counts, or a moment later.
        assert until(lambda: bool(client.get(f"{API}/usage/last-used").json()["items"]))
    return str(made["id"])


@pytest.fixture
def run(server: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `keyturn usage …`; returns what it printed, as a document with `--json`."""
    monkeypatch.setenv("KEYTURN_URL", server.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(server.data_dir / "admin-token"))

    def command(*arguments: str, fails: bool = False) -> Any:
        code = main(["usage", *arguments])
        printed = capsys.readouterr()
        assert (code != 0) is fails, printed.err
        if fails:
            return printed.err
        return json.loads(printed.out) if "--json" in arguments else printed.out

    return command


def test_a_series_is_drawn(run: Run, key: str) -> None:
    shown = run("series", "--keyspace", "orders", "--group-by", "endpoint")
    assert "GET /orders" in shown
    assert "█  5" in shown
    assert "VALID: 5" in shown
    found = run("series", "--key", key, "--period", "minute", "--json")
    assert sum(point["count"] for point in found["items"]) == 5
    assert "(none)" in run("series", "--owner", "nobody")


def test_the_most_used_are_ranked(run: Run, key: str) -> None:
    assert key in run("top", "key")
    shown = run("top", "country", "--keyspace", "orders")
    assert "SE" in shown
    assert "100.0 %" in shown
    (item,) = run("top", "user_agent", "--limit", "1", "--json")["items"]
    assert item == {"value": "tool/1", "count": 5}


def test_a_key_is_shown_with_who_used_it_last(run: Run, key: str) -> None:
    shown = run("show", key)
    for part in ("GET /orders", "192.0.2.0/24", "tool/1"):
        assert part in shown
    found = run("show", key, "--json")
    assert found["last_used"][0]["endpoint"] == "GET /orders"


def test_no_loss_is_shown_as_none(run: Run, key: str) -> None:
    assert key
    assert run("losses", "--json") == {"items": [], "lost": 0}
    assert "lost: 0" in run("losses")


def test_what_is_not_counted_together_is_refused_with_what_to_do(run: Run, key: str) -> None:
    assert key
    assert "together" in run("series", "--endpoint", "GET /orders", "--country", "SE", fails=True)


def test_a_time_that_is_none_is_refused(run: Run, key: str) -> None:
    assert key
    assert "since" in run("series", "--since", "yesterday", fails=True)

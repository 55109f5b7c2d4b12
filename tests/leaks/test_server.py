"""Findings and policies of a real server: over HTTP, on the command line, and killed at any moment."""

from __future__ import annotations

import io
import json
import random
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from keyturn.cli.main import main
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.system import API, Ledger, Start, client_of, new_key, new_keyspace, verdict
from tests.leaks.station import LONG, candidate, reported

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Run = Callable[..., tuple[int, str]]


def report(client: httpx.Client, *findings: dict[str, Any], **given: Any) -> list[dict[str, Any]]:
    """Report what a scan found."""
    body = {"source": "repository", "kind": "push", "started_at": "2026-01-02T03:04:05Z", "findings": findings}
    answer = client.post(f"{API}/findings", json=body | given)
    assert answer.status_code == 201, answer.text
    found: list[dict[str, Any]] = answer.json()["findings"]
    return found


def finding(client: httpx.Client, finding_id: str) -> dict[str, Any]:
    """Show a finding."""
    found: dict[str, Any] = client.get(f"{API}/findings/{finding_id}").json()["finding"]
    return found


def revoking(client: httpx.Client, **given: Any) -> None:
    """Let leaked keys be revoked."""
    body = {"name": "rule", "position": 1, "action": "revoke", "applies": {"certainties": ["own"]}}
    answer = client.post(f"{API}/leak-policies", json=body | given)
    assert answer.status_code == 201, answer.text


def test_a_key_committed_by_mistake_is_revoked_and_its_finding_closes(
    start_server: Start, server_database_url: str | None
) -> None:
    server = start_server(server_database_url)
    with client_of(server) as client:
        new_keyspace(client)
        issued = new_key(client)
        revoking(client)
        (told,) = report(client, reported(issued["key"]))
        assert (told["key"], told["owner"], told["action_state"]) == (issued["id"], "alice", "due")

        assert until(lambda: finding(client, told["id"])["state"] == "rotated", 60)

        assert until(lambda: verdict(client, issued["key"]) == "REVOKED")
        shown = client.get(f"{API}/findings/{told['id']}")
        assert shown.headers["ETag"] == f'"{shown.json()["finding"]["revision"]}"'
        assert [one["event"] for one in shown.json()["history"]] == ["reported", "action_due", "action_done", "closed"]
        metrics = client.get("/metrics").text
        assert re.search(r'keyturn_leak_findings_open{certainty="own"[^}]*} 0\.0', metrics)
        assert re.search(r"keyturn_leak_actions_done_total{[^}]*} 1\.0", metrics)


def test_what_is_no_request_is_refused_by_its_field(start_server: Start) -> None:
    server = start_server()
    with client_of(server) as client:
        wrong = [
            ("leaks/match", {"candidates": []}),
            ("leaks/match", {"candidates": [{"digest": "00", "length": 20}]}),
            ("leaks/match", {"candidates": [{"digest": "0" * 64 + "\n", "length": 20}]}),
            ("findings", {"source": "x", "kind": "folder", "started_at": "2026-01-02"}),
            ("findings", {"source": "x", "kind": "folder", "started_at": "2026-01-02T03:04:05Z", "value": "x"}),
            ("leak-policies", {"name": "x", "position": 1, "action": "revoke"}),
        ]
        for path, body in wrong:
            answer = client.post(f"{API}/{path}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), answer.text
        assert client.get(f"{API}/findings/none").status_code == 404
        most = [{"digest": f"{number:064x}", "length": 20} for number in range(10_000)]
        answer = client.post(f"{API}/leaks/match", json={"candidates": most})
        assert (answer.status_code, answer.json()["matches"]) == (200, [])
        # More may be asked as time passes, so how many it takes depends on how fast the machine is.
        asked = (client.post(f"{API}/leaks/match", json={"candidates": most}) for _ in range(20))
        again = next(answer for answer in asked if answer.status_code != 200)
        assert (again.status_code, again.json()["code"]) == (429, "throttled")
        assert int(again.headers["Retry-After"]) >= 1


def test_no_action_is_lost_or_done_twice_however_a_server_is_killed(
    start_server: Start, server_database_url: str | None, postgres_server: PostgresServer
) -> None:
    server = start_server(server_database_url)
    ledger = Ledger(server.data_dir, server_database_url, postgres_server if server_database_url is not None else None)
    chance = random.Random(11)
    issued: list[dict[str, Any]] = []
    told: list[str] = []
    with client_of(server) as client:
        new_keyspace(client)
        revoking(client)
    for _ in range(3):
        with client_of(server) as client:
            keys = [new_key(client) for _ in range(20)]
            issued += keys
            told += [one["id"] for one in report(client, *(reported(one["key"]) for one in keys))]
            time.sleep(chance.uniform(0.0, 0.9))
        server.kill9()
        server.restart()

    with client_of(server) as client:

        def settled() -> bool:
            return all(finding(client, one)["state"] == "rotated" for one in told)

        assert until(settled, 90)
        assert {finding(client, one)["action_state"] for one in told} == {"done"}
        assert {verdict(client, one["key"]) for one in issued} == {"REVOKED"}
    for action in ("key.revoke", "system.leak_response", "system.finding_closed"):
        rows = ledger.rows(f"SELECT resource FROM audit_leaf WHERE action = '{action}'")
        assert len(rows) == len(set(rows)) == 60, action


@pytest.fixture
def run(
    start_server: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[RunningServer, Run]:
    server = start_server()
    monkeypatch.setenv("KEYTURN_URL", server.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(server.data_dir / "admin-token"))

    def run(*argv: str) -> tuple[int, str]:
        code = main(list(argv))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return server, run


def _stdin(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()))


def test_the_life_of_a_finding_on_the_command_line(
    run: tuple[RunningServer, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, command = run

    def document(*argv: str) -> Any:
        code, printed = command(*argv, "--json")
        assert code == 0, printed
        return json.loads(printed)

    with client_of(server) as client:
        new_keyspace(client)
        issued = new_key(client)
        own, other = report(client, reported(issued["key"]), reported(LONG))
        assert client.post(f"{API}/leaks/match", json={"candidates": [{"digest": "a" * 64, "length": 20}]}).json() == {
            "matches": []
        }
        assert candidate(LONG).length == len(LONG)

    monkeypatch.setattr("sys.stdin", _stdin(f"nobody's\n\n{issued['key']}\n"))
    code, printed = command("findings", "match", "--json")
    (match,) = json.loads(printed)["matches"]
    assert (code, match["line"], match["key"], match["finding"]) == (1, 3, issued["id"], own["id"])
    monkeypatch.setattr("sys.stdin", _stdin("nobody's\n"))
    assert command("findings", "match")[0] == 0

    assert [one["id"] for one in document("findings", "list", "--owner", "alice")["items"]] == [own["id"]]
    assert document("findings", "confirm", other["id"], "--note", "seen")["finding"]["state"] == "confirmed"
    assert command("findings", "dismiss", other["id"], "--revision", "1")[0] != 0
    accepted = document("findings", "accept", other["id"], "--until", "2999-01-01T00:00:00Z")
    assert accepted["finding"]["accepted_until"] == "2999-01-01T00:00:00.000Z"
    assert document("findings", "reopen", other["id"])["finding"]["state"] == "open"
    assert document("findings", "dismiss", other["id"])["finding"]["state"] == "false_positive"
    assert "still works" in command("findings", "close", own["id"])[1]
    assert "src/app.py" in command("findings", "show", own["id"])[1]
    assert [one["source"] for one in document("findings", "scans")["items"]] == ["repository"]

    made = document("leak-policies", "create", "rule", "rotate", "--certainty", "own", "--overlap-seconds", "60")
    assert (made["applies"]["certainties"], made["overlap_seconds"]) == (["own"], 60)
    changed = document("leak-policies", "update", "rule", "--position", "5", "--revision", "1")
    assert (changed["position"], changed["applies"]) == (5, made["applies"])
    assert "rotate" in command("leak-policies", "list")[1]
    assert document("leak-policies", "show", "rule") == changed
    document("leak-policies", "delete", "rule")
    assert document("leak-policies", "list")["items"] == []

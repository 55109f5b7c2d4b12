"""A scan that asks a real server whose keys it found, and tells it what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from keyturn.cli.scan_server import BYTES_PER_REPORT, parts_of
from keyturn.testing.ports import free_port
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import eventually
from keyturn.wire.leaks import FINDINGS_MAX

pytestmark = pytest.mark.slow

API: Final = "/api/v1"
HELD: Final = "/".join(("postgres", "plain", "words", "number", "7"))
"""A secret that no rule would find."""


class Between:
    """Stands between the scanner and a server: keeps what is sent, and refuses some of it when told to."""

    def __init__(self, upstream: str) -> None:
        self.sent: list[bytes] = []
        self.paths: list[str] = []
        self.throttled = 0
        self.garbled: bytes | None = None
        between = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                between.paths.append(self.path)
                between.sent.append(f"{self.requestline}\n{self.headers}\n".encode() + body)
                if between.throttled:
                    between.throttled -= 1
                    self.answer(429, b"{}")
                    return
                kept = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
                answered = httpx.post(upstream + self.path, content=body, headers=kept, timeout=120)
                self.answer(answered.status_code, answered.content if between.garbled is None else between.garbled)

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Retry-After", "0.01")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[Between]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class Scanning:
    """Runs `keyturn scan` in a folder, against a server."""

    def __init__(self, folder: Path, cache: Path, url: str, token: str) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder.parent),
            "XDG_CACHE_HOME": str(cache),
            "KEYTURN_URL": url,
            "KEYTURN_TOKEN": token,
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "keyturn", "scan", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def found(self, *arguments: str, code: int = 1) -> dict[str, Any]:
        """Return the report of a scan, which must end with a code."""
        ended = self.run("--format", "json", *arguments)
        assert ended.returncode == code, ended.stdout + ended.stderr
        report: dict[str, Any] = json.loads(ended.stdout)
        return report


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path_factory.mktemp("told") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: RunningServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    with httpx.Client(base_url=server.url + API, headers=headers, timeout=120) as client:
        for name, environment in (("shop", "production"), ("lab", "development")):
            made = client.post("/keyspaces", json={"name": name, "prefix": name, "environment": environment})
            assert made.status_code == 201, made.text
        yield client


@pytest.fixture
def between(server: RunningServer) -> Iterator[Between]:
    with Between(server.url).serving() as one:
        yield one


@pytest.fixture
def scanning(tmp_path: Path, rules_cache: Path, server: RunningServer, between: Between) -> Scanning:
    folder = tmp_path / "scanned"
    folder.mkdir()
    return Scanning(folder, rules_cache, between.url, server.admin_token)


def issue(admin: httpx.Client, keyspace: str = "shop") -> dict[str, Any]:
    made = admin.post("/keys", json={"keyspace": keyspace, "owner": "ann@example.com", "purpose": "tests"})
    assert made.status_code == 201, made.text
    issued: dict[str, Any] = made.json()
    return issued


def revoke(admin: httpx.Client, issued: dict[str, Any]) -> None:
    done = admin.post(f"/keys/{issued['id']}/revoke", json={"reason": "superseded"})
    assert done.status_code == 200, done.text


def hold(admin: httpx.Client, path: str, value: str) -> None:
    held = admin.put(f"/secrets/{path}", json={"fields": {"token": value}})
    assert held.status_code in {200, 201}, held.text


def findings_of(admin: httpx.Client, source: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = admin.get("/findings", params={"source": source}).json()["items"]
    return listed


def scans_of(admin: httpx.Client, source: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = admin.get("/leak-scans", params={"source": source}).json()["items"]
    return listed


# --- asking ----------------------------------------------------------------------------------------------------------


def test_a_key_is_named_with_its_owner_its_environment_and_the_next_command(
    admin: httpx.Client, scanning: Scanning
) -> None:
    issued = issue(admin)
    (scanning.folder / "app.py").write_text(f'KEY = "{issued["key"]}"\n')
    (found,) = scanning.found("--connect")["findings"]
    assert (found["certainty"], found["environment"]) == ("own", "production")
    assert (found["owner"]["key"], found["owner"]["keyspace"], found["owner"]["owner"]) == (
        issued["id"],
        "shop",
        "ann@example.com",
    )
    assert found["next"] == f"keyturn keys rotate {issued['id']}"
    said = scanning.run("--connect").stdout
    assert f"{issued['id']} in shop of ann@example.com, active" in said
    assert issued["key"] not in said
    (offline,) = scanning.found()["findings"]
    assert offline["owner"] is None


def test_a_revoked_key_is_a_warning_and_is_not_to_be_rotated(admin: httpx.Client, scanning: Scanning) -> None:
    issued = issue(admin)
    revoke(admin, issued)
    (scanning.folder / "app.py").write_text(f'KEY = "{issued["key"]}"\n')
    (found,) = scanning.found("--connect", code=0)["findings"]
    assert (found["verdict"], found["owner"]["state"], found["owner"]["works"]) == ("warn", "revoked", False)
    assert "rotate" not in found["next"]
    assert "--connect" not in found["next"]
    assert scanning.found(code=1)["findings"][0]["verdict"] == "block"


def test_a_held_secret_that_looks_like_nothing_is_found_when_it_is_asked_about(
    admin: httpx.Client, scanning: Scanning
) -> None:
    """In a file, and in a history whose blobs a scan without words has remembered as clean."""
    hold(admin, "production/shop/code", HELD)
    (scanning.folder / "notes").write_text(f"first line\nsee {HELD}, it opens the till\nand {HELD[:-1]}8 does not\n")
    assert scanning.found("--connect", code=0)["findings"] == []
    (found,) = scanning.found("--connect", "--held")["findings"]
    assert (found["certainty"], found["place"]["line"]) == ("held", 2)
    assert (found["owner"]["secret_path"], found["owner"]["field"]) == ("production/shop/code", "token")
    assert found["next"] == "keyturn secrets put production/shop/code"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "-q", "--template="], ["add", "."], ["commit", "-qm", "1"]):
        subprocess.run([*git, *command], cwd=scanning.folder, check=True, capture_output=True)
    assert scanning.found("--history", code=0)["findings"] == []
    for _ in range(2):
        (found,) = scanning.found("--history", "--connect", "--held")["findings"]
        assert found["certainty"] == "held"
    assert scanning.found("--history", code=0)["findings"] == []


# --- telling ---------------------------------------------------------------------------------------------------------


def test_what_was_found_is_kept_under_the_name_of_the_report(admin: httpx.Client, scanning: Scanning) -> None:
    scanning.found("--report", "empty", code=0)
    (scan,) = scans_of(admin, "empty")
    assert (scan["kind"], scan["summary"]["findings"], scan["next_due_at"]) == ("folder", 0, None)
    issued = issue(admin)
    (scanning.folder / "app.py").write_text(f'KEY = "{issued["key"]}"\n')
    (scanning.folder / "copy.py").write_text(f'KEY = "{issued["key"]}"\n')
    for _ in range(2):
        scanning.found("--report", "backend", "--next-due-seconds", "3600")
    scans = scans_of(admin, "backend")
    assert [one["summary"]["findings"] for one in scans] == [2, 2]
    assert not any(one["overdue"] for one in scans)
    (kept,) = findings_of(admin, "backend")
    assert (kept["key"], kept["owner"], kept["places_count"]) == (issued["id"], "ann@example.com", 2)
    detail = admin.get(f"/findings/{kept['id']}").json()
    assert sorted(one["path"] for one in detail["places"]) == ["app.py", "copy.py"]
    (found, _) = scanning.found("--connect")["findings"]
    assert found["owner"]["finding"] == kept["id"]


def test_a_report_is_told_in_parts_that_a_server_takes() -> None:
    assert parts_of([]) == [[]]
    many = [{"n": number} for number in range(2 * FINDINGS_MAX + 1)]
    assert [len(part) for part in parts_of(many)] == [FINDINGS_MAX, FINDINGS_MAX, 1]
    large = [{"members": ["p" * 4000] * 16} for _ in range(100)]
    parts = parts_of(large)
    assert [one for part in parts for one in part] == large
    assert all(len(json.dumps(part)) < 1.1 * BYTES_PER_REPORT for part in parts)
    assert len(parts) > 1


def test_a_watch_reports_under_its_name_and_says_when_the_next_report_is_due(
    admin: httpx.Client, scanning: Scanning, tmp_path: Path
) -> None:
    issued = issue(admin)
    (scanning.folder / "app.py").write_text(f'KEY = "{issued["key"]}"\n')
    watch = tmp_path / "watch.toml"
    watch.write_text(f'[[watch]]\nname = "builds"\nfolder = "{scanning.folder}"\nevery_seconds = 600\n')
    command = [sys.executable, "-P", "-m", "keyturn", "watch", str(watch), "--once"]
    ended = subprocess.run(command, env=scanning.environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stderr
    (scan,) = scans_of(admin, "builds")
    assert (scan["next_due_at"] > scan["reported_at"], scan["overdue"]) == (True, False)
    assert [one["key"] for one in findings_of(admin, "builds")] == [issued["id"]]


def test_no_value_leaves_the_scanner(
    admin: httpx.Client, server: RunningServer, between: Between, scanning: Scanning
) -> None:
    """Neither in a request nor at rest on the server: of a key, of what is held, of what is short, and of a word."""
    issued = issue(admin)
    hold(admin, "production/shop/leaked", HELD + "1")
    foreign, short = "_".join(("ghp", "a1B2" * 9)), "hunter" + "2Xy9"
    values = [issued["key"], HELD + "1", foreign, short]
    lines = [f'key = "{issued["key"]}"', f"see {values[1]}", f'token = "{foreign}"', f'password = "{short}"']
    (scanning.folder / "settings.py").write_text("\n".join(lines) + "\n")
    report = scanning.found("--held", "--report", "values", code=1)
    assert {one["certainty"] for one in report["findings"]} >= {"own", "held"}
    assert between.paths == [f"{API}/leaks/match", f"{API}/findings"]
    assert len(findings_of(admin, "values")) == len(report["findings"])
    stored = b"".join(path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file())
    everything = b"".join(between.sent) + stored + server.logs().encode() + json.dumps(report).encode()
    for value in values:
        assert value.encode() not in everything


# --- a server that does not do what it should ------------------------------------------------------------------------


def test_a_server_that_is_away_is_an_error_and_the_findings_are_shown(scanning: Scanning, admin: httpx.Client) -> None:
    """What is to be acted on ends with 1 as ever, and the report names the error; nothing else is a pass."""
    scanning.environment["KEYTURN_URL"] = f"http://127.0.0.1:{free_port()}"
    (scanning.folder / "clean").write_text("nothing\n")
    assert scanning.run("--report", "away").returncode == 2
    publishable = "_".join(("pk", "test", "a1B2c3" * 4))
    (scanning.folder / "app.py").write_text(f'KEY = "{publishable}"\n')
    report = scanning.found("--connect", code=2)
    assert len(report["findings"]) == 1
    assert [(one["path"], one["error"]) for one in report["notices"]] == [("the server", True)]
    (scanning.folder / "app.py").write_text(f'KEY = "{issue(admin)["key"]}"\n')
    report = scanning.found("--report", "away", code=1)
    assert len(report["findings"]) == 1
    assert ["asked" in one["detail"] for one in report["notices"]] == [True, False]
    assert scans_of(admin, "away") == []


def test_a_token_without_the_right_is_an_error(scanning: Scanning, admin: httpx.Client) -> None:
    principal = admin.post("/principals", json={"name": "scanner", "kind": "service"}).json()["id"]
    scanning.environment["KEYTURN_TOKEN"] = admin.post(f"/principals/{principal}/tokens", json={"name": "t"}).json()[
        "token"
    ]
    (scanning.folder / "app.py").write_text(f'KEY = "{"_".join(("pk", "test", "a1B2c3" * 4))}"\n')
    report = scanning.found("--report", "denied", code=2)
    assert len(report["findings"]) == 1
    assert ["finding.match" in report["notices"][0]["detail"], "finding.report" in report["notices"][1]["detail"]] == [
        True,
        True,
    ], report["notices"]
    grant = {"principal": principal, "actions": ["finding.match", "finding.report"], "resource": "finding/*"}
    assert admin.post("/grants", json=grant).status_code == 201
    eventually(lambda: scanning.run("--report", "denied").returncode == 0)
    assert len(scans_of(admin, "denied")) == 1


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"matches": [{"index": 99999}]}', b'{"matches": 1}'])
def test_an_answer_that_cannot_be_read_is_an_error(scanning: Scanning, between: Between, answer: bytes) -> None:
    between.garbled = answer
    (scanning.folder / "app.py").write_text(f'KEY = "{"_".join(("pk", "test", "a1B2c3" * 4))}"\n')
    report = scanning.found("--connect", code=2)
    assert (len(report["findings"]), len(report["notices"])) == (1, 1)


def test_a_server_that_throttles_is_waited_for_and_not_for_ever(
    scanning: Scanning, admin: httpx.Client, between: Between
) -> None:
    issued = issue(admin)
    (scanning.folder / "app.py").write_text(f'KEY = "{issued["key"]}"\n')
    between.throttled = 3
    (found,) = scanning.found("--connect")["findings"]
    assert found["owner"]["key"] == issued["id"]
    between.throttled = 1000
    report = scanning.found("--connect", code=1)
    assert (report["findings"][0]["owner"], len(report["notices"])) == (None, 1)
    (scanning.folder / "app.py").write_text("nothing\n")
    assert scanning.run("--report", "throttled").returncode == 2


# --- the whole of it -------------------------------------------------------------------------------------------------


def test_a_key_committed_by_mistake_is_reported_ended_by_policy_and_its_finding_closes(
    scanning: Scanning, admin: httpx.Client
) -> None:
    """One key is revoked by a policy, another one rotated: its leaked version ends, and a new one works."""
    policies: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("live", 10, {"action": "revoke", "applies": {"certainties": ["own"], "environments": ["production"]}}),
        (
            "lab",
            20,
            {"action": "rotate", "overlap_seconds": 1, "applies": {"certainties": ["own"], "keyspaces": ["lab"]}},
        ),
    )
    for name, position, policy in policies:
        made = admin.post("/leak-policies", json={"name": name, "position": position, **policy})
        assert made.status_code == 201, made.text
    live, lab = issue(admin), issue(admin, "lab")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com"]
    (scanning.folder / "deploy.sh").write_text(f"export LIVE={live['key']}\nexport LAB={lab['key']}\n")
    commands = (["init", "-q", "--template="], ["add", "."], ["commit", "-qm", "1"], ["rm", "-q", "deploy.sh"])
    for command in (*commands, ["commit", "-qm", "2"]):
        subprocess.run([*git, *command], cwd=scanning.folder, check=True, capture_output=True)

    report = scanning.found("--history", "--report", "mistake")

    assert {one["owner"]["key"]: one["owner"]["owner"] for one in report["findings"]} == {
        live["id"]: "ann@example.com",
        lab["id"]: "ann@example.com",
    }
    eventually(lambda: {one["state"] for one in findings_of(admin, "mistake")} == {"rotated"})
    verdicts = {one["id"]: admin.post("/verify", json={"key": one["key"]}).json()["code"] for one in (live, lab)}
    assert verdicts == {live["id"]: "REVOKED", lab["id"]: "EXPIRED"}
    renewed = admin.post(f"/keys/{lab['id']}/rotate", json={})
    assert renewed.status_code in {200, 201}, renewed.text
    assert admin.post("/verify", json={"key": renewed.json()["key"]}).json()["code"] == "VALID"
    again = scanning.found("--history", "--report", "mistake", code=0)
    assert [one["verdict"] for one in again["findings"]] == ["warn", "warn"]
    for one in findings_of(admin, "mistake"):
        history = [event["event"] for event in admin.get(f"/findings/{one['id']}").json()["history"]]
        assert history == ["reported", "action_due", "action_done", "closed"]
    for name, _, _ in policies:
        admin.post(f"/leak-policies/{name}/delete")

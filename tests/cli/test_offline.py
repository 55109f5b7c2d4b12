"""Backup, restore and the break-glass token, as an operator types them, beside and after real servers."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import stat
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from keyturn.bootstrap.preparation import prepare
from keyturn.cli.main import main
from keyturn.config import Settings
from keyturn.errors import UnavailableError
from keyturn.testing.server import RunningServer

if TYPE_CHECKING:
    from keyturn.testing.postgres import PostgresServer

Start = Callable[..., RunningServer]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; returns exit code, output and errors."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([*map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


@pytest.fixture
def second_database_url(request: pytest.FixtureRequest, server_database_url: str | None) -> str | None:
    """Another new, empty database on the same engine."""
    if server_database_url is None:
        return None
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()


def settle_on(monkeypatch: pytest.MonkeyPatch, data: Path, database_url: str | None) -> None:
    """Give the commands the settings of a server."""
    monkeypatch.setenv("KEYTURN_DATA", str(data))
    monkeypatch.setenv("KEYTURN_DATABASE_URL", database_url or "")


def client_of(server: RunningServer, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, timeout=120)


def issue(client: httpx.Client, owner: str = "alice") -> Any:
    answer = client.post("/keys", json={"keyspace": "orders", "owner": owner, "purpose": "restoring"})
    assert answer.status_code == 201, answer.text
    return answer.json()


def code_of(client: httpx.Client, issued: Any) -> str:
    return str(client.post("/verify", json={"key": issued["key"]}).json()["code"])


def export_with(client: httpx.Client, action: str, target: Path) -> None:
    """Export the log once the leaf of an action is signed."""
    deadline = time.monotonic() + 120
    while f'\\"action\\":\\"{action}\\"' not in (text := client.get("/audit/export").text):
        assert time.monotonic() < deadline, f"{action} was not signed"
        time.sleep(0.05)
    target.write_text(text)


class Load:
    """Issues keys until it is left."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.issued: list[Any] = []

    def _run(self) -> None:
        while not self._stop.is_set():
            self.issued.append(issue(self._client, "load"))

    def __enter__(self) -> Self:
        self._thread.start()
        while len(self.issued) < 3:
            time.sleep(0.01)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.slow
@pytest.mark.cluster
def test_what_was_backed_up_under_load_is_restored_without_undoing_a_revocation(
    run: Run,
    start_server: Start,
    server_database_url: str | None,
    second_database_url: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Keys verify as before, what was revoked after the backup stays revoked, and nothing is served before that."""
    first = start_server(server_database_url)
    admin = first.admin_token
    file, export, data = tmp_path / "keyturn.backup", tmp_path / "log.jsonl", tmp_path / "restored"
    settle_on(monkeypatch, first.data_dir, server_database_url)
    with client_of(first, admin) as client:
        assert client.post("/keyspaces", json={"name": "orders", "prefix": "acme", "environment": "dev"}).is_success
        kept, revoked, disabled = (issue(client) for _ in range(3))
        with Load(client) as load:
            before = load.issued[-1]
            code, out, err = run("backup", "--output", file, "--json")
        assert code == 0, err
        for path in (f"/keys/{revoked['id']}/revoke", f"/keys/{disabled['id']}/disable"):
            assert client.post(path, json={}).is_success
        export_with(client, "key.disable", export)
    first.stop()
    root_key = (first.data_dir / "kek").read_text()
    kek_id, secret = root_key.split()[1:]
    assert json.loads(out)["root_keys"] == [kek_id]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with zipfile.ZipFile(file) as parts:
        assert all(secret.encode() not in parts.read(name) for name in parts.namelist())

    settle_on(monkeypatch, data, second_database_url)
    code, _, err = run("restore", file, "--revocations", export)
    assert (code, kek_id in err, data.exists()) == (2, True, False)
    data.mkdir(mode=0o700)
    shutil.copy(first.data_dir / "kek", data / "kek")

    code, out, _ = run("restore", file, "--json")
    assert (code, json.loads(out)["servable"]) == (3, False)
    with pytest.raises(UnavailableError, match="may not be served yet"):
        start_server(second_database_url, data_dir=data)
    code, out, _ = run("doctor")
    assert (code, "restore --accept-lost-revocations" in out) == (1, True)

    code, out, err = run("restore", "--revocations", export, "--json")
    assert code == 0, err
    assert json.loads(out)["reapplied"] == {"key.revoke": 1, "key.disable": 1}
    assert run("restore", file)[0] == 3, "a database that holds data is not restored over"

    second = start_server(second_database_url, data_dir=data)
    with client_of(second, admin) as client:
        found = [code_of(client, one) for one in (kept, before, revoked, disabled)]
        assert found == ["VALID", "VALID", "REVOKED", "DISABLED"]
        restores = client.get("/audit", params={"action": "system.restore"}).json()["items"]
        assert restores[0]["detail"]["revocations"] == "reapplied"


@pytest.mark.cluster
def test_a_break_glass_token_is_issued_beside_a_server_and_on_record(
    run: Run, start_server: Start, server_database_url: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = start_server(server_database_url)
    settle_on(monkeypatch, server.data_dir, server_database_url)
    assert run("admin-token", "--workspace", "absent")[0] == 3
    token_file = tmp_path / "token"
    assert run("admin-token", "--output", token_file)[0] == 0
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    with client_of(server, token_file.read_text().strip()) as client:
        assert client.get("/whoami").json()["name"] == "break-glass"
        assert len(client.get("/audit", params={"action": "system.admin_token"}).json()["items"]) == 1
    monkeypatch.setenv("KEYTURN_URL", server.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(token_file))
    code, out, _ = run("doctor", "--json")
    assert code == 0, out
    answer = json.loads(out)
    assert {one["check"] for one in answer["checks"] if one["state"] == "ok"} >= {"server", "token", "root_key"}


def test_nothing_is_made_where_there_is_no_installation(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settle_on(monkeypatch, tmp_path / "data", None)
    for command in (
        ("backup", "--output", tmp_path / "b"),
        ("admin-token",),
        ("restore", "--accept-lost-revocations"),
        ("restore", tmp_path / "absent"),
        ("restore",),
    ):
        assert run(*command)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_cannot_be_written_is_not_issued(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    prepare(Settings(data=data))
    settle_on(monkeypatch, data, None)
    code, out, err = run("admin-token", "--output", tmp_path / "absent" / "token")
    assert (code, out, "nothing was issued" in err) == (2, "", True)
    with contextlib.closing(sqlite3.connect(data / "keyturn.db")) as connection:
        leaves = connection.execute("SELECT action FROM audit_leaf").fetchall()
    assert leaves == [("system.bootstrap",)]


def test_a_backup_overwrites_nothing_and_a_torn_one_restores_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, target, file = tmp_path / "data", tmp_path / "target", tmp_path / "keyturn.backup"
    prepare(Settings(data=data))
    settle_on(monkeypatch, data, None)
    assert run("backup", "--output", file)[0] == 0
    whole = file.read_bytes()
    assert run("backup", "--output", file)[0] == 3
    assert file.read_bytes() == whole
    file.write_bytes(whole[: len(whole) // 2])
    settle_on(monkeypatch, target, None)
    assert run("restore", file, "--accept-lost-revocations")[0] == 1
    assert not target.exists()


@pytest.mark.cluster
def test_an_export_from_before_the_backup_settles_nothing(
    run: Run, start_server: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It cannot know what was revoked since.  Every export leaves a leaf, so the backup shows that it came later."""
    server = start_server()
    file, export, target = tmp_path / "keyturn.backup", tmp_path / "log.jsonl", tmp_path / "target"
    settle_on(monkeypatch, server.data_dir, None)
    with client_of(server, server.admin_token) as client:
        export_with(client, "system.bootstrap", export)
        export_with(client, "audit.export", tmp_path / "later.jsonl")
    assert run("backup", "--output", file)[0] == 0
    target.mkdir(mode=0o700)
    shutil.copy(server.data_dir / "kek", target / "kek")
    settle_on(monkeypatch, target, None)
    code, _, err = run("restore", file, "--revocations", export)
    assert (code, "does not verify" in err) == (1, True)
    assert "may not be served yet" in run("doctor")[1]

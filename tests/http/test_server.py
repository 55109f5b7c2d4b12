"""Real server processes."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.testing.child import members_of_group
from keyturn.testing.ports import free_port
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import PATIENCE_SECONDS, eventually, until
from tests.http.test_serve import tls_files

pytestmark = pytest.mark.slow

Start = Callable[..., RunningServer]


def _client(server: RunningServer) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.admin_token}"}, timeout=120)


def _create_key(client: httpx.Client) -> dict[str, Any]:
    assert (
        client.post("/api/v1/keyspaces", json={"name": "a", "prefix": "acme", "environment": "dev"}).status_code == 201
    )
    issued = client.post("/api/v1/keys", json={"keyspace": "a", "owner": "alice", "purpose": "test"})
    assert issued.status_code == 201
    found: dict[str, Any] = issued.json()
    return found


def test_the_life_of_a_key_over_http(start_server: Start, server_database_url: str | None) -> None:
    server = start_server(server_database_url)
    with _client(server) as client:
        issued = _create_key(client)
        path = f"/api/v1/keys/{issued['id']}"

        def verdict(key: str) -> str:
            return str(client.post("/api/v1/verify", json={"key": key}).json()["code"])

        assert verdict(issued["key"]) == "VALID"
        rotated = client.post(f"{path}/rotate", json={"overlap_seconds": 600}).json()
        assert (verdict(issued["key"]), verdict(rotated["key"])) == ("VALID", "VALID")
        eventually(lambda: client.post(f"{path}/disable", json={}).json()["effective"])
        assert verdict(rotated["key"]) == "DISABLED"
        assert client.post(f"{path}/enable", json={}).status_code == 200
        assert until(lambda: verdict(rotated["key"]) == "VALID")
        eventually(lambda: client.post(f"{path}/revoke", json={"reason": "key_compromise"}).json()["effective"])
        assert verdict(rotated["key"]) == "REVOKED"
        assert len(client.get(path).json()["versions"]) == 2
        assert client.get("/api/v1/audit").json()["items"]
    assert server.stop() == 0


def test_the_lines_printed_at_the_first_start_work_when_pasted(start_server: Start) -> None:
    """No token stands in an argument list, where every user of the machine could read it."""
    server = start_server()
    printed = server.logs().partition("verify it.")[2].strip().splitlines()[:3]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    done = subprocess.run(
        ["/bin/sh", "-ec", "\n".join(printed)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "VALID" in done.stdout
    assert server.admin_token not in "".join(printed)
    server.restart()
    assert server.logs().count("First start") == 1


def test_a_secret_cannot_be_found_in_the_log_of_a_server(start_server: Start) -> None:
    """In a body, a header, the path, the query, a refused field: nowhere, at the most talkative level."""
    server = start_server(env={"KEYTURN_LOG_LEVEL": "debug"})
    with _client(server) as client:
        key = _create_key(client)["key"]
        client.post("/api/v1/verify", json={"key": key, "explain": True})
        client.post("/api/v1/verify", json={"key": key, key: key})
        client.post("/api/v1/verify", json={"key": [key]})
        client.post("/api/v1/verify", content=key, headers={"content-type": key})
        client.get(f"/api/v1/keys/{key}")
        client.get(f"/api/v1/keys?cursor={key}&{key}={key}")
        client.get(f"/{key}")
        client.get("/api/v1/keys", headers={"Authorization": f"Bearer {key}"})
        client.get("/api/v1/keys", headers={"Authorization": key, "X-Request-Id": key})
        client.post(
            "/api/v1/keys", json={"keyspace": key, "owner": "a", "purpose": "b"}, headers={"Idempotency-Key": key}
        )
        client.request(key, "/api/v1/keys")
    server.stop()
    written = server.logs()
    for secret in (key, server.admin_token):
        assert secret not in written
        assert secret.rpartition("_")[2][12:] not in written


def test_a_request_that_stalls_does_not_keep_the_server_from_stopping(start_server: Start) -> None:
    server = start_server(env={"KEYTURN_SHUTDOWN_SECONDS": "3"})
    stalled = socket.create_connection(("127.0.0.1", server.port))
    stalled.sendall(
        b"POST /api/v1/keys HTTP/1.1\r\nhost: keyturn\r\nauthorization: Bearer x\r\n"
        b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    with stalled, _client(server) as client:
        client.get("/health/live")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(120)
    assert not server.pids


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_while_it_starts_ends_by_itself(tmp_path: Path, number: signal.Signals) -> None:
    """As a terminal and systemd do it: every process of the group is told, whether it listens already or not."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    environment = kept | {"KEYTURN_DATA": str(tmp_path / "data"), "KEYTURN_PORT": "0"}
    command = [sys.executable, "-m", "keyturn", "serve"]
    log = tmp_path / "log"
    with (
        log.open("wb") as told,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=told, start_new_session=True
        ) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        eventually(lambda: len(members_of_group(process.pid)) > 1)
        os.killpg(process.pid, number)
        assert process.wait(PATIENCE_SECONDS) == 0
    assert not [line for line in log.read_text().splitlines() if "refused to" in line or "Unexpected" in line]


def test_a_worker_whose_parent_was_killed_stops_by_itself(start_server: Start) -> None:
    """It would go on holding the port, with nobody left to stop it."""
    server = start_server()
    server.process.kill()
    server.process.wait()
    assert until(lambda: not server.pids)
    server.restart()
    assert server.is_ready()


def test_a_second_server_on_one_data_folder_is_refused(start_server: Start) -> None:
    server = start_server()
    environment = {**os.environ, "KEYTURN_DATA": str(server.data_dir), "KEYTURN_PORT": "0"}
    second = subprocess.run(
        [sys.executable, "-m", "keyturn", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert second.returncode == 2
    assert "in use by another Keyturn process" in second.stderr
    assert "hint:" in second.stderr
    assert server.is_ready()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = {**os.environ, "KEYTURN_DATA": str(tmp_path / "data"), "KEYTURN_PORT": str(port)}
        ended = subprocess.run(
            [sys.executable, "-m", "keyturn", "serve"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 2
    assert f"port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_tls_is_spoken_from_version_1_3_upward(tmp_path: Path) -> None:
    """An older version may not be negotiated, whatever a client offers."""
    certificate, key = tls_files(tmp_path)
    environment = {"KEYTURN_TLS_CERT": str(certificate), "KEYTURN_TLS_KEY": str(key)}
    data = tmp_path / "tls-data"
    trusting = ssl.create_default_context(cafile=str(certificate))
    environment |= {**os.environ, "KEYTURN_DATA": str(data), "KEYTURN_PORT": str(free_port())}
    server = subprocess.Popen(
        [sys.executable, "-m", "keyturn", "serve"],
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    port = environment["KEYTURN_PORT"]
    try:
        assert until(lambda: _answers(f"https://127.0.0.1:{port}/health/ready", trusting))
        answer = httpx.get(f"https://127.0.0.1:{port}/health/live", verify=trusting, timeout=120)
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"https://127.0.0.1:{port}/health/live", verify=trusting, timeout=120)
    finally:
        server.terminate()
        server.wait(120)


def _answers(url: str, trusting: ssl.SSLContext) -> bool:
    try:
        return httpx.get(url, verify=trusting, timeout=120).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.postgres
def test_any_worker_of_several_answers_for_all(start_server: Start, migrated_postgres_url: str) -> None:
    server = start_server(migrated_postgres_url, env={"KEYTURN_WORKERS": "2", "KEYTURN_LIMITS": "per_worker"})
    with _client(server) as client:
        assert until(lambda: len(client.get("/api/v1/nodes").json()["items"]) == 2)

        def workers() -> set[str]:
            lines = client.get("/metrics").text.splitlines()
            return {
                line.partition('worker="')[2].partition('"')[0] for line in lines if "keyturn_commits_total{" in line
            }

        assert until(lambda: len(workers()) == 2)
    assert server.stop() == 0

"""Root keys under a real server: rotation while clients read and write, and `kill -9` in the middle of a rewrap."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, select

from keyturn.bootstrap.preparation import open_database
from keyturn.bootstrap.root_keys import add_root_key, retire_root_key, root_key_status
from keyturn.config import Settings
from keyturn.kernel.clock import Clock
from keyturn.kernel.secret import Secret
from keyturn.storage.kek import load_provider
from keyturn.storage.keyring import Keyring
from keyturn.storage.schema import workspace
from keyturn.storage.transaction import Transaction
from keyturn.testing.server import RunningServer
from tests.faults.system import API, Start, client_of, new_key, new_keyspace, start_beside

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

SECONDS_MAX = 60.0


def settings_of(server: RunningServer, url: str | None) -> Settings:
    return Settings(data=server.data_dir, database_url=None if url is None else Secret(url))


def in_database(settings: Settings, work: Any) -> Any:
    """Run a unit of work beside the server, as the command line does."""

    async def run() -> Any:
        database = open_database(settings, Clock())
        await database.open()
        try:
            return (await database.write(work)).value
        finally:
            await database.close()

    return asyncio.run(run())


def add_workspace_keys(settings: Settings, count: int) -> None:
    keyring = Keyring(load_provider(settings, create=False))

    def work(transaction: Transaction) -> None:
        first = transaction.connection.execute(select(workspace.c.id)).scalar_one()
        for _ in range(count):
            keyring.create_workspace_key(transaction.connection, first, transaction.now)

    in_database(settings, work)


def every_workspace_key_opens(settings: Settings) -> None:
    """The property that no interruption may break."""

    def work(transaction: Transaction) -> None:
        connection: Connection = transaction.connection
        Keyring(load_provider(settings, create=False)).check(connection)

    in_database(settings, work)


def post(client: httpx.Client, path: str, **body: object) -> dict[str, Any]:
    answer = client.post(f"{API}{path}", json=body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


class Load:
    """Clients that write secrets, read them and what they wrote before, make keyspaces and verify keys."""

    def __init__(self, servers: list[RunningServer], key: str) -> None:
        """Work on every server with an admitted key."""
        self.servers = servers
        self.key = key
        self.token = servers[0].admin_token
        self.written: dict[str, str] = {}
        self.failures: list[str] = []
        self.requests = 0
        self.stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work until the block ends."""
        threads = [
            threading.Thread(target=self._work, args=(server, number)) for server in self.servers for number in range(2)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()

    def until_more(self, count: int) -> None:
        """Wait until so many requests more were answered."""
        goal, deadline = self.requests + count, time.monotonic() + SECONDS_MAX
        while self.requests < goal and time.monotonic() < deadline:
            time.sleep(0.01)

    def _work(self, server: RunningServer, number: int) -> None:
        with client_of(server, token=self.token) as client:
            turn = 0
            while not self.stop.is_set():
                turn += 1
                path = f"production/app/{server.port}-{number}-{turn % 5}"
                value = f"value {number} {turn}"
                self._expect(client.put(f"{API}/secrets/{path}", json={"fields": {"key": value}}))
                self.written[path] = value
                self._expect(client.get(f"{API}/secrets/{path}"), value)
                verified = self._expect(client.post(f"{API}/verify", json={"key": self.key}))
                if verified.is_success and not verified.json()["valid"]:
                    self.failures.append(verified.text)
                if turn % 10 == 0:
                    name = f"ks-{server.port}-{number}-{turn}"
                    body = {"name": name, "prefix": "acme", "environment": "dev"}
                    self._expect(client.post(f"{API}/keyspaces", json=body))

    def _expect(self, answer: httpx.Response, value: str | None = None) -> httpx.Response:
        self.requests += 1
        if not answer.is_success or (value is not None and value not in answer.text):
            self.failures.append(
                f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}"
            )
        return answer


def test_root_key_is_rotated_under_load_and_nothing_is_lost(
    start_server: Start, server_database_url: str | None, tmp_path: Path
) -> None:
    """Add, rewrap, retire; then a new workspace key, reseal, destroy the old one: every answer is right throughout."""
    servers = [start_server(server_database_url)]
    if server_database_url is not None:
        servers.append(start_beside(start_server, servers[0], server_database_url))
    settings = settings_of(servers[0], server_database_url)
    with client_of(servers[0]) as client:
        new_keyspace(client)
        load = Load(servers, new_key(client)["key"])
        (old,) = asyncio.run(root_key_status(settings))
        (first,) = client.get(f"{API}/workspace-keys").json()["items"]
        with load.running():
            load.until_more(20)
            new = asyncio.run(add_root_key(settings))
            for server in servers[1:]:
                (server.data_dir / "kek").write_bytes((settings.data / "kek").read_bytes())
            load.until_more(20)
            assert post(client, "/root-keys/rewrap")["remaining"] == 0
            load.until_more(20)
            assert asyncio.run(retire_root_key(settings, old.id, tmp_path / "kept"))
            load.until_more(20)
            post(client, "/workspace-keys/rotate")
            while post(client, "/workspace-keys/reseal", values_max=20)["remaining"]:
                pass
            post(client, f"/workspace-keys/{first['id']}/destroy")
            load.until_more(20)

        assert load.failures == []
        assert load.written
        for server in servers:
            server.restart()
        with client_of(servers[0]) as again:
            for path, value in load.written.items():
                assert value in again.get(f"{API}/secrets/{path}").text
    assert [(one.id, one.given) for one in asyncio.run(root_key_status(settings))] == [(new, True)]
    every_workspace_key_opens(settings)


@pytest.mark.parametrize("kill_after", [1, 200, 900])
def test_killed_in_the_middle_of_a_rewrap_every_workspace_key_opens_and_the_rest_follows(
    start_server: Start, kill_after: int
) -> None:
    """`kill -9` leaves each workspace key under one root key or the other, never under none."""
    server = start_server()
    settings = settings_of(server, None)
    add_workspace_keys(settings, 1200)
    new = asyncio.run(add_root_key(settings))
    with client_of(server) as client:
        asking = threading.Thread(target=_ask, args=(client,))
        asking.start()
        with closing(sqlite3.connect(f"file:{settings.sqlite_path}?mode=ro", uri=True)) as watching:
            deadline = time.monotonic() + SECONDS_MAX
            while _moved(watching, new) < kill_after and time.monotonic() < deadline:
                time.sleep(0.001)
        server.kill9()
        asking.join()

    every_workspace_key_opens(settings)
    server.restart()
    with client_of(server) as client:
        done = post(client, "/root-keys/rewrap", keys_max=10_000)
    assert (done["root_key"], done["remaining"]) == (new, 0)
    every_workspace_key_opens(settings)


def test_command_line_rotates_a_running_server(start_server: Start, tmp_path: Path) -> None:
    server = start_server()
    environment = {
        "PATH": str(Path(sys.executable).parent),
        "HOME": str(tmp_path),
        "KEYTURN_DATA": str(server.data_dir),
        "KEYTURN_URL": server.url,
        "KEYTURN_TOKEN_FILE": str(server.data_dir / "admin-token"),
    }

    def keyturn(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "keyturn", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    old = keyturn("root-key", "status").split()[5]
    assert "seals from now on" in keyturn("root-key", "rotate")
    assert "run `keyturn root-key rewrap`" in keyturn("root-key", "retire", old, "--discard", code=3)
    assert "keyturn root-key rewrap" in keyturn("doctor")
    assert "1 workspace keys rewrapped" in keyturn("root-key", "rewrap")
    assert "removed from the file" in keyturn("root-key", "retire", old, "--keep", str(tmp_path / "kept"))
    assert old not in keyturn("root-key", "census")
    assert "give either" in keyturn("root-key", "retire", old, code=2)
    assert "keyturn-kek-v1" in keyturn("root-key", "generate")
    keyturn("root-key", "generate", "--output", str(tmp_path / "new"))
    assert "left as it is" in keyturn("root-key", "generate", "--output", str(tmp_path / "new"), code=2)
    assert "open" in keyturn("workspace-keys", "rotate")
    assert "0 remain" in keyturn("workspace-keys", "reseal")
    first = keyturn("workspace-keys", "list").split()[6]
    assert "destroyed" in keyturn("workspace-keys", "destroy", first)


def test_server_moves_from_its_file_to_a_key_management_service(start_server: Start, tmp_path: Path) -> None:
    """The guide's move: restart with both, rewrap, retire, restart with the service alone."""
    with kms() as (endpoint, key):
        aws = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "KEYTURN_KEK_AWS_KEYS": key,
            "KEYTURN_KEK_AWS_REGION": "eu-central-1",
            "KEYTURN_KEK_AWS_ENDPOINT": endpoint,
        }
        before = start_server()
        with client_of(before) as client:
            answer = client.put(f"{API}/secrets/production/app/a", json={"fields": {"key": "value a"}})
            assert answer.is_success, answer.text
        before.stop()
        old = (before.data_dir / "kek").read_text().split()[1]
        both = start_server(data_dir=before.data_dir, env={**aws, "KEYTURN_KEK_PROVIDER": "aws-kms,file"})
        with client_of(both) as client:
            done = post(client, "/root-keys/rewrap")
            seen = client.get(f"{API}/root-keys").json()["items"]
        both.stop()
        alone = start_server(data_dir=before.data_dir, env={**aws, "KEYTURN_KEK_PROVIDER": "aws-kms"})
        (before.data_dir / "kek").rename(tmp_path / "kept")
        alone.restart()
        with client_of(alone) as client:
            assert "value a" in client.get(f"{API}/secrets/production/app/a").text
            assert post(client, "/workspace-keys/rotate")["root_key"] == done["root_key"]

    assert done["root_key"].startswith("aws-kms:arn:aws:kms:eu-central-1:")
    assert (done["rewrapped"], done["remaining"]) == (1, 0)
    assert [(one["id"], one["seals"], one["workspace_keys"]) for one in seen] == [
        (done["root_key"], True, 1),
        (old, False, 0),
    ]


@contextmanager
def kms() -> Iterator[tuple[str, str]]:
    """Start a stand-in of AWS KMS with one key; yield its address and the key's ARN."""
    import boto3
    from moto.server import ThreadedMotoServer

    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    try:
        host, port = service.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        session = boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing")
        with closing(session.client("kms", region_name="eu-central-1", endpoint_url=endpoint)) as client:
            arn = client.create_key()["KeyMetadata"]["Arn"]
        yield endpoint, arn
    finally:
        service.stop()


def _ask(client: httpx.Client) -> None:
    try:
        client.post(f"{API}/root-keys/rewrap", json={"keys_max": 10_000}, timeout=SECONDS_MAX)
    except httpx.HTTPError:
        return  # it was killed


def _moved(watching: sqlite3.Connection, kek_id: str) -> int:
    (count,) = watching.execute("SELECT count(*) FROM workspace_key WHERE kek_id = ?", (kek_id,)).fetchone()
    return int(count)

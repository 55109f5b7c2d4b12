"""A backup taken under a load of writes and reads of held secrets, and the machine that it is restored on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.errors import UnavailableError
from keyturn.storage.kek_held import generate
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.nodes import posted
from tests.faults.system import API, Start, checkpoint_of, client_of, verified_log, verifier_key_of

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

WRITERS = 3
READERS = 2
VERSIONS_PER_SECRET = 20
NAMES = ("kept", "deleted", "destroyed", "removed", "changed")

Place = tuple[str, int]
"""A path, and the number of a version."""


def put(client: httpx.Client, path: str, value: str) -> int:
    """Write a version; return its number."""
    answer = client.put(f"{API}/secrets/{path}", json={"fields": {"token": value}})
    assert answer.status_code == 200, answer.text
    number: int = answer.json()["version"]
    return number


def value_of(client: httpx.Client, path: str, number: int | None = None) -> str:
    """Read a version; return its value, or why there is none."""
    params = {} if number is None else {"version": str(number)}
    answer = client.get(f"{API}/secrets/{path}", params=params)
    return str(answer.json()["fields"]["token"] if answer.status_code == 200 else answer.json()["code"])


def changed(client: httpx.Client, path: str, **body: Any) -> None:
    """Do what must be done."""
    answer = client.post(API + path, json=body)
    assert answer.is_success, answer.text


@dataclass
class Load:
    """Writes and reads until it is over; `values` is what was acknowledged."""

    server: RunningServer
    values: dict[Place, str] = field(default_factory=dict)
    reads: int = 0
    faults: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def write(self, writer: int) -> None:
        """Write version after version, and a new secret now and then."""
        count = 0
        with client_of(self.server) as client:
            while not self.over.is_set():
                path = f"production/load/writer-{writer}-{count // VERSIONS_PER_SECRET}"
                value = f"value-{writer}-{count}"
                self.values[path, put(client, path, value)] = value
                count += 1

    def read(self) -> None:
        """Read what was written last."""
        with client_of(self.server) as client:
            while not self.over.is_set():
                for (path, number), value in list(self.values.items())[-WRITERS:]:
                    if value_of(client, path, number) != value:
                        self.faults.append(f"{path} {number}")
                    self.reads += 1

    def is_more_than(self, writes: int, reads: int) -> bool:
        """Tell whether so much was done."""
        return len(self.values) > writes and self.reads > reads


@contextmanager
def load_on(server: RunningServer) -> Iterator[Load]:
    """Write and read beside the block."""
    load = Load(server)
    threads = [threading.Thread(target=load.write, args=(number,)) for number in range(WRITERS)]
    threads += [threading.Thread(target=load.read) for _ in range(READERS)]
    for one in threads:
        one.start()
    try:
        assert until(lambda: load.is_more_than(50, 20), 60)
        yield load
        writes, reads = len(load.values), load.reads
        assert until(lambda: load.is_more_than(writes + 10, reads + 5), 60)
    finally:
        load.over.set()
        for one in threads:
            one.join(120)
    assert load.faults == []


@dataclass(frozen=True)
class Machine:
    """A data folder and a database, and the command line beside them."""

    data: Path
    url: str | None

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Run a command; return exit code, output and errors."""
        settings = {"KEYTURN_DATA": str(self.data), "KEYTURN_DATABASE_URL": self.url or ""}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")} | settings
        command = [sys.executable, "-m", "keyturn", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr


def test_secrets_backed_up_under_load_are_served_by_another_machine_that_has_the_root_key(
    start_server: Start, server_database_url: str | None, tmp_path: Path
) -> None:
    """Every version that was acknowledged before opens, what was taken away since stays away; no root key, nothing."""
    first = start_server(server_database_url)
    admin = first.admin_token
    file, export = tmp_path / "keyturn.backup", tmp_path / "log.jsonl"
    with client_of(first) as client:
        for name in NAMES:
            put(client, f"production/{name}/key", f"value-of-{name}")
        kept, revoked = (posted(client, "/login-tokens") for _ in range(2))
        public_key, checkpoint = verifier_key_of(client), checkpoint_of(client)
        with load_on(first) as load:
            before = dict(load.values)
            code, out, err = Machine(first.data_dir, server_database_url).run("backup", "--output", file, "--json")
        assert code == 0, err
        changed(client, "/secret-delete/production/deleted/key")
        changed(client, "/secret-destroy/production/destroyed/key", versions=[1])
        changed(client, "/secret-remove/production/removed/key")
        put(client, "production/changed/key", "value-since")
        put(client, "production/late/key", "value-since")
        changed(client, f"/login-tokens/{revoked['info']['id']}/revoke")
        checkpoint_of(client)
        export.write_text(client.get(f"{API}/audit/export").text)
    first.stop()

    other, root_key = Machine(tmp_path / "restored", None), first.data_dir / "kek"
    kek_id = json.loads(out)["root_keys"][0]
    if server_database_url is None:
        _cannot_be_restored_without(root_key, kek_id, other, file)
    other.data.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(root_key, other.data / "kek")
    code, out, err = other.run("restore", file, "--revocations", export, "--json")
    assert code == 0, err
    assert json.loads(out)["reapplied"] == {
        "secret.delete": 1,
        "secret.destroy": 1,
        "secret.remove": 1,
        "login_token.revoke": 1,
    }
    for path in ("production/changed/key", "production/late/key"):
        look_at = json.loads(out)["look_at"]
        assert any(path in line for line in look_at), "what was written since and is lost is named for a person"
    if server_database_url is None:
        _cannot_be_served_without(root_key, kek_id, other, start_server)

    second = start_server(data_dir=other.data)
    with client_of(second, token=admin) as client:
        assert {place: value_of(client, *place) for place in before} == before
        found = {name: value_of(client, f"production/{name}/key") for name in (*NAMES, "late")}
        assert found == {
            "kept": "value-of-kept",
            "deleted": "version_deleted",
            "destroyed": "version_destroyed",
            "removed": "not_found",
            "changed": "value-of-changed",
            "late": "not_found",
        }
        for token, status in ((kept, 200), (revoked, 401)):
            with client_of(second, token=token["token"]) as holder:
                assert holder.get(f"{API}/secrets/production/kept/key").status_code == status
        assert put(client, "production/changed/key", "value-after") == 2
        checkpoint_of(client)
        report = verified_log(client, public_key, checkpoint)
        assert report.ok, report.findings
    assert second.stop() == 0


def _cannot_be_restored_without(root_key: Path, kek_id: str, machine: Machine, file: Path) -> None:
    """See that without the root key, and with another, nothing is made, and the one that is wanted is named."""
    restoring = ("restore", file, "--accept-lost-revocations")
    code, _, err = machine.run(*restoring)
    assert (code, kek_id in err, machine.data.exists()) == (2, True, False), err
    machine.data.mkdir(mode=0o700)
    _write_private(machine.data / root_key.name, generate())
    code, _, err = machine.run(*restoring)
    assert (code, kek_id in err, [one.name for one in machine.data.iterdir()]) == (2, True, [root_key.name]), err


def _cannot_be_served_without(root_key: Path, kek_id: str, machine: Machine, start: Start) -> None:
    """See that a server without the root key, or with another, does not start, and names the one that is wanted."""
    there = machine.data / root_key.name
    for content in (None, generate()):
        there.unlink(missing_ok=True)
        if content is not None:
            _write_private(there, content)
        with pytest.raises(UnavailableError, match=kek_id):
            start(data_dir=machine.data)
        assert there.exists() is (content is not None), "a server never makes a root key for data that has one"
    shutil.copy(root_key, there)


def _write_private(path: Path, content: str) -> None:
    path.touch(mode=0o600)
    path.write_text(content)

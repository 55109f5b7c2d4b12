"""Two servers on one PostgreSQL hold one vault: what one did holds at the other at once, and one of many wins."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from keyturn.testing.databases import MigratedDatabases
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.held import leaves
from tests.faults.nodes import posted, service
from tests.faults.system import API, client_of

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.postgres]

ROUNDS = 5
WRITERS_PER_SERVER = 4


@dataclass
class Pair:
    """Two servers, and an administrator's client of each."""

    servers: list[RunningServer]
    clients: list[httpx.Client]

    @property
    def token(self) -> str:
        """The token of the administrator."""
        return self.servers[0].admin_token


@pytest.fixture(scope="module")
def pair(migrated_databases: MigratedDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The same two servers for every test, each of which has a secret of its own."""
    folder = tmp_path_factory.mktemp("pair")
    url = migrated_databases.take()
    with ExitStack() as stack:
        first = stack.enter_context(RunningServer.start(folder / "first", url))
        root_key = {"KEYTURN_KEK_PATH": str(first.data_dir / "kek")}
        second = stack.enter_context(RunningServer.start(folder / "second", url, env=root_key))
        servers = [first, second]
        clients = [stack.enter_context(client_of(one, token=first.admin_token)) for one in servers]
        yield Pair(servers, clients)
    migrated_databases.give_back(url)


def read(client: httpx.Client, path: str) -> str:
    """Read a secret; return its value, or why there is none."""
    answer = client.get(f"{API}/secrets/{path}")
    return str(answer.json()["fields"]["token"] if answer.status_code == 200 else answer.json()["code"])


def changed(answer: httpx.Response) -> dict[str, Any]:
    """Return an answer that must be a success."""
    assert answer.status_code in {200, 201}, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_of_writers_with_the_same_cas_one_wins(pair: Pair) -> None:
    """Whichever server they ask: one version for each round, and it holds what the winner sent."""
    path = "production/raced/key"
    one, other = pair.clients
    names = [f"writer-{n}" for n in range(2 * WRITERS_PER_SERVER)]
    with ThreadPoolExecutor(len(names)) as threads:
        for cas in range(ROUNDS):
            together = threading.Barrier(len(names))

            def attempt(
                number: int, cas: int = cas, together: threading.Barrier = together
            ) -> tuple[str, httpx.Response]:
                value = f"{names[number]}-of-round-{cas}"
                body = {"fields": {"token": value}, "cas": cas}
                # To patch needs a version; from then on it is a write like any other.
                method = "PATCH" if cas and number % 4 > 1 else "PUT"
                client = pair.clients[number % 2]
                together.wait(120)
                return value, client.request(method, f"{API}/secrets/{path}", json=body)

            found = list(threads.map(attempt, range(len(names))))
            won = [(value, answer.json()["version"]) for value, answer in found if answer.status_code == 200]
            lost = [answer for _, answer in found if answer.status_code != 200]
            assert [number for _, number in won] == [cas + 1]
            assert {(answer.status_code, answer.json()["code"]) for answer in lost} == {(409, "cas_mismatch")}
            assert (read(one, path), read(other, path)) == (won[0][0], won[0][0])
    shown = changed(one.get(f"{API}/secret-metadata/{path}"))
    assert [version["number"] for version in shown["versions"]] == list(range(ROUNDS, 0, -1))
    allowed = [leaf for leaf in leaves(one, "secret.put") if leaf["outcome"] == "allowed"]
    written = [leaf for leaf in allowed if leaf["detail"]["path"] == path]
    assert [leaf["detail"]["version"] for leaf in written] == list(range(ROUNDS, 0, -1))


def test_what_one_server_wrote_the_other_reads_at_once(pair: Pair) -> None:
    path = "production/written/key"
    for number in range(8):
        here, there = pair.clients if number % 2 else pair.clients[::-1]
        value = f"value-{number}"
        written = changed(here.put(f"{API}/secrets/{path}", json={"fields": {"token": value}}))
        assert (read(there, path), read(here, path)) == (value, value)
        pending = changed(
            there.put(f"{API}/secrets/{path}", json={"fields": {"token": f"{value}-promoted"}, "pending": True})
        )
        assert read(here, path) == value
        changed(there.post(f"{API}/secret-promote/{path}", json={"sequence": pending["sequence"]}))
        assert (read(here, path), read(there, path)) == (f"{value}-promoted", f"{value}-promoted")
        changed(here.post(f"{API}/secret-delete/{path}", json={}))
        assert (read(there, path), read(here, path)) == ("version_deleted", "version_deleted")
        changed(there.post(f"{API}/secret-undelete/{path}", json={}))
        assert read(here, path) == f"{value}-promoted"
        rolled = changed(here.post(f"{API}/secret-rollback/{path}", json={"version": written["version"]}))
        assert read(there, path) == value
        changed(there.post(f"{API}/secret-destroy/{path}", json={"versions": [rolled["version"]]}))
        assert (read(here, path), read(there, path)) == ("version_destroyed", "version_destroyed")
    changed(pair.clients[0].post(f"{API}/secret-remove/{path}", json={}))
    assert read(pair.clients[1], path) == "not_found"


@dataclass
class Readers:
    """Read through both servers without a pause, and note when each read that was answered with a value was sent."""

    path: str
    over: threading.Event = field(default_factory=threading.Event)
    admitted: list[tuple[float, int]] = field(default_factory=list)
    codes: set[tuple[int, str]] = field(default_factory=set)

    def run(self, number: int, server: RunningServer, token: str) -> None:
        """Read until told to end."""
        with client_of(server, token=token) as client:
            while not self.over.is_set():
                sent = time.monotonic()
                answer = client.get(f"{API}/secrets/{self.path}")
                if answer.status_code == 200:
                    self.admitted.append((sent, number))
                else:
                    self.codes.add((answer.status_code, answer.json()["code"]))

    def admit_at_all(self) -> bool:
        """Tell whether reads are admitted at both servers."""
        return {number for _, number in self.admitted} == {0, 1}


@dataclass(frozen=True)
class Right:
    """Something that lets a client read, and how it is taken away."""

    token: str
    take: str
    refused: set[tuple[int, str]]


def granted(client: httpx.Client, path: str, number: int) -> Right:
    """Make a service that may read, whose grant is to be revoked."""
    _, token, grants = service(client, f"granted-{number}", ("secret.read", f"secret/{path}"))
    return Right(token, f"{API}/grants/{grants[0]}/revoke", {(404, "not_found")})


def logged_in(client: httpx.Client, _path: str, _number: int) -> Right:
    """Make a login token that may read, to be revoked."""
    made = posted(client, "/login-tokens")
    return Right(made["token"], f"{API}/login-tokens/{made['info']['id']}/revoke", {(401, "unauthenticated")})


@pytest.mark.parametrize("make", [granted, logged_in])
def test_no_server_admits_a_read_after_a_right_was_taken_at_one(
    pair: Pair, make: Callable[[httpx.Client, str, int], Right]
) -> None:
    """Neither the one that took it nor the other, which remembers callers that it has proven."""
    path = "production/taken/key"
    changed(pair.clients[0].put(f"{API}/secrets/{path}", json={"fields": {"token": "held"}}))
    for number in range(3):
        right = make(pair.clients[0], path, number)
        readers = Readers(path)
        with ThreadPoolExecutor(4) as threads:
            running = [threads.submit(readers.run, n % 2, pair.servers[n % 2], right.token) for n in range(4)]
            try:
                assert until(readers.admit_at_all), readers.codes
                changed(pair.clients[number % 2].post(right.take, json={}))
                taken = time.monotonic()
                time.sleep(0.5)
                assert until(lambda: bool(readers.codes))  # noqa: B023 -- used at once
            finally:
                readers.over.set()
            for one in running:
                one.result(120)
        assert [sent - taken for sent, _ in readers.admitted if sent > taken] == []
        assert readers.codes == right.refused


def test_a_wrap_that_both_servers_are_asked_to_open_has_one_holder(pair: Pair) -> None:
    tokens = [posted(pair.clients[0], "/wraps", data={"number": n}, ttl_seconds=600)["token"] for n in range(8)]
    with ThreadPoolExecutor(6) as threads:
        for number, token in enumerate(tokens):
            together = threading.Barrier(6)

            def open_it(
                asked: int, token: str = token, together: threading.Barrier = together
            ) -> tuple[int, dict[str, Any]]:
                together.wait(120)
                url = f"{pair.servers[asked % 2].url}{API}/wraps/open"
                answer = httpx.post(url, json={"token": token}, timeout=120)
                return answer.status_code, answer.json()

            found = list(threads.map(open_it, range(6)))
            assert [body["data"] for status, body in found if status == 200] == [{"number": number}]
            assert {(status, body["code"]) for status, body in found if status != 200} == {(410, "wrap_used")}
    opened = [leaf for leaf in leaves(pair.clients[0], "system.unwrap") if leaf["outcome"] == "allowed"]
    assert len(opened) == len(tokens)

"""A server with one keyspace, and verifiers of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from keyturn.client import Verifier
from keyturn.kernel.ids import new_id
from keyturn.testing.databases import MigratedDatabases
from keyturn.testing.server import RunningServer
from tests.client.control import Control, MakeVerifier


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest) -> str:
    """Which database the server has: a test runs once on each."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared_server(
    request: pytest.FixtureRequest, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """The server that the tests of a module share, each in a workspace of its own."""
    folder = tmp_path_factory.mktemp("shared") / "data"
    if engine == "sqlite":
        with RunningServer.start(folder) as running:
            yield running
        return
    databases: MigratedDatabases = request.getfixturevalue("migrated_databases")
    url = databases.take()
    with RunningServer.start(folder, url) as running:
        yield running
    databases.give_back(url)


@pytest.fixture
def own_server() -> None:
    """Give the test a server of its own, whose administrator it is: it stops it, or needs the whole instance."""


@pytest.fixture
def control(request: pytest.FixtureRequest, engine: str) -> Iterator[Control]:
    """An empty workspace but for the keyspace `orders`, on SQLite and on PostgreSQL."""
    if "own_server" in request.fixturenames:
        url = None if engine == "sqlite" else request.getfixturevalue("migrated_postgres_url")
        server: RunningServer = request.getfixturevalue("start_server")(database_url=url)
        found = Control(server, server.admin_token)
    else:
        server = request.getfixturevalue("shared_server")
        found = Control(server, _new_workspace(server))
    found.keyspace()
    yield found
    found.http.close()


def _new_workspace(server: RunningServer) -> str:
    """Return the token of a new workspace's administrator."""
    instance = Control(server, server.admin_token)
    with instance.http:
        token: str = instance.post("/workspaces", name=new_id("wsp", 0.0).replace("_", "-").lower())["token"]
    return token


@pytest.fixture
def verifier(control: Control) -> Iterator[MakeVerifier]:
    """Make verifiers of that workspace that are ready; all of them close with the test."""
    made: list[Verifier] = []

    def make(token: str | None = None, **more: Any) -> Verifier:
        one = Verifier(control.server.url, token or control.token, **more)
        made.append(one)
        assert one.wait_ready(120), one.counters()
        return one

    yield make
    control.server.resume()
    for one in made:
        one.close()

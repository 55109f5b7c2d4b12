"""A server with one keyspace, and verifiers of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from keyturn.client import Verifier
from tests.client.control import Control, MakeVerifier, StartServer


@pytest.fixture
def control(start_server: StartServer, server_database_url: str | None) -> Iterator[Control]:
    """A fresh server with the keyspace `orders`, on SQLite and on PostgreSQL."""
    found = Control(start_server(database_url=server_database_url))
    found.keyspace()
    yield found
    found.http.close()


@pytest.fixture
def verifier(control: Control) -> Iterator[MakeVerifier]:
    """Make verifiers of that server that are ready; all of them close with the test."""
    made: list[Verifier] = []

    def make(token: str | None = None, **more: Any) -> Verifier:
        one = Verifier(control.server.url, token or control.server.admin_token, **more)
        made.append(one)
        assert one.wait_ready(20), one.counters()
        return one

    yield make
    control.server.resume()
    for one in made:
        one.close()

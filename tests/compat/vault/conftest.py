"""A real server, `hvac` unmodified, and callers with few rights."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import hvac
import pytest

from keyturn.testing.server import RunningServer

Native = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(
        tmp_path_factory.mktemp("vault") / "data", env={"KEYTURN_SOURCE_ALLOW": "127.0.0.1/32"}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def native(server: RunningServer) -> Native:
    """Call the native interface as the administrator."""

    def call(method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {server.admin_token}"}
        answer = httpx.request(method, f"{server.url}/api/v1{path}", json=body, headers=headers, timeout=120)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    return call


@pytest.fixture(scope="module")
def hire(native: Native) -> Callable[..., str]:
    """Make a principal with grants; returns its token."""

    def made(name: str, *grants: tuple[list[str], str], kind: str = "service") -> str:
        principal = native("POST", "/principals", {"kind": kind, "name": name})["id"]
        for actions, resource in grants:
            native("POST", "/grants", {"principal": principal, "actions": actions, "resource": resource})
        return str(native("POST", f"/principals/{principal}/tokens", {"name": "t"})["token"])

    return made


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Any]:
    """The administrator's `hvac` client."""
    made = hvac.Client(server.url, server.admin_token)
    yield made
    made.adapter.close()


@pytest.fixture(scope="module")
def raw(server: RunningServer) -> Iterator[httpx.Client]:
    """Requests as other clients send them, by the administrator."""
    with httpx.Client(base_url=server.url, headers={"X-Vault-Token": server.admin_token}, timeout=120) as http:
        yield http

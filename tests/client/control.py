"""What the tests of verifiers do to a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from keyturn.client import Verifier
from keyturn.testing.server import RunningServer

MakeVerifier = Callable[..., Verifier]


@dataclass(frozen=True)
class Key:
    """An issued key as its holder has it."""

    id: str
    key: str


class Control:
    """The control plane as the administrator whose token this is sees it."""

    def __init__(self, server: RunningServer, token: str) -> None:
        self.server = server
        self.token = token
        self.http = httpx.Client(
            base_url=f"{server.url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=120
        )

    def post(self, path: str, **body: Any) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def patch(self, path: str, **body: Any) -> Any:
        answer = self.http.patch(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(path, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    def keyspace(self, name: str = "orders", **more: Any) -> Any:
        return self.post("/keyspaces", name=name, prefix="acme", tag="live", environment="production", **more)

    def issue(self, keyspace: str = "orders", **more: Any) -> Key:
        made = self.post("/keys", keyspace=keyspace, owner=more.pop("owner", "alice"), purpose="tests", **more)
        return Key(made["id"], made["key"])

    def revoke(self, key: Key) -> Any:
        return self.post(f"/keys/{key.id}/revoke")

    def service(self, *resources: str, actions: tuple[str, ...] = ("keyspace.replicate",)) -> tuple[str, list[str]]:
        """Make a service that may do this; return its token and the ids of its grants."""
        principal = self.post("/principals", kind="service", name=f"sdk-{len(self.get('/principals')['items'])}")["id"]
        grants = [
            self.post("/grants", principal=principal, actions=list(actions), resource=resource)["id"]
            for resource in resources
        ]
        return self.post(f"/principals/{principal}/tokens", name="sdk")["token"], grants

    def verifiers(self) -> list[Any]:
        return [one for one in self.get("/nodes")["items"] if one["kind"] == "verifier"]

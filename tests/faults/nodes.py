"""Nodes of a cluster as the fault tests see them: servers, and processes with a verifier in them."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx

from keyturn.testing.child import spawn, tail
from keyturn.testing.ports import free_port
from keyturn.testing.waiting import until
from tests.faults.system import API

ROOT = Path(__file__).parents[2]


class Node(Protocol):
    """Something that answers about keys, and can be harmed."""

    url: str

    def pause(self) -> None:
        """Stop it where it is."""

    def resume(self) -> None:
        """Let it run on."""

    def kill9(self) -> None:
        """Kill it."""

    def restart(self, *, wait: bool = True) -> None:
        """Start it again."""

    def is_ready(self) -> bool:
        """Tell whether it answers from memory."""


class VerifierNode:
    """A process with a verifier; see `verifier_node`."""

    def __init__(self, folder: Path, url: str, token: str, *, label: str, limits: str) -> None:
        """Not for callers: use `verifiers`."""
        self.label = label
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._log = folder / f"{label}.log"
        self._command = [
            *(sys.executable, "-m", "tests.faults.verifier_node", str(self.port), url, label, limits),
            str(folder / f"{label}-journal"),
        ]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
        self._environment = inherited | {"VERIFIER_TOKEN": token}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def restart(self, *, wait: bool = True) -> None:
        """Start it, with the same port and journal."""
        self.kill9()
        self._process = spawn(
            self._command,
            directory=ROOT,
            log=self._log,
            environment=self._environment,
            death_signal=signal.SIGKILL,
        )
        if wait:
            assert until(self.is_ready), tail(self._log)

    def is_ready(self) -> bool:
        """Tell whether it answers from memory."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def counters(self) -> dict[str, int]:
        """Return what the verifier has counted."""
        found: dict[str, int] = httpx.get(f"{self.url}/counters", timeout=120).json()
        return found

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on; harmless when it was not stopped."""
        if self._process is not None:
            os.kill(self.pid, signal.SIGCONT)

    def kill9(self) -> None:
        """Kill it (SIGKILL); harmless when it was killed before."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def logs(self) -> str:
        """Return what it printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


Verifiers = Callable[..., VerifierNode]


@contextmanager
def verifiers(folder: Path) -> Iterator[Verifiers]:
    """Start verifiers that end with the block: `start(url, token, label="...", limits="server")`."""
    made: list[VerifierNode] = []

    def start(
        url: str, token: str, *, label: str = "verifier", limits: str = "server", wait: bool = True
    ) -> VerifierNode:
        node = VerifierNode(folder, url, token, label=label, limits=limits)
        made.append(node)
        node.restart(wait=wait)
        return node

    try:
        yield start
    finally:
        for node in made:
            with contextlib.suppress(ProcessLookupError):
                node.kill9()


def service(client: httpx.Client, name: str, *grants: tuple[str, str]) -> tuple[str, str, list[str]]:
    """Make a service that holds these grants (action, resource); return its id, a token of it, and the grants."""
    principal = posted(client, "/principals", kind="service", name=name)["id"]
    made = [
        posted(client, "/grants", principal=principal, actions=[action], resource=resource)["id"]
        for action, resource in grants
    ]
    return principal, posted(client, f"/principals/{principal}/tokens", name=name)["token"], made


def posted(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    """Post what must be accepted; return the answer."""
    answer = client.post(API + path, json=body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def patched(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    """Change what must be changeable; return the answer."""
    answer = client.patch(API + path, json=body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def told(client: httpx.Client, node: Node, body: dict[str, Any]) -> str:
    """Ask a node about a key; return the code."""
    return str(client.post(f"{node.url}{API}/verify", json=body).json()["code"])

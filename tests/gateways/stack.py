"""A client, a real gateway with the shipped configuration, a real Keyturn and a small application behind it."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from keyturn.testing.child import spawn, tail, unprivileged_user
from keyturn.testing.ports import free_port
from keyturn.testing.server import RunningServer

EXAMPLES = Path(__file__).parents[2] / "examples"
START_SECONDS_MAX = 180.0
PROXIES = "127.0.0.1/32"


class _EchoHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are written one after the other

    def _answer(self) -> None:
        body, trailers = self._body()
        seen = {
            "method": self.command,
            "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body.decode("latin-1"),
            "trailers": trailers.decode("latin-1"),
        }
        encoded = json.dumps(seen).encode()
        status = int(self.headers.get("X-Answer") or 200)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(encoded)

    def _body(self) -> tuple[bytes, bytes]:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0)), b""
        body = trailers = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while line := self.rfile.readline().strip():
            trailers += line
        return body, trailers

    do_GET = do_POST = do_HEAD = do_PUT = do_OPTIONS = _answer  # noqa: N815 -- the names http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the signature of the base class
        pass


class _EchoServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep to itself that a gateway dropped a connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def echoing() -> Iterator[int]:
    """Serve the application that answers with what it was asked; yields its port."""
    server = _EchoServer(("127.0.0.1", 0), _EchoHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(120)


@dataclass(slots=True)
class Control:
    """A Keyturn with a keyspace `orders`, and the token of a gateway that may verify its keys and do nothing else."""

    server: RunningServer
    token: str = ""

    def prepare(self) -> None:
        self.post("keyspaces", name="orders", prefix="acme", environment="production")
        principal = self.post("principals", kind="service", name="gateway")["id"]
        self.post("grants", actions=["key.verify"], resource="key/orders/*", principal=principal)
        self.token = self.post(f"principals/{principal}/tokens", name="gateway")["token"]

    def post(self, path: str, **body: object) -> dict[str, Any]:
        with httpx.Client(base_url=f"{self.server.url}/api/v1/", timeout=120) as client:
            answer = client.post(path, json=body, headers={"Authorization": f"Bearer {self.server.admin_token}"})
        assert answer.status_code in {200, 201}, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def issue(self, **fields: object) -> dict[str, Any]:
        return self.post("keys", **{"keyspace": "orders", "owner": "team-web", "purpose": "test", **fields})


@contextlib.contextmanager
def controlled(folder: Path) -> Iterator[Control]:
    """Start Keyturn, which trusts the forwarding headers of this machine."""
    with RunningServer.start(folder / "keyturn", env={"KEYTURN_TRUSTED_PROXIES": PROXIES}) as server:
        control = Control(server)
        control.prepare()
        yield control


@dataclass(slots=True)
class Gateway:
    """A running gateway and how to speak to it."""

    name: str
    port: int
    folder: Path
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def request(
        self,
        method: str,
        path: str,
        headers: list[tuple[str, str]] | None = None,
        body: bytes | None = None,
        *,
        source: str = "127.0.0.1",
    ) -> httpx.Response:
        """Send exactly these headers, from that address of this machine; httpx would merge those of one name."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120, source_address=(source, 0))
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers or []:
                connection.putheader(name, value)
            if body is not None and "Transfer-Encoding" not in dict(headers or []):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())

    def get(self, path: str, key: str | None = None, *headers: tuple[str, str]) -> httpx.Response:
        bearer = [] if key is None else [("Authorization", f"Bearer {key}")]
        return self.request("GET", path, [*bearer, *headers])

    def over_http2(self, path: str, *headers: tuple[str, str]) -> httpx.Response:
        """Send a request as HTTP/2 from its first byte on; raises httpx.TransportError where that is not spoken."""
        with httpx.Client(http1=False, http2=True, trust_env=False, timeout=120) as client:
            site = f"http://127.0.0.1:{self.port}/"
            return client.get(site, headers=list(headers), extensions={"target": path.encode()})

    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


def seen(answer: httpx.Response) -> dict[str, Any]:
    """Return what the application saw."""
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def seen_headers(answer: httpx.Response) -> dict[str, list[str]]:
    """Return the headers that the application saw."""
    found: dict[str, list[str]] = {}
    for name, value in seen(answer)["headers"]:
        found.setdefault(name, []).append(value)
    return found


@contextlib.contextmanager
def running_gateway(name: str, start: Callable[[Gateway], None]) -> Iterator[Gateway]:
    """Start a gateway in a folder that an unprivileged user reaches; all of it is gone afterwards."""
    user = unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix=f"keyturn-{name}-"))
    folder.chmod(0o755)
    os.chown(folder, user.uid, user.gid)
    gateway = Gateway(name, free_port(), folder)
    try:
        start(gateway)
        _wait(gateway)
        yield gateway
    finally:
        for child in gateway.children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        shutil.rmtree(folder, ignore_errors=True)


def copied(gateway: Gateway, source: Path, changes: Mapping[str, str], target: str | None = None) -> Path:
    """Copy a shipped file; each address in it is exchanged for the test's, and has to be there."""
    text = source.read_text()
    for old, new in changes.items():
        assert old in text, f"{source} does not hold {old!r}"
        text = text.replace(old, new)
    path = gateway.folder / (target or source.name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


def launch(gateway: Gateway, command: list[str | Path], *, environment: Mapping[str, str] | None = None) -> None:
    """Start a program of a gateway as a child that ends with this process; one of the machine's is unprivileged."""
    given = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(environment or {})}
    log = gateway.folder / f"{Path(command[0]).name}.log"
    # What is beside this Python may be out of reach for another user.
    user = None if Path(command[0]).is_relative_to(sys.prefix) else unprivileged_user()
    child = spawn(
        command,
        directory=gateway.folder,
        log=log,
        environment=given,
        death_signal=signal.SIGKILL,
        user=user,
    )
    gateway.children.append(child)


def _wait(gateway: Gateway) -> None:
    """Return once the gateway and what it asks are up: a request without a key is then told so."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if gateway.get("/").status_code == httpx.codes.UNAUTHORIZED:
                return
        if any(child.poll() is not None for child in gateway.children) or time.monotonic() > deadline:
            logs = "\n".join(tail(log) for log in gateway.folder.glob("*.log"))
            raise AssertionError(f"{gateway.name} did not start\n{logs}")
        time.sleep(0.05)

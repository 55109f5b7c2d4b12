"""The verify lane against a running server, spoken to in bytes: what a client library would never send too."""

import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest

from keyturn.testing.server import RunningServer

pytestmark = pytest.mark.slow

PATH = "/api/v1/verify"
LIMIT = 1_000_000


@dataclass(frozen=True)
class Wire:
    """A server with a key that has a limit and one that has none, and how to speak to it."""

    server: RunningServer
    key: str
    free: str

    @contextmanager
    def connected(self) -> Iterator[tuple[socket.socket, BinaryIO]]:
        with (
            socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as connection,
            connection.makefile("rb") as answers,
        ):
            yield connection, answers

    def ask(self, *lines: str, body: bytes = b"", method: str = "POST", token: str | None = None) -> bytes:
        """Return the bytes of a request with these header lines beside the usual ones."""
        usual = ["host: keyturn", f"authorization: Bearer {token or self.server.admin_token}"]
        return "\r\n".join([f"{method} {PATH} HTTP/1.1", *usual, *lines, "", ""]).encode() + body

    def whole(self, token: str | None = None, **asked: Any) -> bytes:
        """Return a request that is as it should be."""
        body = json.dumps({"key": self.key, **asked}).encode()
        return self.ask("content-type: application/json", f"content-length: {len(body)}", body=body, token=token)

    def sent(self, *parts: bytes) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and content of what is answered to these bytes."""
        with self.connected() as (connection, answers):
            for part in parts:
                connection.sendall(part)
            return read(answers)

    def left(self) -> int:
        """Return what is left of the key's limit, without charging it."""
        _, _, said = self.sent(self.whole(cost=0))
        left: int = said["limits"][0]["remaining"]
        return left


def read(answers: BinaryIO, *, bodiless: bool = False) -> tuple[int, dict[str, str], Any]:
    """Read one answer."""
    status = int(answers.readline().split()[1])
    headers: dict[str, str] = {}
    while line := answers.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    raw = b"" if bodiless else answers.read(int(headers.get("content-length", "0")))
    return status, headers, json.loads(raw) if raw else None


def listens(port: int) -> bool:
    """Tell whether a new connection is taken."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return False
    return True


def chunked(body: bytes, size: int) -> bytes:
    """Return a body in chunks of that size."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def prepared(server: RunningServer) -> Wire:
    """Issue the keys."""
    limit = {"name": "day", "limit": LIMIT, "window_seconds": 86_400}
    keys = []
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.admin_token}"}) as client:
        for name, limits in (("orders", [limit]), ("parcels", [])):
            keyspace = {"name": name, "prefix": "acme", "environment": "dev", "limits": limits}
            assert client.post("/api/v1/keyspaces", json=keyspace).status_code == 201
            issued = client.post("/api/v1/keys", json={"keyspace": name, "owner": "alice", "purpose": "test"})
            keys.append(issued.json()["key"])
    return Wire(server, *keys)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """One server for every test that leaves it running."""
    folder: Path = tmp_path_factory.mktemp("lane")
    with RunningServer.start(folder / "data") as server:
        yield prepared(server)


def test_requests_sent_without_waiting_are_answered_in_their_order(wire: Wire) -> None:
    bad = wire.ask("content-type: application/json", "content-length: 2", body=b"{}")
    with wire.connected() as (connection, answers):
        connection.sendall(wire.whole(scopes="a") + bad + wire.whole() + wire.whole(scopes="b"))
        found = [read(answers) for _ in range(4)]
    assert [status for status, _, _ in found] == [200, 400, 200, 200]
    assert [said["code"] for _, _, said in found if "valid" in said] == [
        "INSUFFICIENT_PERMISSIONS",
        "VALID",
        "INSUFFICIENT_PERMISSIONS",
    ]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_chunked_body_is_answered_as_a_whole_one_is(wire: Wire, size: int) -> None:
    body = json.dumps({"key": wire.free}).encode()
    head = wire.ask("content-type: application/json", "transfer-encoding: chunked")
    status, _, said = wire.sent(head, chunked(body, size))
    assert (status, said) == (200, wire.sent(wire.whole(key=wire.free))[2])


def test_the_same_question_is_answered_alike_by_memory_and_by_the_general_path(wire: Wire) -> None:
    """The first answer for a token comes from the database, the following ones from memory."""
    with httpx.Client(base_url=wire.server.url) as client:
        client.headers["Authorization"] = f"Bearer {wire.server.admin_token}"
        asker = client.post("/api/v1/principals", json={"kind": "service", "name": "gateway"}).json()["id"]
        grant = {"principal": asker, "actions": ["key.verify"], "resource": "key/parcels/*"}
        assert client.post("/api/v1/grants", json=grant).status_code == 201
        issued = client.post(f"/api/v1/principals/{asker}/tokens", json={"name": "test"})
        assert issued.status_code == 201, issued.text
    request = wire.whole(issued.json()["token"], key=wire.free)
    cold, warm, again = (wire.sent(request) for _ in range(3))
    assert (cold[0], cold[2]["code"]) == (200, "VALID")
    assert cold[2] == warm[2] == again[2]
    assert cold[1].keys() == warm[1].keys() == again[1].keys()


def test_a_body_past_the_bound_is_refused_and_the_connection_closed(wire: Wire) -> None:
    with wire.connected() as (connection, answers):
        connection.sendall(wire.ask("content-type: application/json", "content-length: 70000"))
        status, headers, said = read(answers)
        assert (status, headers["connection"], said["code"]) == (413, "close", "too_large")
        assert answers.read() == b""
    head = wire.ask("content-type: application/json", "transfer-encoding: chunked")
    assert wire.sent(head, b"11170\r\n" + b" " * 70_000 + b"\r\n")[0] == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"key": 1}', b'{"key": "a", "more": 1}', b"\xff"])
def test_a_body_that_is_no_question_is_a_400(wire: Wire, body: bytes) -> None:
    request = wire.ask("content-type: application/json", f"content-length: {len(body)}", body=body)
    status, headers, said = wire.sent(request)
    assert (status, headers["content-type"], said["status"]) == (400, "application/problem+json", 400)
    assert said["instance"] == f"urn:keyturn:request:{headers['x-request-id']}"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "LIST", "HEAD"])
def test_no_other_method_verifies(wire: Wire, method: str) -> None:
    with wire.connected() as (connection, answers):
        connection.sendall(wire.ask(method=method))
        status, headers, _ = read(answers, bodiless=method == "HEAD")
    assert (status, headers["allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["authorization: Bearer another", "content-type: application/json"], 401),
        (["authorization:", "content-type: application/json"], 401),
        ([], 415),
        (["content-type: text/plain"], 415),
    ],
)
def test_a_header_that_is_absent_or_there_twice_is_refused(wire: Wire, lines: list[str], status: int) -> None:
    body = json.dumps({"key": wire.key}).encode()
    assert wire.sent(wire.ask(*lines, f"content-length: {len(body)}", body=body))[0] == status


def test_a_request_without_a_token_is_a_401(wire: Wire) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nhost: keyturn\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    status, headers, _ = wire.sent(head.encode() + b"{}")
    assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="keyturn"')


def test_a_client_that_goes_before_its_body_is_whole_is_charged_nothing(wire: Wire) -> None:
    """What has arrived may be a question already; nobody is there to hear the answer."""
    before = wire.left()
    body = json.dumps({"key": wire.key, "cost": 1000}).encode()
    for lines, sent in (
        ([f"content-length: {len(body) + 100}"], body),
        (["transfer-encoding: chunked"], b"%x\r\n%b\r\n" % (len(body), body)),
    ):
        with wire.connected() as (connection, _):
            connection.sendall(wire.ask("content-type: application/json", *lines, body=sent))
            connection.shutdown(socket.SHUT_RDWR)
    assert wire.sent(wire.whole())[2]["code"] == "VALID"
    assert wire.left() >= before - 1


def test_a_request_in_flight_at_sigterm_is_answered(start_server: Callable[..., RunningServer]) -> None:
    wire = prepared(start_server())
    request = wire.whole()
    with wire.connected() as (connection, answers):
        connection.sendall(wire.whole())
        assert read(answers)[0] == 200
        connection.sendall(request[:-5])
        # The worker has begun with it when it answers another that came later.
        assert wire.sent(wire.whole())[0] == 200
        wire.server.process.send_signal(signal.SIGTERM)
        while listens(wire.server.port):
            pass
        connection.sendall(request[-5:])
        status, headers, said = read(answers)
    assert (status, headers["connection"], said["code"]) == (200, "close", "VALID")
    assert wire.server.process.wait(30) == 0

"""The client against a real server, in both colours, and against servers that fail."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from keyturn import errors
from keyturn.client import AsyncKeyturn, Keyturn
from keyturn.client import api as module
from keyturn.testing.server import RunningServer
from keyturn.wire.keys import CreateKeyspace, IssueKey, RevokeKey, RevokeReason, RotateKey, UpdateKey, UpdateKeyspace
from keyturn.wire.verification import VerifyRequest


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path_factory.mktemp("client") / "data") as running:
        with Keyturn(running.url, running.admin_token) as keyturn:
            keyturn.create_keyspace(CreateKeyspace(name="orders", prefix="acme", environment="development"))
        yield running


def asking(**more: object) -> IssueKey:
    given = {"keyspace": "orders", "owner": "alice", "purpose": "tests", **more}
    return IssueKey(**given)  # type: ignore[arg-type]


def test_the_life_of_a_key(server: RunningServer) -> None:
    with Keyturn(server.url, server.admin_token) as keyturn:
        made = keyturn.issue(asking(scopes=("orders:read",)))
        assert made.key is not None
        verdict = keyturn.verify(made.key, scopes="orders:read", ip="192.0.2.7")
        assert verdict
        assert (verdict.key_id, verdict.owner, verdict.keyspace) == (made.id, "alice", "orders")
        assert not keyturn.verify(made.key, scopes="orders:write")
        changed = keyturn.update(made.id, UpdateKey(name="billing"), revision=made.revision)
        assert changed.name == "billing"
        with pytest.raises(errors.PreconditionError):
            keyturn.update(made.id, UpdateKey(name="late"), revision=made.revision)
        rotated = keyturn.rotate(made.id, RotateKey(overlap_seconds=0))
        assert rotated.key is not None
        assert keyturn.verify(made.key).code == "REVOKED"
        assert keyturn.verify(rotated.key)
        assert keyturn.disable(made.id).state == "disabled"
        assert keyturn.verify(rotated.key).code == "DISABLED"
        assert keyturn.enable(made.id).state == "active"
        revoked = keyturn.revoke(made.id, RevokeKey(reason=RevokeReason.KEY_COMPROMISE))
        assert revoked.effective
        assert keyturn.verify(rotated.key).code == "REVOKED"
        assert keyturn.key(made.id).revoke_reason == "key_compromise"


async def test_the_same_awaited(server: RunningServer) -> None:
    async with AsyncKeyturn(server.url, server.admin_token) as keyturn:
        made = await keyturn.issue(asking())
        assert made.key is not None
        assert await keyturn.verify(made.key)
        assert made.id in {key.id async for key in keyturn.keys(keyspace="orders")}
        assert (await keyturn.revoke(made.id)).effective
        assert not await keyturn.verify(made.key)
        shown = await keyturn.keyspace("orders")
        assert (await keyturn.update_keyspace("orders", UpdateKeyspace(description="ours"))).revision > shown.revision
        assert [one.name async for one in keyturn.keyspaces()] == ["orders"]


def test_lists_go_on_over_their_pages(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_MAX", 2)
    with Keyturn(server.url, server.admin_token) as keyturn:
        made = keyturn.issue_many([asking(owner="pages") for _ in range(5)])
        assert sorted(key.id for key in keyturn.keys(owner="pages")) == sorted(one.id for one in made.items)


def test_a_create_that_is_sent_twice_is_done_once(server: RunningServer) -> None:
    with Keyturn(server.url, server.admin_token) as keyturn:
        first = keyturn.issue(asking(), idempotency_key="once")
        again = keyturn.issue(asking(), idempotency_key="once")
    assert first.key is not None
    assert (first.id, first.key) == (again.id, again.key)


def test_refusals_are_errors_with_their_code(server: RunningServer) -> None:
    with Keyturn(server.url, server.admin_token) as keyturn:
        with pytest.raises(errors.NotFoundError):
            keyturn.key("key_0000000000000000000000")
        with pytest.raises(errors.InputError) as caught:
            keyturn.verify("x", scopes="a AND")
        assert caught.value.field == "scopes"
    with Keyturn(server.url, "kt_mgmt_nothing") as stranger, pytest.raises(errors.UnauthenticatedError):
        stranger.verify("x")


def test_both_colours_have_the_same_operations() -> None:
    def shape(of: type) -> dict[str, list[str]]:
        members = inspect.getmembers(of, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in members if not name.startswith("_")}

    assert shape(Keyturn) == shape(AsyncKeyturn)


def test_neither_the_token_nor_a_key_is_printed(server: RunningServer) -> None:
    with Keyturn(server.url, server.admin_token) as keyturn:
        made = keyturn.issue(asking())
        assert made.key is not None
        shown = f"{keyturn!r} {keyturn._ask.verify(VerifyRequest(key=made.key))!r} {made!r}"  # noqa: SLF001
    assert server.admin_token not in shown
    assert made.key not in shown


# --- servers that fail -------------------------------------------------------------------------------------------


class Failing(BaseHTTPRequestHandler):
    """Answers from a script: a status for each request, `None` for a connection that is cut."""

    script: ClassVar[list[int | None]] = []
    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_POST(self) -> None:
        self.seen.append((self.path, self.headers.get("Idempotency-Key")))
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status = self.script.pop(0) if self.script else 200
        if status is None:
            self.connection.close()
            return
        verdict = self.path.endswith("/verify")
        body = b'{"valid":false,"code":"UNAVAILABLE"}' if verdict else b'{"released":1}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("keyturn.client.transport.FIRST_WAIT_SECONDS", 0.001)
    Failing.script, Failing.seen = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_may_be_repeated_is_repeated_until_it_succeeds(failing: str) -> None:
    Failing.script = [503, None, 502]
    with Keyturn(failing, "token") as keyturn:
        assert keyturn.release(["slot"]) == 1
    assert len(Failing.seen) == 4


def test_repetitions_end(failing: str) -> None:
    Failing.script = [503] * 10
    with Keyturn(failing, "token") as keyturn, pytest.raises(errors.UnavailableError):
        keyturn.release(["slot"])
    assert len(Failing.seen) == 4


def test_a_repeated_create_carries_one_idempotency_key(failing: str) -> None:
    Failing.script = [None, 503, 400]
    with Keyturn(failing, "token") as keyturn, pytest.raises(errors.InputError):
        keyturn.issue(asking())
    keys = {key for _, key in Failing.seen}
    assert len(Failing.seen) == 3
    assert len(keys) == 1
    assert None not in keys


def test_a_verification_that_may_have_been_charged_is_not_repeated(failing: str) -> None:
    Failing.script = [None]
    with Keyturn(failing, "token") as keyturn, pytest.raises(errors.UnavailableError):
        keyturn.verify("key")
    assert len(Failing.seen) == 1


def test_an_unavailable_verdict_is_a_verdict(failing: str) -> None:
    Failing.script = [503]
    with Keyturn(failing, "token") as keyturn:
        verdict = keyturn.verify("key")
    assert not verdict
    assert verdict.code == "UNAVAILABLE"
    assert len(Failing.seen) == 1


async def test_the_awaiting_client_repeats_alike(failing: str) -> None:
    Failing.script = [503, None]
    async with AsyncKeyturn(failing, "token") as keyturn:
        assert await keyturn.release(["slot"]) == 1
    assert len(Failing.seen) == 3


def test_nobody_there_is_an_error_that_names_the_address() -> None:
    with (
        Keyturn("http://127.0.0.1:9", "token") as keyturn,
        pytest.raises(errors.UnavailableError, match=r"127\.0\.0\.1:9"),
    ):
        keyturn.verify("key")


@pytest.mark.parametrize("url", ["http://keys.example.com", "ftp://127.0.0.1", "https://user@h", "127.0.0.1:8700", ""])
def test_an_address_that_would_be_unsafe_is_refused(url: str) -> None:
    with pytest.raises(errors.ConfigError):
        Keyturn(url, "token")


def test_closing_ends_a_wait_before_another_attempt(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.client.transport.pause", lambda _attempt: 60.0)
    Failing.script = [503]
    keyturn = Keyturn(failing, "token")
    raised: list[BaseException] = []

    def call() -> None:
        try:
            keyturn.release(["slot"])
        except errors.KeyturnError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not Failing.seen:
        threading.Event().wait(0.01)
    keyturn.close()
    thread.join(120)
    assert [type(error) for error in raised] == [errors.UnavailableError]


async def test_an_awaiting_call_can_be_cancelled_while_it_waits(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.client.transport.pause", lambda _attempt: 60.0)
    Failing.script = [503]
    async with AsyncKeyturn(failing, "token") as keyturn:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await keyturn.release(["slot"])

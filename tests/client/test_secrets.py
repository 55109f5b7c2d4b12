"""Held secrets as callables: against a shelf, a real server, and the rules of what is asked next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from keyturn import errors
from keyturn.client import AsyncKeyturn, Keyturn
from keyturn.client.secrets import JOINED_SECONDS, PATHS_MAX, REFUSED_SECONDS, Feed, HeldSecret, Poll, Read
from keyturn.testing.server import RunningServer
from keyturn.wire.secrets import PutSecret, SecretNews, SecretState, SecretValue
from tests.delivery.shelf import Shelf, open_shelf

STRIPE = "production/payments/stripe"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setattr("keyturn.client.transport.FIRST_WAIT_SECONDS", 0.01)
    with open_shelf() as found:
        found.put(STRIPE, key="first")
        found.put("production/db", user="app", password="sesame", port=5432)
        yield found


@pytest.fixture
def client(shelf: Shelf) -> Iterator[Keyturn]:
    with Keyturn(shelf.url, shelf.token) as keyturn:
        yield keyturn


def changes(secret: HeldSecret) -> Callable[[], Any]:
    """Return what waits for the next change and gives the value then."""
    happened = threading.Semaphore(0)
    secret.on_change(lambda _: happened.release())

    def wait() -> Any:
        assert happened.acquire(timeout=120), secret.last_failure
        return secret()

    return wait


# --- the handle --------------------------------------------------------------------------------------------------


def test_calling_it_gives_the_value_that_is_current_now(client: Keyturn, shelf: Shelf) -> None:
    stripe = client.secret(STRIPE)
    assert (stripe(), stripe.version) == ("first", 1)
    changed = changes(stripe)
    shelf.put(STRIPE, key="second")
    assert (changed(), stripe.version) == ("second", 2)
    shelf.put(STRIPE, key="third")
    assert changed() == "third"


def test_what_it_gives_depends_on_the_fields(client: Keyturn, shelf: Shelf) -> None:
    assert client.secret("production/db", field="user")() == "app"
    whole = client.secret("production/db")()
    assert dict(whole) == {"user": "app", "password": "sesame", "port": 5432}
    with pytest.raises(TypeError):
        whole["user"] = "other"
    shelf.put("production/cert", der={"$binary": "/wA="})
    assert client.secret("production/cert")() == b"\xff\x00"


def test_what_is_not_there_is_an_error_at_once(client: Keyturn) -> None:
    with pytest.raises(errors.NotFoundError):
        client.secret("production/nothing")
    with pytest.raises(errors.NotFoundError, match="no field 'key'"):
        client.secret("production/db", field="key")
    with pytest.raises(errors.InputError):
        client.secret("production/../db")


def test_nothing_prints_the_value(client: Keyturn) -> None:
    """It ends up in logs and in tracebacks with local variables."""
    db = client.secret("production/db")
    shown = (
        f"{db!r} {db()!r} {client.read_secret('production/db')!r} {db._feed.held!r} {PutSecret(fields=dict(db()))!r}"  # noqa: SLF001
    )
    assert "sesame" not in shown
    assert repr(db) == "HeldSecret('production/db', version 1)"


def test_one_thread_follows_all_secrets_and_ends_with_the_client(shelf: Shelf) -> None:
    with Keyturn(shelf.url, shelf.token) as keyturn:
        first, second = keyturn.secret(STRIPE), keyturn.secret("production/db", field="password")
        followers = [one for one in threading.enumerate() if one.name == "keyturn-secrets"]
        assert len(followers) == 1
        changed = changes(second)
        shelf.put("production/db", password="changed")
        assert (changed(), first()) == ("changed", "first")
    followers[0].join(120)
    assert not followers[0].is_alive()
    # What was handed out goes on giving what it had.
    assert first() == "first"


def test_a_callback_that_raises_ends_nothing(client: Keyturn, shelf: Shelf) -> None:
    stripe = client.secret(STRIPE)
    stripe.on_change(lambda _: 1 / 0)
    changed = changes(stripe)
    shelf.put(STRIPE, key="second")
    assert changed() == "second"
    shelf.put(STRIPE, key="third")
    assert changed() == "third"


def test_the_last_value_bridges_an_outage_up_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.client.transport.FIRST_WAIT_SECONDS", 0.01)
    shelf = Shelf()
    with open_shelf(shelf=shelf):
        shelf.put(STRIPE, key="first")
        keyturn = Keyturn(shelf.url, shelf.token)
        patient = keyturn.secret(STRIPE)
        strict = HeldSecret(patient._feed, STRIPE, None, 0.0)  # noqa: SLF001
        changed = changes(patient)
    with keyturn:
        assert patient() == "first"
        with pytest.raises(errors.StaleError, match="last seen to be current"):
            strict()
        with open_shelf(int(shelf.url.rpartition(":")[2]), shelf):
            shelf.put(STRIPE, key="second")
            assert changed() == "second"


def test_a_path_that_is_taken_away_does_not_hold_up_the_others(client: Keyturn, shelf: Shelf) -> None:
    stripe, db = client.secret(STRIPE), client.secret("production/db", field="password")
    changed = changes(db)
    shelf.refused[STRIPE] = 403
    shelf.put("production/db", password="changed")
    assert changed() == "changed"
    assert stripe() == "first"
    shelf.put("production/db", password="again")
    assert changed() == "again"
    assert isinstance(stripe.last_failure, errors.ForbiddenError)


# --- the same awaited --------------------------------------------------------------------------------------------


async def test_the_awaiting_client_follows_alike(shelf: Shelf) -> None:
    async with AsyncKeyturn(shelf.url, shelf.token) as keyturn:
        stripe, db = await keyturn.secret(STRIPE), await keyturn.secret("production/db", field="password")
        happened = asyncio.Event()

        async def changed(secret: HeldSecret) -> None:
            assert secret is stripe
            happened.set()

        stripe.on_change(changed)
        await asyncio.to_thread(shelf.put, STRIPE, key="second")
        async with asyncio.timeout(120):
            await happened.wait()
        assert (stripe(), db()) == ("second", "sesame")
        assert [one.path async for one in keyturn.secrets("production/")] == ["production/db", STRIPE]
    assert stripe() == "second"


async def test_closing_the_awaiting_client_leaves_no_task(shelf: Shelf) -> None:
    keyturn = AsyncKeyturn(shelf.url, shelf.token)
    await keyturn.secret(STRIPE)
    await keyturn.close()
    assert [one for one in asyncio.all_tasks() if one.get_name() == "keyturn-secrets"] == []
    with pytest.raises(errors.UnavailableError):
        await keyturn.secret(STRIPE)


# --- what is asked next ------------------------------------------------------------------------------------------


class World:
    """A feed with a clock that stands still."""

    def __init__(self, *paths: str) -> None:
        self.now = 100.0
        self.feed = Feed(lambda: self.now)
        self.feed.cursor = "0"
        for path in paths:
            self.feed.read(path, value(path, 1), self.now)
        self.now += JOINED_SECONDS


def value(path: str, sequence: int) -> SecretValue:
    return SecretValue(
        id="sec_" + path,
        path=path,
        environment="production",
        version=sequence,
        sequence=sequence,
        state=SecretState.CURRENT,
        fields={"key": f"v{sequence}"},
        created_at="",
        metadata={},
    )


def test_a_poll_that_did_not_ask_for_a_path_moves_no_cursor() -> None:
    """Else news of a secret that was added while the poll was out would be skipped for good."""
    world = World("production/a")
    poll = world.feed.ask()
    assert isinstance(poll, Poll)
    world.feed.read("production/b", value("production/b", 1), world.now)
    world.feed.told(poll, SecretNews(cursor="7", changed=()), world.now)
    assert world.feed.ask() == Poll(("production/a", "production/b"), "0", 0.5)


def test_news_is_read_before_the_next_poll() -> None:
    world = World("production/a", "production/b")
    poll = world.feed.ask()
    assert isinstance(poll, Poll)
    world.feed.told(poll, SecretNews(cursor="7", changed=("production/b",)), world.now)
    assert world.feed.ask() == Read("production/b")
    world.feed.read("production/b", value("production/b", 2), world.now)
    assert world.feed.ask() == Poll(("production/a", "production/b"), "7", 10.0)


def test_an_answer_that_is_late_does_not_bring_back_an_older_value() -> None:
    world = World("production/a")
    world.feed.read("production/a", value("production/a", 3), 105.0)
    world.feed.read("production/a", value("production/a", 2), 104.0)
    assert world.feed.current("production/a", 60.0).sequence == 3


def test_a_refused_path_is_left_out_for_a_while_and_then_read_again() -> None:
    world = World("production/a", "production/b")
    poll = world.feed.ask()
    assert isinstance(poll, Poll)
    assert world.feed.failed(poll, errors.ForbiddenError("no")) == 0.0
    for _ in range(2):
        alone = world.feed.ask()
        assert isinstance(alone, Poll)
        assert len(alone.paths) == 1
        assert alone.wait_seconds == 0.0
        if alone.paths == ("production/a",):
            world.feed.failed(alone, errors.ForbiddenError("no"))
        else:
            world.feed.told(alone, SecretNews(cursor="9", changed=()), world.now)
    again = world.feed.ask()
    assert isinstance(again, Poll)
    assert again.paths == ("production/b",)
    world.now += REFUSED_SECONDS
    assert world.feed.ask() == Read("production/a")


def test_failures_wait_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.client.secrets.pause", float)
    world = World("production/a")
    asked = world.feed.ask()
    assert asked is not None
    assert [world.feed.failed(asked, errors.UnavailableError("down")) for _ in range(3)] == [1.0, 2.0, 3.0]
    world.now += 3601
    with pytest.raises(errors.StaleError):
        world.feed.current("production/a", 3600.0)


def test_a_client_follows_no_more_than_a_poll_may_name() -> None:
    world = World(*(f"production/{number}" for number in range(PATHS_MAX)))
    with pytest.raises(errors.CapError):
        world.feed.needs("production/one-more", 60.0)


# --- a real server -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path_factory.mktemp("secrets") / "data") as running:
        yield running


def test_a_real_server_tells_of_a_change(server: RunningServer) -> None:
    with Keyturn(server.url, server.admin_token) as keyturn:
        keyturn.put_secret(STRIPE, PutSecret(fields={"key": "first"}))
        stripe = keyturn.secret(STRIPE)
        assert stripe() == "first"
        changed = changes(stripe)
        keyturn.put_secret(STRIPE, PutSecret(fields={"key": "second"}))
        assert changed() == "second"
        assert [one.path for one in keyturn.secrets("production/pay")] == [STRIPE]
        assert keyturn.read_secret(STRIPE, version=1).fields == {"key": "first"}


async def test_a_real_server_tells_the_awaiting_client_too(server: RunningServer) -> None:
    async with AsyncKeyturn(server.url, server.admin_token) as keyturn:
        await keyturn.put_secret("staging/a", PutSecret(fields={"key": "first"}))
        await keyturn.put_secret("staging/b", PutSecret(fields={"url": "https://${secret:staging/a#key}@host"}))
        b = await keyturn.secret("staging/b")
        assert b() == "https://first@host"
        happened = asyncio.Event()
        b.on_change(lambda _: happened.set())
        await keyturn.put_secret("staging/a", PutSecret(fields={"key": "second"}))
        async with asyncio.timeout(120):
            await happened.wait()
        assert b() == "https://second@host"

"""A founded installation with webhooks: services, a dispatcher with a manual clock, and a receiver in memory."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from keyturn.storage.schema import webhook_delivery
from keyturn.webhooks.deliveries import DeliveryService
from keyturn.webhooks.dispatcher import Dispatcher
from keyturn.webhooks.model import Answer
from keyturn.webhooks.service import WebhookService
from keyturn.wire.webhooks import CreateWebhook, WebhookSecret
from tests.keys.desk import Desk, opened_desk

ALLOWED = (ip_network("127.0.0.0/8"),)
OK = Answer(1, 204)


@dataclass(frozen=True)
class Message:
    """What a receiver got."""

    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body, type=dict[str, Any])

    @property
    def type(self) -> str:
        return str(self.event["type"])

    def is_signed_with(self, secret: str) -> bool:
        """Verify as Standard Webhooks says, by hand."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = b".".join((self.id.encode(), self.headers["webhook-timestamp"].encode(), self.body))
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return any(
            hmac.compare_digest(version + "," + mac, "v1," + wanted)
            for version, _, mac in (one.partition(",") for one in self.headers["webhook-signature"].split(" "))
        )


@dataclass
class Receiver:
    """A `Sender` that takes every message down and answers as it is told."""

    messages: list[Message] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """Addresses that answer only once their gate is open."""

    async def send(self, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        self.messages.append(Message(url, dict(headers), body))
        if url in self.gates:
            await self.gates[url].wait()
        return self.answers.get(url, OK)

    def types(self, url: str | None = None) -> list[str]:
        """Return the types of what came, in order."""
        return [one.type for one in self.messages if url in (None, one.url)]


@dataclass
class Post:
    """Everything a test of webhooks needs."""

    desk: Desk
    webhooks: WebhookService
    deliveries: DeliveryService
    receiver: Receiver
    dispatcher: Dispatcher

    async def endpoint(self, name: str = "hook", *events: str, url: str | None = None) -> WebhookSecret:
        """Create an endpoint."""
        request = CreateWebhook(name=name, url=url or url_of(name), events=events or ("*",))
        return await self.webhooks.create(self.desk.admin, request)

    async def round(self, dispatcher: Dispatcher | None = None) -> int:
        """Dispatch until nothing is due any more; return how many attempts there were."""
        one, total = dispatcher or self.dispatcher, 0
        while started := await one.dispatch_once():
            total += started
            await one.settled()
        return total

    async def states(self) -> list[tuple[str, str, int]]:
        """Return type, state and attempts of every delivery, in order of events."""

        def read(connection: Connection) -> list[tuple[str, str, int]]:
            rows = connection.execute(select(*webhook_delivery.c).order_by(webhook_delivery.c.seq)).all()
            return [(row.type, row.state, row.attempts) for row in rows]

        return await self.desk.database.read(read)

    def another(self, holder: str, *, chance: Callable[[], float] | None = None) -> Dispatcher:
        """Return the dispatcher of another worker."""
        return Dispatcher(self.desk.database, self.desk.keyring, holder, self.receiver, chance=chance or _middle)


def url_of(name: str) -> str:
    """Return the address of an endpoint of a test."""
    return f"https://{name}.example.com/keyturn"


@asynccontextmanager
async def opened_post(url: str) -> AsyncIterator[Post]:
    """Open a desk and add webhooks to it."""
    async with opened_desk(url) as desk:
        receiver = Receiver()
        post = Post(
            desk=desk,
            webhooks=WebhookService(desk.door, desk.keyring, ALLOWED),
            deliveries=DeliveryService(desk.door),
            receiver=receiver,
            dispatcher=Dispatcher(desk.database, desk.keyring, "nod_first", receiver, chance=_middle),
        )
        yield post


def _middle() -> float:
    return 0.5

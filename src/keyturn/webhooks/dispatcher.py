"""The dispatcher: one elected worker fans events out and sends them, endpoint by endpoint.

    every LOOK_SECONDS, or when an attempt has ended:
      stand for election -> fan out what is new -> claim what is due -> send, each in a task of its own

    one endpoint    at most PER_ENDPOINT attempts at a time, one while it fails: it delays nobody else
    one workspace   at most PER_WORKSPACE attempts at a time, over all of its endpoints
    all together    at most TOGETHER attempts at a time
    a claim         keeps a delivery from being sent twice at once; it ends by itself after CLAIM_SECONDS, and when
                    another worker takes over from a leader that was killed and could not extend its lease

A leader that was only paused may wake up and finish an attempt that its successor has begun again: delivery is at least
once, and `webhook-id` tells.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from keyturn.audit.leaf import SYSTEM, Leaf
from keyturn.errors import KeyturnError
from keyturn.kernel.secret import random_bytes
from keyturn.storage.leadership import Leadership
from keyturn.storage.rounds import Rounds
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.webhooks import delivery_store, outbox, rules, signature, store
from keyturn.webhooks.model import ACTIVE, DISABLED, Attempt, Delivery, Endpoint
from keyturn.wire.actions import Action
from keyturn.wire.webhooks import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from keyturn.storage.database import Database
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.transaction import Transaction
    from keyturn.webhooks.sender import Sender

ELECTION: Final = "webhook-dispatcher"
LOOK_SECONDS: Final = 0.25
LEASE_SECONDS: Final = 5.0
STAND_AGAIN_SECONDS: Final = 2.0
CLAIM_SECONDS: Final = 45.0
PER_ENDPOINT: Final = 4
PER_WORKSPACE: Final = 64
TOGETHER: Final = 256
DRAIN_SECONDS: Final = 4.0
RETAIN_EVERY_SECONDS: Final = 3600.0
RETAIN_ROWS: Final = 1000
USER_AGENT: Final = "Keyturn-Webhooks/1"

_log = structlog.get_logger("keyturn")


@dataclass(frozen=True, slots=True)
class DispatcherHealth:
    """How the dispatcher of this worker is doing; the counts are its own."""

    leader: bool
    delivered: int
    failed: int
    dead: int
    sending: int
    failures: int
    """Rounds that ended with an error, which are tried again."""


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A claimed delivery with what it takes to send it."""

    delivery: Delivery
    endpoint: Endpoint
    secrets: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"_Parcel({self.delivery.id!r})"


class Dispatcher:
    """Sends the events of every workspace of one database."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        holder: str,
        sender: Sender,
        *,
        chance: Callable[[], float] | None = None,
    ) -> None:
        """Stand for election as `holder`, this worker's node id; `chance` replaces the random part of the waits."""
        self._database = database
        self._keyring = keyring
        self._sender = sender
        self._chance = chance or _random
        self._leadership = Leadership(
            database,
            ELECTION,
            holder,
            seconds=LEASE_SECONDS,
            stand_again_seconds=STAND_AGAIN_SECONDS,
            took_over=self._take_over,
        )
        self._retain_after = 0.0
        self._seen: outbox.Look | None = None
        self._rounds = Rounds(
            self.dispatch_once, every_seconds=LOOK_SECONDS, failing="webhooks could not be dispatched"
        )
        self._sending: dict[asyncio.Task[None], _Parcel] = {}
        self._delivered = self._failed = self._dead = 0

    @property
    def health(self) -> DispatcherHealth:
        """How it is doing."""
        return DispatcherHealth(
            leader=self._leadership.is_held,
            delivered=self._delivered,
            failed=self._failed,
            dead=self._dead,
            sending=len(self._sending),
            failures=self._rounds.failures,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until stopped; then let attempts end, give back those that do not, and give the lease up."""
        await self._rounds.run(stop)
        await self._break_off()
        await self._rounds.attempt(self._leadership.resign)

    async def dispatch_once(self) -> int:
        """Do one round: fan out and start what is due; return how many attempts were started."""
        now = self._database.clock.now()
        seen, busy = self._seen, self._busy()
        # Who does not lead looks after claims too: their leader may have been killed.
        claimed = not self._leadership.is_held

        def look(connection: Connection) -> tuple[outbox.Look, list[str]]:
            found = outbox.look(connection, seen)
            if not found.has_endpoints:
                return found, []
            return found, delivery_store.due_endpoints(connection, now, busy, claimed=claimed)

        found, due = await self._database.read(look)
        self._seen, has_news = found, found.has_news
        retains = self._database.clock.boottime() >= self._retain_after
        if not (has_news or due or retains or (self._sending and self._leadership.is_held)):
            return 0
        if not await self._leadership.lead():
            return 0
        if retains:
            await self._retain()
        if has_news:
            await self._fan_out()
            now, busy = self._database.clock.now(), self._busy()
            due = await self._database.read(lambda c: delivery_store.due_endpoints(c, now, busy))
        return await self._start(due) if due else 0

    async def settled(self) -> None:
        """Return when every attempt that was started has ended."""
        while self._sending:
            await asyncio.wait(list(self._sending))

    # --- leading -------------------------------------------------------------------------------------------------

    def _take_over(self, transaction: Transaction) -> None:
        mine = [one.delivery.id for one in self._sending.values()]
        delivery_store.release_all(transaction.connection, transaction.now, mine)

    # --- work ----------------------------------------------------------------------------------------------------

    async def _fan_out(self) -> None:
        more = True
        while more:
            _, more = (await self._database.write(lambda t: outbox.fan_out(t.connection, t.now))).value

    async def _retain(self) -> None:
        self._retain_after = self._database.clock.boottime() + RETAIN_EVERY_SECONDS

        def unit(transaction: Transaction) -> int:
            dropped = delivery_store.drop_old(transaction.connection, transaction.now, RETAIN_ROWS)
            return max(dropped, delivery_store.expire(transaction.connection, transaction.now, RETAIN_ROWS))

        while (await self._database.write(unit)).value >= RETAIN_ROWS:
            continue

    async def _start(self, endpoints: list[str]) -> int:
        using = Counter(parcel.endpoint.id for parcel in self._sending.values())
        sending = Counter(parcel.endpoint.workspace for parcel in self._sending.values())
        room = TOGETHER - len(self._sending)
        if room <= 0:
            return 0

        def claim(transaction: Transaction) -> list[_Parcel]:
            claimed: list[_Parcel] = []
            of = sending.copy()
            for one in endpoints:
                more = self._claim(transaction, one, using[one], room - len(claimed), of)
                of.update(parcel.endpoint.workspace for parcel in more)
                claimed += more
            return claimed

        parcels = (await self._database.write(claim)).value
        for parcel in parcels:
            task = asyncio.create_task(self._deliver(parcel), name=f"webhook-{parcel.delivery.id}")
            self._sending[task] = parcel
            task.add_done_callback(self._ended)
        return len(parcels)

    def _claim(
        self, transaction: Transaction, endpoint_id: str, using: int, room: int, sending: Mapping[str, int]
    ) -> list[_Parcel]:
        endpoint = store.load_by_id(transaction.connection, endpoint_id)
        if endpoint is None or endpoint.state != ACTIVE:
            return []
        room = min(room, PER_WORKSPACE - sending.get(endpoint.workspace, 0))
        wanted = min(room, (1 if endpoint.failing_since is not None else PER_ENDPOINT) - using)
        if wanted <= 0:
            return []
        claimed = delivery_store.claim(transaction.connection, endpoint.id, transaction.now, CLAIM_SECONDS, wanted)
        if not claimed:
            return []
        try:
            secrets = tuple(store.secrets_of(transaction.connection, self._keyring, endpoint, transaction.now))
        except KeyturnError as error:
            # The claim stays and is a pause: one endpoint whose secret does not open must not hold up the others.
            _log.error("a webhook cannot be signed", webhook=endpoint.id, reason=error.message)
            return []
        return [_Parcel(one, endpoint, secrets) for one in claimed]

    async def _deliver(self, parcel: _Parcel) -> None:
        delivery = parcel.delivery
        at = self._database.clock.now()
        body = delivery.body.encode()
        headers = [
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            *signature.headers(parcel.secrets, delivery.id, int(at), body),
        ]
        answer = await self._sender.send(parcel.endpoint.url, headers, body)
        attempt = Attempt(delivery.attempts, at, answer.duration_ms, answer.status, answer.error, answer.excerpt)
        chance = self._chance()

        def settle(transaction: Transaction) -> DeliveryState:
            connection, now = transaction.connection, transaction.now
            delivery_store.record_attempt(connection, delivery, attempt)
            endpoint = store.load_by_id(connection, delivery.webhook)
            since = None if endpoint is None else endpoint.failing_since
            judged = rules.judge(answer, tries=delivery.tries, failing_since=since, now=now, chance=chance)
            delivery_store.settle(connection, delivery, judged.state, judged.next_at, attempt, now)
            succeeded = judged.state is DeliveryState.DELIVERED
            store.set_failing_since(connection, delivery.webhook, None if succeeded else now)
            if judged.disable is not None and endpoint is not None and endpoint.state == ACTIVE:
                _disable(transaction, endpoint, judged.disable)
            return judged.state

        self._count((await self._database.write(settle)).value)

    def _count(self, state: DeliveryState) -> None:
        self._delivered += state is DeliveryState.DELIVERED
        self._failed += state is not DeliveryState.DELIVERED
        self._dead += state is DeliveryState.DEAD

    def _busy(self) -> set[str]:
        """Return the endpoints that have as many attempts under way as they may."""
        using = Counter(parcel.endpoint.id for parcel in self._sending.values())
        failing = {p.endpoint.id for p in self._sending.values() if p.endpoint.failing_since is not None}
        return {one for one, count in using.items() if count >= PER_ENDPOINT or one in failing}

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)
        self._rounds.wake()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._rounds.failures += 1
            _log.warning("the outcome of a webhook could not be kept", reason=type(error).__name__)

    async def _break_off(self) -> None:
        if not self._sending:
            return
        _, late = await asyncio.wait(list(self._sending), timeout=DRAIN_SECONDS)
        broken = [self._sending[task].delivery for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

        def give_back(transaction: Transaction) -> None:
            for one in broken:
                delivery_store.release(transaction.connection, one)

        if broken:
            await self._rounds.attempt(lambda: self._database.write(give_back))


def _disable(transaction: Transaction, endpoint: Endpoint, reason: str) -> None:
    """Disable an endpoint by ourselves, on record."""
    changed = replace(
        endpoint,
        state=DISABLED,
        state_reason=reason,
        failing_since=endpoint.failing_since or transaction.now,
        updated_at=transaction.now,
        revision=endpoint.revision + 1,
    )
    store.update_endpoint(transaction.connection, changed)
    leaf = Leaf(
        workspace=endpoint.workspace,
        action=Action.WEBHOOK_UPDATE,
        outcome="allowed",
        actor=SYSTEM,
        resource=endpoint.resource,
        at=transaction.now,
        detail={"state": DISABLED, "reason": reason},
    )
    transaction.append(Entry(endpoint.workspace, ChangeKind.WEBHOOK, endpoint.id, leaf.row()))


def _random() -> float:
    return int.from_bytes(random_bytes(4)) / 2**32

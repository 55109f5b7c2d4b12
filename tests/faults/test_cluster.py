"""Several servers on one PostgreSQL: whatever becomes of them, nothing is admitted after it was said to be over."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import inf
from typing import Any

import httpx
import pytest

from keyturn.kernel.clock import parse_rfc3339
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until, until_async
from tests.faults.system import (
    API,
    Proxy,
    Start,
    async_client_of,
    client_of,
    known,
    new_key,
    new_keyspace,
    over,
    spread,
    start_beside,
    verdict,
    warm,
)

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.postgres]

STALE_AFTER_SECONDS = 2
BOUND_SECONDS = 3
"""The same where something must be seen to happen within it."""
KEYS = 24
CHECKERS_PER_NODE = 2


@dataclass
class Denied:
    """From when to when a key must not be admitted; epoch seconds, which here are also the database's."""

    since: float
    until: float = inf


@dataclass(frozen=True)
class Seen:
    """One verification: which node was asked when, and what it said when."""

    node: int
    key_id: str
    sent: float
    received: float
    code: str


@dataclass
class Watch:
    """What the checkers saw, and what the changer was told."""

    keys: list[dict[str, Any]]
    seen: list[Seen] = field(default_factory=list)
    denied: dict[str, list[Denied]] = field(default_factory=dict)
    effective: int = 0
    not_effective: int = 0
    over: bool = False

    def has_seen_enough(self) -> bool:
        """Tell whether there were admissions, denials and answered changes enough to mean something.

        How many changes met a node that was away is up to the machine: a change may wait for the writers' lock until
        that node counts as live no longer.
        """
        told = Counter(one.code for one in self.seen)
        answered = self.effective + self.not_effective
        return told["VALID"] > 100 and told["REVOKED"] + told["DISABLED"] > 100 and answered >= 3

    def violations(self) -> list[str]:
        """Describe every admission that came too late."""
        return [
            f"node {one.node} admitted {one.key_id} {one.sent - denied.since:.3f} s after it was over"
            for one in self.seen
            if one.code == "VALID"
            for denied in self.denied.get(one.key_id, ())
            if one.sent > denied.since and one.received < denied.until
        ]


async def test_no_node_admits_a_key_after_it_was_said_to_be_over(start_server: Start, postgres_url: str) -> None:
    """Not when nodes are paused, killed, cut off from the database or starved of news; asked without a pause."""
    with Proxy(postgres_url) as proxy:
        nodes = [start_server(postgres_url)]
        nodes += [start_beside(start_server, nodes[0], url) for url in (postgres_url, proxy.url)]
        token = nodes[0].admin_token
        with client_of(nodes[0]) as client:
            new_keyspace(client, stale_after_seconds=STALE_AFTER_SECONDS)
            watch = Watch([new_key(client) for _ in range(KEYS)])
        checkers = [
            asyncio.create_task(_check(number, node, token, watch, chance))
            for number, node in enumerate(nodes)
            for chance in range(CHECKERS_PER_NODE)
        ]
        changer = asyncio.create_task(_change(nodes, token, watch))
        try:
            await _harm(nodes, proxy)
            await until_async(watch.has_seen_enough)
            watch.over = True
            await asyncio.gather(changer, *checkers)
        finally:
            watch.over = True
            proxy.heal()
            for node in nodes:
                node.resume()
    assert not watch.violations()


async def _check(number: int, node: RunningServer, token: str, watch: Watch, seed: int) -> None:
    """Ask one node for a verdict after another, whatever its state."""
    chance = random.Random(seed)
    async with async_client_of(node, token=token, seconds=15) as client:
        while not watch.over:
            key = chance.choice(watch.keys)
            sent = time.time()
            try:
                answer = await client.post(f"{API}/verify", json={"key": key["key"]})
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            code = answer.json()["code"]
            assert answer.status_code == (503 if code == "UNAVAILABLE" else 200), answer.text
            watch.seen.append(Seen(number, key["id"], sent, time.time(), code))
            await asyncio.sleep(0.005)


async def _change(nodes: list[RunningServer], token: str, watch: Watch) -> None:
    """Disable, enable and revoke one key after another through any node, and note when each must be over."""
    chance = random.Random(3)
    clients = [async_client_of(node, token=token, seconds=4) for node in nodes]
    try:
        while not watch.over:
            key = chance.choice(watch.keys[4:])  # some stay as they are, so that there is something to admit
            noted = watch.denied.setdefault(key["id"], [])
            if noted and noted[-1].until == inf:
                noted[-1].until = time.time()
                await _try(chance.choice(clients), key["id"], "enable")
            else:
                action = chance.choice(["disable", "disable", "disable", "revoke"])
                answer = await _try(chance.choice(clients), key["id"], action)
                if answer is not None:
                    watch.effective += answer["effective"]
                    watch.not_effective += not answer["effective"]
                    by = parse_rfc3339(answer["effective_by"])
                    noted.append(Denied(min(time.time(), by) if answer["effective"] else by))
            await asyncio.sleep(0.02)
    finally:
        for client in clients:
            await client.aclose()


async def _try(client: httpx.AsyncClient, key_id: str, action: str) -> dict[str, Any] | None:
    """Send a change; None when its outcome is unknown or it was refused, of which nothing can be expected."""
    try:
        answer = await client.post(f"{API}/keys/{key_id}/{action}", json={})
    except httpx.TransportError:
        return None
    assert answer.status_code in {200, 409, 503}, answer.text
    found: dict[str, Any] = answer.json()
    return found if answer.status_code == 200 else None


async def _harm(nodes: list[RunningServer], proxy: Proxy) -> None:
    """Do everything to the nodes that can be done to them, one after the other."""

    async def hold(begin: Callable[[], None], end: Callable[[], None], seconds: float) -> None:
        begin()
        await asyncio.sleep(seconds)
        end()
        await asyncio.sleep(0.3)

    long = STALE_AFTER_SECONDS + 1.3  # past `effective_by` of what was ended as it began
    await asyncio.sleep(0.5)
    await hold(nodes[1].pause, nodes[1].resume, long)
    await hold(lambda: proxy.freeze(spare_confirms=True), proxy.heal, long)
    await _kill_and_start(nodes[0])
    await hold(proxy.cut, proxy.heal, long)
    await hold(nodes[2].pause, nodes[2].resume, 0.5)
    await asyncio.gather(
        *(_recovers(node) for node in nodes),
    )
    await asyncio.sleep(0.5)


async def _kill_and_start(node: RunningServer) -> None:
    node.kill9()
    await asyncio.sleep(0.3)
    node.restart(wait=False)
    await _recovers(node)


async def _recovers(node: RunningServer) -> None:
    assert await asyncio.to_thread(until, node.is_ready)


@pytest.mark.parametrize("how", ["frozen", "cut", "starved of news"])
def test_a_node_without_the_database_refuses_and_recovers(start_server: Start, postgres_url: str, how: str) -> None:
    """It answers UNAVAILABLE once the staleness bound is past, instead of admitting what may be revoked meanwhile."""
    with Proxy(postgres_url) as proxy:
        near = start_server(postgres_url)
        far = start_beside(start_server, near, proxy.url)
        with client_of(near) as there, client_of(far, token=near.admin_token) as here:
            new_keyspace(there, stale_after_seconds=BOUND_SECONDS)
            new_keyspace(there, "patient")
            kept, lost, patient = new_key(there), new_key(there), new_key(there, "patient")
            warm(here, patient["key"], admin=there)
            if how == "cut":
                proxy.cut()
            else:
                proxy.freeze(spare_confirms=how == "starved of news")
            assert verdict(here, patient["key"]) == "VALID", "within the bound it admits from memory"
            answer = there.post(f"{API}/keys/{lost['id']}/revoke", json={}).json()
            _await_the_end(answer, far)
            with ThreadPoolExecutor(2) as asking:
                found = list(asking.map(lambda key: verdict(here, key["key"]), (lost, kept)))
            assert found == ["UNAVAILABLE", "UNAVAILABLE"]
            assert known(lambda: verdict(there, kept["key"])) == "VALID"
            proxy.heal()
            assert known(lambda: verdict(here, kept["key"])) == "VALID"
            assert known(lambda: verdict(here, lost["key"])) == "REVOKED"
            assert until(far.is_ready)


def test_a_paused_node_is_named_and_refuses_what_was_sent_to_it_meanwhile(
    start_server: Start, postgres_url: str
) -> None:
    """A request that waited in the socket of a paused node is no older than the answer it gets."""
    near = start_server(postgres_url)
    far = start_beside(start_server, near, postgres_url)
    with client_of(near) as there, client_of(far, token=near.admin_token) as here:
        new_keyspace(there, stale_after_seconds=STALE_AFTER_SECONDS)
        key = new_key(there)
        assert known(lambda: verdict(here, key["key"])) == "VALID"
        far.pause()
        try:
            answer = there.post(f"{API}/keys/{key['id']}/revoke", json={}).json()
            _await_the_end(answer, far)
            found: list[str] = []
            asking = threading.Thread(target=lambda: found.append(verdict(here, key["key"])))
            asking.start()
            time.sleep(0.3)  # it lies in the socket now
        finally:
            far.resume()
        asking.join(120)
        assert found
        assert found[0] in {"REVOKED", "UNAVAILABLE"}
        assert until(lambda: verdict(here, key["key"]) == "REVOKED")
        again = new_key(there)
        over(there, f"/keys/{again['id']}/disable")
        assert known(lambda: verdict(here, again["key"])) == "DISABLED", "the node is a follower as before"


def test_what_one_node_did_holds_on_the_other(start_server: Start, postgres_url: str) -> None:
    """A new key verifies at once elsewhere, and a key that was ended is refused there at once."""
    first = start_server(postgres_url)
    second = start_beside(start_server, first, postgres_url)
    with client_of(first) as one, client_of(second, token=first.admin_token) as other:
        new_keyspace(one)
        for number in range(12):
            here, there = (one, other) if number % 2 else (other, one)
            key = new_key(here)
            path = f"/keys/{key['id']}"
            assert verdict(there, key["key"]) == "VALID"
            over(there, f"{path}/disable")
            assert verdict(here, key["key"]) == "DISABLED"
            over(here, f"{path}/enable")
            assert verdict(there, key["key"]) == "VALID"
            rotated = there.post(f"{API}{path}/rotate", json={"overlap_seconds": 0}).json()
            if not rotated["effective"]:
                spread(one)
            assert (verdict(here, rotated["key"]), verdict(here, key["key"])) == ("VALID", "REVOKED")
            over(here, f"{path}/revoke")
            assert verdict(there, rotated["key"]) == "REVOKED"


def _is_of(label: str, node: RunningServer) -> bool:
    return int(label.rpartition("/")[2]) in node.pids


def _await_the_end(answer: dict[str, Any], node: RunningServer) -> None:
    """Wait until what was restricted must be over on a node that cannot hear of it.

    A node that stopped inside a write transaction keeps the writers' lock until the database ends its session
    (4 s): the change then commits when the node counts as live no longer, and is effective at once.
    """
    if answer["effective"]:
        assert answer["laggards"] == []
        return
    assert any(_is_of(label, node) for label in answer["laggards"])
    _sleep_until(parse_rfc3339(answer["effective_by"]))


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()) + 0.01)

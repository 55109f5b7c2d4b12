"""Servers and verifiers on one PostgreSQL: whatever becomes of them, what was said to be over is over on every node."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import PATIENCE_SECONDS
from tests.faults.nodes import Node, VerifierNode, Verifiers, service, verifiers
from tests.faults.subjects import Watch, change, check, code_of, give, make_subjects, take
from tests.faults.system import API, Proxy, Start, async_client_of, client_of

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.postgres]

STALE_AFTER_SECONDS = 2
BOUND_SECONDS = 4
"""The same where something must be seen to happen within it."""
CHANGERS = 3
TRIES = 5
DENIALS = {"REVOKED", "DISABLED", "INSUFFICIENT_PERMISSIONS", "FORBIDDEN", "NOT_FOUND"}


@pytest.fixture
def start_verifier(tmp_path: Path) -> Iterator[Verifiers]:
    with verifiers(tmp_path) as start:
        yield start


def beside(start: Start, first: RunningServer, url: str, **more: str) -> RunningServer:
    """Start another server on the database of the first."""
    return start(url, env={"KEYTURN_KEK_PATH": str(first.data_dir / "kek"), **more})


def replicating(client: httpx.Client) -> tuple[str, str]:
    """Return a token that may replicate every keyspace, and may verify; and the grant to replicate."""
    rights = (("keyspace.replicate", "keyspace/*"), ("key.verify", "key/*"))
    _, token, grants = service(client, "replica", *rights)
    return token, grants[0]


@dataclass
class Cluster:
    """The nodes, and what lies between them."""

    servers: list[RunningServer]
    verifiers: list[VerifierNode]
    database: Proxy
    """Between the third server and the database."""
    feed: Proxy
    """Between the second verifier and its server."""

    @property
    def nodes(self) -> dict[str, Node]:
        """Every node by name."""
        servers = {f"server {number}": node for number, node in enumerate(self.servers, 1)}
        return {**servers, **{node.label: node for node in self.verifiers}}


async def test_nothing_is_admitted_anywhere_after_it_was_said_to_be_over(
    start_server: Start, start_verifier: Verifiers, postgres_url: str, valkey_url: str
) -> None:
    """Not when nodes are paused, killed, cut off or starved of news; keys, plans, owners and callers alike."""
    settings = {"KEYTURN_VALKEY_URL": valkey_url}
    with Proxy(postgres_url) as database:
        first = start_server(postgres_url, env={**settings, "KEYTURN_WORKERS": "2"})
        servers = [first, *(beside(start_server, first, url, **settings) for url in (postgres_url, database.url))]
        with client_of(first) as client, Proxy(f"{servers[1].url}/") as feed:
            token = replicating(client)[0]
            watch = Watch(make_subjects(client, stale_after_seconds=STALE_AFTER_SECONDS))
            urls = (first.url, feed.url)
            made = [start_verifier(url, token, label=f"verifier-{n}") for n, url in enumerate(urls, 1)]
            cluster = Cluster(servers, made, database, feed)
            async with _clients(servers, first.admin_token) as clients:
                await _live(cluster, clients, watch, first.admin_token)
                assert not watch.violations()
                await _agree(cluster, clients, watch)
    assert watch.not_effective >= 1, "no change met a node that was away"
    assert "verifier-1" in watch.laggards, "a verifier that stood still was not named"
    assert not any("Traceback" in node.logs() for node in made)


async def _live(cluster: Cluster, clients: list[httpx.AsyncClient], watch: Watch, token: str) -> None:
    """Change, ask and harm, all at once."""
    changeable = [one for one in watch.subjects if one.take is not None]
    tasks = [
        *(asyncio.create_task(check(name, node, token, watch, 7)) for name, node in cluster.nodes.items()),
        asyncio.create_task(check("server 1", cluster.servers[0], token, watch, 8)),
        *(asyncio.create_task(change(clients, changeable[n::CHANGERS], watch, n)) for n in range(CHANGERS)),
    ]
    try:
        await _harm(cluster, watch)
        names = {one.name for one in changeable}
        assert await _eventually(lambda: names <= set(watch.taken)), names - set(watch.taken)
        assert await _eventually(lambda: _has_seen_enough(cluster, watch)), Counter(one.code for one in watch.seen)
        watch.over.set()
        await asyncio.gather(*tasks)
    finally:
        watch.over.set()
        cluster.database.heal()
        cluster.feed.heal()
        for node in cluster.nodes.values():
            node.resume()


def _has_seen_enough(cluster: Cluster, watch: Watch) -> bool:
    codes = Counter(one.code for one in watch.seen)
    admitting = {one.node for one in watch.seen if one.code == "VALID"}
    return codes["VALID"] > 100 and sum(codes[code] for code in DENIALS) > 100 and admitting == set(cluster.nodes)


async def _harm(cluster: Cluster, watch: Watch) -> None:
    """Do everything to the nodes that can be done to them."""
    one, two, _ = cluster.servers
    near, far = cluster.verifiers
    long = STALE_AFTER_SECONDS + 1.3  # past `effective_by` of what was ended as it began
    await asyncio.sleep(1)

    two.pause()
    await asyncio.sleep(long)
    two.resume()

    for _ in range(TRIES):  # a change has to come while the one that stands still counts as live
        near.pause()
        cluster.database.freeze(spare_confirms=True)
        await asyncio.sleep(long)
        cluster.database.heal()
        near.resume()
        await asyncio.sleep(0.5)
        if near.label in watch.laggards:
            break
        await _recover(cluster)

    one.kill9()
    far.kill9()
    one.restart(wait=False)
    far.restart(wait=False)
    await _recover(cluster)

    cluster.database.cut()
    cluster.feed.freeze()
    await asyncio.sleep(long)
    cluster.database.heal()
    cluster.feed.heal()

    cluster.feed.cut()
    await asyncio.sleep(1)
    cluster.feed.heal()
    await _recover(cluster)


async def _recover(cluster: Cluster) -> None:
    for name, node in cluster.nodes.items():
        assert await _eventually(node.is_ready), f"{name} did not recover"


async def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def _agree(cluster: Cluster, clients: list[httpx.AsyncClient], watch: Watch) -> None:
    """Take one thing of each kind, which every node then denies, and give it back, which every node then admits.

    Rights of callers are waited for up to a minute when a node was killed; those are seen to go without that.
    """
    for subject in {one.name: one for one in watch.subjects if one.take is not None}.values():
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await take(clients[0], subject, watch) and subject.token is None:
            assert time.monotonic() < deadline, f"{subject.name} is not taken everywhere"
        headers = clients[0].headers if subject.token is None else {"Authorization": f"Bearer {subject.token}"}
        nodes: list[Node] = [*cluster.servers, *(cluster.verifiers if subject.token is None else ())]
        with httpx.Client(headers=headers, timeout=120) as asking:
            for node in nodes:
                code = partial(_code, asking, node, subject.body)
                assert code() != "VALID" or (subject.token and await _eventually(lambda: code() != "VALID"))  # noqa: B023
            if subject.give is None:
                continue
            while subject.taken:
                await give(clients[0], subject)
            for node in nodes:
                code = partial(_code, asking, node, subject.body)
                assert await _eventually(lambda: code() == "VALID"), (subject.name, node.url)  # noqa: B023


def _code(client: httpx.Client, node: Node, body: dict[str, Any]) -> str:
    answer = client.post(f"{node.url}{API}/verify", json=body)
    return code_of(answer)


@asynccontextmanager
async def _clients(servers: list[RunningServer], token: str) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        # Longer than any harm: what was given up by its client must not be done later.
        yield [await stack.enter_async_context(async_client_of(one, token=token, seconds=25)) for one in servers]

"""`kill -9` under a load of writes of held secrets: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import httpx
import pytest

from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer
from tests.faults.held import BASE, Writer, check_leaves, check_rows
from tests.faults.system import (
    API,
    Ledger,
    Start,
    async_client_of,
    checkpoint_of,
    client_of,
    start_beside,
    verified_log,
    verifier_key_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

ROUNDS = 2
WRITERS = 6
LOAD = 50
"""How much is acknowledged before something is killed."""


def begin(server: RunningServer) -> tuple[str, str]:
    """Write what the others refer to; return the key of the log and a checkpoint, to be kept apart."""
    with client_of(server) as client:
        put = client.put(f"{API}/secrets/{BASE}", json={"fields": {"token": "shared-base"}})
        assert put.status_code == 200, put.text
        return verifier_key_of(client), checkpoint_of(client)


async def acknowledged(writers: Sequence[Writer], more: int) -> None:
    """Return once so much more was acknowledged."""
    until = sum(len(one.done) for one in writers) + more
    async with asyncio.timeout(120):
        while sum(len(one.done) for one in writers) < until:  # noqa: ASYNC110 -- a list is no event
            await asyncio.sleep(0.01)


async def each(writers: Sequence[Writer], client: httpx.AsyncClient, *steps: Callable[..., object]) -> None:
    """Let all writers do something at the same time, one step after the other."""
    for step in steps:
        await asyncio.gather(*(step(writer, client) for writer in writers))  # type: ignore[call-overload]


async def test_a_killed_server_has_lost_no_version_it_acknowledged(start_server: Start) -> None:
    """Puts, patches, promotions, deletions and destructions are there whole, each with its leaf, or not at all."""
    server = start_server()
    public_key, kept = begin(server)
    ledger = Ledger(server.data_dir, None, None)
    moments = random.Random(23)
    writers = [Writer(number) for number in range(WRITERS)]
    for _ in range(ROUNDS):
        async with async_client_of(server) as client:
            working = [asyncio.create_task(writer.work(client)) for writer in writers]
            await acknowledged(writers, LOAD)
            await asyncio.sleep(moments.uniform(0.0, 0.2))
            await asyncio.to_thread(server.kill9)
            await asyncio.gather(*working)
        server.restart()
        async with async_client_of(server) as client:
            await each(writers, client, Writer.settle, Writer.check_labels)
        check_rows(ledger, writers)
    async with async_client_of(server) as client:
        await each(writers, client, Writer.check_values)
    with client_of(server) as client:
        check_leaves(client, writers)
        report = verified_log(client, public_key, kept)
        assert report.ok, report.findings
    assert ledger.change_log_gaps() == []
    assert server.stop() == 0


@pytest.mark.postgres
async def test_a_server_that_is_killed_beside_another_takes_no_version_with_it(
    start_server: Start, postgres_server: PostgresServer, migrated_postgres_url: str
) -> None:
    """Who wrote to the one that died goes on at the other, and finds everything."""
    living = start_server(migrated_postgres_url)
    public_key, kept = begin(living)
    killed = start_beside(start_server, living, migrated_postgres_url)
    ledger = Ledger(living.data_dir, migrated_postgres_url, postgres_server)
    writers = [Writer(number) for number in range(WRITERS)]
    here, there = writers[::2], writers[1::2]
    async with async_client_of(living) as client:
        async with async_client_of(killed, token=living.admin_token) as other:
            working = [asyncio.create_task(writer.work(client)) for writer in here]
            working += [asyncio.create_task(writer.work(other)) for writer in there]
            await acknowledged(writers, LOAD)
            await asyncio.to_thread(killed.kill9)
            await acknowledged(here, LOAD // 2)
            for writer in here:
                writer.over = True
            await asyncio.gather(*working)
        await each(there, client, Writer.settle)
        await each(writers, client, Writer.check_labels)
    check_rows(ledger, writers)
    killed.restart()
    async with async_client_of(killed, token=living.admin_token) as other:
        await each(writers, other, Writer.check_values)
    with client_of(living) as client:
        check_leaves(client, writers)
        report = verified_log(client, public_key, kept)
        assert report.ok, report.findings
    assert ledger.change_log_gaps() == []

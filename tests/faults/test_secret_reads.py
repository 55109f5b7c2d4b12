"""`kill -9` under a load of reads: every value that a client received has its leaf in the log that is left."""

import asyncio
import random
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import Connection, select

from keyturn.kernel.clock import Clock
from keyturn.storage.engine import make_database
from keyturn.storage.schema import audit_leaf, secret_read
from tests.faults.system import API, Start, async_client_of, client_of

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

ROUNDS = 3
READERS = 16
SECRETS = 8


async def test_every_value_that_was_received_is_on_record_after_a_kill(
    start_server: Start, server_database_url: str | None, tmp_path: Path
) -> None:
    """A value leaves only after the leaf of its read is durable, and after the row of who received it."""
    server = start_server(server_database_url)
    with client_of(server) as admin:
        for number in range(SECRETS):
            put = admin.put(f"{API}/secrets/production/a/s{number}", json={"fields": {"token": f"held-{number}"}})
            assert put.status_code == 200, put.text
    received: set[str] = set()
    read: set[str] = set()
    moments = random.Random(11)

    async def read_on(client: httpx.AsyncClient, name: str) -> None:
        number = 0
        while True:
            number += 1
            request = f"{name}-{number}"
            try:
                answer = await client.get(
                    f"{API}/secrets/production/a/s{number % SECRETS}", headers={"X-Request-Id": request}
                )
            except httpx.HTTPError:
                return
            if answer.status_code == 200:
                assert answer.json()["fields"]["token"] == f"held-{number % SECRETS}"
                received.add(request)
                read.add(answer.json()["id"])

    for turn in range(ROUNDS):
        async with async_client_of(server) as client:
            readers = [asyncio.create_task(read_on(client, f"turn{turn}-reader{n}")) for n in range(READERS)]
            before = len(received)
            async with asyncio.timeout(120):
                while len(received) < before + 50:  # noqa: ASYNC110 -- a set is no event
                    await asyncio.sleep(0.01)
            await asyncio.sleep(moments.uniform(0.0, 0.5))
            await asyncio.to_thread(server.kill9)
            await asyncio.gather(*readers)
        server.restart()
    await asyncio.to_thread(server.stop)

    database = make_database(server_database_url or f"sqlite:///{tmp_path / 'data-1' / 'keyturn.db'}", Clock())
    await database.open()
    try:
        recorded, with_readers = await database.read(_recorded)
    finally:
        await database.close()
    assert received
    assert received - recorded == set()
    assert read - with_readers == set()


def _recorded(connection: Connection) -> tuple[set[str], set[str]]:
    """Return the request ids of all allowed reads, and which secrets have a reader."""
    bodies = connection.execute(select(audit_leaf.c.body).where(audit_leaf.c.action == "secret.reveal")).scalars()
    leaves = [msgspec.json.decode(body) for body in bodies if body is not None]
    found = {leaf["request"]["id"] for leaf in leaves if leaf["outcome"] == "allowed"}
    return found, set(connection.execute(select(secret_read.c.secret)).scalars())

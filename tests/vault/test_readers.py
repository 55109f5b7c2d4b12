"""Who has read which version: complete from the first read on, and who has not moved yet."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, select

from keyturn.errors import NotFoundError
from keyturn.storage.schema import secret_read
from tests.vault.library import STRIPE, Library, opened_library


@pytest.fixture
async def library(migrated_database_url: str) -> AsyncIterator[Library]:
    """Secrets to read; the test runs on both databases."""
    async with opened_library(migrated_database_url) as one:
        yield one


async def stored(library: Library) -> list[tuple[int, int]]:
    """Return sequence and reads of every row."""

    def read(connection: Connection) -> list[tuple[int, int]]:
        rows = connection.execute(select(secret_read).order_by(secret_read.c.sequence)).all()
        return [(row.sequence, row.reads) for row in rows]

    return await library.desk.database.read(read)


async def test_the_row_of_a_consumer_is_there_with_its_first_read(library: Library) -> None:
    """A process that is killed after the value left has not lost who received it."""
    await library.put()
    await library.read(by=await library.app())

    assert await stored(library) == [(1, 1)]


async def test_later_reads_are_added_up(library: Library) -> None:
    await library.put()
    app = await library.app()
    for _ in range(5):
        await library.read(by=app)
    await library.reader.flush()

    assert await stored(library) == [(1, 5)]


async def test_readers_names_consumers_versions_and_laggards(library: Library) -> None:
    await library.put()
    shop, office = await library.app("shop"), await library.app("office")
    await library.read(by=replace(shop, ip="198.51.100.77"), user_agent="app/1.0\n" + "x" * 500)
    await library.read(by=office)
    await library.put()
    await library.read(by=office)

    found = await library.reader.readers(library.desk.admin, STRIPE)

    assert [(one.principal_name, one.version, one.reads) for one in sorted(found.items, key=lambda one: one.first_at)]
    by_name = {(one.principal_name, one.version): one for one in found.items}
    assert set(by_name) == {("shop", 1), ("office", 1), ("office", 2)}
    assert found.laggards == (by_name["shop", 1].consumer,)
    assert by_name["shop", 1].ip_network == "198.51.100.0/24"
    assert len(by_name["shop", 1].user_agent) == 128
    assert by_name["shop", 1].state == "previous"


async def test_a_denied_read_makes_no_reader(library: Library) -> None:
    await library.put()
    _, stranger = await library.desk.hire("stranger", ("key.read", "key/*"))
    with pytest.raises(NotFoundError):
        await library.read(by=stranger)

    assert await stored(library) == []


async def test_two_readers_of_one_installation_add_to_the_same_row(library: Library) -> None:
    await library.put()
    app = await library.app()
    await library.read(by=app)
    async with library.another_reader() as other:
        await other.read(app, STRIPE)
        await other.read(app, STRIPE)
    await library.read(by=app)
    await library.reader.flush()

    assert await stored(library) == [(1, 4)]


async def test_who_may_not_list_a_secret_is_told_nothing_of_its_readers(library: Library) -> None:
    await library.put()
    _, stranger = await library.desk.hire("stranger", ("key.read", "key/*"))
    for path in (STRIPE, "production/payments/absent"):
        with pytest.raises(NotFoundError):
            await library.reader.readers(stranger, path)

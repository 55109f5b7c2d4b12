"""News of secrets: which to read again, soon after a change, and only for who may know of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from keyturn.access.caller import Credentials
from keyturn.errors import InputError, NotFoundError
from keyturn.wire.access import GrantFilter
from keyturn.wire.secrets import SecretNews
from tests.vault.library import STRIPE, Library, opened_library

OTHER = "production/payments/other"


@pytest.fixture
async def library(migrated_database_url: str) -> AsyncIterator[Library]:
    """Secrets to read; the test runs on both databases."""
    async with opened_library(migrated_database_url) as one:
        yield one


async def polled(
    library: Library, cursor: str | None, *paths: str, by: Credentials | None = None, seconds: float = 10.0
) -> SecretNews:
    """Wait for news."""
    wanted: Sequence[str] = paths or (STRIPE,)
    return await library.reader.news(by or library.desk.admin, wanted, cursor, seconds)


async def test_the_first_answer_comes_at_once_and_names_every_path(library: Library) -> None:
    found = await polled(library, None, STRIPE, OTHER)

    assert found.changed == (STRIPE, OTHER)


async def test_a_poll_is_woken_by_a_change_of_a_watched_secret_alone(library: Library) -> None:
    await library.put(STRIPE)
    await library.put(OTHER)
    cursor = (await polled(library, None)).cursor
    waiting = asyncio.create_task(polled(library, cursor))
    await library.put(OTHER)
    await library.read(OTHER)
    await library.put(STRIPE, {"token": "newer"})

    found = await waiting

    assert found.changed == (STRIPE,)
    assert (await polled(library, found.cursor, seconds=0.0)).changed == ()


async def test_a_secret_that_is_made_later_is_news(library: Library) -> None:
    cursor = (await polled(library, None)).cursor
    await library.put(STRIPE)

    assert (await polled(library, cursor)).changed == (STRIPE,)


async def test_a_change_of_what_a_secret_refers_to_is_news_of_it(library: Library) -> None:
    await library.put("production/a/two", {"x": "${secret:production/a/three#x}"})
    await library.put("production/a/one", {"x": "${secret:production/a/two#x}"})
    cursor = (await polled(library, None, "production/a/one")).cursor
    await library.put("production/a/three", {"x": "the value"})

    assert (await polled(library, cursor, "production/a/one")).changed == ("production/a/one",)


async def test_a_change_of_rights_is_news_and_their_loss_a_refusal(library: Library) -> None:
    await library.put()
    principal, app = await library.desk.hire("shop", ("secret.read", "secret/production/*"))
    cursor = (await polled(library, None, by=app)).cursor
    await library.desk.hire("another", ("secret.read", "secret/production/*"))
    found = await polled(library, cursor, by=app)
    assert found.changed == (STRIPE,)

    cursor = (await polled(library, None, by=app)).cursor
    waiting = asyncio.create_task(polled(library, cursor, by=app))
    grants = await library.desk.access.grants.list(library.desk.admin, GrantFilter(principal=principal))
    await library.desk.access.grants.revoke(library.desk.admin, grants.items[0].id)
    with pytest.raises(NotFoundError):
        await waiting


async def test_who_may_not_know_of_a_path_gets_no_news_of_it(library: Library) -> None:
    app = await library.app("shop", "production/shop/*")
    with pytest.raises(NotFoundError):
        await polled(library, None, "production/shop/a", STRIPE, by=app)


async def test_a_poll_ends_when_the_server_stops(library: Library) -> None:
    cursor = (await polled(library, None)).cursor
    waiting = asyncio.create_task(polled(library, cursor, seconds=600.0))
    await asyncio.sleep(0)
    library.draining.set()
    library.news.wake()

    async with asyncio.timeout(120):
        assert (await waiting).changed == ()


async def test_a_cursor_of_another_log_names_every_path_again(library: Library) -> None:
    assert (await polled(library, "log_another:3")).changed == (STRIPE,)
    for wrong in ("", "x", "log_a:b", "log_a:-1", "log_a:1\n"):
        with pytest.raises(InputError):
            await polled(library, wrong)

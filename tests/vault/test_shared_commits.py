"""Reads that share a commit with what was changed right before them: the change counts, though no row says so yet."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from keyturn.errors import ForbiddenError, KeyturnError, NotFoundError, UnauthenticatedError
from keyturn.storage.postgresql import PostgresqlDatabase
from keyturn.wire.actions import Action
from keyturn.wire.approvals import CreateGuard
from tests.vault.library import STRIPE, Library, opened_library

HELD_SECONDS_MAX = 20.0


@pytest.fixture
async def library(migrated_database_url: str) -> AsyncIterator[Library]:
    """Secrets to read; the test runs on both databases."""
    async with opened_library(migrated_database_url, stall_seconds=HELD_SECONDS_MAX) as one:
        yield one


@asynccontextmanager
async def held_commits(library: Library) -> AsyncIterator[None]:
    """Let what is asked for inside wait for one commit that goes on until the end.

    Where units run on the event loop nothing can be held up in one, and what is queued at once shares a commit anyhow.
    """
    if isinstance(library.desk.database, PostgresqlDatabase):
        yield
        return
    begun, over = threading.Event(), threading.Event()

    def hold(_transaction: object) -> None:
        begun.set()
        over.wait(HELD_SECONDS_MAX)

    held = asyncio.create_task(library.desk.database.write(hold))
    await asyncio.to_thread(begun.wait, HELD_SECONDS_MAX)
    try:
        yield
    finally:
        over.set()
        await held


async def queued(work: Awaitable[object]) -> asyncio.Task[object]:
    """Begin something, up to where it waits for the database."""
    task = asyncio.ensure_future(work)
    for _ in range(20):
        await asyncio.sleep(0)
    return task


async def _guard(library: Library) -> None:
    made = CreateGuard(pattern="production/*", actions=(Action.SECRET_READ,))
    await library.approvals.create_guard(library.desk.admin, made)


async def _remove(library: Library) -> None:
    await library.vault.remove(library.desk.admin, STRIPE)


@pytest.mark.parametrize(("change", "refusal"), [(_guard, ForbiddenError), (_remove, NotFoundError)])
async def test_a_read_sees_what_was_changed_in_its_own_commit(
    library: Library, change: Callable[[Library], Awaitable[None]], refusal: type[KeyturnError]
) -> None:
    """What the reader remembers is no older than the change before it, also where both become durable at once."""
    await library.put()
    app = await library.app()
    assert (await library.read(by=app)).version == 1

    async with held_commits(library):
        changing = await queued(change(library))
        reading = await queued(library.read(by=app))

    await changing
    with pytest.raises(refusal):
        await reading


async def test_a_token_that_is_revoked_in_the_same_commit_reads_nothing(library: Library) -> None:
    """A token that was remembered from the batch before is not valid any more for who comes after its revocation."""
    await library.put()
    principal, app = await library.desk.hire("shop", ("secret.read", "secret/production/*"))
    other = await library.app("office")
    tokens = await library.desk.tokens.list(library.desk.admin, principal)
    await library.read(by=app)

    async with held_commits(library):
        revoking = await queued(library.desk.tokens.revoke(library.desk.admin, principal, tokens.items[0].id))
        reading = await queued(library.read(by=app))
        beside = await queued(library.read(by=other))

    await revoking
    with pytest.raises(UnauthenticatedError):
        await reading
    await beside

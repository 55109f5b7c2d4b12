"""Guards and the reader as it is: what is held back lets nothing out, whatever the reader remembers."""

from collections.abc import AsyncIterator

import pytest

from keyturn.access.caller import Credentials
from keyturn.errors import ConflictError, ForbiddenError
from keyturn.wire.actions import Action
from keyturn.wire.approvals import CreateGuard, DecideApproval, RequestApproval
from tests.vault.library import STRIPE, Library, opened_library

OTHER = "production/payments/other"


@pytest.fixture
async def library(migrated_database_url: str) -> AsyncIterator[Library]:
    """Secrets to read; the test runs on both databases."""
    async with opened_library(migrated_database_url) as one:
        yield one


async def guard(library: Library, pattern: str) -> str:
    """Hold machines' reads of a pattern back; return the guard's id."""
    made = CreateGuard(pattern=pattern, actions=(Action.SECRET_READ,))
    return (await library.approvals.create_guard(library.desk.admin, made)).id


async def approve(library: Library, app: Credentials, path: str) -> str:
    """Have a read of one path approved; return the approval's id."""
    asked = await library.approvals.request(app, RequestApproval(action=Action.SECRET_READ, path=path, reason="test"))
    await library.approvals.decide(library.desk.admin, asked.id, DecideApproval(approve=True, reason="test"))
    return asked.id


async def refusal(library: Library, app: Credentials, path: str, version: int | None = None) -> str:
    """Read in vain; return the code of the error."""
    with pytest.raises(ForbiddenError) as refused:
        await library.read(path, by=app, version=version)
    return refused.value.code


async def test_a_guard_holds_a_read_back_from_the_moment_it_is_made(library: Library) -> None:
    """Also where the reader remembers that there was none; older versions are held back as well."""
    await library.put(fields={"token": "first"})
    await library.put(fields={"token": "second"})
    app = await library.app()
    assert (await library.read(by=app)).version == 2

    await guard(library, "production/payments/*")

    assert await refusal(library, app, STRIPE) == "approval_required"
    assert await refusal(library, app, STRIPE, version=1) == "approval_required"
    assert [outcome for outcome, _, _ in await library.accesses()] == ["allowed", "denied", "denied"]


async def test_an_approval_opens_one_path_until_it_is_taken_back(library: Library) -> None:
    await library.put()
    await library.put(OTHER)
    app = await library.app()
    await guard(library, "production/payments/*")
    assert await refusal(library, app, STRIPE) == "approval_required"

    approval = await approve(library, app, STRIPE)
    assert (await library.read(by=app)).version == 1
    assert await refusal(library, app, OTHER) == "approval_required"

    denied = DecideApproval(approve=False, reason="test")
    await library.approvals.decide(library.desk.admin, approval, denied)
    assert await refusal(library, app, STRIPE) == "approval_required"


async def test_a_reference_is_no_way_around_a_guard(library: Library) -> None:
    await library.put(STRIPE, {"token": "guarded"})
    await library.put("production/shop/address", {"url": f"https://${{secret:{STRIPE}#token}}@example.com"})
    app = await library.app()
    await guard(library, "production/payments/*")

    with pytest.raises(ConflictError) as broken:
        await library.read("production/shop/address", by=app)
    assert broken.value.code == "broken_reference"

    await approve(library, app, STRIPE)
    assert (await library.read("production/shop/address", by=app)).fields == {"url": "https://guarded@example.com"}

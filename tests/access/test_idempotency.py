import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, select

from keyturn.access.caller import Credentials
from keyturn.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyError,
    InFlightError,
    InputError,
    UnauthenticatedError,
)
from keyturn.storage.retention import RECORD_SECONDS, RESPONSE_SECONDS, run_retention
from keyturn.storage.schema import idempotency
from keyturn.wire.access import CreatePrincipal, CreateRole, CreateWorkspace
from tests.access.house import House, owner_of, with_token

ACME = CreateWorkspace(name="acme")


async def rows(house: House) -> list[Any]:
    def read(connection: Connection) -> list[Any]:
        return list(connection.execute(select(*idempotency.c)).all())

    return await house.database.read(read)


async def test_the_same_request_again_gets_the_same_answer_and_does_nothing(house: House) -> None:
    first = await house.access.workspaces.create(house.admin, ACME, idempotency="k1")
    before = await house.news()
    again = await house.access.workspaces.create(house.admin, ACME, idempotency="k1")
    assert again == first
    assert again.token is not None
    assert await house.news() == before


async def test_without_a_key_every_request_counts(house: House) -> None:
    await house.access.workspaces.create(house.admin, ACME)
    with pytest.raises(ConflictError):
        await house.access.workspaces.create(house.admin, ACME)


async def test_the_same_key_with_another_body_is_refused(house: House) -> None:
    await house.access.workspaces.create(house.admin, ACME, idempotency="k1")
    with pytest.raises(IdempotencyError):
        await house.access.workspaces.create(house.admin, CreateWorkspace(name="acme", keys_max=1), idempotency="k1")


async def test_a_key_is_one_for_each_principal_and_action(house: House) -> None:
    await house.access.principals.create(house.admin, CreatePrincipal(kind="user", name="ann"), idempotency="k1")
    await house.access.roles.create(house.admin, CreateRole(name="ops"), idempotency="k1")
    _, other = await house.hire("other", ("principal.create", "*"))
    made = await house.access.principals.create(other, CreatePrincipal(kind="user", name="bob"), idempotency="k1")
    assert made.name == "bob"


async def test_after_ten_minutes_the_answer_names_the_entity_without_its_secret(house: House) -> None:
    """A stolen record, or a late replay, gives the id and nothing that could be presented."""
    first = await house.access.workspaces.create(house.admin, ACME, idempotency="k1")
    house.clock.advance(RESPONSE_SECONDS)
    late = await house.access.workspaces.create(house.admin, ACME, idempotency="k1")
    assert (late.id, late.principal) == (first.id, first.principal)
    assert late.token is None


async def test_another_token_of_the_principal_learns_the_entity_but_not_the_secret(house: House) -> None:
    """The answer is sealed under the bearer token that asked."""
    first = await house.access.workspaces.create(house.admin, ACME, idempotency="k1")
    other = with_token(house.admin, house.tokens.add(owner_of(house, house.admin)))
    again = await house.access.workspaces.create(other, ACME, idempotency="k1")
    assert (again.id, again.token) == (first.id, None)


async def test_a_replay_needs_the_right_to_the_operation(house: House) -> None:
    """Who has lost it does not get the answer again, secret or not."""
    _, credentials = await house.hire("founder", ("*", "*"))
    grant = await house.hire_into(house.admin, owner_of(house, credentials).principal, "*", "~instance/*")
    await house.access.workspaces.create(credentials, ACME, idempotency="k1")
    await house.access.grants.revoke(house.admin, grant)
    with pytest.raises(ForbiddenError):
        await house.access.workspaces.create(credentials, ACME, idempotency="k1")


async def test_a_request_that_failed_may_be_sent_again(house: House) -> None:
    taken = CreatePrincipal(kind="user", name="admin")
    for _ in range(2):
        with pytest.raises(ConflictError, match="named 'admin'"):
            await house.access.principals.create(house.admin, taken, idempotency="k1")
    free = CreatePrincipal(kind="user", name="ann")
    assert (await house.access.principals.create(house.admin, free, idempotency="k1")).name == "ann"


async def test_of_two_at_once_one_is_done_and_the_other_is_in_flight(house: House) -> None:
    answers = await asyncio.gather(
        *[house.access.workspaces.create(house.admin, ACME, idempotency="k1") for _ in range(2)],
        return_exceptions=True,
    )
    assert sorted(isinstance(one, InFlightError) for one in answers) == [False, True]
    assert len([one for one in await house.leaves() if one["action"] == "workspace.create"]) == 2  # one in each log
    again = await house.access.workspaces.create(house.admin, ACME, idempotency="k1")
    assert again in answers


async def test_the_stored_record_holds_neither_key_nor_body_nor_token(house: House) -> None:
    """A copy of the database opens no response and confirms no guess at a body."""
    made = await house.access.workspaces.create(house.admin, ACME, idempotency="my-own-key")
    (row,) = await rows(house)
    assert made.token is not None
    everything = repr(tuple(row)).encode() + bytes(row.response) + bytes(row.body_hash)
    for text in (made.token, "my-own-key", "acme", house.admin.token.reveal()):
        assert text.encode() not in everything


async def test_old_responses_and_records_are_dropped(house: House) -> None:
    await house.access.workspaces.create(house.admin, ACME, idempotency="k1")

    assert (await run_retention(house.database, "nod_1")).responses == 0
    house.clock.advance(RESPONSE_SECONDS + 1)
    assert (await run_retention(house.database, "nod_1")).responses == 1
    (row,) = await rows(house)
    assert (row.response, row.entity != "") == (None, True)
    house.clock.advance(RECORD_SECONDS)
    assert (await run_retention(house.database, "nod_1")).records == 1
    assert await rows(house) == []


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256, "a\n"])
async def test_a_key_that_is_none_is_refused(house: House, key: str) -> None:
    with pytest.raises(InputError) as caught:
        await house.access.roles.create(house.admin, CreateRole(name="ops"), idempotency=key)
    assert caught.value.field == "Idempotency-Key"


async def test_an_unproven_token_replays_nothing(house: House) -> None:
    made = await house.access.workspaces.create(house.admin, ACME, idempotency="k1")
    assert made.token is not None
    house.tokens.revoke(house.admin.token)
    with pytest.raises(UnauthenticatedError):
        await house.access.workspaces.create(Credentials(house.admin.token), ACME, idempotency="k1")

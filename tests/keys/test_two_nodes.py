"""Two nodes of one PostgreSQL database: who retries elsewhere gets one key, and changes of plans take turns."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from keyturn.access.door import Door
from keyturn.errors import ConflictError, IdempotencyError, KeyturnError
from keyturn.keys.authority import SystemTokens
from keyturn.keys.owners import OwnerService
from keyturn.keys.plans import PlanService
from keyturn.keys.service import KeyService
from keyturn.storage.engine import make_database
from keyturn.storage.keyring import Keyring
from keyturn.wire.keys import UpdateKey
from keyturn.wire.plans import RetirePlan, UpdateOwner
from tests.keys.desk import Desk, opened_desk, wanted

pytestmark = pytest.mark.postgres


@pytest.fixture
async def nodes(migrated_postgres_url: str) -> AsyncIterator[tuple[Desk, KeyService]]:
    """One node, and the keys of another: its own connections, keyring and door."""
    async with opened_desk(migrated_postgres_url) as desk:
        await desk.keyspace()
        keyring = Keyring(desk.keyring.provider)
        database = make_database(migrated_postgres_url, desk.clock)
        await database.open()
        try:
            yield desk, KeyService(Door(database, SystemTokens(keyring), desk.failures), keyring, desk.usage)
        finally:
            await database.close()


async def test_a_request_sent_to_two_nodes_at_once_makes_one_key(nodes: tuple[Desk, KeyService]) -> None:
    desk, elsewhere = nodes
    for number in range(5):
        here, there = await asyncio.gather(
            desk.keys.issue(desk.admin, wanted(), idempotency=f"k{number}"),
            elsewhere.issue(desk.admin, wanted(), idempotency=f"k{number}"),
        )
        assert here == there
        assert here.key is not None
    assert len((await desk.keys.list(desk.admin)).items) == 5


async def test_nodes_that_meet_the_same_requests_in_opposite_order_make_each_key_once(
    nodes: tuple[Desk, KeyService],
) -> None:
    """Units of one node share a transaction, so two nodes may each hold what the other one waits for."""
    desk, elsewhere = nodes
    names = [f"k{number}" for number in range(12)]
    here = [desk.keys.issue(desk.admin, wanted(), idempotency=name) for name in names]
    there = [elsewhere.issue(desk.admin, wanted(), idempotency=name) for name in reversed(names)]
    answers = await asyncio.gather(*here, *there)
    assert [one.id for one in answers[:12]] == [one.id for one in reversed(answers[12:])]
    assert all(one.key is not None for one in answers)
    assert len((await desk.keys.list(desk.admin)).items) == 12


async def test_another_request_under_the_key_of_another_node_is_refused(nodes: tuple[Desk, KeyService]) -> None:
    desk, elsewhere = nodes
    await desk.keys.issue(desk.admin, wanted(), idempotency="once")
    with pytest.raises(IdempotencyError):
        await elsewhere.issue(desk.admin, wanted(owner="other"), idempotency="once")


@pytest.fixture
async def doors(migrated_postgres_url: str) -> AsyncIterator[tuple[Desk, Door]]:
    """One node, and the door of another."""
    async with opened_desk(migrated_postgres_url) as desk:
        await desk.keyspace()
        database = make_database(migrated_postgres_url, desk.clock)
        await database.open()
        try:
            yield desk, Door(database, SystemTokens(Keyring(desk.keyring.provider)), desk.failures)
        finally:
            await database.close()


async def test_an_owner_that_two_nodes_put_on_record_at_once_has_both_changes(doors: tuple[Desk, Door]) -> None:
    desk, door = doors
    elsewhere = OwnerService(door)
    await desk.plan()
    for number in range(5):
        name = f"owner {number}"
        await asyncio.gather(
            desk.owners.update(desk.admin, name, UpdateOwner(plan="basic")),
            elsewhere.update(desk.admin, name, msgspec.convert({"quotas": [{"name": "q", "amount": 1}]}, UpdateOwner)),
        )
        both = await desk.owners.show(desk.admin, name)
        assert (both.revision, both.plan, both.quotas[0].name) == (2, "basic", "q")


async def test_nothing_gets_on_a_plan_that_another_node_is_retiring(doors: tuple[Desk, Door]) -> None:
    """A key left on a retired plan would be held by limits that nobody can change."""
    desk, door = doors
    elsewhere = PlanService(door)
    issued = await desk.key()
    for number in range(8):
        name = f"plan-{number}"
        await desk.plan(name)
        moving, retiring = await asyncio.gather(
            desk.keys.update(desk.admin, issued.id, UpdateKey(plan=name)),
            elsewhere.retire(desk.admin, name, RetirePlan()),
            return_exceptions=True,
        )
        refused = [one for one in (moving, retiring) if isinstance(one, KeyturnError)]
        assert [type(one) for one in refused] == [ConflictError]
        assert refused[0].code in {"plan_in_use", "plan_retired"}
        plan = await desk.plans.show(desk.admin, name)
        assert (plan.state == "retired") == (plan.keys == 0)

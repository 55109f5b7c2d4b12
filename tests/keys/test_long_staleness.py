"""What a change says of its effect where nodes may go on for longer than a minute without hearing of it."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from sqlalchemy import update

from keyturn.kernel.clock import parse_rfc3339
from keyturn.storage import nodes
from keyturn.storage.schema import node
from keyturn.storage.transaction import Transaction
from keyturn.wire.access import GrantFilter
from keyturn.wire.keys import UpdateKeyspace
from keyturn.wire.plans import RetirePlan
from tests.keys.desk import Desk

T = TypeVar("T")

LONG_SECONDS = 3600
SILENT_SECONDS = 120
"""Longer than a server goes on with what it knows of a caller, and shorter than the keyspaces here allow."""


async def silent_node(desk: Desk, kind: str, workspace: str | None) -> None:
    """Register a node that has not confirmed for a while."""

    def work(transaction: Transaction) -> None:
        nodes.register(transaction.connection, kind, kind, f"a {kind}", transaction.now, workspace=workspace)
        silent = node.c.confirmed_at - SILENT_SECONDS
        transaction.connection.execute(update(node).where(node.c.id == kind).values(confirmed_at=silent))

    await desk.database.write(work)


async def answered(desk: Desk, change: Coroutine[None, None, T]) -> T:
    """Let time go by until a change that waits for nodes has answered."""
    task = asyncio.create_task(change)
    while not task.done():
        await asyncio.sleep(0.01)
        desk.clock.advance(0.5)
    return task.result()


async def test_a_verifier_is_waited_for_as_long_as_its_keyspaces_let_it_go_on_without_the_right(desk: Desk) -> None:
    """Otherwise the right to replicate would be said to be gone while a verifier that is cut off still admits keys."""
    await desk.keyspace(stale_after_seconds=LONG_SECONDS)
    principal, _ = await desk.hire("replica", ("keyspace.replicate", "keyspace/*"))
    (grant,) = (await desk.access.grants.list(desk.admin, GrantFilter(principal=principal))).items
    (token,) = (await desk.tokens.list(desk.admin, principal)).items
    await silent_node(desk, nodes.VERIFIER, desk.founded.workspace.id)
    await silent_node(desk, nodes.SERVER, None)
    for taken in (
        await answered(desk, desk.access.grants.revoke(desk.admin, grant.id)),
        await answered(desk, desk.tokens.revoke(desk.admin, principal, token.id)),
        await answered(desk, desk.access.principals.disable(desk.admin, principal)),
    ):
        assert (taken.effective, taken.laggards) == (False, ("a verifier",))
        at = await desk.database.read(lambda connection: nodes.database_time(connection, desk.clock.now()))
        assert parse_rfc3339(taken.effective_by) > at + LONG_SECONDS - SILENT_SECONDS


async def test_a_bound_that_was_lowered_counts_until_it_must_have_been_heard_of(desk: Desk) -> None:
    await desk.keyspace(stale_after_seconds=LONG_SECONDS)
    await desk.keyspaces.update(desk.admin, "orders", UpdateKeyspace(stale_after_seconds=5))
    workspace = desk.founded.workspace.id
    found = await desk.database.read(lambda c: nodes.longest_staleness(c, workspace, desk.clock.now()))
    assert found == LONG_SECONDS
    later = desk.clock.now() + LONG_SECONDS + 10
    assert await desk.database.read(lambda c: nodes.longest_staleness(c, workspace, later)) == 5
    assert await desk.database.read(lambda c: nodes.longest_staleness(c, "wsp_other", later)) == 0.0


async def test_retiring_a_plan_again_waits_for_what_the_first_time_moved(desk: Desk) -> None:
    """Whoever never got the first answer is told no less by the second."""
    await desk.keyspace(stale_after_seconds=LONG_SECONDS)
    await desk.plan("old")
    await desk.plan("new")
    await desk.key(plan="old")
    await silent_node(desk, nodes.SERVER, None)
    for _ in range(2):
        retired = await answered(desk, desk.plans.retire(desk.admin, "old", RetirePlan(move_to="new")))
        assert (retired.effective, retired.laggards) == (False, ("a server",))

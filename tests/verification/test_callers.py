import asyncio
from typing import Any

import pytest

from keyturn.access.caller import Conditions, Credentials
from keyturn.errors import UnauthenticatedError
from keyturn.kernel.tokenformat import mint
from keyturn.keys import callers
from tests.verification.world import World, credentials


async def warm(world: World, **changes: Any) -> str:
    """Return a key of the first workspace, known to the node."""
    issued = await world.issue(await world.create_keyspace(**changes))
    await world.follow()
    return issued.key


async def test_a_token_is_proven_once_and_then_remembered(world: World) -> None:
    key = await warm(world)
    assert world.verify_now(key) is None
    assert (await world.verify(key)).valid
    world.take_database_away()
    assert world.verify_now(key) is not None


async def test_the_key_of_another_workspace_is_not_found(world: World) -> None:
    """A tenant learns nothing of another's keys, not even with the key in hand."""
    key = await warm(world)
    _, stranger = await world.tenant("other")
    await world.follow()
    answer = await world.verify(key, by=stranger)
    assert answer == await world.verify(mint("acme", "live").key.reveal(), by=stranger)
    assert answer.code == "NOT_FOUND"
    assert world.sink.used == []


async def test_the_key_of_another_workspace_is_not_found_while_stale(world: World) -> None:
    """Read-through obeys the same rule as memory."""
    key = await warm(world)
    _, stranger = await world.tenant("other")
    await world.follow()
    world.go_stale()
    assert (await world.verify(key, by=stranger)).code == "NOT_FOUND"


async def test_a_grant_names_the_keyspaces_that_may_be_verified(world: World) -> None:
    orders = await world.issue(await world.create_keyspace("orders"))
    billing = await world.issue(await world.create_keyspace("billing"))
    verifier = await world.restricted("key/orders/*")
    await world.follow()
    assert (await world.verify(orders.key, by=verifier)).valid
    assert (await world.verify(billing.key, by=verifier)).code == "NOT_FOUND"


async def test_a_grant_may_name_one_key(world: World) -> None:
    keyspace = await world.create_keyspace()
    one, two = await world.issue(keyspace), await world.issue(keyspace)
    verifier = await world.restricted(f"key/orders/{one.id}")
    await world.follow()
    for _ in range(2):
        assert (await world.verify(one.key, by=verifier)).valid
        assert (await world.verify(two.key, by=verifier)).code == "NOT_FOUND"


async def test_a_grant_for_an_environment_holds_there_only(world: World) -> None:
    production = await world.issue(await world.create_keyspace("orders"))
    staging = await world.issue(await world.create_keyspace("orders-staging", environment="staging"))
    verifier = await world.restricted("key/*", conditions=Conditions(environments=("staging",)))
    await world.follow()
    assert (await world.verify(staging.key, by=verifier)).valid
    assert (await world.verify(production.key, by=verifier)).code == "NOT_FOUND"


async def test_a_revoked_grant_is_forgotten_with_its_change_row(world: World) -> None:
    key = await warm(world)
    verifier = await world.restricted("key/orders/*")
    await world.follow()
    assert (await world.verify(key, by=verifier)).valid
    await world.revoke_last_grant()
    await world.follow()
    assert world.verify_now(key, by=verifier) is None
    assert (await world.verify(key, by=verifier)).code == "NOT_FOUND"


async def test_a_revoked_token_is_forgotten_with_its_change_row(world: World) -> None:
    key = await warm(world)
    assert (await world.verify(key)).valid
    await world.revoke_admin_token()
    await world.follow()
    assert world.verify_now(key) is None
    with pytest.raises(UnauthenticatedError):
        await world.verify(key)


async def test_a_revoked_token_is_refused_by_a_stale_node(world: World) -> None:
    """A node without news does not trust what it remembers of a caller."""
    key = await warm(world)
    assert (await world.verify(key)).valid
    await world.revoke_admin_token()
    world.go_stale()
    with pytest.raises(UnauthenticatedError):
        await world.verify(key)


async def test_the_change_of_another_key_forgets_nobody(world: World) -> None:
    keyspace = await world.create_keyspace()
    issued = await world.issue(keyspace)
    await world.follow()
    assert (await world.verify(issued.key)).valid
    await world.issue(keyspace)
    await world.follow()
    assert world.verify_now(issued.key) is not None


async def test_rights_end_with_the_window_of_a_grant(world: World) -> None:
    """What holds for a time is asked again when the time is over, without any news."""
    key = await warm(world, stale_after_seconds=3600.0)
    verifier = await world.restricted("key/orders/*", conditions=Conditions(not_after=world.clock.now() + 30))
    await world.follow()
    assert (await world.verify(key, by=verifier)).valid
    world.clock.advance(29)
    assert world.verify_now(key, by=verifier) is not None
    world.clock.advance(2)
    assert world.verify_now(key, by=verifier) is None
    assert (await world.verify(key, by=verifier)).code == "NOT_FOUND"


async def test_rights_begin_with_the_window_of_a_grant(world: World) -> None:
    key = await warm(world)
    verifier = await world.restricted("key/orders/*", conditions=Conditions(not_before=world.clock.now() + 30))
    await world.follow()
    assert (await world.verify(key, by=verifier)).code == "NOT_FOUND"
    world.clock.advance(31)
    assert (await world.verify(key, by=verifier)).valid


async def test_a_grant_for_a_network_is_remembered_for_each_address(world: World) -> None:
    """What was proven from one address says nothing about another."""
    key = await warm(world)
    verifier = await world.restricted("key/orders/*", conditions=Conditions(cidrs=("10.0.0.0/8",)))
    await world.follow()
    inside, outside = (Credentials(verifier.token, ip, "req") for ip in ("10.1.2.3", "192.0.2.1"))
    for _ in range(2):
        assert (await world.verify(key, by=inside)).valid
        assert (await world.verify(key, by=outside)).code == "NOT_FOUND"


async def test_a_token_that_cannot_be_one_is_refused_without_the_database(world: World) -> None:
    """Nobody can make the server read by guessing at tokens."""
    key = await warm(world)
    token = world.credentials.token.reveal()
    forged = token[:-50] + mint("kt", "mgmt").key.reveal()[-50:]
    world.take_database_away()
    for text in ("junk", token[:-1], forged):
        from keyturn.kernel.secret import Secret

        with pytest.raises(UnauthenticatedError):
            await world.verify(key, by=credentials(Secret(text)))
    assert world.sink.refused == 3


async def test_a_flood_of_unknown_tokens_does_not_reach_the_database(world: World) -> None:
    key = await warm(world)
    read, reads = world.door.read, 0

    async def counted(*given: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*given)

    world.door.read = counted  # type: ignore[method-assign,assignment]
    async with world.following():
        flood = [world.verify(key, by=credentials(mint("kt", "mgmt").key)) for _ in range(300)]
        answers = await asyncio.gather(*flood, return_exceptions=True)
    assert all(isinstance(answer, UnauthenticatedError) for answer in answers)
    assert 0 < reads <= callers.PROOFS_BURST
    assert world.sink.refused == 300


async def test_news_that_comes_while_a_token_is_proven_keeps_it_from_being_remembered(world: World) -> None:
    """Otherwise rights that were read before a revocation would be kept after it was applied."""
    key = await warm(world)
    verifier = await world.restricted("key/orders/*")
    await world.follow()
    read = world.door.read

    async def overtaken(*given: Any) -> Any:
        found = await read(*given)
        await world.revoke_last_grant()
        await world.follow()
        return found

    world.door.read = overtaken  # type: ignore[method-assign,assignment]
    await world.verify(key, by=verifier)
    world.door.read = read  # type: ignore[method-assign]
    assert len(world.callers) == 0
    assert (await world.verify(key, by=verifier)).code == "NOT_FOUND"


async def test_news_of_other_keys_does_not_keep_a_proof_from_being_remembered(world: World) -> None:
    """Otherwise a server where keys are issued all the time would ask the database for every verification."""
    keyspace = await world.create_keyspace()
    issued = await world.issue(keyspace)
    await world.follow()
    read = world.door.read

    async def overtaken(*given: Any) -> Any:
        found = await read(*given)
        await world.issue(keyspace)
        await world.follow()
        return found

    world.door.read = overtaken  # type: ignore[method-assign,assignment]
    await world.verify(issued.key)
    world.door.read = read  # type: ignore[method-assign]
    assert len(world.callers) == 1


async def test_the_memory_of_callers_is_bounded(world: World) -> None:
    key = await warm(world)
    await world.verify(key)
    (entry,) = world.callers._entries.values()  # noqa: SLF001 -- thousands of real tokens would take minutes
    for number in range(callers.ENTRIES_MAX + 10):
        world.callers.keep(b"token %d" % number, None, entry, world.callers.generation)
    assert len(world.callers) == callers.ENTRIES_MAX


async def test_no_token_is_kept_in_memory_as_it_is(world: World) -> None:
    key = await warm(world)
    await world.verify(key)
    token = world.credentials.token.reveal_bytes()
    assert all(token not in mark for mark in world.callers._entries)  # noqa: SLF001 -- what it is about


async def test_a_management_token_is_no_key(world: World) -> None:
    """The keyspace of tokens can be verified by nobody, with whatever grants."""
    await warm(world)
    answer = await world.verify(world.credentials.token.reveal())
    assert (answer.valid, answer.code) == (False, "NOT_FOUND")

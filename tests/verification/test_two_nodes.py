from tests.verification.world import World


async def test_a_key_issued_on_one_node_verifies_on_the_other_at_once(world: World, other: World) -> None:
    keyspace = await world.create_keyspace()
    await other.follow()
    await other.verify("warm")
    issued = await world.issue(keyspace)
    assert (await other.verify(issued.key)).key_id == issued.id


async def test_a_key_revoked_on_one_node_is_denied_on_the_other_once_it_followed(world: World, other: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    for node in (world, other):
        await node.follow()
        assert (await node.verify(issued.key)).valid
    await world.set_key_state(issued, "revoked")
    await other.follow()
    denied = other.verify_now(issued.key)
    assert denied is not None
    assert denied.code == "REVOKED"


async def test_a_node_that_does_not_follow_stops_admitting_within_the_bound(world: World, other: World) -> None:
    """Cut off or paused, a node is not asked for news; time alone ends what it may admit from memory."""
    issued = await world.issue(await world.create_keyspace(stale_after_seconds=5.0))
    for node in (world, other):
        await node.follow()
        assert (await node.verify(issued.key)).valid
    await world.set_key_state(issued, "revoked")
    other.clock.advance(5.1)
    other.take_database_away()
    assert other.verify_now(issued.key) is None
    assert (await other.verify(issued.key)).code == "UNAVAILABLE"


async def test_a_digest_moved_by_one_node_is_good_on_the_other_before_and_after(world: World, other: World) -> None:
    keyspace = await world.create_keyspace()
    issued = await world.issue(keyspace)
    await world.rotate_pepper(keyspace)
    for node in (world, other):
        await node.follow()
    assert (await world.verify(issued.key)).valid
    await world.rehasher.drain()
    for _ in range(2):
        assert (await other.verify(issued.key)).valid
        await other.follow()
    await other.rehasher.drain()
    assert (world.rehasher.rehashed, other.rehasher.rehashed) == (1, 0)


async def test_a_keyspace_created_on_one_node_is_known_to_the_other(world: World, other: World) -> None:
    await other.follow()
    keyspace = await world.create_keyspace("late", foreign=True)
    secret = "old-" + "x1" * 12
    await world.issue(keyspace, presented=secret)
    await other.follow()
    await other.verify("warm")
    found = other.verify_now(secret)
    assert found is not None
    assert found.valid

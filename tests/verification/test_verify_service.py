from keyturn.kernel.tokenformat import mint
from tests.verification.world import World


async def test_a_valid_key_is_admitted_and_described(world: World) -> None:
    issued = await world.issue(await world.create_keyspace(), scopes=("orders:*",))
    await world.follow()
    answer = await world.verify(issued.key, scopes="orders:read")
    assert (answer.valid, answer.code) == (True, "VALID")
    assert (answer.key_id, answer.version_id, answer.keyspace) == (issued.id, issued.version_id, "orders")
    assert (answer.owner, answer.environment, answer.metadata) == ("team-a", "production", {"plan": "gold"})
    assert world.sink.used == [(issued.version_id, "VALID")]


async def test_a_warm_verification_needs_no_database(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    world.take_database_away()
    answer = world.verify_now(issued.key)
    assert answer is not None
    assert answer.valid
    denied = world.verify_now("nothing that looks like a key")
    assert denied is not None
    assert denied.code == "NOT_FOUND"


async def test_a_key_this_node_has_not_heard_of_is_looked_up_at_once(world: World) -> None:
    keyspace = await world.create_keyspace()
    await world.follow()
    await world.verify("junk")
    issued = await world.issue(keyspace)
    assert world.verify_now(issued.key) is None
    assert (await world.verify(issued.key)).valid
    assert world.lookup.lookups == 1


async def test_an_unknown_key_is_not_found_and_not_remembered(world: World) -> None:
    keyspace = await world.create_keyspace()
    await world.follow()
    unknown = mint("acme", "live").key.reveal()
    for _ in range(2):
        answer = await world.verify(unknown)
        assert (answer.valid, answer.code, answer.key_id) == (False, "NOT_FOUND", None)
    assert world.lookup.lookups == 2
    assert (await world.verify((await world.issue(keyspace)).key)).valid

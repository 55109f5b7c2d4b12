from keyturn.keys import records
from keyturn.verify.replica import Replica
from keyturn.wire.keys import IssueKeys, RotateKey
from tests.keys.desk import Desk, wanted


async def test_pages_hold_exactly_what_single_look_ups_do(desk: Desk) -> None:
    await desk.keyspace("orders")
    await desk.keyspace("other")
    requests = tuple(wanted(keyspace=("orders", "other")[number % 2], scopes=["a:*"]) for number in range(23))
    issued = await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=requests))
    await desk.keys.rotate(desk.admin, issued.items[0].id, RotateKey())

    def check(connection: object) -> None:
        from sqlalchemy import Connection

        assert isinstance(connection, Connection)
        paged = list(records.load_keys(connection, limit=5))
        assert [key.id for key in paged] == sorted(key.id for key in paged)
        assert {one.id for one in issued.items} < {key.id for key in paged}
        for key in paged:
            assert key == records.load_record(connection, key.id)
        of_one = list(records.load_keys(connection, limit=5, keyspace_id=paged[-1].keyspace))
        assert of_one == [key for key in paged if key.keyspace == paged[-1].keyspace]

    await desk.database.read(check)


async def test_tokens_are_in_the_records_but_never_verify(desk: Desk) -> None:
    """A management token presented as a key is NOT_FOUND, whoever may verify."""
    keyspaces = await desk.database.read(lambda connection: records.load_keyspaces(connection, desk.keyring))
    (system,) = keyspaces
    assert (system.system, system.name) == (True, "~system")
    assert await desk.verdict(desk.admin.token.reveal()) == "NOT_FOUND"


async def test_a_version_leads_to_its_key_and_keyspace(desk: Desk) -> None:
    made = await desk.keyspace()
    issued = await desk.key()
    pair = await desk.database.read(
        lambda connection: records.find_version(connection, desk.keyring, issued.version_id)
    )
    assert pair is not None
    key, keyspace = pair
    assert (key.id, key.keyspace, keyspace.id, keyspace.name) == (issued.id, made.id, made.id, "orders")
    assert await desk.database.read(lambda c: records.find_version(c, desk.keyring, "0" * 12)) is None
    assert await desk.database.read(lambda c: records.load_record(c, "key_none")) is None


async def test_a_replica_loads_everything_there_is(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    replica = Replica()

    def load(connection: object) -> None:
        from sqlalchemy import Connection

        assert isinstance(connection, Connection)
        keyspaces, keys = records.load_all(connection, desk.keyring)
        replica.replace_all(keyspaces, keys)

    await desk.database.read(load)
    assert replica.version(issued.version_id) is not None
    assert replica.counts().orphaned == 0

import pytest

from keyturn.errors import ConflictError, InputError, NotFoundError, PreconditionError
from keyturn.kernel.clock import parse_rfc3339
from keyturn.keys import records
from keyturn.storage.nodes import database_time
from keyturn.wire.keys import RetirePepper, RevokeKey, RotateKey, UpdateKeyspace
from keyturn.wire.policy import Restrictions
from tests.keys.desk import Desk


async def test_a_keyspace_is_shown_as_it_was_created(desk: Desk) -> None:
    made = await desk.keyspace(description="the shop", stale_after_seconds=5, restrictions={"cidrs": ["10.0.0.0/8"]})
    assert made == await desk.keyspaces.show(desk.admin, "orders")
    assert (made.tag, made.state, made.revision, made.accepts_foreign) == ("live", "active", 1, False)
    assert [(pepper.number, pepper.state, pepper.versions) for pepper in made.peppers] == [(1, "current", 0)]


async def test_a_name_is_taken_once_in_a_workspace(desk: Desk) -> None:
    await desk.keyspace()
    with pytest.raises(ConflictError) as caught:
        await desk.keyspace()
    assert (caught.value.code, caught.value.field) == ("duplicate", "name")


async def test_an_environment_of_ones_own_needs_a_tag_that_fits(desk: Desk) -> None:
    with pytest.raises(InputError) as caught:
        await desk.keyspace(environment="pre-release")
    assert caught.value.field == "tag"
    made = await desk.keyspace(environment="pre-release", tag="pre")
    issued = await desk.key()
    assert made.tag == "pre"
    assert issued.key is not None
    assert issued.key.startswith("acme_pre_")


async def test_an_update_changes_what_it_names(desk: Desk) -> None:
    await desk.keyspace(description="before")
    changed = await desk.keyspaces.update(
        desk.admin, "orders", UpdateKeyspace(restrictions=Restrictions(cidrs=("10.0.0.0/8",))), if_match=1
    )
    assert (changed.description, changed.restrictions, changed.revision) == (
        "before",
        Restrictions(cidrs=("10.0.0.0/8",)),
        2,
    )
    cleared = await desk.keyspaces.update(desk.admin, "orders", UpdateKeyspace(restrictions=None))
    assert cleared.restrictions is None
    with pytest.raises(PreconditionError):
        await desk.keyspaces.update(desk.admin, "orders", UpdateKeyspace(description="x"), if_match=1)
    with pytest.raises(InputError):
        await desk.keyspaces.update(
            desk.admin, "orders", UpdateKeyspace(restrictions=Restrictions(origins=("not an origin",)))
        )


async def test_a_lowered_bound_is_promised_only_once_it_is_certain(desk: Desk) -> None:
    """`effective_by` after a lowering still allows for nodes that go by the old bound."""
    await desk.keyspace(stale_after_seconds=600)
    issued = await desk.key()
    lowered = await desk.keyspaces.update(desk.admin, "orders", UpdateKeyspace(stale_after_seconds=5))
    assert lowered.stale_after_seconds == 5
    desk.clock.advance(10)
    before = await desk.database.read(lambda connection: database_time(connection, desk.clock.now()))
    disabled = await desk.keys.disable(desk.admin, issued.id)
    assert parse_rfc3339(disabled.effective_by) >= before + 600
    desk.clock.advance(600)
    before = await desk.database.read(lambda connection: database_time(connection, desk.clock.now()))
    enabled = await desk.keys.enable(desk.admin, issued.id)
    assert before + 5 <= parse_rfc3339(enabled.effective_by) < before + 60


async def test_old_secrets_verify_after_a_pepper_rotation_and_new_ones_use_the_new_pepper(desk: Desk) -> None:
    await desk.keyspace()
    before = await desk.key()
    rotated = await desk.keyspaces.rotate_pepper(desk.admin, "orders")
    assert [(p.number, p.state, p.versions) for p in rotated.peppers] == [(2, "current", 0), (1, "previous", 1)]
    after = await desk.key()
    assert [await desk.verdict(one.key) for one in (before, after)] == ["VALID", "VALID"]
    shown = await desk.keyspaces.show(desk.admin, "orders")
    assert [p.versions for p in shown.peppers] == [1, 1]


async def test_a_pepper_retires_only_when_its_census_is_zero(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    await desk.keyspaces.rotate_pepper(desk.admin, "orders")
    with pytest.raises(ConflictError) as caught:
        await desk.keyspaces.retire_pepper(desk.admin, "orders", RetirePepper())
    assert caught.value.code == "pepper_in_use"
    rotated = await desk.keys.rotate(desk.admin, issued.id, RotateKey(overlap_seconds=60))
    with pytest.raises(ConflictError):
        await desk.keyspaces.retire_pepper(desk.admin, "orders", RetirePepper(number=1))
    desk.clock.advance(60)
    retired = await desk.keyspaces.retire_pepper(desk.admin, "orders", RetirePepper(number=1))
    assert [(p.number, p.state) for p in retired.peppers] == [(2, "current"), (1, "retired")]
    assert await desk.verdict(rotated.key) == "VALID"
    record = await desk.database.read(
        lambda connection: records.load_keyspace_record(connection, desk.keyring, retired.id)
    )
    assert record is not None
    assert [pepper.number for pepper in record.peppers] == [2]


async def test_the_pepper_of_a_disabled_key_is_still_needed(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    await desk.keys.disable(desk.admin, issued.id)
    await desk.keyspaces.rotate_pepper(desk.admin, "orders")
    with pytest.raises(ConflictError):
        await desk.keyspaces.retire_pepper(desk.admin, "orders", RetirePepper())
    await desk.keys.revoke(desk.admin, issued.id, RevokeKey())
    await desk.keyspaces.retire_pepper(desk.admin, "orders", RetirePepper())


async def test_the_system_keyspace_does_not_exist_for_key_operations(desk: Desk) -> None:
    """Management tokens must not be reachable by whoever administers keys, not even with every grant."""
    for attempt in (
        desk.keyspaces.show(desk.admin, "~system"),
        desk.keyspaces.disable(desk.admin, "~system"),
        desk.keyspaces.rotate_pepper(desk.admin, "~system"),
        desk.keys.show(desk.admin, desk.founded.token.token_id),
        desk.keys.revoke(desk.admin, desk.founded.token.token_id, RevokeKey()),
        desk.keys.rotate(desk.admin, desk.founded.token.token_id, RotateKey()),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    assert (await desk.keyspaces.list(desk.admin)).items == ()
    assert (await desk.keys.list(desk.admin)).items == ()


async def test_lists_go_by_pages_and_hold_each_keyspace_once(desk: Desk) -> None:
    for number in range(5):
        await desk.keyspace(f"api-{number}")
        desk.clock.advance(1)
    names: list[str] = []
    cursor = None
    while True:
        page = await desk.keyspaces.list(desk.admin, cursor=cursor, limit=2)
        names.extend(one.name for one in page.items)
        if (cursor := page.next_cursor) is None:
            break
    assert names == [f"api-{number}" for number in range(5)]


async def test_an_absurd_name_is_simply_not_found(desk: Desk) -> None:
    for name in ("", "\0", "x" * 10_000, "Ordérs", "orders\n", "../orders", "\ud800"):
        with pytest.raises(NotFoundError):
            await desk.keyspaces.show(desk.admin, name)
        with pytest.raises(NotFoundError):
            await desk.keys.show(desk.admin, name)

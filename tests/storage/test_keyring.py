from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, select, update

from keyturn.config import Settings
from keyturn.errors import BrokenInvariantError, DestroyedError, IntegrityError, KekError
from keyturn.kernel import envelope
from keyturn.kernel.secret import Secret
from keyturn.storage import kek_held
from keyturn.storage.database import Database
from keyturn.storage.kek import KekProvider, load_provider
from keyturn.storage.keyring import DESTROYED, Keyring, OpenedKey, wanted_keks
from keyturn.storage.resealing import reseal, values_under
from keyturn.storage.schema import sealed_key, workspace_key
from keyturn.storage.transaction import Transaction


def provider() -> KekProvider:
    settings = Settings(data=Path("/nonexistent"), kek_provider="env", kek=Secret(kek_held.generate()))
    return load_provider(settings, create=False)


async def create(database: Database, keyring: Keyring, path: str = "ks_1", workspace: str = "wsp_1") -> OpenedKey:
    return (await database.write(lambda t: keyring.create(t.connection, workspace, "pepper", path, t.now))).value


async def test_newest_key_is_current_and_the_others_still_open(database: Database) -> None:
    keyring = Keyring(provider())
    first = await create(database, keyring)
    second = await create(database, keyring)

    again = Keyring(keyring.provider)
    found = await database.read(lambda c: again.all(c, "wsp_1", "pepper", "ks_1"))
    current = await database.read(lambda c: again.current(c, "wsp_1", "pepper", "ks_1"))

    assert [(key.number, key.state, key.value) for key in found] == [
        (2, "current", second.value),
        (1, "previous", first.value),
    ]
    assert current.value == second.value
    assert first.value != second.value


async def test_retired_key_is_opened_no_more_and_the_current_one_cannot_be_retired(database: Database) -> None:
    keyring = Keyring(provider())
    await create(database, keyring)
    await create(database, keyring)

    done = [
        (await database.write(lambda t, n=n: keyring.retire(t.connection, "wsp_1", "pepper", "ks_1", n))).value  # type: ignore[misc]
        for n in (1, 1, 2)
    ]
    found = await database.read(lambda c: keyring.all(c, "wsp_1", "pepper", "ks_1"))

    assert done == [True, False, False]
    assert [key.number for key in found] == [2]


async def test_erased_key_is_under_no_workspace_key_any_more(database: Database) -> None:
    """What was destroyed neither counts nor keeps a workspace key from being rotated, resealed under and destroyed."""
    keyring = Keyring(provider())
    await create(database, keyring)
    second = await create(database, keyring)
    erased = (await database.write(lambda t: keyring.erase(t.connection, "wsp_1", "pepper", "ks_1"))).value
    newest = await database.read(lambda c: keyring.newest(c, "wsp_1"))
    before = await database.read(lambda c: values_under(c, "wsp_1"))
    made = (await database.write(lambda t: keyring.create_workspace_key(t.connection, "wsp_1", t.now))).value
    done = (await database.write(lambda t: reseal(keyring, t.connection, "wsp_1", t.now, limit=10, held=False))).value

    assert (erased, before) == ([1], {newest: 1})
    assert (done.resealed, done.unopened) == (1, ())
    assert await database.read(lambda c: values_under(c, "wsp_1")) == {made: 1}
    assert (await database.read(lambda c: keyring.current(c, "wsp_1", "pepper", "ks_1"))).value == second.value


async def test_nothing_lies_in_the_database_in_the_clear(database: Database) -> None:
    """Whoever has the database and not the root key has no pepper and no signing key."""
    keyring = Keyring(provider())
    made = await create(database, keyring)
    rows = await database.read(
        lambda c: [*c.execute(select(sealed_key)).all(), *c.execute(select(workspace_key)).all()]
    )
    stored = b"".join(bytes(value) for row in rows for value in row if isinstance(value, bytes))

    assert made.value not in stored
    assert all(key.value not in stored for key in keyring._workspace_keys.values())  # noqa: SLF001 -- what must not be there
    assert made.value.hex() not in repr(made)


@pytest.mark.parametrize("column", ["workspace", "purpose", "path", "number"])
async def test_moved_row_does_not_open(database: Database, column: str) -> None:
    """A sealed key is bound to its place: one workspace's pepper cannot be put in another's row."""
    keyring = Keyring(provider())
    await create(database, keyring)
    place = {"workspace": "wsp_1", "purpose": "pepper", "path": "ks_1", "number": 1}
    moved = {**place, column: 2 if column == "number" else "elsewhere"}
    await database.write(lambda t: t.connection.execute(update(sealed_key).values({column: moved[column]})))

    with pytest.raises(IntegrityError, match="does not open"):
        await database.read(
            lambda c: keyring.all(c, str(moved["workspace"]), str(moved["purpose"]), str(moved["path"]))
        )


@pytest.mark.parametrize("position", [0, 5, 20, 60, -1])
async def test_altered_row_does_not_open(database: Database, position: int) -> None:
    keyring = Keyring(provider())
    await create(database, keyring)
    sealed = await database.read(lambda c: c.execute(select(sealed_key.c.sealed)).scalar_one())
    altered = bytearray(sealed)
    altered[position] ^= 1
    await database.write(lambda t: t.connection.execute(update(sealed_key).values(sealed=bytes(altered))))

    with pytest.raises(IntegrityError):
        await database.read(lambda c: keyring.all(c, "wsp_1", "pepper", "ks_1"))


@pytest.mark.parametrize("column", ["workspace", "purpose", "path", "number"])
async def test_what_is_kept_opens_for_the_same_value_in_the_same_place_only(database: Database, column: str) -> None:
    """A row that was moved or altered does not open, although it was opened and kept before."""
    keyring = Keyring(provider())
    made = await create(database, keyring)
    kept = await database.read(lambda c: keyring.all(c, "wsp_1", "pepper", "ks_1", keep=True))
    again = await database.read(lambda c: keyring.all(c, "wsp_1", "pepper", "ks_1", keep=True))
    place = {"workspace": "wsp_1", "purpose": "pepper", "path": "ks_1", "number": 1}
    moved = {**place, column: 2 if column == "number" else "elsewhere"}
    await database.write(lambda t: t.connection.execute(update(sealed_key).values({column: moved[column]})))

    assert [key.value for key in kept] == [key.value for key in again] == [made.value]
    with pytest.raises(IntegrityError, match="does not open"):
        await database.read(
            lambda c: keyring.all(c, str(moved["workspace"]), str(moved["purpose"]), str(moved["path"]), keep=True)
        )


async def test_what_is_kept_is_no_more_once_the_row_or_its_workspace_key_is_gone(database: Database) -> None:
    """Nothing that was destroyed is used on from memory."""
    keyring = Keyring(provider())
    await create(database, keyring)
    using = await database.read(lambda c: keyring.newest(c, "wsp_1"))
    await database.read(lambda c: keyring.all(c, "wsp_1", "pepper", "ks_1", keep=True))
    await database.write(lambda t: t.connection.execute(update(workspace_key).values(state="destroyed")))
    keyring.forget([str(using)])

    with pytest.raises(DestroyedError):
        await database.read(lambda c: keyring.all(c, "wsp_1", "pepper", "ks_1", keep=True))
    await database.write(lambda t: t.connection.execute(delete(sealed_key)))
    assert await database.read(lambda c: keyring.all(c, "wsp_1", "pepper", "ks_1", keep=True)) == []


async def test_wrong_root_key_is_refused_and_the_wanted_one_is_named(database: Database) -> None:
    right, wrong = Keyring(provider()), Keyring(provider())
    await create(database, right)

    with pytest.raises(KekError, match=right.provider.id) as caught:
        await database.read(wrong.check)
    assert caught.value.hint == f"provide root key {right.provider.id}"
    with pytest.raises(KekError, match=right.provider.id):
        await database.read(lambda c: wrong.all(c, "wsp_1", "pepper", "ks_1"))
    await database.read(right.check)


async def test_root_key_of_the_right_name_and_other_content_is_refused(database: Database) -> None:
    right = provider()
    wrong = kek_held.HeldKeks((right.id, Secret(envelope.new_key())))
    await create(database, Keyring(right))

    with pytest.raises(KekError, match=right.id):
        await database.read(Keyring(wrong).check)


async def test_wanted_root_keys_are_known_without_any(database: Database) -> None:
    assert await database.read(wanted_keks) == []
    keyring = Keyring(provider())
    await create(database, keyring)
    await create(database, keyring, workspace="wsp_2")

    assert await database.read(wanted_keks) == [keyring.provider.id]


async def test_missing_workspace_key_is_an_integrity_error(database: Database) -> None:
    keyring = Keyring(provider())
    await create(database, keyring)
    await database.write(lambda t: t.connection.execute(update(workspace_key).values(id="wsk_other")))

    with pytest.raises(IntegrityError, match="not in the database"):
        await database.read(lambda c: Keyring(keyring.provider).all(c, "wsp_1", "pepper", "ks_1"))


async def test_no_current_key_is_our_own_bug(database: Database) -> None:
    with pytest.raises(BrokenInvariantError):
        await database.read(lambda c: Keyring(provider()).current(c, "wsp_1", "pepper", "ks_1"))


async def test_sealed_value_opens_in_its_place_only(database: Database) -> None:
    """A ciphertext moved to another path, version, purpose or workspace must not open."""
    keyring = Keyring(provider())
    here = {"purpose": "secret", "path": "sec_1/prod/db", "version": 3}
    await create(database, keyring, workspace="wsp_2")
    sealed = (
        await database.write(lambda t: keyring.seal(t.connection, "wsp_1", plaintext=b"value", now=t.now, **here))  # type: ignore[arg-type]
    ).value

    opened = await database.read(lambda c: Keyring(keyring.provider).open(c, "wsp_1", sealed, **here))  # type: ignore[arg-type]
    assert opened == b"value"
    for moved in ({"purpose": "pepper"}, {"path": "sec_1/prod/api"}, {"version": 2}, {"workspace": "wsp_2"}):
        place = {"workspace": "wsp_1", **here, **moved}
        with pytest.raises(IntegrityError, match="does not open"):
            await database.read(lambda c, p=place: keyring.open(c, p.pop("workspace"), sealed, **p))  # type: ignore[misc]


async def test_data_keys_are_forgotten_with_the_workspace_key(database: Database) -> None:
    """Nothing opens under a workspace key that is no more, also what was opened just before."""
    keyring = Keyring(provider())
    made = await create(database, keyring)
    sealed = await database.read(lambda c: c.execute(select(sealed_key.c.sealed)).scalar_one())

    def opened(connection: Connection) -> bytes:
        return keyring.open(connection, "wsp_1", sealed, purpose="pepper", path="ks_1", version=1)

    assert await database.read(opened) == made.value
    assert await database.read(opened) == made.value

    def destroy(transaction: Transaction) -> list[str]:
        gone = update(workspace_key).values(state=DESTROYED, wrapped=b"").returning(workspace_key.c.id)
        return [row.id for row in transaction.connection.execute(gone).all()]

    keyring.forget((await database.write(destroy)).value)
    with pytest.raises(DestroyedError):
        await database.read(opened)

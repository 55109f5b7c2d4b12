import base64
import hashlib

import bcrypt
import msgspec
import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from keyturn.errors import ConflictError, InputError
from keyturn.kernel import tokenformat
from keyturn.keys import records
from keyturn.storage.schema import key_version
from keyturn.verify.replica import Replica
from keyturn.wire.keys import ImportedKeys, ImportKeys, KeyInfo
from tests.keys.desk import Desk

FOREIGN = "-".join(("sk", "foreign", "0123456789abcdef"))


async def take_over(desk: Desk, *keys: dict[str, str], keyspace: str = "orders") -> ImportedKeys:
    """Import keys, each given as format, value and whatever else."""
    base = {"owner": "billing", "purpose": "in use"}
    request = msgspec.convert({"keyspace": keyspace, "keys": [base | key for key in keys]}, type=ImportKeys)
    return await desk.keys.import_keys(desk.admin, request)


async def proven(desk: Desk, presented: str) -> list[str]:
    """Return the ids of the keys that a presented key of foreign shape is, or may be, by the database."""
    pairs = await desk.database.read(
        lambda connection: records.foreign_candidates(connection, desk.keyring, desk.founded.workspace.id, presented)
    )
    return [key.id for key, _ in pairs]


@pytest.mark.parametrize("form", ["plaintext", "sha256_hex", "sha256_base64"])
async def test_fast_imports_verify_as_the_keys_they_are(desk: Desk, form: str) -> None:
    await desk.keyspace()
    hashed = hashlib.sha256(FOREIGN.encode())
    value = {
        "plaintext": FOREIGN,
        "sha256_hex": hashed.hexdigest(),
        "sha256_base64": base64.b64encode(hashed.digest()).decode(),
    }[form]
    (key,) = (await take_over(desk, {"format": form, "value": value})).items
    assert await proven(desk, FOREIGN) == [key.id]
    assert await proven(desk, FOREIGN + "x") == []
    replica = Replica()
    keyspaces, keys = await desk.database.read(
        lambda connection: (
            records.load_keyspaces(connection, desk.keyring),
            list(records.load_keys(connection)),
        )
    )
    replica.replace_all(keyspaces, keys)
    match = replica.foreign(desk.founded.workspace.id, FOREIGN, tokenformat.sha256(FOREIGN))
    assert match.version is not None
    assert match.version.key_id == key.id


async def test_what_is_stored_is_not_what_was_given(desk: Desk) -> None:
    """Whoever steals the database gets neither imported keys nor the digests they came with."""
    await desk.keyspace()
    plain = hashlib.sha256(FOREIGN.encode())
    await take_over(desk, {"format": "sha256_hex", "value": plain.hexdigest()})
    await take_over(desk, {"format": "plaintext", "value": FOREIGN + "-2"})
    digests = await desk.database.read(lambda c: list(c.execute(select(key_version.c.digest)).scalars()))
    assert plain.digest() not in digests
    for leaf in await desk.leaf_bytes():
        assert FOREIGN.encode() not in leaf
        assert plain.hexdigest().encode() not in leaf


async def test_slow_imports_are_found_by_how_they_begin(desk: Desk) -> None:
    await desk.keyspace()
    encoded = bcrypt.hashpw(FOREIGN.encode(), bcrypt.gensalt(4)).decode()
    slow = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(FOREIGN + "-2")
    done = await take_over(
        desk,
        {"format": "bcrypt", "value": encoded, "lookup": FOREIGN[:8]},
        {"format": "argon2", "value": slow, "lookup": FOREIGN[:10]},
    )
    assert set(await proven(desk, FOREIGN)) == {key.id for key in done.items}
    assert await proven(desk, FOREIGN[:9]) == [done.items[0].id]
    assert await proven(desk, FOREIGN[:7]) == []


async def test_a_keyspace_accepts_foreign_shapes_only_after_an_import(desk: Desk) -> None:
    made = await desk.keyspace()
    assert not made.accepts_foreign
    await take_over(desk, {"format": "plaintext", "value": FOREIGN})
    assert (await desk.keyspaces.show(desk.admin, "orders")).accepts_foreign
    assert ("keyspace", made.id) == (await desk.news())[-1]


async def test_a_key_is_imported_once_whatever_its_form_and_pepper(desk: Desk) -> None:
    await desk.keyspace()
    await take_over(desk, {"format": "plaintext", "value": FOREIGN})
    await desk.keyspaces.rotate_pepper(desk.admin, "orders")
    again = {"format": "sha256_hex", "value": hashlib.sha256(FOREIGN.encode()).hexdigest()}
    with pytest.raises(ConflictError) as caught:
        await take_over(desk, {"format": "plaintext", "value": FOREIGN + "-2"}, again)
    assert (caught.value.code, caught.value.field) == ("duplicate", "keys[1].value")
    with pytest.raises(ConflictError) as caught:
        await take_over(desk, *[{"format": "plaintext", "value": FOREIGN + "-3"}] * 2)
    assert caught.value.field == "keys[1].value"
    assert len((await desk.keys.list(desk.admin)).items) == 1


async def test_a_key_of_our_own_shape_keeps_its_version_id(desk: Desk) -> None:
    await desk.keyspace()
    minted = tokenformat.mint("elsewhere", "live")
    (key,) = (await take_over(desk, {"format": "plaintext", "value": minted.key.reveal()})).items
    assert isinstance(key, KeyInfo)
    assert await desk.verdict(minted.key.reveal()) == "VALID"
    shown = await desk.keys.show(desk.admin, key.id)
    assert shown.versions[0].id == minted.version_id
    await desk.keyspace("second")
    with pytest.raises(ConflictError):
        await take_over(desk, {"format": "plaintext", "value": minted.key.reveal()}, keyspace="second")


async def test_more_keys_that_begin_alike_than_can_be_tried_are_refused(desk: Desk) -> None:
    await desk.keyspace()
    keys = [
        {
            "format": "bcrypt",
            "value": bcrypt.hashpw(f"{FOREIGN}-{number}".encode(), bcrypt.gensalt(4)).decode(),
            "lookup": FOREIGN[:8],
        }
        for number in range(5)
    ]
    with pytest.raises(InputError) as caught:
        await take_over(desk, *keys)
    assert caught.value.field == "keys[0].lookup"
    await take_over(desk, *keys[:4])
    with pytest.raises(InputError):
        await take_over(desk, keys[4])


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"format": "plaintext", "value": "short"}, "value"),
        ({"format": "sha256_hex", "value": "ab" * 31}, "value"),
        ({"format": "sha256_hex", "value": "zz" * 32}, "value"),
        ({"format": "sha256_base64", "value": "AAAA"}, "value"),
        ({"format": "sha256_base64", "value": "!" * 44}, "value"),
        ({"format": "bcrypt", "value": "$2b$04$" + "a" * 53}, "lookup"),
        ({"format": "bcrypt", "value": "$2b$31$" + "a" * 53, "lookup": "abcd"}, "value"),
        ({"format": "bcrypt", "value": "$9z$04$" + "a" * 53, "lookup": "abcd"}, "value"),
        (
            {
                "format": "argon2",
                "value": "$argon2id$v=19$m=9999999,t=1,p=1$" + "a" * 22 + "$" + "a" * 43,
                "lookup": "abcd",
            },
            "value",
        ),
        ({"format": "argon2", "value": "$argon2id$nonsense", "lookup": "abcd"}, "value"),
    ],
)
async def test_what_cannot_be_an_import_is_refused_without_repeating_it(
    desk: Desk, given: dict[str, str], field: str
) -> None:
    """A refusal names the field; the value may be a working key and stays out of the message."""
    await desk.keyspace()
    with pytest.raises(InputError) as caught:
        await take_over(desk, given)
    assert caught.value.field == f"keys[0].{field}"
    assert given["value"] not in str(caught.value)
    assert not (await desk.keyspaces.show(desk.admin, "orders")).accepts_foreign

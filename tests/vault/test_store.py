"""Rows of secrets and versions: order, kept versions, and what a sealed value opens to elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection, select

from keyturn.errors import IntegrityError
from keyturn.storage.schema import secret_fingerprint, secret_reference, secret_version
from keyturn.storage.transaction import Transaction
from keyturn.vault import store
from keyturn.vault.model import Secret, Version
from keyturn.vault.sealing import open_version
from keyturn.wire.secrets import Describe
from tests.vault.safe import STRIPE, Safe


async def loaded(safe: Safe, path: str = STRIPE) -> tuple[Secret, list[Version]]:
    def read(connection: Connection) -> tuple[Secret, list[Version]]:
        secret = store.load_secret(connection, safe.desk.founded.workspace.id, path)
        assert secret is not None
        return secret, list(store.list_versions(connection, secret))

    return await safe.desk.database.read(read)


async def test_paths_are_ordered_by_their_bytes_on_either_database(safe: Safe) -> None:
    """A locale that passes over punctuation or case would break prefixes, cursors and folders."""
    paths = [
        "production/" + name for name in ("B", "a", "a+b", "a-b", "a.b", "a/b", "a0", "a=b", "a@b", "aB", "a_b", "ab")
    ]
    for path in reversed(paths):
        await safe.put(path)

    def read(connection: Connection) -> list[str]:
        workspace = safe.desk.founded.workspace.id
        return [one.path for one in store.list_secrets(connection, workspace, "production/a", "production/a", 100)]

    assert sorted(paths) == paths
    assert await safe.desk.database.read(read) == paths[2:]


async def test_a_sealed_value_opens_in_its_own_place_only(safe: Safe) -> None:
    """Moved to another version, secret, path or workspace it does not open, and the error says nothing of it."""
    await safe.put(fields={"key": "at home"})
    await safe.put(fields={"key": "next door"})
    await safe.put("production/other", {"key": "elsewhere"})
    (secret, (second, first)), (other, (theirs,)) = await loaded(safe), await loaded(safe, "production/other")
    keyring = safe.desk.keyring
    assert first.sealed is not None
    altered = first.sealed[:-1] + bytes((first.sealed[-1] ^ 1,))

    def attempt(connection: Connection, of: Secret, version: Version) -> bytes:
        return open_version(keyring, connection, of, version)

    assert await safe.desk.database.read(lambda one: attempt(one, secret, first)) == b'{"key":"at home"}'
    for of, version in (
        (secret, replace(first, sequence=second.sequence)),
        (secret, replace(first, sealed=second.sealed)),
        (other, replace(theirs, sealed=first.sealed)),
        (replace(secret, path="production/payments/moved"), first),
        (replace(secret, workspace="wsp_other"), first),
        (secret, replace(first, sealed=altered)),
    ):
        with pytest.raises(IntegrityError) as refused:
            await safe.desk.database.read(lambda one, of=of, version=version: attempt(one, of, version))  # type: ignore[misc]
        assert "at home" not in str(refused.value)


async def test_nothing_derived_from_a_value_outlives_it(safe: Safe) -> None:
    await safe.put(fields={"url": "${secret:production/a/b#c} and ${secret:production/a/b#d}"})
    secret, (version,) = await loaded(safe)

    def note(transaction: Transaction) -> None:
        row = {"workspace": secret.workspace, "secret": secret.id, "sequence": 1, "field": "url"}
        transaction.connection.execute(secret_fingerprint.insert().values(row | {"fingerprint": b"f" * 32}))

    def counts(connection: Connection) -> tuple[int, int, list[bytes | None]]:
        sealed = connection.execute(select(secret_version.c.sealed)).scalars().all()
        return (
            len(connection.execute(select(secret_fingerprint.c.field)).all()),
            len(connection.execute(select(secret_reference.c.field)).all()),
            list(sealed),
        )

    await safe.desk.database.write(note)
    assert await safe.desk.database.read(counts) == (1, 2, [version.sealed])
    await safe.vault.remove(safe.admin, STRIPE)
    assert await safe.desk.database.read(counts) == (0, 0, [None])


async def test_what_is_kept_is_listed_and_what_was_pruned_is_not(safe: Safe) -> None:
    await safe.put(describe=Describe(versions_max=3))
    for _ in range(6):
        await safe.put()
    secret, versions = await loaded(safe)
    assert [one.number for one in versions] == [7, 6, 5]

    def oldest(connection: Connection) -> dict[str, int]:
        return store.oldest_numbers(connection, [secret])

    assert await safe.desk.database.read(oldest) == {secret.id: 5}
    # Asked to keep fewer, it keeps what it has until the next write.
    await safe.vault.describe(safe.admin, STRIPE, Describe(versions_max=1))
    assert [one.number for one in (await loaded(safe))[1]] == [7, 6, 5]
    await safe.put()
    assert [one.number for one in (await loaded(safe))[1]] == [8]


def test_a_version_is_printed_without_its_sealed_value() -> None:
    shown = repr(Version.__dataclass_fields__["sealed"])
    assert "repr=False" in shown

import asyncio
import base64
import hashlib
import json
import shutil
import stat
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from keyturn.config import Settings
from keyturn.errors import ConfigError, ConflictError, IntegrityError, KekError
from keyturn.kernel.clock import Clock
from keyturn.kernel.secret import Secret
from keyturn.storage import backup, kek_held, nodes
from keyturn.storage.backup import RESTORED_SEQ, SERVE_REFUSED, dump, load, serving_is_refused
from keyturn.storage.backup_format import MANIFEST, SEAL
from keyturn.storage.change_log import read_head
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.kek import RootKeys, load_provider
from keyturn.storage.keyring import Keyring
from keyturn.storage.migrate import migrate_async
from keyturn.storage.schema import change_head, fact, idempotency, key_version, keyspace, metadata
from keyturn.storage.transaction import Transaction
from tests.storage.ledger import changes, leaves, write_fact


def provider() -> RootKeys:
    settings = Settings(data=Path("/nonexistent"), kek_provider="env", kek=Secret(kek_held.generate()))
    return load_provider(settings, create=False)


RIGHT, WRONG = provider(), provider()


def fill(transaction: Transaction) -> None:
    """One row of every kind of value: text that needs escaping, bytes, floats, booleans, nulls, large numbers."""
    write_fact('a "quoted"\n\u2028 üñ \U0001f511')(transaction)
    keyring = Keyring(RIGHT)
    keyring.create(transaction.connection, "wsp_1", "pepper", "ks_1", 1767225600.123456)
    transaction.connection.execute(
        insert(keyspace).values(
            id="ksp_1",
            workspace="wsp_1",
            name="orders",
            prefix="acme",
            tag="live",
            environment="production",
            state="active",
            system=False,
            stale_after_seconds=0.1 + 0.2,
            accepts_foreign=True,
            description="",
            created_at=1e-9,
            created_by="prn_1",
            revision=2**31 - 1,
        )
    )
    transaction.connection.execute(
        insert(idempotency).values(
            id="i", body_hash=bytes(range(256)), entity="key_1", response=b"a sealed secret", created_at=0.0
        )
    )
    transaction.connection.execute(
        insert(key_version).values(
            id="ver_1",
            key="key_1",
            keyspace="ksp_1",
            number=1,
            state="current",
            digest_kind="blake2b",
            digest=b"\x00\xff",
            pepper=1,
            foreign=True,
            created_at=0.0,
            created_by="prn_1",
        )
    )
    nodes.register(transaction.connection, "n1", "server", "n1", 0.0)


def everything(connection: Connection) -> dict[str, list[Any]]:
    left_out = {"node", "election", "change_head"}
    return {
        table.name: [
            tuple(row)
            for row in connection.execute(select(*table.columns).order_by(*table.primary_key.columns)).all()
            if not (table is fact and row.name in {SERVE_REFUSED, RESTORED_SEQ})
        ]
        for table in metadata.sorted_tables
        if table.name not in left_out
    }


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
async def source(database: Database) -> Database:
    await database.write(fill)
    for name in "bcd":
        await database.write(write_fact(name))
    return database


@pytest.fixture
async def empty_file(tmp_path: Path, migrated_file: Path) -> AsyncIterator[Database]:
    """An empty, migrated target on SQLite; `other_engine` is the other one."""
    shutil.copy(migrated_file, tmp_path / "target.db")
    one = make_database(f"sqlite:///{tmp_path / 'target.db'}", Clock())
    await one.open()
    yield one
    await one.close()


@pytest.fixture
async def empty_postgres(postgres_url: str) -> AsyncIterator[Database]:
    await migrate_async(postgres_url)
    one = make_database(postgres_url, Clock())
    await one.open()
    yield one
    await one.close()


async def check_restored(source: Database, target: Database, path: Path) -> None:
    before = await source.read(read_head)
    manifest = await dump(source, path, RIGHT)
    restored = await load(target, path, RIGHT)
    expected = await source.read(everything)
    expected["idempotency"] = [(*row[:3], None, *row[4:]) for row in expected["idempotency"]]

    assert await target.read(everything) == expected
    assert restored.manifest == manifest
    assert restored.sealed
    head = await target.read(read_head)
    assert (head.seq, head.awaited) == (before.seq, 0)
    assert head.log_id == restored.log_id != before.log_id
    assert await target.read(nodes.all_nodes) == []
    # It goes on from there.
    assert (await target.write(write_fact("after"))).seq == before.seq + 1
    assert [one.seq for one in await target.read(changes)] == list(range(1, before.seq + 2))


async def test_backup_is_restored_on_sqlite(source: Database, empty_file: Database, tmp_path: Path) -> None:
    await check_restored(source, empty_file, tmp_path / "backup")


@pytest.mark.postgres
async def test_backup_is_restored_on_postgresql(source: Database, empty_postgres: Database, tmp_path: Path) -> None:
    await check_restored(source, empty_postgres, tmp_path / "backup")


async def test_restored_database_is_not_served_until_revocations_are_settled(
    source: Database, empty_file: Database, tmp_path: Path
) -> None:
    """A restore never un-revokes silently."""
    await dump(source, tmp_path / "backup", RIGHT)
    await load(empty_file, tmp_path / "backup", RIGHT)

    assert await source.read(serving_is_refused) is None
    assert await empty_file.read(serving_is_refused) == backup.LOST_REVOCATIONS
    await empty_file.write(lambda t: backup.allow_serving(t.connection))
    assert await empty_file.read(serving_is_refused) is None


async def test_backup_is_private_and_holds_no_root_key_and_no_response(source: Database, tmp_path: Path) -> None:
    """Whoever finds a backup can open nothing in it without the root key."""
    path = tmp_path / "backup"
    manifest = await dump(source, path, RIGHT)
    with zipfile.ZipFile(path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert manifest.kek_ids == (RIGHT.id,)
    assert RIGHT.id.encode() in content
    key = RIGHT._providers[0]._keys[RIGHT.id].reveal_bytes()  # type: ignore[attr-defined]  # noqa: SLF001 -- see below
    for form in (key, key.hex().encode(), base64.b64encode(key), b"a sealed secret"):
        assert form not in content


async def test_backup_is_of_one_moment_while_others_write(
    source: Database, empty_file: Database, tmp_path: Path
) -> None:
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            await source.write(write_fact(f"during {number}"))
            number += 1

    writing = asyncio.create_task(write())
    manifest = await dump(source, tmp_path / "backup", RIGHT)
    stop.set()
    await writing
    await load(empty_file, tmp_path / "backup", RIGHT)

    found = await empty_file.read(changes)
    assert [one.seq for one in found] == list(range(1, manifest.seq + 1))
    assert set(await empty_file.read(leaves)) == {one.seq for one in found}
    facts_there = {row[0] for row in (await empty_file.read(everything))["fact"]}
    assert facts_there == {one.entity for one in found}


async def test_many_rows_go_through_in_pages(source: Database, empty_file: Database, tmp_path: Path) -> None:
    rows = [{"name": f"n{number}", "value": "x" * 50} for number in range(3 * backup.PAGE + 7)]
    await source.write(lambda t: t.connection.execute(insert(fact), rows))
    manifest = await dump(source, tmp_path / "backup", RIGHT)
    await load(empty_file, tmp_path / "backup", RIGHT)

    assert manifest.tables["fact"].rows == len(rows) + 4
    assert await empty_file.read(everything) is not None


async def test_existing_file_is_not_overwritten(source: Database, tmp_path: Path) -> None:
    path = tmp_path / "backup"
    path.write_text("precious")
    with pytest.raises(ConflictError, match="exists already"):
        await dump(source, path, RIGHT)

    assert path.read_text() == "precious"


async def test_backup_that_cannot_be_written_leaves_nothing(source: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        await dump(source, tmp_path / "absent" / "backup", RIGHT)

    assert not any("backup" in name for name in names(tmp_path))


async def test_wrong_root_key_is_refused_and_the_wanted_one_is_named(
    source: Database, empty_file: Database, tmp_path: Path
) -> None:
    await dump(source, tmp_path / "backup", RIGHT)
    with pytest.raises(KekError, match=RIGHT.id) as caught:
        await load(empty_file, tmp_path / "backup", WRONG)

    assert caught.value.hint == f"provide root key {RIGHT.id}"
    assert await empty_file.read(lambda c: c.execute(select(fact)).all()) == []


async def test_backup_made_without_the_root_key_says_so(source: Database, empty_file: Database, tmp_path: Path) -> None:
    await dump(source, tmp_path / "backup")
    assert not (await load(empty_file, tmp_path / "backup", RIGHT)).sealed


async def test_database_that_holds_data_is_not_overwritten(
    source: Database, empty_file: Database, tmp_path: Path
) -> None:
    await dump(source, tmp_path / "backup", RIGHT)
    await empty_file.write(write_fact("precious"))
    before = await empty_file.read(everything)
    with pytest.raises(ConflictError, match="holds data"):
        await load(empty_file, tmp_path / "backup", RIGHT)

    assert await empty_file.read(everything) == before
    assert await empty_file.read(serving_is_refused) is None


async def test_database_that_was_not_migrated_is_told_apart(source: Database, tmp_path: Path) -> None:
    await dump(source, tmp_path / "backup", RIGHT)
    target = make_database(f"sqlite:///{tmp_path / 'bare.db'}", Clock())
    await target.open()
    with pytest.raises(ConfigError, match="revision") as caught:
        await load(target, tmp_path / "backup", RIGHT)
    await target.close()

    assert caught.value.hint == "run `keyturn migrate`"


one_engine = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
"""The file is the same whichever engine it is of."""

Parts = dict[str, bytes]


def _edit_manifest(parts: Parts, change: Callable[[dict[str, Any]], object]) -> Parts:
    manifest = json.loads(parts[MANIFEST])
    change(manifest)
    return {**parts, MANIFEST: json.dumps(manifest).encode()}


def _cut_row(parts: Parts) -> Parts:
    return {**parts, "audit_leaf.jsonl": b"".join(parts["audit_leaf.jsonl"].splitlines(keepends=True)[:-1])}


def _cut_row_and_fix_the_manifest(parts: Parts) -> Parts:
    """What somebody does who knows the format, and does not hold the root key."""
    cut = _cut_row(parts)

    def fix(manifest: dict[str, Any]) -> None:
        part = manifest["tables"]["audit_leaf"]
        part["rows"] -= 1
        part["sha256"] = hashlib.sha256(cut["audit_leaf.jsonl"]).hexdigest()

    return _edit_manifest(cut, fix)


TAMPERINGS: dict[str, Callable[[Parts], Parts]] = {
    "a row is changed": lambda parts: {**parts, "fact.jsonl": parts["fact.jsonl"].replace(b"kept", b"lost")},
    "a row is cut": _cut_row,
    "a row is cut and the manifest made to fit": _cut_row_and_fix_the_manifest,
    "a row is added": lambda parts: {**parts, "fact.jsonl": parts["fact.jsonl"] + b'["x","y"]\n'},
    "a row has a column too many": lambda parts: {**parts, "fact.jsonl": b'["x","y","z"]\n'},
    "a row is no JSON": lambda parts: {**parts, "fact.jsonl": b"{\n"},
    "a row is an object": lambda parts: {**parts, "fact.jsonl": b'["x",{"y":1}]\n'},
    "bytes are no base64": lambda parts: {**parts, "audit_leaf.jsonl": b'[1,"e","w",0.0,"a","o","p","r","!"]\n'},
    "a table is missing": lambda parts: {name: part for name, part in parts.items() if name != "fact.jsonl"},
    "a table is missing from the manifest": lambda parts: _edit_manifest(parts, lambda m: m["tables"].pop("fact")),
    "the manifest is missing": lambda parts: {name: part for name, part in parts.items() if name != MANIFEST},
    "the manifest is no JSON": lambda parts: {**parts, MANIFEST: b"{"},
    "the number of the log is changed": lambda parts: _edit_manifest(parts, lambda m: m.update(seq=1)),
    "the seal is another one's": lambda parts: {
        **parts,
        SEAL: json.dumps({**json.loads(parts[SEAL]), "mac": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}).encode(),
    },
}


@one_engine
@pytest.mark.parametrize("tampering", TAMPERINGS.values(), ids=TAMPERINGS.keys())
async def test_altered_backup_is_refused_whole(
    database: Database, empty_file: Database, tmp_path: Path, tampering: Callable[[Parts], Parts]
) -> None:
    """Nothing of a backup that is not exactly what was made is loaded: it could bring revoked keys back."""
    await database.write(fill)
    await dump(database, tmp_path / "backup", RIGHT)
    with zipfile.ZipFile(tmp_path / "backup") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "altered", "w") as archive:
        for name, part in tampering(parts).items():
            archive.writestr(name, part)

    with pytest.raises(IntegrityError, match="altered or cut off"):
        await load(empty_file, tmp_path / "altered", RIGHT)
    assert await empty_file.read(lambda c: c.execute(select(fact)).all()) == []
    assert await empty_file.read(lambda c: c.execute(select(change_head.c.seq)).scalar_one()) == 0


@one_engine
@pytest.mark.parametrize("at", [0.0, 0.2, 0.5, 0.9])
async def test_damaged_or_cut_file_is_refused_whole(
    database: Database, empty_file: Database, tmp_path: Path, at: float
) -> None:
    await database.write(fill)
    await dump(database, tmp_path / "backup", RIGHT)
    content = (tmp_path / "backup").read_bytes()
    place = int(len(content) * at)
    (tmp_path / "cut").write_bytes(content[:place])
    # Wide enough to reach a row: the zip's headers have a few bytes of their own that nothing depends on.
    (tmp_path / "damaged").write_bytes(content[:place] + b"\xff" * 64 + content[place + 64 :])

    for name in ("cut", "damaged"):
        with pytest.raises(IntegrityError):
            await load(empty_file, tmp_path / name, RIGHT)
        assert await empty_file.read(lambda c: c.execute(select(fact)).all()) == []


@one_engine
async def test_backup_of_a_later_format_is_not_guessed_at(
    database: Database, empty_file: Database, tmp_path: Path
) -> None:
    await dump(database, tmp_path / "backup", RIGHT)
    with zipfile.ZipFile(tmp_path / "backup") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "later", "w") as archive:
        for name, part in _edit_manifest(parts, lambda m: m.update(keyturn_backup=2)).items():
            archive.writestr(name, part)

    with pytest.raises(ConfigError, match="format 2"):
        await load(empty_file, tmp_path / "later", RIGHT)


@one_engine
async def test_backup_that_is_not_there_is_named(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        await load(database, tmp_path / "absent", RIGHT)

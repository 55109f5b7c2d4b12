import asyncio
import stat
from pathlib import Path

import pytest
from sqlalchemy import Executable, insert, text

from keyturn.bootstrap.folder import FolderLock, create_folder
from keyturn.bootstrap.preparation import SERVE_REFUSED, open_database, prepare
from keyturn.config import Settings
from keyturn.errors import ConfigError, KekError
from keyturn.kernel.clock import Clock
from keyturn.kernel.secret import Secret
from keyturn.storage.schema import access_grant, audit_leaf, fact, principal, workspace
from keyturn.storage.transaction import Transaction


def _settings(tmp_path: Path, database_url: str | None = None) -> Settings:
    url = None if database_url is None or database_url.startswith("sqlite") else Secret(database_url)
    return Settings(data=tmp_path / "data", database_url=url)


def _read(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    async def read() -> list[tuple[object, ...]]:
        database = open_database(settings, Clock())
        await database.open()
        try:
            return await database.read(lambda connection: [tuple(row) for row in connection.execute(text(sql))])
        finally:
            await database.close()

    return asyncio.run(read())


def _write(settings: Settings, statement: Executable) -> None:
    def work(transaction: Transaction) -> None:
        transaction.connection.execute(statement)

    async def write() -> None:
        database = open_database(settings, Clock())
        await database.open()
        try:
            await database.write(work)
        finally:
            await database.close()

    asyncio.run(write())


def test_the_first_start_founds_an_installation_once(tmp_path: Path, database_url: str) -> None:
    settings = _settings(tmp_path, database_url)
    first = prepare(settings)
    token = first.token_path.read_text()
    again = prepare(settings)
    assert (first.first_start, again.first_start) == (True, False)
    assert again.token_path.read_text() == token
    assert _read(settings, f"SELECT name FROM {workspace.name}") == [("default",)]
    assert _read(settings, f"SELECT kind, name FROM {principal.name}") == [("user", "admin")]
    assert sorted(_read(settings, f"SELECT resource FROM {access_grant.name}")) == [("*",), ("~instance/*",)]
    assert _read(settings, f"SELECT action, actor FROM {audit_leaf.name}") == [("system.bootstrap", "system")]


def test_what_the_first_start_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The token, the root key and the data must not be readable by other users of the machine."""
    settings = _settings(tmp_path)
    prepare(settings)
    assert stat.S_IMODE(settings.data.stat().st_mode) == 0o700
    for name in ("admin-token", "kek", "keyturn.db"):
        assert stat.S_IMODE((settings.data / name).stat().st_mode) == 0o600, name


def test_the_admin_token_is_stored_nowhere_else(tmp_path: Path) -> None:
    """A stolen database opens nothing."""
    settings = _settings(tmp_path)
    token = prepare(settings).token_path.read_bytes().strip()
    for path in settings.data.iterdir():
        if path.name != "admin-token":
            assert token not in path.read_bytes(), path


def test_a_missing_root_key_is_never_replaced_over_data(tmp_path: Path) -> None:
    """A new one would make everything that is sealed unreadable, and look like a healthy start."""
    settings = _settings(tmp_path)
    prepare(settings)
    wanted = (settings.data / "kek").read_text().split()[1]
    (settings.data / "kek").unlink()
    with pytest.raises(KekError, match="missing") as refused:
        prepare(settings)
    assert wanted in refused.value.message
    assert not (settings.data / "kek").exists()


def test_another_root_key_is_refused_by_the_id_that_is_wanted(tmp_path: Path) -> None:
    one, other = _settings(tmp_path / "one"), _settings(tmp_path / "other")
    prepare(one)
    prepare(other)
    wanted = (one.data / "kek").read_text().split()[1]
    (one.data / "kek").write_text((other.data / "kek").read_text())
    with pytest.raises(KekError) as refused:
        prepare(one)
    assert wanted in str(refused.value)


def test_an_unconfirmed_restore_is_not_served(tmp_path: Path, database_url: str) -> None:
    """Revocations made since the backup would silently be undone."""
    settings = _settings(tmp_path, database_url)
    prepare(settings)
    _write(settings, insert(fact).values(name=SERVE_REFUSED, value="a restore without its revocations"))
    with pytest.raises(ConfigError) as refused:
        prepare(settings)
    assert refused.value.code == SERVE_REFUSED
    assert refused.value.hint


@pytest.mark.postgres
def test_an_older_schema_on_postgresql_is_the_operators_to_migrate(tmp_path: Path, postgres_url: str) -> None:
    settings = _settings(tmp_path, postgres_url)
    prepare(settings)
    _write(settings, text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(ConfigError) as refused:
        prepare(settings)
    assert "keyturn migrate" in str(refused.value.hint)


@pytest.mark.postgres
def test_tables_that_are_not_ours_are_not_built_upon(tmp_path: Path, postgres_url: str) -> None:
    settings = _settings(tmp_path, postgres_url)
    _write(settings, text("CREATE TABLE somebody_elses (id int)"))
    with pytest.raises(ConfigError):
        prepare(settings)


def test_one_process_locks_a_folder(tmp_path: Path) -> None:
    create_folder(tmp_path / "data")
    with FolderLock.acquire(tmp_path / "data"):
        with pytest.raises(ConfigError) as refused:
            FolderLock.acquire(tmp_path / "data")
        assert refused.value.code == "folder_locked"
    FolderLock.acquire(tmp_path / "data").release()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be created"):
        create_folder(tmp_path / "file" / "data")

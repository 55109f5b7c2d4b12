import asyncio
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, create_engine, insert, text

from keyturn.config import Settings
from keyturn.errors import ConfigError, StorageError
from keyturn.kernel.clock import Clock
from keyturn.storage import migrate as module
from keyturn.storage.change_log import read_head
from keyturn.storage.database import Database
from keyturn.storage.engine import locate, make_database
from keyturn.storage.migrate import (
    HEAD_REVISION,
    current_revision,
    migrate_async,
    migrate_connection,
    pending,
    require_current,
)
from keyturn.storage.schema import fact, metadata

T = TypeVar("T")
REPOSITORY = Path(__file__).parents[2]


async def inspected(url: str, work: Callable[[Connection], T]) -> T:
    database = make_database(url, Clock())
    await database.open()
    try:
        return await database.read(work)
    finally:
        await database.close()


def difference(connection: Connection) -> list[Any]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    found: list[Any] = compare_metadata(context, metadata)
    return found


async def test_migrated_schema_is_the_declared_one(database_url: str) -> None:
    await migrate_async(database_url)

    assert await inspected(database_url, difference) == []


async def test_revisions_make_the_declared_schema_on_sqlite_too(tmp_path: Path) -> None:
    """An empty SQLite file is created at once; the revisions must lead to the same schema."""
    engine = create_engine(f"sqlite:///{tmp_path / 'by-revisions.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE unrelated (x INTEGER)"))  # so that it is not an empty file
        migrate_connection(connection)
        connection.execute(text("DROP TABLE unrelated"))
        assert difference(connection) == []
        assert current_revision(connection) == HEAD_REVISION
    engine.dispose()


async def test_difference_would_be_found(database_url: str) -> None:
    await migrate_async(database_url)
    database = make_database(database_url, Clock())
    await database.open()
    await database.write(lambda t: t.connection.execute(text("ALTER TABLE fact ADD COLUMN extra TEXT")))

    assert len(await database.read(difference)) == 1
    await database.close()


async def test_head_revision_is_the_newest_file() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(module.MIGRATIONS)).get_current_head() == HEAD_REVISION


async def test_migrating_twice_changes_nothing(database_url: str) -> None:
    first = await migrate_async(database_url)
    log_id = (await inspected(database_url, read_head)).log_id
    second = await migrate_async(database_url)

    assert (first.before, first.after, first.changed) == (None, HEAD_REVISION, True)
    assert (second.before, second.after, second.changed) == (HEAD_REVISION, HEAD_REVISION, False)
    assert (await inspected(database_url, read_head)).log_id == log_id


async def test_unmigrated_database_is_told_apart_and_refused(database_url: str) -> None:
    def look(connection: Connection) -> tuple[str | None, list[str]]:
        with pytest.raises(ConfigError, match=HEAD_REVISION) as caught:
            require_current(connection)
        assert caught.value.hint == "run `keyturn migrate`"
        return current_revision(connection), pending(connection)

    all_of_them = [f"{number:04d}" for number in range(1, int(HEAD_REVISION) + 1)]
    assert await inspected(database_url, look) == (None, all_of_them)


async def test_unmigrated_database_answers_with_what_to_run(database_url: str) -> None:
    database = make_database(database_url, Clock())
    await database.open()
    with pytest.raises(StorageError) as caught:
        await database.head()
    await database.close()

    assert (caught.value.code, caught.value.hint) == ("storage_schema", "run `keyturn migrate`")


async def test_database_one_release_ahead_is_served(database: Database) -> None:
    await database.write(lambda t: t.connection.execute(text("UPDATE alembic_version SET version_num = '0099'")))

    assert await database.read(pending) == []
    await database.read(require_current)


async def test_data_survives_a_second_migration(database: Database, migrated_url: str) -> None:
    await database.write(lambda t: t.connection.execute(insert(fact).values(name="kept", value="")))
    await migrate_async(migrated_url)

    assert await database.read(lambda c: c.execute(text("SELECT count(*) FROM fact")).scalar_one()) == 1


async def test_processes_that_race_all_succeed(database_url: str) -> None:
    """Any number of nodes may start at once: one migrates, the others find it done, and there is one log."""
    script = "import sys; from keyturn.storage.migrate import migrate; print(migrate(sys.argv[1]).after)"
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, database_url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    results = [await process.communicate() for process in running]

    assert [process.returncode for process in running] == [0] * 4, results
    assert {out.decode().strip() for out, _ in results} == {HEAD_REVISION}
    rows = await inspected(database_url, lambda c: c.execute(text("SELECT count(*) FROM change_head")).scalar_one())
    assert rows == 1
    assert await inspected(database_url, difference) == []


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_sqlite_file_is_private(tmp_path: Path) -> None:
    """Digests and sealed keys lie in the file and its companions: nobody else on the machine may read them."""
    url = f"sqlite:///{tmp_path / 'keyturn.db'}"
    await migrate_async(url)
    database = make_database(url, Clock())
    await database.open()
    await database.write(lambda t: t.connection.execute(insert(fact).values(name="x", value="")))
    found = modes(tmp_path)
    await database.close()

    assert found == {"keyturn.db": 0o600, "keyturn.db-wal": 0o600, "keyturn.db-shm": 0o600}


async def test_data_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100% #1 ü"
    folder.mkdir()
    settings = Settings(data=folder)
    await migrate_async(settings)
    database = make_database(settings, Clock())
    await database.open()
    assert (await database.head()).seq == 0
    await database.close()
    assert (folder / "keyturn.db").exists()


def test_sqlite_in_memory_is_refused() -> None:
    with pytest.raises(ConfigError):
        locate("sqlite://")


async def test_missing_folder_is_named_as_the_cause(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        await migrate_async(f"sqlite:///{tmp_path / 'absent' / 'keyturn.db'}")


@pytest.mark.postgres
async def test_unreachable_server_is_named_as_the_cause() -> None:
    with pytest.raises(StorageError) as caught:
        await migrate_async("postgresql://nobody:wrong@127.0.0.1:1/none")
    assert caught.value.code == "storage_unavailable"


def test_start_of_a_migrated_database_does_not_import_alembic(tmp_path: Path) -> None:
    script = (
        "import sys; from keyturn.storage.migrate import migrate; migrate(sys.argv[1]); "
        "print([name for name in sys.modules if name.split('.')[0] in ('alembic', 'asyncpg')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{tmp_path / 'k.db'}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_wheel_holds_the_migrations(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "LICENSE"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run(["cp", "-r", str(REPOSITORY / "src"), str(tmp_path / "src")], check=True)  # noqa: S607
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", "dist", "."]
    subprocess.run(build, cwd=tmp_path, check=True, env=os.environ | {"PIP_NO_INDEX": "1"})

    names = zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))).namelist()
    expected = {f"keyturn/storage/migrations/versions/{path.name}" for path in module.MIGRATIONS.glob("versions/*.py")}
    assert expected | {"keyturn/storage/migrations/env.py"} <= set(names)

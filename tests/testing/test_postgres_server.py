import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import asyncpg
import pytest

from keyturn.errors import UnavailableError
from keyturn.testing import postgres
from keyturn.testing.child import children_of
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.waiting import until

pytestmark = pytest.mark.postgres


async def _fetch(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=120)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


async def test_a_new_database_is_reached_by_its_url(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    assert await _fetch(url, "SELECT current_database()") == url.rpartition("/")[2]


async def test_a_wrong_password_is_refused(postgres_server: PostgresServer) -> None:
    """Another user of the machine cannot reach the data of a test run."""
    user, _, rest = postgres_server.url().rpartition("@")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _fetch(f"{user}x@{rest}", "SELECT 1")


async def test_commits_of_the_shared_server_are_not_flushed(postgres_server: PostgresServer) -> None:
    """A disk that is slow for a moment would look like a database that is away; killing the server loses nothing."""
    assert await _fetch(postgres_server.url(), "SHOW fsync") == "off"


async def test_a_template_is_prepared_once_and_copied(postgres_server: PostgresServer) -> None:
    prepared: list[str] = []

    def prepare(url: str) -> None:
        prepared.append(url)
        postgres_server.query("CREATE TABLE sample AS SELECT 7 AS number", url.rpartition("/")[2])

    urls = [postgres_server.create_database(postgres_server.template("sample", prepare)) for _ in range(2)]
    assert len(prepared) == 1
    assert [await _fetch(url, "SELECT number FROM sample") for url in urls] == [7, 7]


async def test_a_dropped_database_is_gone_although_it_was_in_use(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    postgres_server.drop_database(url)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await _fetch(url, "SELECT 1")
    await connection.close()


def test_a_refused_statement_says_why(postgres_server: PostgresServer) -> None:
    with pytest.raises(UnavailableError, match="nowhere"):
        postgres_server.query("SELECT * FROM nowhere")


def test_a_paused_server_answers_after_it_was_resumed(postgres_server: PostgresServer) -> None:
    postgres_server.pause()
    try:
        assert all(
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
            for pid in children_of(postgres_server._running().pid)  # noqa: SLF001 - its processes are the subject
        )
    finally:
        postgres_server.resume()
    assert postgres_server.query("SELECT 1") == "1"


def test_a_killed_server_recovers_what_was_committed() -> None:
    with PostgresServer.start() as server:
        server.query("CREATE TABLE sample AS SELECT 7 AS number")
        server.kill()
        with pytest.raises(UnavailableError):
            server.pause()
        server.restart()
        assert server.query("SELECT number FROM sample") == "7"


def test_stop_leaves_no_process_and_no_folder() -> None:
    server = PostgresServer.start()
    process = server.process
    assert process is not None
    children = children_of(process.pid)
    assert children
    server.stop()
    server.stop()
    assert not server.folder.exists()
    assert not any(_is_alive(pid) for pid in [process.pid, *children])


def test_the_server_dies_with_a_run_that_is_killed_and_its_folder_is_swept(tmp_path: Path) -> None:
    script = """
        import sys, time
        from keyturn.testing.postgres import PostgresServer
        server = PostgresServer.start()
        print(server.process.pid, server.folder, flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        assert _is_alive(int(pid))
        run.kill()
    assert until(lambda: not _is_alive(int(pid)))
    assert Path(folder).exists()
    postgres.sweep()
    assert not Path(folder).exists()


def test_the_folder_of_a_living_run_is_not_swept(postgres_server: PostgresServer) -> None:
    postgres.sweep()
    assert postgres_server.folder.exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter").touch()
    with pytest.raises(UnavailableError, match="new or empty folder"):
        PostgresServer.start(tmp_path)
    assert (tmp_path / "letter").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts the server as another user")
def test_a_folder_that_nobody_cannot_reach_is_left_as_it_was(tmp_path: Path) -> None:
    """The kit never opens a private folder to make room for its server."""
    tmp_path.chmod(0o700)
    with pytest.raises(UnavailableError, match="nobody"):
        PostgresServer.start(tmp_path / "cluster")
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_child_is_started_from_the_main_thread_alone() -> None:
    """A child started elsewhere would be taken down when that thread ends."""
    raised: list[BaseException] = []

    def start() -> None:
        try:
            PostgresServer.start()
        except UnavailableError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])

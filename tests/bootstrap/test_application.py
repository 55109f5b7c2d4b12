import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest
from sqlalchemy import Connection, delete, select, update

from keyturn.access.caller import Credentials
from keyturn.bootstrap.application import Application, open_application
from keyturn.bootstrap.observation import Observation
from keyturn.bootstrap.preparation import prepare
from keyturn.config import Settings
from keyturn.errors import ConfigError, KekError, StorageError
from keyturn.kernel.secret import Secret
from keyturn.storage.schema import audit_leaf, change_head, node
from keyturn.wire.keys import CreateKeyspace, IssueKey
from keyturn.wire.verification import VerifyRequest


@pytest.fixture
async def settings(tmp_path: Path, migrated_database_url: str) -> Settings:
    url = None if migrated_database_url.startswith("sqlite") else Secret(migrated_database_url)
    made = Settings(data=tmp_path / "data", database_url=url, shutdown_seconds=5)
    await asyncio.to_thread(prepare, made)
    return made


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[Application]:
    application = open_application(settings)
    await application.start()
    try:
        yield application
    finally:
        await application.stop()


def _admin(settings: Settings) -> Credentials:
    return Credentials(Secret((settings.data / "admin-token").read_text().strip()), "192.0.2.1", "req_test")


async def _issue(application: Application) -> str:
    credentials = _admin(application.settings)
    await application.keyspaces.create(credentials, CreateKeyspace(name="a", prefix="acme", environment="dev"))
    issued = await application.keys.issue(credentials, IssueKey(keyspace="a", owner="alice", purpose="test"))
    return str(issued.key)


async def _verdict(application: Application, key: str) -> str:
    answer = await application.verification.service.verify(_admin(application.settings), VerifyRequest(key=key))
    return answer.code


async def _until(condition: Callable[[], Any], seconds_max: float = 120.0) -> None:
    async def ask() -> bool:
        return bool(condition())

    await _until_async(ask, seconds_max)


async def _until_async(condition: Callable[[], Awaitable[Any]], seconds_max: float = 120.0) -> None:
    async with asyncio.timeout(seconds_max):
        while not await condition():  # noqa: ASYNC110 -- what is waited for happens in a database
            await asyncio.sleep(0.01)


def _nodes(connection: Connection) -> list[str]:
    return list(connection.execute(select(node.c.id)).scalars())


async def test_a_node_is_registered_while_it_runs_and_only_then(settings: Settings) -> None:
    async with _running(settings) as application:
        assert await application.database.read(_nodes) == [application.node]
    async with _running(settings) as later:
        assert await later.database.read(_nodes) == [later.node]


async def test_a_key_issued_here_verifies_here(settings: Settings) -> None:
    async with _running(settings) as application:
        key = await _issue(application)
        assert await _verdict(application, key) == "VALID"
    async with _running(settings) as later:
        assert await _verdict(later, key) == "VALID"


async def test_usage_counted_last_is_written_before_the_stop_ends(settings: Settings) -> None:
    async with _running(settings) as application:
        key = await _issue(application)
        for _ in range(3):
            await _verdict(application, key)
    assert application.verification.usage.written == application.verification.usage.counted >= 3
    assert application.verification.usage.lost == 0


async def test_a_node_that_the_registry_forgot_registers_and_loads_again(settings: Settings) -> None:
    """A node that is not registered is not waited for, so it may not go on as it was."""
    async with _running(settings) as application:
        key = await _issue(application)
        loads = application.verification.replication.replica.counts().resyncs
        await application.database.write(lambda transaction: transaction.connection.execute(delete(node)))
        await _until(lambda: application.verification.replication.replica.counts().resyncs > loads)
        await _until(lambda: application.verification.replication.freshness.fresh(application.clock.boottime(), 60))
        await _until_async(lambda: application.database.read(_nodes))
        assert await application.database.read(_nodes) == [application.node]
        assert await _verdict(application, key) == "VALID"


async def test_a_new_log_is_followed_from_a_new_snapshot(settings: Settings) -> None:
    async with _running(settings) as application:
        key = await _issue(application)
        renamed = update(change_head).values(log_id="log_other")
        await application.database.write(lambda transaction: transaction.connection.execute(renamed))
        await _until(lambda: application.verification.follower.log_id == "log_other")
        await _until(lambda: application.verification.replication.freshness.fresh(application.clock.boottime(), 60))
        assert await _verdict(application, key) == "VALID"


async def test_a_jump_of_time_leaves_an_alarm_in_the_audit_log(settings: Settings) -> None:
    async with _running(settings) as application:
        application.verification.replication.time_jumps += 1

        def alarms(connection: Connection) -> list[bytes | None]:
            return list(
                connection.execute(select(audit_leaf.c.body).where(audit_leaf.c.action == "system.alarm")).scalars()
            )

        await _until_async(lambda: application.database.read(alarms))
        found = await application.database.read(alarms)
        leaf = msgspec.json.decode(found[0] or b"{}")
        assert leaf["detail"] == {"alarm": "time_jump"}
        assert leaf["resource"] == f"node/{application.node}"


async def test_a_node_is_ready_once_it_is_loaded_and_fresh_and_until_it_stops(settings: Settings) -> None:
    async with _running(settings) as application:
        observation = Observation(application)

        async def failing() -> set[str]:
            return {check.name for check in await observation.checks() if check.required and not check.ok}

        async def passing() -> bool:
            return not await failing()

        await _until_async(passing)
        application.drain()
        assert await failing() == {"serving"}


async def test_a_database_that_is_away_is_named_but_does_not_take_a_fresh_node_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a failover of the database would take every node out of the balancer at once."""
    async with _running(settings) as application:
        await _until(lambda: application.verification.replication.freshness.fresh(application.clock.boottime(), 60))
        observation = Observation(application)
        away = AsyncMock(side_effect=StorageError("the database did not answer"))
        monkeypatch.setattr(application.database, "read", away)
        monkeypatch.setattr(application.database, "head", away)
        checks = {check.name: check for check in await observation.checks()}
        assert (checks["database"].ok, checks["database"].required) == (False, False)
        assert checks["freshness"].ok
        assert b"keyturn_database_up{" in await observation.scrape()
        monkeypatch.undo()


async def test_a_scrape_holds_no_key_id(settings: Settings) -> None:
    """Whoever reads the metrics need not know which keys there are."""
    async with _running(settings) as application:
        observation = Observation(application)
        key = await _issue(application)
        await _verdict(application, key)
        scraped = (await observation.scrape()).decode()
        assert "key_" not in scraped
        assert "keyturn_replica_keys" in scraped
        assert "alice" not in scraped


async def test_a_worker_without_the_root_key_does_not_start(settings: Settings) -> None:
    (settings.data / "kek").unlink()
    with pytest.raises(KekError):
        open_application(settings)


async def test_a_stop_after_a_failed_start_is_harmless(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_connection: Connection) -> None:
        raise ConfigError("not today")

    monkeypatch.setattr("keyturn.bootstrap.application.require_servable", refuse)
    application = open_application(settings)
    with pytest.raises(ConfigError):
        await application.start()
    await application.stop()

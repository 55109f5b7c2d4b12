"""A restore never un-revokes silently: the whole way, from a served installation to another engine."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

from keyturn.access.caller import Credentials
from keyturn.access.system import system_operation
from keyturn.bootstrap.application import Application, open_application
from keyturn.bootstrap.preparation import prepare
from keyturn.bootstrap.restoration import Settlement, back_up, restore, settle_restored
from keyturn.config import Settings
from keyturn.errors import ConfigError, ConflictError, IntegrityError, KekError, UnauthenticatedError
from keyturn.kernel.secret import Secret
from keyturn.kernel.tokenformat import version_id_of
from keyturn.keys.leaked import end_version, key_named
from keyturn.storage.schema import issued_key
from keyturn.storage.transaction import Transaction
from keyturn.wire.access import CreateGrant, CreatePrincipal
from keyturn.wire.audit import AuditFilter
from keyturn.wire.keys import CreateKeyspace, IssueKey, IssueToken, RetireKey, RevokeKey, RevokeReason, RotateKey
from keyturn.wire.keys import UpdateKey as ChangeKey
from keyturn.wire.plans import CreatePlan, UpdateOwner, UpdatePlan
from keyturn.wire.verification import VerifyRequest


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Application]:
    application = open_application(settings)
    await application.start()
    try:
        yield application
    finally:
        await application.stop()


def admin(token_file: Path) -> Credentials:
    return Credentials(Secret(token_file.read_text().strip()), "192.0.2.1", "req_test")


@dataclass
class Story:
    """An installation that was backed up, and lived on."""

    settings: Settings
    token_file: Path
    backup: Path
    export: Path
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    token: str = ""
    principal: str = ""
    grant: str = ""

    @property
    def credentials(self) -> Credentials:
        return admin(self.token_file)

    async def verdict(self, application: Application, name: str) -> str:
        request = VerifyRequest(key=self.keys[name][1])
        return str((await application.verification.service.verify(self.credentials, request)).code)


NAMES = (
    "kept",
    "revoked",
    "compromised",
    "disabled",
    "enabled",
    "cut",
    "overlapped",
    "retired",
    "leaked",
    "closed",
    "updated",
)


async def write_export(application: Application, credentials: Credentials, path: Path) -> None:
    async with asyncio.timeout(120):
        newest = (await application.audit.list(credentials, AuditFilter(), limit=1)).items[0]
        while (await application.audit.show(credentials, newest.id)).index is None:  # noqa: ASYNC110 -- built behind
            await asyncio.sleep(0.05)
    content = b"".join([chunk async for chunk in await application.audit.export(credentials)])
    await asyncio.to_thread(path.write_bytes, content)


def end_leaked(transaction: Transaction, story: Story, application: Application) -> None:
    """Let the version of a key that has leaked end in an hour, as a leak policy does."""
    key_id, key = story.keys["leaked"]
    workspace = transaction.connection.execute(select(issued_key.c.workspace).where(issued_key.c.id == key_id))
    operation = system_operation(transaction, workspace.scalar_one())
    found = key_named(operation, key_id)
    assert found is not None
    assert end_version(operation, found, str(version_id_of(key)), application.clock.now() + 3600)


async def live(application: Application, story: Story) -> None:
    """Everything that takes something away, after the backup; meanwhile the audit log gets another signing key."""
    credentials = story.credentials
    rotated = await application.root_keys.audit_keys.rotate(credentials)
    assert len(rotated.handovers) == 1
    await application.root_keys.audit_keys.retire(credentials)
    keys, access = application.keys, application.access
    await keys.revoke(credentials, story.keys["revoked"][0], RevokeKey(reason=RevokeReason.SUPERSEDED))
    await keys.revoke(credentials, story.keys["compromised"][0], RevokeKey(reason=RevokeReason.KEY_COMPROMISE))
    await keys.disable(credentials, story.keys["disabled"][0])
    await keys.disable(credentials, story.keys["enabled"][0])
    await keys.enable(credentials, story.keys["enabled"][0])
    await keys.rotate(credentials, story.keys["cut"][0], RotateKey(overlap_seconds=0))
    await keys.rotate(credentials, story.keys["overlapped"][0], RotateKey(overlap_seconds=3600))
    await keys.rotate(credentials, story.keys["retired"][0], RotateKey(overlap_seconds=3600))
    await keys.retire(credentials, story.keys["retired"][0], RetireKey(force=True))
    await application.database.write(lambda transaction: end_leaked(transaction, story, application))
    await keys.update(credentials, story.keys["updated"][0], ChangeKey(purpose="narrowed"))
    await application.plans.update(credentials, "basic", UpdatePlan(scopes=()))
    await application.owners.update(credentials, "kept", UpdateOwner(plan=None))
    await application.keyspaces.disable(credentials, "closed")
    new = await keys.issue(credentials, IssueKey(keyspace="orders", owner="late", purpose="lost with the time between"))
    await keys.revoke(credentials, new.id, RevokeKey())
    await access.grants.revoke(credentials, story.grant)
    await application.tokens.revoke(credentials, story.principal, story.token)
    await access.principals.disable(credentials, story.principal)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Secret | None:
    """None for SQLite, which is what tests get that do not ask for both engines."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return None
    return Secret(request.getfixturevalue("postgres_url"))


both_engines = pytest.mark.parametrize(
    "url", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)


@pytest.fixture
async def story(tmp_path: Path, url: Secret | None) -> Story:
    settings = Settings(data=tmp_path / "data", database_url=url, shutdown_seconds=5)
    await asyncio.to_thread(prepare, settings)
    made = Story(settings, settings.data / "admin-token", tmp_path / "backup", tmp_path / "export")
    async with running(settings) as application:
        credentials = made.credentials
        for name, prefix in (("orders", "acme"), ("closed", "shut")):
            request = CreateKeyspace(name=name, prefix=prefix, environment="production")
            await application.keyspaces.create(credentials, request)
        await application.plans.create(credentials, CreatePlan(name="basic", scopes=("orders:read",)))
        await application.owners.update(credentials, "kept", UpdateOwner(plan="basic"))
        for name in NAMES:
            keyspace = "closed" if name == "closed" else "orders"
            issued = await application.keys.issue(credentials, IssueKey(keyspace=keyspace, owner=name, purpose="test"))
            made.keys[name] = (issued.id, str(issued.key))
        principal = await application.access.principals.create(credentials, CreatePrincipal(kind="agent", name="bot"))
        grant = CreateGrant(actions=("key.read",), resource="key/*", principal=principal.id)
        made.grant = (await application.access.grants.create(credentials, grant)).id
        made.principal = principal.id
        made.token = (await application.tokens.issue(credentials, principal.id, IssueToken(name="t"))).id
        await write_export(application, credentials, tmp_path / "before")  # so that there is a checkpoint
        await back_up(settings, made.backup)
        await live(application, made)
        await write_export(application, credentials, made.export)
    return made


@pytest.fixture
def target(tmp_path: Path, story: Story) -> Settings:
    """Another machine: nothing but the root key."""
    folder = tmp_path / "restored"
    folder.mkdir(mode=0o700)
    shutil.copy(story.settings.data / "kek", folder / "kek")
    return Settings(data=folder, shutdown_seconds=5)


@both_engines
async def test_what_was_taken_away_after_the_backup_stays_away(story: Story, target: Settings) -> None:
    """Every kind of revocation made since, and none that was taken back; with a leaf for each."""
    restored, settlement = await restore(target, story.backup, [story.export])

    assert restored.sealed
    assert settlement.reapplied == {
        "key.revoke": 2,
        "key.disable": 1,
        "key.rotate": 3,
        "key.retire": 2,
        "keyspace.disable": 1,
        "grant.revoke": 1,
        "token.revoke": 1,
        "principal.disable": 1,
    }
    named = (story.keys["updated"][0], "plan/basic", "owner/kept")
    assert len(settlement.for_a_person) == len(named)
    assert all(name in line for name, line in zip(named, settlement.for_a_person, strict=True))
    assert settlement.missing == []
    await asyncio.to_thread(prepare, target)
    async with running(target) as application:
        verdicts = {name: await story.verdict(application, name) for name in NAMES}
        assert verdicts == {
            "kept": "VALID",
            "revoked": "REVOKED",
            "compromised": "REVOKED",
            "disabled": "DISABLED",
            "enabled": "VALID",
            "cut": "REVOKED",
            "overlapped": "VALID",
            "retired": "REVOKED",
            "leaked": "VALID",
            "closed": "DISABLED",
            "updated": "VALID",
        }
        credentials = story.credentials
        scoped = VerifyRequest(key=story.keys["kept"][1], scopes="orders:read")
        assert (await application.verification.service.verify(credentials, scoped)).plan == "basic"
        assert (await application.plans.show(credentials, "basic")).owners == 1
        shown = await application.keys.show(credentials, story.keys["overlapped"][0])
        assert shown.versions[0].valid_until is not None
        leaked = await application.keys.show(credentials, story.keys["leaked"][0])
        assert leaked.versions[0].valid_until is not None
        await application.keys.rotate(credentials, leaked.id, RotateKey(overlap_seconds=60))
        assert (await application.access.grants.read(credentials, story.grant)).state == "revoked"
        assert (await application.access.principals.read(credentials, story.principal)).state == "disabled"
        tokens = (await application.tokens.list(credentials, story.principal)).items
        assert [token.state for token in tokens] == ["revoked"]
        leaves = await application.audit.list(credentials, AuditFilter(action="key.revoke"))
        assert {leaf.actor.id for leaf in leaves.items} == {"system"}
        assert len((await application.audit.list(credentials, AuditFilter(action="system.restore"))).items) == 1


@both_engines
async def test_restored_without_exports_it_is_not_served_until_that_is_accepted(story: Story, target: Settings) -> None:
    _, settlement = await restore(target, story.backup)
    assert settlement.missing == ["default"]
    with pytest.raises(ConfigError) as caught:
        await asyncio.to_thread(prepare, target)
    assert caught.value.code == "serve_refused"

    assert (await settle_restored(target, accept_lost_revocations=True)).accepted
    await asyncio.to_thread(prepare, target)
    async with running(target) as application:
        assert await story.verdict(application, "revoked") == "VALID"


async def test_exports_may_be_given_later(story: Story, target: Settings) -> None:
    await restore(target, story.backup)
    settlement = await settle_restored(target, [story.export])
    assert settlement.reapplied["key.revoke"] == 2
    assert await settle_restored(target, [story.export]) == Settlement()

    await asyncio.to_thread(prepare, target)
    async with running(target) as application:
        assert await story.verdict(application, "revoked") == "REVOKED"


@pytest.mark.parametrize("tampering", ["cut", "changed", "leaf removed"])
async def test_export_that_does_not_verify_settles_nothing(story: Story, target: Settings, tampering: str) -> None:
    """An export from which a revocation was taken out would bring a revoked key back."""
    lines = story.export.read_bytes().splitlines(keepends=True)
    revoking = next(at for at, line in enumerate(lines) if b"key.revoke" in line)
    if tampering == "cut":
        lines = lines[:-3]
    elif tampering == "changed":
        lines[revoking] = lines[revoking].replace(b"key.revoke", b"key.enable")
    else:
        del lines[revoking]
    story.export.write_bytes(b"".join(lines))

    with pytest.raises(IntegrityError, match="does not verify"):
        await restore(target, story.backup, [story.export])
    with pytest.raises(ConfigError) as caught:
        await asyncio.to_thread(prepare, target)
    assert caught.value.code == "serve_refused"


async def test_export_of_another_installation_settles_nothing(story: Story, target: Settings, tmp_path: Path) -> None:
    other = Settings(data=tmp_path / "other", shutdown_seconds=5)
    await asyncio.to_thread(prepare, other)
    async with running(other) as application:
        await write_export(application, admin(other.data / "admin-token"), tmp_path / "foreign")

    _, settlement = await restore(target, story.backup, [tmp_path / "foreign"])
    assert settlement.missing == ["default"]


async def test_missing_root_key_is_named_and_none_is_made(story: Story, tmp_path: Path) -> None:
    """A new root key must never be made where an old one is wanted."""
    bare = Settings(data=tmp_path / "bare")
    bare.data.mkdir()
    wanted = (story.settings.data / "kek").read_text().split()[1]
    with pytest.raises(KekError, match=wanted):
        await restore(bare, story.backup)

    assert not (bare.data / "kek").exists()


@both_engines
async def test_installation_in_use_is_not_overwritten(story: Story) -> None:
    with pytest.raises(ConflictError, match="holds data"):
        await restore(story.settings, story.backup, [story.export])

    async with running(story.settings) as application:
        with pytest.raises(UnauthenticatedError):
            await application.access.whoami(Credentials(Secret("nonsense"), None, None))
        assert await story.verdict(application, "revoked") == "REVOKED"

"""Rotating root keys and workspace keys in a running worker, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import insert, select, update

from keyturn.access.caller import Credentials
from keyturn.access.root_keys import root_key_resource
from keyturn.bootstrap.application import Application, open_application
from keyturn.bootstrap.preparation import prepare
from keyturn.bootstrap.restoration import back_up, restore
from keyturn.bootstrap.root_keys import add_root_key, retire_root_key, root_key_status, rotate_aged
from keyturn.config import Settings
from keyturn.errors import (
    ConflictError,
    DestroyedError,
    ForbiddenError,
    InputError,
    IntegrityError,
    KekError,
    NotFoundError,
    UnavailableError,
)
from keyturn.kernel.secret import Secret
from keyturn.storage.kek import load_provider
from keyturn.storage.kek_held import generate
from keyturn.storage.keyring import Keyring
from keyturn.storage.resealing import KEY_ID_BYTES, SECRET
from keyturn.storage.schema import audit_leaf, sealed_key, secret_version, workspace, workspace_key
from keyturn.vault.sealing import PURPOSE, open_version
from keyturn.vault.store import load_secret, load_version
from keyturn.wire.access import CreateGrant, CreatePrincipal
from keyturn.wire.keys import CreateKeyspace, IssueToken
from keyturn.wire.root_keys import DestroyWorkspaceKey, ResealWorkspace, RewrapRootKey
from keyturn.wire.secrets import PutSecret
from tests.storage.kek_services import Transit, serving

EVERYTHING = RewrapRootKey(keys_max=10_000)


@pytest.fixture
async def settings(tmp_path: Path, migrated_database_url: str) -> Settings:
    url = None if migrated_database_url.startswith("sqlite") else Secret(migrated_database_url)
    made = Settings(data=tmp_path / "data", database_url=url, shutdown_seconds=5)
    await asyncio.to_thread(prepare, made)
    return made


@pytest.fixture
async def application(settings: Settings) -> AsyncIterator[Application]:
    made = open_application(settings)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def admin(settings: Settings) -> Credentials:
    return Credentials(Secret((settings.data / "admin-token").read_text().strip()), "192.0.2.1", "req_test")


async def add_workspace_keys(application: Application, count: int) -> None:
    """Make workspace keys under the root key that seals now; none of them seals a value of another."""

    def work(transaction: Any) -> None:
        first = transaction.connection.execute(select(workspace.c.id)).scalar_one()
        for _ in range(count):
            application.keyring.create_workspace_key(transaction.connection, first, transaction.now)

    await application.database.write(work)


async def put(application: Application, admin: Credentials, path: str, value: str) -> None:
    await application.vault.vault.put(admin, path, PutSecret(fields={"key": value}))


async def value_of(application: Application, path: str) -> bytes:
    def work(connection: Any) -> bytes:
        place = connection.execute(select(workspace.c.id)).scalar_one()
        found = load_secret(connection, place, path)
        assert found is not None
        version = load_version(connection, found)
        assert version is not None
        return open_version(Keyring(application.keyring.provider), connection, found, version)

    return await application.database.read(work)


async def actions(application: Application) -> list[str]:
    return await application.database.read(
        lambda c: list(c.execute(select(audit_leaf.c.action).order_by(audit_leaf.c.seq)).scalars())
    )


# --- root keys -------------------------------------------------------------------------------------------------------


async def test_root_key_is_rotated_rewrapped_and_retired_while_a_worker_runs(
    application: Application, settings: Settings, admin: Credentials, tmp_path: Path
) -> None:
    await add_workspace_keys(application, 120)
    old = application.keyring.provider.id
    new = await add_root_key(settings)
    before = {one.id: one.workspace_keys for one in (await application.root_keys.root_keys.census(admin)).items}
    done = await application.root_keys.root_keys.rewrap(admin, EVERYTHING)
    removed = await retire_root_key(settings, old, tmp_path / "kept")

    assert before == {new: 0, old: 121}
    assert (done.root_key, done.rewrapped, done.remaining) == (new, 121, 0)
    assert removed
    assert old in (tmp_path / "kept").read_text()
    status = await root_key_status(settings)
    assert [(one.id, one.seals, one.given, one.workspace_keys) for one in status] == [(new, True, True, 121)]
    await application.database.read(Keyring(load_provider(settings, create=False)).check)
    recorded = await actions(application)
    assert recorded.count("root_key.rewrap") == 121
    assert recorded.count("system.root_key") == 2


async def test_rewrap_goes_on_where_it_was_interrupted(
    application: Application, settings: Settings, admin: Credentials
) -> None:
    """In between, some workspace keys are under one root key and some under the other: all of them open."""
    await add_workspace_keys(application, 30)
    await add_root_key(settings)
    part = await application.root_keys.root_keys.rewrap(admin, RewrapRootKey(keys_max=10))
    await application.database.read(Keyring(load_provider(settings, create=False)).check)
    rest = await application.root_keys.root_keys.rewrap(admin, EVERYTHING)
    again = await application.root_keys.root_keys.rewrap(admin, EVERYTHING)

    assert (part.rewrapped, part.remaining) == (10, 21)
    assert (rest.rewrapped, rest.remaining) == (21, 0)
    assert (again.rewrapped, again.remaining) == (0, 0)


async def test_two_rewraps_at_once_lose_nothing(
    application: Application, settings: Settings, admin: Credentials
) -> None:
    await add_workspace_keys(application, 100)
    await add_root_key(settings)
    done = await asyncio.gather(*(application.root_keys.root_keys.rewrap(admin, EVERYTHING) for _ in range(3)))

    assert sum(one.rewrapped for one in done) == 101
    await application.database.read(Keyring(load_provider(settings, create=False)).check)


async def test_root_key_in_use_or_sealing_or_unknown_is_not_retired(
    application: Application, settings: Settings
) -> None:
    old = application.keyring.provider.id
    with pytest.raises(ConflictError, match="is the one that seals"):
        await retire_root_key(settings, old, None)
    await add_root_key(settings)
    with pytest.raises(ConflictError, match="1 workspace keys are wrapped"):
        await retire_root_key(settings, old, None)
    with pytest.raises(NotFoundError):
        await retire_root_key(settings, "kek_0000000000000000000000", None)

    assert old in load_provider(settings, create=False).ids


async def test_nothing_is_wrapped_under_a_retired_root_key(
    application: Application, settings: Settings, admin: Credentials, tmp_path: Path
) -> None:
    """A server with an older copy of the file must not make keys that nobody can open later."""
    old_file = tmp_path / "copy"
    old_file.write_bytes((settings.data / "kek").read_bytes())
    old_file.chmod(0o600)
    old = application.keyring.provider.id
    await add_root_key(settings)
    await application.root_keys.root_keys.rewrap(admin, EVERYTHING)
    await retire_root_key(settings, old, None)
    behind = Keyring(load_provider(replace(settings, kek_file=old_file), create=False))

    with pytest.raises(KekError, match="was retired"):
        await application.database.write(lambda t: behind.create_workspace_key(t.connection, "wsp_1", t.now))
    with pytest.raises(KekError):
        await asyncio.to_thread(prepare, replace(settings, kek_file=old_file))


async def test_retirement_that_was_killed_half_way_is_repeated(
    application: Application, settings: Settings, admin: Credentials
) -> None:
    old_file = (settings.data / "kek").read_bytes()
    old = application.keyring.provider.id
    await add_root_key(settings)
    with_both = (settings.data / "kek").read_bytes()
    await application.root_keys.root_keys.rewrap(admin, EVERYTHING)
    await retire_root_key(settings, old, None)
    (settings.data / "kek").write_bytes(with_both)  # as if it was killed before the file was written

    assert await retire_root_key(settings, old, None)
    assert old_file not in (settings.data / "kek").read_bytes()
    assert (await actions(application)).count("system.root_key") == 2


async def test_moving_to_another_provider_is_the_same_rotation(settings: Settings, admin: Credentials) -> None:
    line = generate()
    moving = replace(settings, kek_provider="env,file", kek=Secret(line))
    application = open_application(moving)
    await application.start()
    try:
        done = await application.root_keys.root_keys.rewrap(admin, EVERYTHING)
    finally:
        await application.stop()

    assert (done.root_key, done.rewrapped) == (line.split()[1], 1)
    alone = replace(settings, kek_provider="env", kek=Secret(line))
    await asyncio.to_thread(prepare, alone)


async def test_right_in_the_workspace_is_no_right_over_root_keys(application: Application, admin: Credentials) -> None:
    """Root keys concern every workspace: `*` on `*` does not reach them."""
    access = application.access
    person = await access.principals.create(admin, CreatePrincipal(kind="service", name="deploy"))
    await access.grants.create(admin, CreateGrant(principal=person.id, actions=("*",), resource="*"))
    issued = await application.tokens.issue(admin, person.id, IssueToken(name="deploy"))
    assert issued.token is not None
    token = Credentials(Secret(issued.token), "192.0.2.1", "req_test")

    with pytest.raises(ForbiddenError):
        await application.root_keys.root_keys.rewrap(token, EVERYTHING)
    assert (await application.root_keys.root_keys.census(token)).items == ()
    assert (await application.root_keys.workspace_keys.list(token)).items != ()


def test_root_key_of_a_service_has_a_name_that_grants_can_match() -> None:
    arn = "aws-kms:arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    assert root_key_resource(arn).name == (
        "~instance/root_key/aws-kms-arn-aws-kms-eu-central-1-123456789012-key-1234abcd-12ab-34cd-56ef-1234567890ab"
    )


# --- workspace keys --------------------------------------------------------------------------------------------------


async def test_workspace_key_is_rotated_and_every_value_follows(application: Application, admin: Credentials) -> None:
    for number in range(5):
        await put(application, admin, f"production/app/{number}", f"value {number}")
    service = application.root_keys.workspace_keys
    (old,) = (await service.list(admin)).items
    new = await service.rotate(admin)
    part = await service.reseal(admin, ResealWorkspace(values_max=3))
    done = await service.reseal(admin, ResealWorkspace())
    await put(application, admin, "production/app/later", "value later")
    listed = {one.id: one for one in (await service.list(admin)).items}

    assert old.seals
    assert new.seals
    assert part.resealed == 3
    assert part.remaining == old.values - 3
    assert (done.remaining, done.unopened) == (0, ())
    assert listed[old.id].values == 0
    assert listed[new.id].values > old.values
    assert b"value 4" in await value_of(application, "production/app/4")
    assert {"workspace_key.rotate", "workspace_key.reseal"} <= set(await actions(application))


async def test_rotation_is_idempotent_by_its_key(application: Application, admin: Credentials) -> None:
    service = application.root_keys.workspace_keys
    first = await service.rotate(admin, idempotency="once")
    second = await service.rotate(admin, idempotency="once")

    assert first.id == second.id
    assert len((await service.list(admin)).items) == 2


async def test_resealing_names_what_does_not_open_and_goes_on(application: Application, admin: Credentials) -> None:
    await put(application, admin, "production/app/a", "value a")
    await put(application, admin, "production/app/b", "value b")
    first = await application.database.read(lambda c: c.execute(select(secret_version.c.id)).scalars().first())
    damaged = await application.database.read(
        lambda c: c.execute(select(secret_version.c.sealed).where(secret_version.c.id == first)).scalar_one()
    )
    assert damaged is not None
    await application.database.write(
        lambda t: t.connection.execute(
            update(secret_version).where(secret_version.c.id == first).values(sealed=damaged[:-1] + b"\0\0")
        )
    )
    service = application.root_keys.workspace_keys
    await service.rotate(admin)
    done = await service.reseal(admin, ResealWorkspace())

    assert done.unopened == (first,)
    assert done.remaining == 1


async def test_workspace_key_with_values_is_destroyed_by_force_alone(
    application: Application, admin: Credentials
) -> None:
    """Every held secret becomes unreadable at once, and says so; keys still verify and the audit log goes on."""
    await put(application, admin, "production/app/a", "value a")
    service = application.root_keys.workspace_keys
    (key,) = (await service.list(admin)).items
    with pytest.raises(ConflictError, match="is the one that seals"):
        await service.destroy(admin, key.id, DestroyWorkspaceKey())
    await service.rotate(admin)
    with pytest.raises(ConflictError, match="values are sealed under"):
        await service.destroy(admin, key.id, DestroyWorkspaceKey())
    with pytest.raises(InputError, match="expected the id"):
        await service.destroy(admin, key.id, DestroyWorkspaceKey(force=True))
    done = await service.destroy(admin, key.id, DestroyWorkspaceKey(force=True, confirm=key.id))
    again = await service.destroy(admin, key.id, DestroyWorkspaceKey())

    assert (done.state, done.lost, again.state) == ("destroyed", 1, "destroyed")
    with pytest.raises(DestroyedError, match="was destroyed"):
        await value_of(application, "production/app/a")
    wrapped = await application.database.read(
        lambda c: c.execute(select(workspace_key.c.wrapped).where(workspace_key.c.id == key.id)).scalar_one()
    )
    assert wrapped == b""
    await application.keyspaces.create(admin, CreateKeyspace(name="a", prefix="acme", environment="dev"))
    await put(application, admin, "production/app/a", "value after")
    assert b"value after" in await value_of(application, "production/app/a")


async def test_key_that_seals_is_destroyed_by_force_and_the_next_one_seals(
    application: Application, admin: Credentials
) -> None:
    await put(application, admin, "production/app/a", "value a")
    service = application.root_keys.workspace_keys
    (key,) = (await service.list(admin)).items
    await service.destroy(admin, key.id, DestroyWorkspaceKey(force=True, confirm=key.id))

    assert [(one.state, one.seals) for one in (await service.list(admin)).items] == [
        ("destroyed", False),
        ("open", True),
    ]


async def test_destroyed_key_is_dropped_from_the_memory_of_other_workers(
    application: Application, settings: Settings, admin: Credentials
) -> None:
    if application.database.dialect == "sqlite":
        pytest.skip("one worker has the file")
    other = open_application(settings)
    await other.start()
    try:
        service = application.root_keys.workspace_keys
        (key,) = (await service.list(admin)).items
        assert key.id in other.keyring._workspace_keys  # noqa: SLF001 -- what must not be there afterwards
        await service.rotate(admin)
        await service.reseal(admin, ResealWorkspace())
        await service.destroy(admin, key.id, DestroyWorkspaceKey())
        async with asyncio.timeout(120):
            while key.id in other.keyring._workspace_keys:  # noqa: SLF001, ASYNC110 -- waits for the change log
                await asyncio.sleep(0.02)
    finally:
        await other.stop()


async def test_unknown_workspace_key_is_not_found(application: Application, admin: Credentials) -> None:
    with pytest.raises(NotFoundError):
        await application.root_keys.workspace_keys.destroy(admin, "wsk_unknown", DestroyWorkspaceKey())


async def test_aged_workspace_keys_are_rotated_by_one_worker(application: Application) -> None:
    database, keyring = application.database, application.keyring
    assert await rotate_aged(database, keyring, application.node, 365) == 0
    await database.write(
        lambda t: t.connection.execute(
            update(workspace_key).values(created_at=workspace_key.c.created_at - 366 * 86400)
        )
    )

    assert await rotate_aged(database, keyring, application.node, 0) == 0
    assert await rotate_aged(database, keyring, "nod_another", 365) == 0
    assert await rotate_aged(database, keyring, application.node, 365) == 1
    assert await rotate_aged(database, keyring, application.node, 365) == 0
    assert (await actions(application))[-1] == "workspace_key.rotate"


# --- places ----------------------------------------------------------------------------------------------------------


async def test_swapped_ciphertexts_of_secrets_do_not_open(application: Application, admin: Credentials) -> None:
    """Whoever can write the database cannot make one path answer with another's value, or an older version's."""
    await put(application, admin, "production/app/a", "value a")
    await put(application, admin, "production/app/b", "value b")
    await put(application, admin, "production/app/b", "value b, later")
    rows = await application.database.read(
        lambda c: c.execute(select(secret_version.c.id, secret_version.c.sealed).order_by(secret_version.c.id)).all()
    )
    for here, there in ((0, 1), (2, 1)):
        await application.database.write(
            lambda t, h=here, o=there: t.connection.execute(  # type: ignore[misc]
                update(secret_version).where(secret_version.c.id == rows[h].id).values(sealed=rows[o].sealed)
            )
        )

    for path in ("production/app/a", "production/app/b"):
        with pytest.raises(IntegrityError, match="does not open"):
            await value_of(application, path)


async def test_row_of_another_workspace_does_not_open(application: Application) -> None:
    def work(transaction: Any) -> None:
        keyring = application.keyring
        made = keyring.create(transaction.connection, "wsp_other", "pepper", "p", transaction.now)
        row = transaction.connection.execute(select(sealed_key).where(sealed_key.c.id == made.id)).one()
        transaction.connection.execute(
            insert(sealed_key).values({**row._asdict(), "id": "sky_copy", "workspace": "wsp_mine"})
        )

    await application.database.write(work)
    with pytest.raises(IntegrityError, match="does not open"):
        await application.database.read(lambda c: application.keyring.all(c, "wsp_mine", "pepper", "p"))


async def test_census_reads_what_headers_say(application: Application) -> None:
    """The database looks for workspace key ids at a fixed place of a fixed length."""
    ids = await application.database.read(lambda c: list(c.execute(select(workspace_key.c.id)).scalars()))
    assert {len(key_id) for key_id in ids} == {KEY_ID_BYTES}
    assert SECRET == PURPOSE


# --- backups and services --------------------------------------------------------------------------------------------


async def test_backup_of_a_half_done_rotation_restores_with_both_root_keys_and_names_a_missing_one(
    application: Application, settings: Settings, admin: Credentials, tmp_path: Path
) -> None:
    await add_workspace_keys(application, 3)
    await put(application, admin, "production/app/a", "value a")
    old = application.keyring.provider.id
    old_file = (settings.data / "kek").read_bytes()
    new = await add_root_key(settings)
    await application.root_keys.root_keys.rewrap(admin, RewrapRootKey(keys_max=2))
    manifest = await back_up(settings, tmp_path / "backup")
    (tmp_path / "restored").mkdir(mode=0o700)
    elsewhere = Settings(data=tmp_path / "restored")
    kek = elsewhere.data / "kek"
    kek.write_bytes(old_file)
    kek.chmod(0o600)

    assert set(manifest.kek_ids) == {old, new}
    with pytest.raises(KekError, match=new):
        await restore(elsewhere, tmp_path / "backup", accept_lost_revocations=True)
    kek.write_bytes((settings.data / "kek").read_bytes())
    await restore(elsewhere, tmp_path / "backup", accept_lost_revocations=True)
    restored = open_application(elsewhere)
    await restored.start()
    try:
        assert b"value a" in await value_of(restored, "production/app/a")
    finally:
        await restored.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a provider's connection lives as long as its process
async def test_service_that_goes_down_fails_only_what_it_is_needed_for(tmp_path: Path) -> None:
    """What was opened before goes on; what was not is a clear, quick 503; a start is refused by name."""
    service = Transit("a-token")
    with serving(service) as port:
        settings = Settings(
            data=tmp_path / "data",
            shutdown_seconds=5,
            kek_provider="vault-transit",
            kek_vault_address=f"http://127.0.0.1:{port}",
            kek_vault_token=Secret("a-token"),
        )
        await asyncio.to_thread(prepare, settings)
        admin = Credentials(Secret((settings.data / "admin-token").read_text().strip()), "192.0.2.1", "req_test")
        application = open_application(settings)
        await application.start()
        try:
            await put(application, admin, "production/app/a", "value a")
            service.failing = 503
            await put(application, admin, "production/app/b", "value b")
            with pytest.raises(UnavailableError, match="vault-transit:transit/keyturn does not answer"):
                await value_of(application, "production/app/a")  # by a keyring that has opened nothing yet
            with pytest.raises(UnavailableError):
                await application.root_keys.workspace_keys.rotate(admin)
        finally:
            await application.stop()
        with pytest.raises(KekError, match="vault-transit:transit/keyturn does not answer"):
            await asyncio.to_thread(prepare, settings)
        service.failing = None
        await asyncio.to_thread(prepare, settings)

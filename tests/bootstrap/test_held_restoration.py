"""A restore never un-deletes a held secret, opens a wrap again, revives a login or forgets an account."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from keyturn.access.caller import Credentials
from keyturn.bootstrap.application import Application
from keyturn.bootstrap.preparation import prepare
from keyturn.bootstrap.restoration import back_up, restore
from keyturn.config import Settings
from keyturn.errors import GoneError, NotFoundError, UnauthenticatedError
from keyturn.kernel.secret import Secret
from keyturn.logins.assertions import SecretIdAssertion
from keyturn.wire.access import CreateGrant, CreatePrincipal
from keyturn.wire.logins import (
    ApproleBinding,
    CreateLoginMethod,
    CreateLoginRole,
    IssueLoginToken,
    IssueSecretId,
)
from keyturn.wire.secrets import PutSecret, SelectVersions
from keyturn.wire.wraps import CreateWrap
from tests.bootstrap.test_restoration import admin, running, write_export

SECRETS = ("kept", "deleted", "undeleted", "destroyed", "removed", "changed")


async def _value(application: Application, credentials: Credentials, name: str) -> Any:
    return (await application.vault.reader.read(credentials, f"production/{name}/key")).fields["value"]


async def _begin(application: Application, credentials: Credentials) -> dict[str, Any]:
    for name in SECRETS:
        await application.vault.vault.put(credentials, f"production/{name}/key", PutSecret(fields={"value": "first"}))
    wraps = [await application.vault.wraps.wrap(credentials, CreateWrap(data={"n": n})) for n in range(2)]
    logins = application.logins.logins
    principal = await application.access.principals.create(credentials, CreatePrincipal(kind="service", name="shop"))
    grant = CreateGrant(actions=("secret.read",), resource="secret/production/*", principal=principal.id)
    await application.access.grants.create(credentials, grant)
    await logins.methods.create(credentials, CreateLoginMethod(name="approle", kind="approle"))
    roles = {}
    for name in ("kept", "gone"):
        made = CreateLoginRole(name=name, principal=principal.id, approle=ApproleBinding())
        roles[name] = await logins.roles.create(credentials, "approle", made)
    ids = [await logins.secret_ids.issue(credentials, "approle", "kept", IssueSecretId()) for _ in range(2)]
    tokens = [await logins.tokens.issue(credentials, IssueLoginToken()) for _ in range(2)]
    return {"wraps": wraps, "roles": roles, "ids": ids, "tokens": tokens}


async def _live(application: Application, credentials: Credentials, made: dict[str, Any]) -> None:
    vault, logins = application.vault.vault, application.logins.logins
    for name in ("deleted", "undeleted"):
        await vault.delete(credentials, f"production/{name}/key", SelectVersions())
    await vault.undelete(credentials, "production/undeleted/key", SelectVersions())
    await vault.destroy(credentials, "production/destroyed/key", SelectVersions(versions=(1,)))
    await vault.remove(credentials, "production/removed/key")
    await vault.put(credentials, "production/changed/key", PutSecret(fields={"value": "second"}))
    await application.vault.wraps.unwrap(Secret(made["wraps"][0].token))
    await logins.secret_ids.revoke(credentials, "approle", "kept", made["ids"][0].id)
    await logins.roles.delete(credentials, "approle", "gone")
    await logins.tokens.revoke(credentials, made["tokens"][0].info.id)


async def test_what_was_taken_away_of_held_things_stays_away(tmp_path: Path) -> None:
    """Secrets, wraps, logins: every kind, done again; what was written since is named for a person."""
    settings = Settings(data=tmp_path / "data", shutdown_seconds=5)
    await asyncio.to_thread(prepare, settings)
    credentials = admin(settings.data / "admin-token")
    async with running(settings) as application:
        made = await _begin(application, credentials)
        await write_export(application, credentials, tmp_path / "before")
        await back_up(settings, tmp_path / "backup")
        await _live(application, credentials, made)
        await write_export(application, credentials, tmp_path / "export")
    folder = tmp_path / "restored"
    await asyncio.to_thread(folder.mkdir, 0o700)
    await asyncio.to_thread(shutil.copy, settings.data / "kek", folder / "kek")
    target = Settings(data=folder, shutdown_seconds=5)

    _, settlement = await restore(target, tmp_path / "backup", [tmp_path / "export"])

    assert settlement.reapplied == {
        "secret.delete": 1,
        "secret.destroy": 1,
        "secret.remove": 1,
        "system.unwrap": 1,
        "secret_id.revoke": 1,
        "login_role.delete": 1,
        "login_token.revoke": 1,
    }
    assert ["secret.put on secret/production/changed/key" in line for line in settlement.for_a_person] == [True]
    await asyncio.to_thread(prepare, target)
    async with running(target) as application:
        for name in ("kept", "undeleted", "changed"):
            assert await _value(application, credentials, name) == "first"
        for name in ("deleted", "destroyed", "removed"):
            with pytest.raises(NotFoundError):
                await _value(application, credentials, name)
        with pytest.raises(GoneError, match="was opened"):
            await application.vault.wraps.unwrap(Secret(made["wraps"][0].token))
        assert (await application.vault.wraps.unwrap(Secret(made["wraps"][1].token))).data == {"n": 1}
        logins = application.logins.logins
        ended, live = (SecretIdAssertion(made["roles"]["kept"].role_id, Secret(one.secret_id)) for one in made["ids"])
        with pytest.raises(UnauthenticatedError):
            await logins.login("approle", None, ended)
        assert (await logins.login("approle", None, live)).token
        with pytest.raises(NotFoundError):
            await logins.roles.read(credentials, "approle", "gone")
        with pytest.raises(UnauthenticatedError):
            await logins.tokens.read_self(Credentials(Secret(made["tokens"][0].token)))
        assert (await logins.tokens.read_self(Credentials(Secret(made["tokens"][1].token)))).id

"""A founded installation with logins: services over one real database, real tokens, and a clock that stands still."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, func, select

from keyturn.access.caller import Credentials
from keyturn.access.door import Door
from keyturn.access.founding import DEFAULT_WORKSPACE, found_workspace
from keyturn.access.service import AccessService
from keyturn.bootstrap.logins import GuardedFetcher, all_tokens
from keyturn.kernel.secret import Secret
from keyturn.keys.authority import SystemTokens
from keyturn.keys.tokens import TokenService
from keyturn.logins.assertions import JwtAssertion, SecretIdAssertion
from keyturn.logins.jwks import KeySets
from keyturn.logins.service import LoginService
from keyturn.logins.tokens import LoginTokens
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.keyring import Keyring
from keyturn.storage.migrate import migrate_async
from keyturn.storage.schema import audit_leaf, login_token
from keyturn.testing.access import CountedFailures
from keyturn.testing.clock import ManualClock
from keyturn.wire.access import CreateGrant, CreatePrincipal, WhoAmI
from keyturn.wire.keys import IssueToken
from keyturn.wire.logins import (
    CreateLoginMethod,
    CreateLoginRole,
    IssueSecretId,
    LoginAnswer,
    LoginMethodInfo,
    LoginRoleInfo,
    SecretIdIssued,
)
from tests.keys.desk import new_keyring
from tests.logins.issuer import AUDIENCE, Issuer

OFFICE = "192.0.2.7"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@dataclass
class Gate:
    """Everything a test of logins needs."""

    database: Database
    clock: ManualClock
    keyring: Keyring
    door: Door
    access: AccessService
    tokens: TokenService
    logins: LoginService
    failures: CountedFailures
    admin: Credentials
    folder: Path

    def issuer(self, algorithm: str = "ES256") -> Issuer:
        """Return an issuer that knows what time it is."""
        return Issuer(self.clock.now(), algorithm)

    async def service(self, name: str = "deployer", *grants: tuple[str, str]) -> str:
        """Create a service with grants; return its id."""
        made = await self.access.principals.create(self.admin, CreatePrincipal(kind="service", name=name))
        for action, resource in grants:
            await self.access.grants.create(
                self.admin, CreateGrant(principal=made.id, actions=(action,), resource=resource)
            )
        return made.id

    async def hire(self, name: str, *grants: tuple[str, str]) -> Credentials:
        """Create a service with grants and a management token."""
        issued = await self.tokens.issue(self.admin, await self.service(name, *grants), IssueToken(name=name))
        assert issued.token is not None
        return Credentials(Secret(issued.token), ip=OFFICE)

    async def method(self, name: str = "ci", *, by: Credentials | None = None, **given: Any) -> LoginMethodInfo:
        """Create a login method."""
        request = msgspec.convert({"name": name, "kind": "jwt"} | given, type=CreateLoginMethod)
        return await self.logins.methods.create(by or self.admin, request)

    async def role(
        self, method: str = "ci", name: str = "deploy", *, by: Credentials | None = None, **given: Any
    ) -> LoginRoleInfo:
        """Create a login role for the service `deployer`."""
        request = msgspec.convert({"name": name, "principal": "deployer"} | given, type=CreateLoginRole)
        return await self.logins.roles.create(by or self.admin, method, request)

    async def ready(self, issuer: Issuer, *, options: dict[str, Any] | None = None, **given: Any) -> LoginRoleInfo:
        """Create a service, a jwt method with the issuer's keys inline, and a role."""
        await self.service("deployer", ("keyspace.read", "keyspace/*"))
        await self.method(jwt={"issuer": issuer.url, "jwks": issuer.key_set()} | (options or {}))
        return await self.role(**({"jwt": {"audiences": [AUDIENCE], "claims": {"repository_id": "12345"}}} | given))

    async def approle(self, **given: Any) -> LoginRoleInfo:
        """Create a service, an approle method, and a role."""
        await self.service("deployer", ("keyspace.read", "keyspace/*"))
        await self.method("approle", kind="approle")
        return await self.role("approle", "app", **given)

    async def secret_id(self, **given: Any) -> SecretIdIssued:
        """Issue a secret-id of the role app."""
        request = msgspec.convert(given, type=IssueSecretId)
        return await self.logins.secret_ids.issue(self.admin, "approle", "app", request)

    async def by_jwt(self, token: str, *, role: str = "deploy", method: str = "ci", ip: str = OFFICE) -> LoginAnswer:
        """Log in by a JWT."""
        return await self.logins.login(method, role, JwtAssertion(Secret(token)), ip=ip, request_id="req_1")

    async def by_secret(self, role: LoginRoleInfo, secret: str | None, *, ip: str = OFFICE) -> LoginAnswer:
        """Log in by role-id and secret-id."""
        assert secret is not None
        assertion = SecretIdAssertion(role.role_id, Secret(secret))
        return await self.logins.login("approle", None, assertion, ip=ip, request_id="req_1")

    async def whoami(self, answer: LoginAnswer, *, ip: str = OFFICE) -> WhoAmI:
        """Use the token of a login."""
        return await self.access.whoami(bearing(answer, ip=ip))

    async def count_tokens(self) -> int:
        """Count the rows of login tokens."""

        def read(connection: Connection) -> int:
            return connection.execute(select(func.count()).select_from(login_token)).scalar_one()

        return await self.database.read(read)

    async def leaves(self, action: str) -> list[dict[str, Any]]:
        """Return the leaves of one action, oldest first."""

        def read(connection: Connection) -> list[bytes]:
            rows = connection.execute(select(audit_leaf.c.body).order_by(audit_leaf.c.seq)).scalars()
            return [cast("bytes", body) for body in rows]

        found = [msgspec.json.decode(body) for body in await self.database.read(read)]
        return [leaf for leaf in found if leaf["action"] == action]


def bearing(answer: LoginAnswer, *, ip: str = OFFICE) -> Credentials:
    """Return what a request with the token of a login brings."""
    return Credentials(Secret(answer.token), ip=ip, request_id="req_2")


@asynccontextmanager
async def opened_gate(url: str, folder: Path) -> AsyncIterator[Gate]:
    """Migrate and open the database, and found its default workspace."""
    await migrate_async(url)
    clock = ManualClock()
    database = make_database(url, clock)
    await database.open()
    try:
        keyring, failures = new_keyring(), CountedFailures()
        system = SystemTokens(keyring)
        founded = await database.write(
            lambda transaction: found_workspace(
                transaction, system, system, name=DEFAULT_WORKSPACE, created_by="system"
            )
        )
        door = Door(database, all_tokens(keyring, system), failures)
        fetcher = GuardedFetcher(LOOPBACK)
        yield Gate(
            database=database,
            clock=clock,
            keyring=keyring,
            door=door,
            access=AccessService(door, system, system),
            tokens=TokenService(door, system),
            logins=LoginService(
                door, keyring, LoginTokens(keyring), fetcher, KeySets(fetcher, folder, clock.boottime), failures
            ),
            failures=failures,
            admin=Credentials(founded.value.token.token, ip=OFFICE),
            folder=folder,
        )
    finally:
        await database.close()

"""A founded installation with a vault: the services over one real database, and ways to look beneath them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from keyturn.access.caller import Credentials
from keyturn.access.door import Operation
from keyturn.errors import ForbiddenError
from keyturn.vault import store
from keyturn.vault.fields import decode_fields
from keyturn.vault.model import Secret, Version
from keyturn.vault.paths import Path
from keyturn.vault.sealing import open_version
from keyturn.vault.service import VaultService
from keyturn.wire.actions import Action
from keyturn.wire.secrets import PutSecret, SecretInfo, SecretWritten
from tests.keys.desk import Desk, opened_desk

STRIPE = "production/payments/stripe"


@dataclass
class NotedFingerprints:
    """Remembers what it was told to."""

    noted: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)

    def store(self, op: Operation, secret: Secret, sequence: int, fields: Mapping[str, Any]) -> None:  # noqa: ARG002 -- the port's
        self.noted.append((secret.path, sequence, dict(fields)))


@dataclass
class ListedGuards:
    """Holds back the actions it lists."""

    held: set[tuple[str, str]] = field(default_factory=set)

    def require(self, op: Operation, action: Action, path: Path) -> None:
        if (str(action), path.text) in self.held:
            raise op.refusal(action, path.resource, ForbiddenError("needs approval", code="approval_required"))

    def holds_back(self, op: Operation, action: Action, path: Path) -> bool:  # noqa: ARG002 -- the port's
        return (str(action), path.text) in self.held


@dataclass
class Safe:
    """Everything a test of the vault's writes needs."""

    desk: Desk
    vault: VaultService
    fingerprints: NotedFingerprints
    guards: ListedGuards

    @property
    def admin(self) -> Credentials:
        return self.desk.admin

    async def put(self, path: str = STRIPE, fields: dict[str, Any] | None = None, **given: Any) -> SecretWritten:
        """Write a version as the administrator."""
        return await self.vault.put(self.admin, path, PutSecret(fields=fields or {"key": "value"}, **given))

    async def show(self, path: str = STRIPE) -> SecretInfo:
        return await self.vault.show(self.admin, path)

    async def states(self, path: str = STRIPE) -> list[tuple[int | None, str]]:
        """Return number and state of every version, in the order in which they were written."""
        return [(one.number, str(one.state)) for one in reversed((await self.show(path)).versions)]

    async def held(self, path: str = STRIPE, number: int | None = None, *, sequence: int | None = None) -> Any:
        """Open what a version holds, past every service; None when it was destroyed."""

        def read(connection: Connection) -> Any:
            secret, version = self._rows(connection, path, number, sequence)
            if version.sealed is None:
                return None
            return decode_fields(open_version(self.desk.keyring, connection, secret, version))

        return await self.desk.database.read(read)

    def _rows(
        self, connection: Connection, path: str, number: int | None, sequence: int | None
    ) -> tuple[Secret, Version]:
        secret = store.load_secret(connection, self.desk.founded.workspace.id, path)
        assert secret is not None
        version = store.load_version(connection, secret, number, sequence=sequence)
        assert version is not None
        return secret, version


@asynccontextmanager
async def opened_safe(url: str) -> AsyncIterator[Safe]:
    """Open a desk and add a vault to it."""
    async with opened_desk(url) as desk:
        fingerprints, guards = NotedFingerprints(), ListedGuards()
        yield Safe(desk, VaultService(desk.door, desk.keyring, fingerprints, guards), fingerprints, guards)

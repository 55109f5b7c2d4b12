"""A founded installation with a vault, guards and wraps; what reads secrets is a stand-in that asks for approval."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from keyturn.access.caller import Credentials, Resource
from keyturn.access.door import Operation
from keyturn.kernel.secret import Secret
from keyturn.storage.transaction import ChangeKind
from keyturn.vault.approvals import ApprovalService
from keyturn.vault.model import Secret as HeldSecret
from keyturn.vault.paths import parse_path
from keyturn.vault.service import VaultService
from keyturn.vault.sharing import SharingService
from keyturn.vault.wrapping import WrapService
from keyturn.wire.access import CreateGrant, CreatePrincipal, GrantConditions, PrincipalKind
from keyturn.wire.actions import Action
from keyturn.wire.approvals import ApprovalInfo, CreateGuard, DecideApproval, GuardInfo, RequestApproval
from keyturn.wire.keys import IssueToken
from keyturn.wire.secrets import PutSecret, SecretState, SecretValue
from tests.keys.desk import OFFICE, Desk, opened_desk

STRIPE = "production/payments/stripe"


class NoFingerprints:
    """A `Fingerprints` that remembers nothing."""

    def store(self, op: Operation, secret: HeldSecret, sequence: int, fields: Mapping[str, Any]) -> None:
        """Do nothing."""


@dataclass
class StandInReader:
    """Answers every read with the same fields, once right and approval are there, and puts it on record."""

    desk: Desk
    approvals: ApprovalService

    async def read(self, credentials: Credentials, path: str, *, version: int | None = None) -> SecretValue:
        """Answer `{"token": "held"}`."""
        place = parse_path(path)

        def work(op: Operation) -> None:
            action = Action.SECRET_REVEAL if op.caller.kind == "user" else Action.SECRET_READ
            op.authorise(action, place.resource, kind="secret", name=path)
            self.approvals.require(op, action, place)
            op.record(action, place.resource.name, kind=ChangeKind.AUDIT, entity="")

        await self.desk.door.write(credentials, work)
        return SecretValue(
            id="sec_1",
            path=path,
            environment=place.environment,
            version=version or 1,
            sequence=1,
            state=SecretState.CURRENT,
            fields={"token": "held"},
            created_at="2026-01-01T00:00:00Z",
            metadata={},
        )


@dataclass
class Room:
    """Everything a test of guards and wraps needs."""

    desk: Desk
    approvals: ApprovalService
    vault: VaultService
    reader: StandInReader
    wraps: WrapService
    sharing: SharingService

    async def hire(
        self,
        name: str,
        *grants: tuple[str, str],
        kind: PrincipalKind = "service",
        by: Credentials | None = None,
        conditions: GrantConditions | None = None,
        token: Mapping[str, Any] | None = None,
    ) -> tuple[str, Credentials]:
        """Create a principal with the grants, as (action, resource); return its id and what its requests bring."""
        by = by or self.desk.admin
        made = await self.desk.access.principals.create(by, CreatePrincipal(kind=kind, name=name))
        for action, resource in grants:
            request = CreateGrant(
                principal=made.id, actions=(action,), resource=resource, conditions=conditions or GrantConditions()
            )
            await self.desk.access.grants.create(by, request)
        return made.id, await self.token(made.id, by=by, **(token or {}))

    async def token(self, principal: str, *, by: Credentials | None = None, **given: Any) -> Credentials:
        """Issue another token of a principal."""
        request = msgspec.convert({"name": "another", **given}, type=IssueToken)
        issued = await self.desk.tokens.issue(by or self.desk.admin, principal, request)
        assert issued.token is not None
        return Credentials(Secret(issued.token), ip=OFFICE)

    async def guard(self, pattern: str = "production/payments/*", **given: Any) -> GuardInfo:
        """Guard paths."""
        request = msgspec.convert({"pattern": pattern, **given}, type=CreateGuard)
        return await self.approvals.create_guard(self.desk.admin, request)

    async def ask(self, by: Credentials, action: str = "secret.reveal", path: str = STRIPE) -> ApprovalInfo:
        """Ask for approval."""
        request = RequestApproval(action=Action(action), path=path, reason="an incident")
        return await self.approvals.request(by, request)

    async def decide(self, by: Credentials, approval: str, *, approve: bool = True) -> ApprovalInfo:
        """Decide a request."""
        return await self.approvals.decide(by, approval, DecideApproval(approve=approve, reason="seen"))

    async def put(self, path: str = STRIPE, *, by: Credentials | None = None) -> None:
        """Write a version."""
        await self.vault.put(by or self.desk.admin, path, PutSecret(fields={"token": "held"}))

    async def may(self, by: Credentials, action: str, resource: str, environment: str | None = None) -> bool:
        """Tell whether the door would let the caller do this."""
        return await self.desk.door.read(by, lambda op: op.allows(Action(action), Resource(resource, environment)))


@asynccontextmanager
async def opened_room(url: str) -> AsyncIterator[Room]:
    """Open a desk and add a vault to it."""
    async with opened_desk(url) as desk:
        approvals = ApprovalService(desk.door)
        reader = StandInReader(desk, approvals)
        wraps = WrapService(desk.door, desk.keyring, desk.failures)
        yield Room(
            desk=desk,
            approvals=approvals,
            vault=VaultService(desk.door, desk.keyring, NoFingerprints(), approvals),
            reader=reader,
            wraps=wraps,
            sharing=SharingService(desk.door, reader, wraps, approvals),
        )

"""A founded installation that knows of leaks: keys, held secrets, findings, policies, and a responder."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from keyturn.access.caller import Credentials
from keyturn.kernel import tokenformat
from keyturn.leaks.matching import Matching
from keyturn.leaks.policies import LeakPolicyService
from keyturn.leaks.responding import Responder
from keyturn.leaks.service import LeakService
from keyturn.storage.schema import finding, metadata
from keyturn.vault.fingerprints import Fingerprints
from keyturn.vault.service import VaultService
from keyturn.wire.leaks import (
    Candidate,
    CreateLeakPolicy,
    FindingDetail,
    FindingReported,
    LeakMatch,
    LeakPolicyInfo,
    MatchLeaks,
    ReportFindings,
)
from keyturn.wire.secrets import PutSecret, SecretWritten
from tests.keys.desk import Desk, opened_desk
from tests.vault.safe import ListedGuards

LONG = "-".join(("held", "by", "us", "and", "long", "enough"))


def digest_of(value: str) -> str:
    """Return what a scanner sends of a value."""
    return hashlib.sha256(value.strip().encode()).hexdigest()


def candidate(value: str, **given: Any) -> Candidate:
    """Return what a scanner asks about a value."""
    asked = {"digest": digest_of(value), "version": tokenformat.version_id_of(value), "length": len(value.strip())}
    return msgspec.convert(asked | given, type=Candidate)


def reported(value: str, path: str = "src/app.py", **given: Any) -> dict[str, Any]:
    """Return what a scanner reports of a value."""
    return {
        "rule": "a-rule",
        "digest": digest_of(value),
        "version": tokenformat.version_id_of(value),
        "length": len(value.strip()),
        "place": {"path": path, "line": 3},
    } | given


@dataclass
class Station:
    """Everything a test of leaks needs."""

    desk: Desk
    vault: VaultService
    leaks: LeakService
    policies: LeakPolicyService
    responder: Responder

    @property
    def admin(self) -> Credentials:
        return self.desk.admin

    async def key(self, keyspace: str = "orders", **given: Any) -> tuple[str, str]:
        """Issue a key; return its id and the key."""
        issued = await self.desk.key(keyspace, **given)
        assert issued.key is not None
        return issued.id, issued.key

    async def put(self, path: str, value: str = LONG) -> SecretWritten:
        """Hold a value as the field `token`."""
        return await self.vault.put(self.admin, path, PutSecret(fields={"token": value}))

    async def match(self, *values: str, by: Credentials | None = None) -> tuple[LeakMatch, ...]:
        """Ask whose values are."""
        request = MatchLeaks(candidates=tuple(candidate(value) for value in values))
        return (await self.leaks.match(by or self.admin, request)).matches

    async def report(
        self, *findings: dict[str, Any], by: Credentials | None = None, source: str = "repository", **given: Any
    ) -> tuple[FindingReported, ...]:
        """Report what a scan found."""
        document = {
            "source": source,
            "kind": "folder",
            "started_at": "2026-01-02T03:04:05Z",
            "findings": list(findings),
        }
        request = msgspec.convert(document | given, type=ReportFindings)
        return (await self.leaks.report(by or self.admin, request)).findings

    async def policy(
        self, name: str = "rule", action: str = "revoke", by: Credentials | None = None, **given: Any
    ) -> LeakPolicyInfo:
        """Create a policy, for issued keys unless it says otherwise."""
        document = {"name": name, "position": 10, "action": action, "applies": {"certainties": ["own"]}} | given
        return await self.policies.create(by or self.admin, msgspec.convert(document, type=CreateLeakPolicy))

    async def shown(self, finding_id: str) -> FindingDetail:
        """Show a finding."""
        return await self.leaks.show(self.admin, finding_id)

    async def standing(self, finding_id: str) -> tuple[str, str, str]:
        """Return the state of a finding, its action, and how far that is."""
        found = (await self.shown(finding_id)).finding
        return str(found.state), found.action, str(found.action_state)

    async def history(self, finding_id: str) -> list[str]:
        """Return what became of a finding."""
        return [one.event for one in (await self.shown(finding_id)).history]

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and respond."""
        self.desk.clock.advance(seconds)
        await self.respond()

    async def respond(self) -> None:
        """Respond until nothing is left to do."""
        while await self.responder.respond_once():
            continue

    def another(self, holder: str) -> Responder:
        """Return the responder of another worker."""
        return Responder(self.desk.database, holder)

    async def step_down(self) -> None:
        """Let the responder give its lead up."""
        stopped = asyncio.Event()
        stopped.set()
        await self.responder.run(stopped)

    async def findings(self) -> list[Any]:
        """Return every finding as it is stored."""

        def read(connection: Connection) -> list[Any]:
            return list(connection.execute(select(*finding.c).order_by(finding.c.id)).all())

        return await self.desk.database.read(read)

    async def everything_stored(self) -> bytes:
        """Return every row of every table, as one text to search in."""

        def read(connection: Connection) -> bytes:
            rows = [repr(tuple(row)) for table in metadata.sorted_tables for row in connection.execute(select(table))]
            return "\n".join(rows).encode()

        return await self.desk.database.read(read)


@asynccontextmanager
async def opened_station(url: str) -> AsyncIterator[Station]:
    """Open a desk and add a vault and leaks to it."""
    async with opened_desk(url) as desk:
        matching = Matching(desk.keyring, Fingerprints(desk.keyring))
        yield Station(
            desk=desk,
            vault=VaultService(desk.door, desk.keyring, Fingerprints(desk.keyring), ListedGuards()),
            leaks=LeakService(desk.door, matching),
            policies=LeakPolicyService(desk.door),
            responder=Responder(desk.database, "nod_first"),
        )

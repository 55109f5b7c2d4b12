"""A founded installation with a vault whose values can be read; news come from the change log itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from keyturn.access.caller import Credentials
from keyturn.keys.news import News
from keyturn.storage.follower import Follower
from keyturn.vault.approvals import ApprovalService
from keyturn.vault.fingerprints import Fingerprints
from keyturn.vault.reading import SecretReader
from keyturn.vault.service import VaultService
from keyturn.wire.secrets import PutSecret, SecretValue, SecretWritten
from tests.keys.desk import Desk, opened_desk

STRIPE = "production/payments/stripe"


@dataclass
class Library:
    """Everything a test of reads needs."""

    desk: Desk
    vault: VaultService
    approvals: ApprovalService
    reader: SecretReader
    news: News
    follower: Follower
    draining: asyncio.Event

    async def put(self, path: str = STRIPE, fields: Mapping[str, Any] | None = None, **given: Any) -> SecretWritten:
        """Write a version."""
        return await self.vault.put(
            self.desk.admin, path, PutSecret(fields={"token": "held"} if fields is None else dict(fields), **given)
        )

    async def read(self, path: str = STRIPE, by: Credentials | None = None, **given: Any) -> SecretValue:
        """Read a version."""
        return await self.reader.read(by or self.desk.admin, path, **given)

    async def app(self, name: str = "shop", *paths: str) -> Credentials:
        """Create a service that may read the paths; return what its requests bring."""
        grants = [("secret.read", f"secret/{path}") for path in paths or ("production/*",)]
        return (await self.desk.hire(name, *grants))[1]

    async def accesses(self, *actions: str) -> Sequence[tuple[str, str, Any]]:
        """Return every leaf of a read as outcome, resource and detail, oldest first."""
        wanted = actions or ("secret.read", "secret.reveal")
        leaves = [msgspec.json.decode(body) for body in await self.desk.leaf_bytes()]
        return [(leaf["outcome"], leaf["resource"], leaf["detail"]) for leaf in leaves if leaf["action"] in wanted]

    @asynccontextmanager
    async def another_reader(self) -> AsyncIterator[SecretReader]:
        """Open a reader that remembers nothing yet, as another node's."""
        reader = SecretReader(
            self.desk.door,
            self.desk.keyring,
            self.approvals,
            Fingerprints(self.desk.keyring),
            self.news,
            self.draining,
        )
        yield reader
        await reader.stop()


@asynccontextmanager
async def opened_library(url: str, *, stall_seconds: float = 5.0) -> AsyncIterator[Library]:
    """Open a desk and add a vault and its reader to it."""
    async with opened_desk(url) as desk:
        approvals = ApprovalService(desk.door)
        fingerprints = Fingerprints(desk.keyring)
        news, draining = News(), asyncio.Event()
        follower = Follower(desk.database, [news], [news])
        reader = SecretReader(
            desk.door, desk.keyring, approvals, fingerprints, news, draining, stall_seconds=stall_seconds
        )
        await follower.load()
        following = asyncio.create_task(follower.run())
        try:
            yield Library(
                desk=desk,
                vault=VaultService(desk.door, desk.keyring, fingerprints, approvals),
                approvals=approvals,
                reader=reader,
                news=news,
                follower=follower,
                draining=draining,
            )
        finally:
            await reader.stop()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

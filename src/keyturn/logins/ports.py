"""What logins need of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.kernel.secret import Secret


class FetchError(Exception):
    """An address could not be asked; the message is for the log and holds no secret."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an address answered."""

    status: int
    body: bytes


class Fetcher(Protocol):
    """Asks issuers and clusters, guarded against addresses that are not meant to be reached."""

    def check(self, url: str) -> None:
        """Raise InputError for an address that could never be asked."""
        ...

    async def get(self, url: str, *, ca_pem: str | None, bytes_max: int) -> Fetched:
        """GET an address without following a redirect; raises FetchError, also for a larger answer."""
        ...

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Sequence[tuple[str, str]],
        *,
        bearer: Secret,
        ca_pem: str | None,
        bytes_max: int,
    ) -> Fetched:
        """POST to an address likewise."""
        ...


class FailureSink(Protocol):
    """Counts failed logins per network and minute; implemented by audit."""

    def count(self, ip: str | None, at: float) -> None:
        """Count one failure; must not touch the database."""
        ...

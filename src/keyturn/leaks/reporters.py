"""What reporters outside send: proven by its signature, matched, filed, and answered.

    unknown intake, unknown key, wrong signature     refused alike, and counted as a failed authentication
    a token that is a key of the workspace           a finding of origin `partner`; its policy says what is done
    any other token                                  answered as not ours; nothing is kept of it

The same message sent again changes nothing: a finding is the same one for the same value.

Keys that are not pinned are read from the intake's address and kept for an hour; for a key that is not among them they
are read again, though not within a minute of the last time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from keyturn.errors import ForbiddenError, InputError, UnavailableError
from keyturn.leaks import intake_store as store
from keyturn.leaks import partner
from keyturn.logins.ports import FetchError
from keyturn.wire.leaks import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from keyturn.access.door import UnauthenticatedSink
    from keyturn.kernel.secret import Secret
    from keyturn.leaks.intake_store import Intake
    from keyturn.leaks.model import ReportedOutside
    from keyturn.leaks.partner import Feedback, PublicKey
    from keyturn.logins.ports import Fetcher
    from keyturn.storage.database import Database

FRESH_SECONDS: Final = 3600.0
AGAIN_SECONDS: Final = 60.0
KEYS_BYTES_MAX: Final = 64 * 1024
ADDRESSES_MAX: Final = 1024
"""Addresses whose keys are remembered."""
BODY_BYTES_MAX: Final = 1024 * 1024

_log = structlog.get_logger("keyturn.leaks")


class OutsideReports(Protocol):
    """Files what somebody outside has found; implemented by `service`."""

    async def reported_outside(
        self,
        workspace: str,
        *,
        origin: str,
        presented: Secret,
        place: Mapping[str, Any],
        source: str,
        ip: str | None = None,
    ) -> ReportedOutside:
        """File a value; nothing is kept of one that is nobody's in the workspace."""
        ...


@dataclass(slots=True)
class _Published:
    keys: tuple[PublicKey, ...]
    read_at: float


class Reporters:
    """Takes the reports of intakes; for one event loop."""

    def __init__(
        self,
        database: Database,
        reports: OutsideReports,
        fetcher: Fetcher,
        unauthenticated: UnauthenticatedSink,
        boottime: Callable[[], float],
    ) -> None:
        """Look intakes up in the database, ask for keys through `fetcher`, and count what is refused."""
        self._database = database
        self._reports = reports
        self._fetcher = fetcher
        self._unauthenticated = unauthenticated
        self._boottime = boottime
        self._published: dict[str, _Published] = {}
        self._failed: dict[str, float] = {}
        self._reading: dict[str, asyncio.Lock] = {}

    @property
    def addresses(self) -> int:
        """How many addresses of keys are remembered."""
        return len(self._reading.keys() | self._published.keys() | self._failed.keys())

    async def receive(
        self, workspace: str, name: str, body: bytes, *, identifier: str | None, signature: str | None, ip: str | None
    ) -> list[Feedback]:
        """Take one message, and answer of each token whether it was a key of the workspace.

        Raises:
            ForbiddenError: it is not proven; `code` says why, and is the same for an intake that there is not.
            InputError: it is proven, and malformed.
            UnavailableError: the keys cannot be read, so that nothing can be proven; the reporter tries again.

        """
        found = await self._database.read(lambda connection: store.find_open(connection, workspace, name))
        try:
            keys = () if found is None else await self._keys(found, identifier)
            partner.verify(body, identifier, signature, keys)
        except ForbiddenError:
            self._unauthenticated.count(ip, self._database.clock.now())
            raise
        if found is None:
            raise partner.not_proven()
        return [await self._file(found, reported, ip) for reported in partner.read_reports(body)]

    async def _file(self, intake: Intake, reported: partner.ReportedToken, ip: str | None) -> Feedback:
        filed = await self._reports.reported_outside(
            intake.workspace,
            origin=Origin.PARTNER,
            presented=reported.token,
            place={"url": reported.url},
            source=f"{intake.kind.value}/{intake.name}",
            ip=ip,
        )
        return partner.feedback_on(reported, ours=filed.matched)

    async def _keys(self, intake: Intake, identifier: str | None) -> Sequence[PublicKey]:
        pinned = [partner.PublicKey(key_identifier=one.key_identifier, key=one.key) for one in intake.config.keys]
        if not intake.config.keys_url or any(one.key_identifier == identifier for one in pinned):
            return pinned
        return [*pinned, *await self._published_at(intake.config.keys_url, identifier)]

    async def _published_at(self, url: str, identifier: str | None) -> tuple[PublicKey, ...]:
        held = self._published.get(url)
        fresh = held is not None and self._boottime() - held.read_at < FRESH_SECONDS
        if held is not None and fresh and any(one.key_identifier == identifier for one in held.keys):
            return held.keys
        # One for each address: a publisher that is slow holds up the reports of nobody else.
        if url not in self._reading and len(self._reading) >= ADDRESSES_MAX:
            self._forget()
        async with self._reading.setdefault(url, asyncio.Lock()):
            return await self._read(url, identifier)

    def _forget(self) -> None:
        """Forget an address that nobody reads from; they are of intakes that were changed since, for the most part."""
        for url in [one for one, lock in self._reading.items() if not lock.locked()][:1]:
            del self._reading[url]
            self._published.pop(url, None)
            self._failed.pop(url, None)

    async def _read(self, url: str, identifier: str | None) -> tuple[PublicKey, ...]:
        held = self._published.get(url)
        age = None if held is None else self._boottime() - held.read_at
        known = held is not None and any(one.key_identifier == identifier for one in held.keys)
        if held is not None and age is not None and age < (FRESH_SECONDS if known else AGAIN_SECONDS):
            return held.keys
        failed = self._failed.get(url)
        if failed is not None and self._boottime() - failed < AGAIN_SECONDS:
            return _usable(held, known=known)
        try:
            answer = await self._fetcher.get(url, ca_pem=None, bytes_max=KEYS_BYTES_MAX)
            if answer.status != 200:
                raise FetchError(f"answered {answer.status}")  # noqa: TRY301 -- handled as every other failure
            keys = partner.read_keys(answer.body)
        except (FetchError, InputError) as error:
            _log.warning("the keys of reporters cannot be read", url=url, reason=str(error)[:200])
            self._failed[url] = self._boottime()
            return _usable(held, known=known)
        self._published[url] = _Published(keys, self._boottime())
        self._failed.pop(url, None)
        return keys


def _usable(held: _Published | None, *, known: bool) -> tuple[PublicKey, ...]:
    """Return the keys that were read before: an outage of who publishes them must not lose its reports."""
    if held is not None and known:
        return held.keys
    raise UnavailableError(
        "the keys that reports are signed with cannot be read",
        code="reporter_keys_unavailable",
        hint="pin the keys in the intake, or let the server reach their address",
    )

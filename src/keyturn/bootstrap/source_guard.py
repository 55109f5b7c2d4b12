"""Credential sources over connections that the guard has checked: the internet, and the networks the operator lists.

    destination of the source -> resolve the name -> check every answer -> connect

Where TLS proves the server's name, the connector connects by that name: another address behind it fails the
handshake before anything is said.  Where it does not, the connection goes to the very address that was checked.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from keyturn.errors import InputError
from keyturn.leases.ports import ProviderError
from keyturn.webhooks.guard import GuardError, check_answers, is_address, refusal
from keyturn.webhooks.sender import Resolver, SystemResolver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from keyturn.leases.ports import Connector, Connectors, Session
    from keyturn.webhooks.guard import Network

SETTING: Final = "KEYTURN_SOURCE_ALLOW"


class GuardedConnectors:
    """Connectors that connect only where they may."""

    def __init__(
        self, connectors: Connectors, allowed: Sequence[Network] = (), *, resolver: Resolver | None = None
    ) -> None:
        """Let connectors reach the internet and `allowed` networks."""
        self._connectors = connectors
        self._allowed = tuple(allowed)
        self._resolver: Resolver = resolver or SystemResolver()

    def get(self, kind: str) -> Connector | None:
        """Return the connector of a kind, guarded; None when none is installed."""
        found = self._connectors.get(kind)
        return None if found is None else GuardedConnector(found, self._allowed, self._resolver)

    def kinds(self) -> tuple[str, ...]:
        """Name the kinds that are installed."""
        return self._connectors.kinds()


class GuardedConnector:
    """One connector that connects only where it may."""

    def __init__(self, connector: Connector, allowed: Sequence[Network], resolver: Resolver) -> None:
        """Guard a connector."""
        self._connector = connector
        self._allowed = allowed
        self._resolver = resolver
        self.renewable = connector.renewable
        self.revocable = connector.revocable
        self.seconds_min = connector.seconds_min
        self.secret_settings = connector.secret_settings
        self.borrows = connector.borrows
        self.read_role = connector.read_role
        self.destination = connector.destination

    def read_connection(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the settings, and an address in them; a name is judged by what it resolves to, when it is used."""
        connection = self._connector.read_connection(given)
        where = self._connector.destination(connection)
        if where is not None and is_address(where.host):
            try:
                check_answers([where.host], scheme=where.scheme, allowed=self._allowed, setting=SETTING)
            except GuardError:
                reason = refusal(where.host, self._allowed) or "http is for listed networks alone"
                message = f"connection.{where.field}: {where.host} may not be talked to: {reason}"
                raise InputError(message, field=f"connection.{where.field}", hint=_HINT) from None
        return connection

    @asynccontextmanager
    async def open(self, connection: Mapping[str, Any]) -> AsyncIterator[Session]:
        """Connect to an address that was checked just now; raises ProviderError."""
        checked = await self._checked(connection)
        async with self._connector.open(checked) as session:
            yield session

    async def _checked(self, connection: Mapping[str, Any]) -> Mapping[str, Any]:
        where = self._connector.destination(connection)
        if where is None:
            return connection
        try:
            answers = await self._resolver(where.host, where.port)
            addresses = check_answers(answers, scheme=where.scheme, allowed=self._allowed, setting=SETTING)
        except (OSError, UnicodeError):
            raise ProviderError("the name of the source could not be resolved") from None
        except GuardError as error:
            raise ProviderError(f"refused: {error}; {_HINT}") from None
        return connection if where.moved is None else where.moved(addresses[0])


_HINT: Final = f"list its network in {SETTING} if it is meant to be reached"

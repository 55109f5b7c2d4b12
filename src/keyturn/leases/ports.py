"""The port of a connector: how accounts of one kind of system are made, prolonged and dropped.

Connectors are entry points of the group `keyturn.credentials`; the name of the entry point is the kind of a source.
A connector that blocks runs in threads of its own, and never on the event loop.

Every failure is a ProviderError whose text holds no secret.  Every method of a session may be called again: an account
that exists is not created twice, and one that does not exist is dropped already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from keyturn.kernel.secret import Secret


class ProviderError(Exception):
    """The system refused, did not answer in time, or could not be reached; the text is public."""


class Deadline(Protocol):
    """When a creation is given up."""

    def check(self) -> None:
        """Raise ProviderError when it is too late to begin what cannot be undone."""
        ...


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be created."""

    name: str
    password: Secret
    expires_at: float
    ttl_seconds: int


class Session(Protocol):
    """A connection to the system, for a few operations in a row."""

    async def create(self, role: Mapping[str, Any], account: NewAccount, deadline: Deadline) -> dict[str, str]:
        """Create the account; return what its user needs beside the password, or in place of it.

        `deadline` is asked last before the step that makes the account, and no account may come into being much later.
        """
        ...

    async def extend(self, role: Mapping[str, Any], name: str, expires_at: float) -> None:
        """Let the account live until then, where the system itself ends accounts."""
        ...

    async def drop(self, role: Mapping[str, Any], name: str) -> None:
        """Drop the account and end its sessions; harmless when there is none."""
        ...

    async def exists(self, name: str) -> bool:
        """Tell whether there is such an account."""
        ...

    async def check(self) -> None:
        """Return if the system answers and lets accounts be made, as far as that can be told."""
        ...


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a connection leads, for the guard that decides whether it may."""

    host: str
    port: int
    scheme: str = "https"
    """`http` for what may go to networks of the operator's list alone."""
    field: str = "host"
    """The setting that names it."""
    moved: Callable[[str], dict[str, Any]] | None = None
    """The same connection to this address in place of the name; None where TLS proves the name, so that it stays."""


class Connector(Protocol):
    """One kind of system."""

    renewable: bool
    """Whether a lease can be prolonged."""
    revocable: bool
    """Whether an account can be taken back before its end; one that cannot ends by itself."""
    seconds_min: int
    """How short a lease may be."""
    secret_settings: frozenset[str]
    """Which settings of a connection are sealed."""

    def read_connection(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the settings of a connection; raises InputError naming the field, and never a value."""
        ...

    def borrows(self, connection: Mapping[str, Any]) -> bool:
        """Tell whether it acts with the rights of the server's machine, in place of credentials that were given.

        Only who runs the installation may have that: the machine may reach root keys, and what is not the workspace's.
        """
        ...

    def read_role(self, given: Mapping[str, Any], ttl_seconds: int, max_ttl_seconds: int) -> dict[str, Any]:
        """Check the configuration of a role; raises InputError naming the field."""
        ...

    def destination(self, connection: Mapping[str, Any]) -> Destination | None:
        """Say where a connection leads; None when it leads to what the kind itself names, and nobody else."""
        ...

    def open(self, connection: Mapping[str, Any]) -> AbstractAsyncContextManager[Session]:
        """Connect; `connection` is what `read_connection` returned, secrets included.  Raises ProviderError."""
        ...


class Connectors(Protocol):
    """Every connector that is installed, by kind."""

    def get(self, kind: str) -> Connector | None:
        """Return the connector of a kind; None when none is installed."""
        ...

    def kinds(self) -> tuple[str, ...]:
        """Name the kinds that are installed."""
        ...

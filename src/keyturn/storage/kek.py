"""Root keys (KEKs): the port of the providers, and the list of them that an installation uses.

    KEYTURN_KEK_PROVIDER=aws-kms,file      aws-kms wraps what is new; both unwrap

Root keys are a list: the first seals, all open.  A workspace key says under which one it is wrapped, so moving to
another root key, of the same provider or of another, is: add it, rewrap, retire the old one by census.

Providers are entry points of the group `keyturn.kek`.  One that holds keys in memory is a `HeldKeks`; one that asks
a service is a `RemoteKek`, which has short timeouts and never hangs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from keyturn.errors import KekError, KeyturnError, UnavailableError
from keyturn.kernel import envelope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keyturn.config import Settings


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A wrapped key, and the id of the root key that opens it."""

    kek_id: str
    wrapped: bytes


class KekProvider(ABC):
    """Holds or reaches root keys; the first of `ids` seals, all of them open."""

    remote: bool = False
    """Whether wrapping and unwrapping ask a service."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> KekProvider:
        """Find the root keys; make one only if `create` (there is no data yet).  Raises KekError."""

    @property
    @abstractmethod
    def ids(self) -> tuple[str, ...]:
        """The ids of the root keys that open, the one that seals first."""

    @property
    def id(self) -> str:
        """The id of the root key that seals."""
        return self.ids[0]

    @abstractmethod
    def wrap(self, key: bytes) -> Wrapped:
        """Wrap a 32-byte key under the root key that seals.

        Raises KekError when it is refused, UnavailableError when a service is out of reach.
        """

    @abstractmethod
    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """Unwrap what `wrap` made.

        Raises KekError when the root key is not given or is another one, UnavailableError when a service is out of
        reach.
        """

    def asks_a_service(self, kek_id: str) -> bool:  # noqa: ARG002 -- a list of providers answers for each root key
        """Tell whether unwrapping under a root key asks a service."""
        return self.remote

    def refresh(self) -> None:  # noqa: B027 -- most providers have nothing to read again
        """Read again what an operator may have changed; on failure what was known stays.  Raises KekError."""

    def add(self) -> str:
        """Make a root key that seals from now on and return its id; raises KekError where that is not done here."""
        message = f"root key {self.id} is not kept by Keyturn, so a new one is not made here"
        raise KekError(message, hint="make the key where yours are kept, and put it first in the settings")

    def take(self, kek_id: str, keep: Path | None) -> bool:  # noqa: ARG002 -- for providers that keep their keys
        """Remove a root key that is kept here, having written it to the file `keep`; False when it is kept elsewhere.

        Raises KekError when it is the one that seals, or a file cannot be written; nothing is removed then.
        """
        return False


class RootKeys(KekProvider):
    """Every root key of an installation, of one provider or of several."""

    def __init__(self, providers: Sequence[KekProvider]) -> None:
        """Use providers in this order; raises KekError when two of them have the same root key."""
        self._providers = tuple(providers)
        if len(set(self.ids)) != len(self.ids):
            raise KekError("two providers have the same root key", hint="name each provider once")

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> RootKeys:
        """Load every provider the settings name; only the first may make a root key."""
        names = [name for name in (part.strip() for part in settings.kek_provider.split(",")) if name]
        found = {point.name: point for point in entry_points(group="keyturn.kek")}
        for name in names or [""]:
            if name not in found:
                message = f"no KEK provider is named {name!r}; there are: {', '.join(sorted(found))}"
                raise KekError(message, hint="set KEYTURN_KEK_PROVIDER to one of them, or to several by comma")
        if len(set(names)) != len(names):
            raise KekError("KEYTURN_KEK_PROVIDER names a provider twice", hint="name each provider once")
        classes: list[type[KekProvider]] = [found[name].load() for name in names]
        return cls([one.from_settings(settings, create=create and place == 0) for place, one in enumerate(classes)])

    @property
    def ids(self) -> tuple[str, ...]:
        """Those of the first provider, then those of the others."""
        return tuple(kek_id for provider in self._providers for kek_id in provider.ids)

    def wrap(self, key: bytes) -> Wrapped:
        """Wrap under the first provider's newest root key."""
        return self._providers[0].wrap(key)

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """Unwrap by whichever provider has the root key; an unknown one is looked for again first."""
        return self._holder(kek_id).unwrap(kek_id, wrapped)

    def refresh(self) -> None:
        """Refresh every provider."""
        for provider in self._providers:
            provider.refresh()

    def add(self) -> str:
        """Make a root key of the first provider."""
        return self._providers[0].add()

    def take(self, kek_id: str, keep: Path | None) -> bool:
        """Remove a root key of whichever provider has it."""
        provider = self._find(kek_id)
        return provider is not None and provider.take(kek_id, keep)

    def asks_a_service(self, kek_id: str) -> bool:
        """Ask the provider that has the root key."""
        return self._holder(kek_id).remote

    def prove(self) -> None:
        """Wrap and unwrap a key of no use, to know that the root key which seals also opens.

        Raises KekError, also for a service that is out of reach.
        """
        probe = envelope.new_key()
        try:
            made = self.wrap(probe)
            opened = self.unwrap(made.kek_id, made.wrapped)
        except UnavailableError as error:
            raise KekError(error.message, hint=error.hint, internal=error.internal) from error
        if opened != probe:
            message = f"root key {made.kek_id} does not open what it has wrapped"
            raise KekError(message, hint="look at the provider of it")

    def _holder(self, kek_id: str) -> KekProvider:
        provider = self._find(kek_id)
        if provider is None:
            self._look_again()
            provider = self._find(kek_id)
        if provider is None:
            message = f"the data is sealed under root key {kek_id}, but {' and '.join(self.ids)} was given"
            raise KekError(message, hint=f"provide root key {kek_id}")
        return provider

    def _find(self, kek_id: str) -> KekProvider | None:
        return next((provider for provider in self._providers if kek_id in provider.ids), None)

    def _look_again(self) -> None:
        for provider in self._providers:
            try:
                provider.refresh()
            except KeyturnError:
                continue  # what it knew stays; the caller names what is missing


def load_provider(settings: Settings, *, create: bool, wanted: Sequence[str] = ()) -> RootKeys:
    """Load the root keys the settings name.

    `wanted` are the ids that the data is sealed under (see `keyring.wanted_keks`); an error names them, and nothing
    is created when there are any.  Raises KekError when there is no provider of that name, or it finds no root key.
    """
    try:
        return RootKeys.from_settings(settings, create=create and not wanted)
    except KekError as error:
        if not wanted:
            raise
        message = f"{error}; the data is sealed under root key {' and '.join(wanted)}"
        raise KekError(message, hint=error.hint, internal=error.internal) from error

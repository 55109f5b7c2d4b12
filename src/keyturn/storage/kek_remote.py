"""What every provider that asks a service has in common: ids, timeouts, and one answer for a service that is down.

A service is asked when a workspace key is made, rewrapped, or opened for the first time in a process.  It gets a few
seconds to answer.  After a failure nobody is asked for a moment, so that many who wait at once wait once.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from keyturn.errors import KekError, UnavailableError
from keyturn.kernel.clock import boottime
from keyturn.storage.kek import KekProvider, Wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 4.0
PAUSE_SECONDS: Final = 3.0

PURPOSE: Final = "keyturn workspace key"
"""Bound to everything that is wrapped: a grant on the same key for another purpose does not unwrap it."""


class OutOfReachError(UnavailableError):
    """The service that keeps a root key does not answer; what was opened before goes on."""

    code = "root_key_unavailable"


class RemoteKek(KekProvider):
    """Root keys that a service keeps and never gives out."""

    remote = True
    provider: ClassVar[str]
    """The provider's name, which begins its ids."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Use keys by the names the service knows them by; the first one seals."""
        if not keys:
            raise KekError(f"KEYTURN_KEK_PROVIDER={self.provider} names no key", hint="see docs/operations/root-key.md")
        self._keys = {f"{self.provider}:{key}": key for key in keys}
        self._lock = threading.Lock()
        self._quiet_until = 0.0
        self._reason = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """The provider's name and the key's, in the order of the settings."""
        return tuple(self._keys)

    def wrap(self, key: bytes) -> Wrapped:
        """Have a key wrapped, and prove that it can be unwrapped before anybody relies on it."""
        kek_id, name = next(iter(self._keys.items()))
        wrapped = self._asked(kek_id, lambda: self._wrap(name, key))
        if self.unwrap(kek_id, wrapped) != key:
            message = f"root key {kek_id} does not open what it has wrapped"
            raise KekError(message, hint="look at the service that keeps it")
        return Wrapped(kek_id, wrapped)

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """Have a key unwrapped."""
        name = self._keys.get(kek_id)
        if name is None:
            message = f"root key {kek_id} is wanted, but {' and '.join(self.ids)} was given"
            raise KekError(message, hint=f"provide root key {kek_id}")
        return self._asked(kek_id, lambda: self._unwrap(name, wrapped))

    @abstractmethod
    def _wrap(self, name: str, key: bytes) -> bytes:
        """Ask the service; raises KekError (`refused`) or OutOfReachError (`out_of_reach`)."""

    @abstractmethod
    def _unwrap(self, name: str, wrapped: bytes) -> bytes:
        """Ask the service; raises as `_wrap` does."""

    def _asked(self, kek_id: str, ask: Callable[[], T]) -> T:
        with self._lock:
            if boottime() < self._quiet_until:
                raise out_of_reach(kek_id, self._reason)
        try:
            return ask()
        except OutOfReachError as error:
            with self._lock:
                self._quiet_until = boottime() + PAUSE_SECONDS
                self._reason = error.internal or ""
            raise out_of_reach(kek_id, self._reason) from error


def out_of_reach(kek_id: str, reason: str) -> OutOfReachError:
    """Say that the service of a root key does not answer."""
    message = f"the service that keeps root key {kek_id} does not answer"
    return OutOfReachError(message, hint="check that it runs and can be reached from this server", internal=reason)


def refused(kek_id: str, reason: str) -> KekError:
    """Say that the service answers and does not let the root key be used; `reason` is its own word for it."""
    message = f"the service that keeps root key {kek_id} refuses: {reason[:200]}"
    return KekError(message, hint="check the key's state and this server's rights to it")


def missing_package(provider: str, extra: str) -> KekError:
    """Say which extra a provider needs."""
    message = f"KEYTURN_KEK_PROVIDER={provider} needs packages that are not installed"
    return KekError(message, hint=f"pip install 'keyturn[{extra}]'")

"""Failed logins, bounded: a network that fails too often has to wait.  A login that succeeds is not counted.

one network, one role      30 failures at once, then one a second
one network                100 failures at once, then two a second
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.audit.unauthenticated import source_network
from keyturn.errors import ThrottledError
from keyturn.kernel.token_bucket import TokenBuckets

if TYPE_CHECKING:
    from collections.abc import Callable

ROLE_BURST: Final = 30.0
ROLE_PER_SECOND: Final = 1.0
NETWORK_BURST: Final = 100.0
NETWORK_PER_SECOND: Final = 2.0


class Throttle:
    """Counts failures per network and role."""

    def __init__(self, boottime: Callable[[], float]) -> None:
        """Begin without any failure."""
        self._roles = TokenBuckets[tuple[str, ...]](ROLE_PER_SECOND, ROLE_BURST, boottime)
        self._networks = TokenBuckets[str](NETWORK_PER_SECOND, NETWORK_BURST, boottime)

    def check(self, ip: str | None, *role: str) -> None:
        """Raise ThrottledError when too many logins of this network have failed."""
        network = source_network(ip)
        wait = max(self._roles.wait_seconds((network, *role)), self._networks.wait_seconds(network))
        if wait:
            raise ThrottledError(
                "too many logins from this network have failed",
                retry_after_seconds=wait,
                hint="mend what fails, and try again later",
            )

    def failed(self, ip: str | None, *role: str) -> None:
        """Count one failure."""
        network = source_network(ip)
        self._roles.owe((network, *role))
        self._networks.owe(network)

"""Which workspace each token is of, remembered: an edge may have to know it before it can say what is asked for.

The workspace of a token never changes; its name and its default environment are forgotten when the change log says that
a workspace changed, so that a change holds from the moment at which it is said to be effective.  Nothing is allowed by
what is remembered: the operation proves the token itself.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from keyturn.kernel.secret import random_bytes
from keyturn.storage.transaction import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.model import Workspace
    from keyturn.access.service import AccessService
    from keyturn.storage.change_log import Change

KNOWN_MAX: Final = 10_000


class KnownWorkspaces:
    """Remembers the workspaces of tokens that were proven; belongs to one event loop and follows the change log."""

    def __init__(self) -> None:
        """Know none."""
        self._key = random_bytes(32)
        self._found: dict[bytes, Workspace] = {}
        self._forgotten = 0

    async def of(self, credentials: Credentials, access: AccessService) -> Workspace:
        """Return the caller's workspace; raises UnauthenticatedError for a token that is not valid."""
        mark = hashlib.blake2b(credentials.token.reveal_bytes(), key=self._key, digest_size=32).digest()
        known = self._found.get(mark)
        if known is not None:
            return known
        before = self._forgotten
        found = await access.own_workspace(credentials)
        # What changed while it was being read may be newer than what was read.
        if before == self._forgotten:
            if len(self._found) >= KNOWN_MAX:
                self._found.clear()
            self._found[mark] = found
        return found

    def load(self, _connection: Connection) -> Callable[[], None]:
        """Forget everything."""
        return self._forget

    def refresh(self, _connection: Connection, changes: Sequence[Change]) -> Callable[[], None]:
        """Forget everything when a workspace changed."""
        return self._forget if any(one.kind == ChangeKind.WORKSPACE for one in changes) else _nothing

    def _forget(self) -> None:
        self._forgotten += 1
        self._found.clear()


def _nothing() -> None:
    return

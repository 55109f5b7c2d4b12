"""News of workspace keys: one that was destroyed anywhere is dropped from this process's memory too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from keyturn.storage.keyring import DESTROYED
from keyturn.storage.schema import workspace_key
from keyturn.storage.transaction import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from keyturn.storage.change_log import Change
    from keyturn.storage.keyring import Keyring


class KeyringNews:
    """A consumer of the change log (see `keyturn.storage.follower`)."""

    def __init__(self, keyring: Keyring) -> None:
        """Tell who holds unwrapped workspace keys."""
        self._keyring = keyring

    def load(self, connection: Connection) -> Callable[[], None]:
        """Look for every destroyed key; what is open stays in memory, so that no service has to be asked."""
        rows = connection.execute(select(workspace_key.c.id).where(workspace_key.c.state == DESTROYED)).all()
        return lambda: self._keyring.forget(row.id for row in rows)

    def refresh(self, connection: Connection, changes: Sequence[Change]) -> Callable[[], None]:
        """Look at the keys that changed."""
        changed = {change.entity for change in changes if change.kind == ChangeKind.WORKSPACE_KEY}
        if not changed:
            return _nothing
        rows = connection.execute(
            select(workspace_key.c.id).where(workspace_key.c.id.in_(changed), workspace_key.c.state == DESTROYED)
        ).all()
        return lambda: self._keyring.forget(row.id for row in rows)


def _nothing() -> None:
    return None

"""News of balances that a person changed: the keeper asks again instead of refusing for another second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.storage.transaction import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from keyturn.quotas.service import Blocks
    from keyturn.storage.change_log import Change


class QuotaNews:
    """A consumer of the change log (see `keyturn.storage.follower`)."""

    def __init__(self, blocks: Blocks) -> None:
        """Tell who holds blocks."""
        self._blocks = blocks

    def load(self, connection: Connection) -> Callable[[], None]:  # noqa: ARG002 -- nothing is kept of it
        """Read nothing; everything is asked for again, since the log may be another one."""
        return self._blocks.renew

    def refresh(self, connection: Connection, changes: Sequence[Change]) -> Callable[[], None]:  # noqa: ARG002 -- as above
        """Pass on which accounts were changed."""
        accounts = {change.entity for change in changes if change.kind == ChangeKind.QUOTA}

        def apply() -> None:
            if accounts:
                self._blocks.refresh(accounts)

        return apply

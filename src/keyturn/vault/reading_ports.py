"""What reads need of others, as they need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.access.door import Operation
    from keyturn.storage.change_log import Change
    from keyturn.vault.guards import Guard
    from keyturn.vault.paths import Path
    from keyturn.wire.actions import Action


class GuardedPaths(Protocol):
    """Knows which paths need the approval of a second person; implemented by `approvals`."""

    def guards_of(self, connection: Connection, workspace: str) -> tuple[Guard, ...]:
        """Return the guards in force; good until the next change of kind `guard`."""
        ...

    def require(
        self, op: Operation, action: Action, path: Path, *, guards: Sequence[Guard] | None = None
    ) -> str | None:
        """Return if nothing holds the action back, else raise a refusal for the record."""
        ...


class ChangeNews(Protocol):
    """What the follower has applied of the change log lately; implemented by `keyturn.keys.news`."""

    log_id: str
    applied: int

    def since(self, after: int) -> Sequence[Change] | None:
        """Return the changes above `after` up to `applied`; None when memory does not reach back so far."""
        ...

    async def wait(self, seconds: float) -> None:
        """Wait for a step of the follower, or for at most so long."""
        ...

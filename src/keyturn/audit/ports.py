"""What the reader needs of the door: `keyturn.access.door` fits, and lies above this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from keyturn.audit.leaf import Detail
    from keyturn.storage.transaction import ChangeKind, Committed
    from keyturn.wire.actions import Action

T = TypeVar("T")


class Operation(Protocol):
    """One authenticated operation in progress."""

    connection: Connection
    now: float

    @property
    def workspace(self) -> str:
        """The caller's workspace."""
        ...

    def authorise(self, action: Action, resource: Any, *, kind: str = "", name: str = "") -> None:  # noqa: ANN401 -- its type lies above
        """Return if the caller may do this, else raise."""
        ...

    def record(
        self,
        action: Action,
        resource: str,
        *,
        kind: ChangeKind,
        entity: str,
        detail: dict[str, Detail] | None = None,
    ) -> None:
        """Leave a leaf and a change row."""
        ...

    def unchanged(self) -> None:
        """State that this unit changes nothing."""
        ...


class Door(Protocol):
    """Lets authenticated callers in."""

    async def write(self, credentials: Any, work: Callable[[Operation], T]) -> Committed[T]:  # noqa: ANN401 -- as above
        """Run a unit of work and return once it is durable."""
        ...

    async def read(self, credentials: Any, work: Callable[[Operation], T]) -> T:  # noqa: ANN401 -- as above
        """Run a closure in a read-only transaction."""
        ...

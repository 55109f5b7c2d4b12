"""What keys needs of usage and of the follower, and what verification needs of the stored keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from keyturn.verify.model import Request, VersionPolicy
    from keyturn.wire.policy import KeyRecord, KeyspaceRecord, OwnerRecord, PlanRecord
    from keyturn.wire.usage import VersionUse


class LastUsedReader(Protocol):
    """Reads who uses which secret version; implemented by usage."""

    def last_used(self, connection: Connection, version_ids: Sequence[str]) -> Mapping[str, VersionUse]:
        """Return what is known of each of these versions that was ever used."""
        ...


class UsageSink(Protocol):
    """Counts verifications; implemented by usage.  Must neither block nor raise."""

    def count(self, version: VersionPolicy, outcome: str, request: Request, at: float) -> None:
        """Count one verification of a key whose secret was proven, admitted or not."""
        ...


class CaughtUp(Protocol):
    """Waits until this node has seen every commit; implemented by the follower."""

    async def caught_up(self, timeout_seconds: float) -> bool:
        """Return True once everything committed before the call is applied, False when that took too long."""
        ...


RecordPair = tuple["KeyRecord", "KeyspaceRecord"]


class Records(Protocol):
    """Reads what replicas are loaded from; implemented over `records`."""

    def everything(self, connection: Connection) -> tuple[Iterable[KeyspaceRecord], Iterable[KeyRecord]]:
        """Read every keyspace and key; the keys may be read piece by piece while they are taken."""
        ...

    def keyspace(self, connection: Connection, keyspace_id: str) -> KeyspaceRecord | None:
        """Read one keyspace with its peppers."""
        ...

    def key(self, connection: Connection, key_id: str) -> KeyRecord | None:
        """Read one key with its versions."""
        ...

    def shared(self, connection: Connection) -> tuple[Iterable[PlanRecord], Iterable[OwnerRecord]]:
        """Read every plan, and every owner that has a record."""
        ...

    def plan(self, connection: Connection, plan_id: str) -> PlanRecord | None:
        """Read one plan."""
        ...

    def owner(self, connection: Connection, owner_id: str) -> OwnerRecord | None:
        """Read the record of one owner, by its id."""
        ...

    def terms(
        self, connection: Connection, key: KeyRecord, keyspace: KeyspaceRecord
    ) -> tuple[Iterable[PlanRecord], OwnerRecord | None]:
        """Read the plans that a key may be on, and the record of its owner."""
        ...

    def of_version(self, connection: Connection, version_id: str) -> RecordPair | None:
        """Read the key that a secret version belongs to."""
        ...

    def foreign(
        self, connection: Connection, workspace: str, presented: str, keyspace: str | None
    ) -> Sequence[RecordPair]:
        """Read the imported keys of a workspace that a presented key of foreign shape may be."""
        ...

"""Replication: what keeps the replica, the proven callers and freshness in step with the change log.

    follower --load | refresh--> records --one step on the event loop--> Replica, proven callers
    follower --position--------> Freshness <--confirm-- confirming thread

Records are read on a database thread or connection; what was read is applied on the event loop without giving up
control, so that no verification sees half a change.  Freshness is touched on the event loop only.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from keyturn.keys import plan_records, records
from keyturn.storage.transaction import ChangeKind
from keyturn.verify.freshness import Freshness, Sent
from keyturn.verify.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

    from keyturn.kernel.clock import Clock
    from keyturn.keys.callers import ProvenCallers
    from keyturn.keys.ports import RecordPair, Records
    from keyturn.storage.change_log import Change
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.nodes import Confirmation
    from keyturn.wire.policy import KeyRecord, KeyspaceRecord, OwnerRecord, PlanRecord

_RIGHTS = frozenset(
    {ChangeKind.WORKSPACE, ChangeKind.PRINCIPAL, ChangeKind.ROLE, ChangeKind.GRANT, ChangeKind.KEYSPACE}
)
"""Changes after which nobody's rights are taken from memory."""


class StoredRecords:
    """`Records` over the database, opening peppers with a keyring."""

    def __init__(self, keyring: Keyring) -> None:
        """Open peppers with `keyring`."""
        self._keyring = keyring

    def everything(self, connection: Connection) -> tuple[Iterable[KeyspaceRecord], Iterable[KeyRecord]]:
        """See Records."""
        return records.load_all(connection, self._keyring)

    def keyspace(self, connection: Connection, keyspace_id: str) -> KeyspaceRecord | None:
        """See Records."""
        return records.load_keyspace_record(connection, self._keyring, keyspace_id)

    def key(self, connection: Connection, key_id: str) -> KeyRecord | None:
        """See Records."""
        return records.load_record(connection, key_id)

    def shared(self, connection: Connection) -> tuple[Iterable[PlanRecord], Iterable[OwnerRecord]]:
        """See Records."""
        return plan_records.load_plans(connection), records.load_owners(connection)

    def plan(self, connection: Connection, plan_id: str) -> PlanRecord | None:
        """See Records."""
        return plan_records.load_plan(connection, plan_id)

    def owner(self, connection: Connection, owner_id: str) -> OwnerRecord | None:
        """See Records."""
        return plan_records.load_owner(connection, owner_id)

    def terms(
        self, connection: Connection, key: KeyRecord, keyspace: KeyspaceRecord
    ) -> tuple[Iterable[PlanRecord], OwnerRecord | None]:
        """See Records."""
        return records.load_terms(connection, key, keyspace)

    def of_version(self, connection: Connection, version_id: str) -> RecordPair | None:
        """See Records."""
        return records.find_version(connection, self._keyring, version_id)

    def foreign(
        self, connection: Connection, workspace: str, presented: str, keyspace: str | None
    ) -> Sequence[RecordPair]:
        """See Records."""
        return records.foreign_candidates(connection, self._keyring, workspace, presented, keyspace)


class Replication:
    """A `Consumer` and a `Position` of the follower, and what the confirming thread reports to.

    Create it on the event loop that serves.
    """

    def __init__(self, source: Records, callers: ProvenCallers, clock: Clock, *, learns_time: bool) -> None:
        """Read from `source`; `learns_time` is for a database that has a clock of its own."""
        self.replica = Replica()
        self.freshness = Freshness()
        self.foreign_workspaces: frozenset[str] = frozenset()
        """Workspaces with a keyspace that accepts imported keys."""
        self.time_jumps = 0
        self.resync: Callable[[], None] = self.freshness.start_resync
        """Reloads everything: the follower's `resync`, once there is one."""
        self.source = source
        self.callers = callers
        self._clock = clock
        self._learns_time = learns_time
        self._loop = asyncio.get_running_loop()

    # --- Consumer -------------------------------------------------------------------------------------------------

    def load(self, connection: Connection) -> Callable[[], None]:
        """Read everything into a replica beside the live one; the closure swaps."""
        keyspaces, keys = self.source.everything(connection)
        staged = self.replica.staging()
        for keyspace in keyspaces:
            staged.load_keyspace(keyspace)
        plans, owners = self.source.shared(connection)
        for plan in plans:
            staged.load_plan(plan)
        for owner in owners:
            staged.apply_owner(owner, owner.id)
        for key in keys:
            staged.apply_key(key, key.id)

        def apply() -> None:
            self.replica.adopt(staged)
            self.callers.drop_all()
            self._keyspaces_changed()

        return apply

    def refresh(self, connection: Connection, changes: Sequence[Change]) -> Callable[[], None]:
        """Read the current state of the keyspaces, plans, owners and keys that changed."""
        source = self.source
        keyspaces = {entity: source.keyspace(connection, entity) for entity in _of(changes, ChangeKind.KEYSPACE)}
        plans = {entity: source.plan(connection, entity) for entity in _of(changes, ChangeKind.PLAN)}
        owners = {entity: source.owner(connection, entity) for entity in _of(changes, ChangeKind.OWNER)}
        keys = {entity: source.key(connection, entity) for entity in _of(changes, ChangeKind.KEY)}
        rights = any(change.kind in _RIGHTS for change in changes)

        def apply() -> None:
            for keyspace_id, keyspace in keyspaces.items():
                if keyspace is None:
                    self.replica.remove_keyspace(keyspace_id)
                else:
                    self.replica.load_keyspace(keyspace)
            for plan_id, plan in plans.items():
                if plan is None:
                    self.replica.remove_plan(plan_id)
                else:
                    self.replica.load_plan(plan)
            for owner_id, owner in owners.items():
                self.replica.apply_owner(owner, owner_id)
            for key_id, key in keys.items():
                self.replica.apply_key(key, key_id)
            if rights:
                self.callers.drop_all()
            else:
                self.callers.drop_tokens(keys)
            if keyspaces:
                self._keyspaces_changed()

        return apply

    def _keyspaces_changed(self) -> None:
        self.foreign_workspaces = frozenset(
            keyspace.workspace for keyspace in self.replica.keyspaces() if keyspace.accepts_foreign
        )

    # --- Position -------------------------------------------------------------------------------------------------

    def reloaded(self, log_id: str, seq: int) -> None:
        """See Position."""
        self.freshness.loaded(log_id, seq)

    def advanced(self, seq: int, awaited: int) -> None:  # noqa: ARG002 -- the registry's concern
        """See Position."""
        self.freshness.advanced(seq)

    def lost(self) -> None:
        """See Position."""
        self.freshness.start_resync()
        self.callers.drop_all()

    # --- Confirmed ------------------------------------------------------------------------------------------------

    def confirmed(self, sent: float, received: float, confirmation: Confirmation) -> None:
        """Learn the time and extend freshness; called in the confirming thread."""
        if self._learns_time and self._clock.learn(confirmation.database_time, sent, received) > self._clock.max_jump:
            self.time_jumps += 1
        try:
            self._loop.call_soon_threadsafe(self._extend, sent, confirmation)
        except RuntimeError:  # the loop is closed: the process is stopping
            return

    def _extend(self, sent: float, confirmation: Confirmation) -> None:
        freshness = self.freshness
        if not freshness.resync_needed and confirmation.log_id != freshness.log_id:
            # Another log, or the late answer of an earlier one: either way it is found out by reloading, and what
            # is loaded is not served meanwhile.
            self.resync()
            return
        written = Sent(sent, confirmation.wrote_log_id, confirmation.wrote_applied)
        # Each keyspace's `stale_after` is the bound; this server adds none of its own.
        freshness.confirmed(written, confirmation.log_id, confirmation.head, inf)
        if freshness.resync_needed:
            self.resync()


def _of(changes: Sequence[Change], kind: ChangeKind) -> dict[str, None]:
    return dict.fromkeys(change.entity for change in changes if change.kind == kind)

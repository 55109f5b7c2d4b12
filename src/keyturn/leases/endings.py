"""How leases end: the account is dropped at its source, and what came of it is written down.

    prepare   in a unit of work: the leases that were claimed, with what it takes to reach their source
    end       outside of any: drop each account; every failure is an outcome
    settle    in a unit of work: states, and one leaf for all that ended alike

All of it may happen twice, at two nodes at once even: an account's name is never used again, and one that is gone is
dropped.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from keyturn.audit.leaf import SYSTEM, Leaf
from keyturn.errors import KeyturnError
from keyturn.kernel.secret import random_bytes
from keyturn.leases import lease_store, store
from keyturn.leases.asking import SILENT, broken
from keyturn.leases.model import Lease, Role, Source, lease_resource
from keyturn.leases.ports import ProviderError
from keyturn.leases.rules import Step, Timing, after_drop, after_failure, public_error
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.wire.actions import Action
from keyturn.wire.leases import LeaseState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from keyturn.audit.leaf import Detail, Outcome
    from keyturn.leases.ports import Connectors, Session
    from keyturn.storage.database import Database
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.transaction import Transaction

BATCH_SECONDS: Final = 25.0
DROP_SECONDS: Final = 15.0
_log = structlog.get_logger("keyturn")
_TELLING: Final = frozenset({LeaseState.REVOKED, LeaseState.FAILED, LeaseState.IRREVOCABLE})


@dataclass(frozen=True, slots=True)
class Work:
    """Claimed leases of one source, and how it is reached; its repr shows no connection."""

    source: Source
    connection: dict[str, Any] = field(repr=False)
    roles: dict[str, Role]
    leases: tuple[Lease, ...]


@dataclass(slots=True)
class Ended:
    """What came of a batch."""

    steps: list[tuple[Lease, Step]]
    left: list[Lease]
    """What was not tried."""

    @property
    def failures(self) -> int:
        """How many accounts could not be dropped."""
        return sum(step.error is not None for _, step in self.steps)


class Endings:
    """Drops accounts; shared by the dispatcher and by whoever asks for a revocation."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        connectors: Connectors,
        timing: Timing,
        *,
        chance: Callable[[], float] | None = None,
    ) -> None:
        """`chance` replaces the random part of the pauses."""
        self._database = database
        self._keyring = keyring
        self._connectors = connectors
        self._chance = chance or _random
        self.timing = timing

    def prepare(self, connection: Connection, leases: Sequence[Lease]) -> Work | None:
        """Add to claimed leases of one source what ending them takes; None when there are none."""
        if not leases:
            return None
        source = store.load_source_by_id(connection, leases[0].source)
        if source is None:
            return None
        try:
            opened = store.open_connection(connection, self._keyring, source)
        except KeyturnError as error:
            _log.error("a credential source cannot be opened", source=source.id, reason=error.message)
            opened = {}  # the connector refuses this, and the attempt counts as failed
        roles = store.load_roles_by_id(connection, sorted({one.role for one in leases}))
        return Work(source, opened, roles, tuple(leases))

    async def end(self, work: Work) -> Ended:
        """Drop the accounts, one after the other over one connection; never raises for a failure of the source."""
        ended = Ended([], list(work.leases))
        connector = self._connectors.get(work.source.kind)
        if connector is None:
            self._fail_rest(ended, f"no connector for {work.source.kind} is installed")
            return ended
        if not connector.revocable:
            while ended.left:
                self._dropped(ended)
            return ended
        try:
            async with asyncio.timeout(BATCH_SECONDS), connector.open(work.connection) as session:
                await self._drop_each(work, session, ended)
        except ProviderError as error:
            self._fail_rest(ended, str(error))
        except TimeoutError:
            if not ended.steps:
                self._fail_rest(ended, SILENT)
        except Exception as error:  # noqa: BLE001 -- somebody else's connector: its bug must not end the loop
            self._fail_rest(ended, broken(error))
        return ended

    def settle(self, transaction: Transaction, ended: Ended) -> None:
        """Write down what came of a batch, with a leaf for what ended."""
        settled = lease_store.settle(transaction.connection, ended.steps, transaction.now)
        lease_store.release(transaction.connection, ended.left)
        for leaf, entity in _leaves(settled, transaction.now):
            transaction.append(Entry(leaf.workspace, ChangeKind.LEASE, entity, leaf.row()))

    async def finish(self, work: Work) -> Ended:
        """End a batch and write it down."""
        ended = await self.end(work)
        await self._database.write(lambda transaction: self.settle(transaction, ended))
        return ended

    async def _drop_each(self, work: Work, session: Session, ended: Ended) -> None:
        while ended.left:
            one = ended.left[0]
            role = work.roles.get(one.role)
            try:
                async with asyncio.timeout(DROP_SECONDS):
                    await session.drop({} if role is None else role.config, one.account)
            except ProviderError as error:
                self._failed(ended, str(error))
            except TimeoutError:
                # Nobody knows in what state the connection is: the rest waits for another one.
                self._failed(ended, SILENT)
                return
            else:
                self._dropped(ended)

    def _dropped(self, ended: Ended) -> None:
        one = ended.left.pop(0)
        ended.steps.append((one, after_drop(one.state, self._database.clock.now(), self.timing)))

    def _failed(self, ended: Ended, error: str) -> None:
        one = ended.left.pop(0)
        step = after_failure(
            one.state,
            one.attempts + 1,
            public_error(error),
            self._database.clock.now(),
            chance=self._chance(),
            timing=self.timing,
        )
        ended.steps.append((one, step))

    def _fail_rest(self, ended: Ended, error: str) -> None:
        while ended.left:
            self._failed(ended, error)


def _leaves(steps: Sequence[tuple[Lease, Step]], now: float) -> list[tuple[Leaf, str]]:
    """Return a leaf, and the entity it is about, for each group of leases of a role that ended alike."""
    groups: dict[tuple[str, str, LeaseState, str], list[tuple[Lease, Step]]] = {}
    for one, step in steps:
        if step.state in _TELLING:
            role = one.path.rpartition("/")[0]
            key = (one.workspace, role, step.state, one.revoke_reason or "")
            groups.setdefault(key, []).append((one, step))
    leaves = []
    for (workspace, role, state, reason), members in groups.items():
        first, step = members[0]
        detail: dict[str, Detail] = {
            "state": state.value,
            "reason": reason,
            "leases": [one.id for one, _ in members],
            "accounts": [one.account for one, _ in members],
        }
        if step.error is not None:
            detail["error"] = step.error
        outcome: Outcome = "failed" if state is LeaseState.IRREVOCABLE else "allowed"
        resource = first.resource if len(members) == 1 else lease_resource(f"{role}/*")
        leaf = Leaf(workspace, Action.SYSTEM_LEASE, outcome, SYSTEM, resource, now, detail)
        leaves.append((leaf, first.id if len(members) == 1 else ""))
    return leaves


def _random() -> float:
    return int.from_bytes(random_bytes(4)) / 2**32

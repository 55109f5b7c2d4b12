"""Usage that verifiers in other processes have counted: each batch once, and only of keys the caller may report.

batch id seen before?  -> repeated
version -> key, keyspace of the caller's workspace, `keyspace.replicate` or `key.verify` on it, else refused
-> rollups, dimensions and last use, with the id of the batch, in one transaction
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, select

from keyturn.access.caller import Resource
from keyturn.storage.schema import issued_key, key_version, keyspace, usage_batch
from keyturn.usage import places, rules, store
from keyturn.usage.store import CallerRow
from keyturn.wire.actions import Action
from keyturn.wire.replication import UsageAccepted

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.usage.store import CountedRow
    from keyturn.wire.replication import UsageBatch, UsageItem

REMEMBERED_SECONDS: Final = 30 * 86_400
"""How long a batch is known to have been counted."""

AHEAD_SECONDS: Final = 300
"""How far a verifier's time may be ahead."""

ASKED_MAX: Final = 500


class UsageBatches:
    """Takes in what verifiers report."""

    def __init__(self, door: Door) -> None:
        """Let callers in through `door`."""
        self._door = door

    async def accept(self, credentials: Credentials, batch: UsageBatch) -> UsageAccepted:
        """Count a batch, unless it was counted before."""

        def work(op: Operation) -> UsageAccepted:
            # What is counted is no change of state, and has no leaf: neither has a verification.
            op.unchanged()
            mark = f"{op.workspace}/{batch.batch_id}"
            connection = op.connection
            if connection.execute(select(usage_batch.c.id).where(usage_batch.c.id == mark)).first() is not None:
                return UsageAccepted(0, 0, repeated=True)
            known = _reportable(op, {item.version_id for item in batch.items})
            taken = [item for item in batch.items if item.version_id in known and _plausible(item, op.now)]
            counted = sum(item.count for item in taken)
            refused = sum(item.count for item in batch.items) - counted
            if not taken:
                # Nothing to count twice: whoever may report nothing leaves no row.
                return UsageAccepted(0, refused, repeated=False)
            _add(connection, taken, known)
            connection.execute(
                insert(usage_batch).values(
                    id=mark,
                    workspace=op.workspace,
                    principal=op.caller.principal,
                    at=op.now,
                    counted=counted,
                    lost=batch.lost,
                )
            )
            connection.execute(delete(usage_batch).where(usage_batch.c.at < op.now - REMEMBERED_SECONDS))
            return UsageAccepted(counted, refused, repeated=False)

        return (await self._door.write(credentials, work)).value


def _plausible(item: UsageItem, now: float) -> bool:
    """Tell whether an item is neither of the future nor so old that it may have been counted and forgotten."""
    return now - REMEMBERED_SECONDS < item.minute <= now + AHEAD_SECONDS


def _reportable(op: Operation, version_ids: set[str]) -> dict[str, Any]:
    """Return key and keyspace of each version that the caller may report on."""
    found: dict[str, Any] = {}
    wanted = sorted(version_ids)
    for first in range(0, len(wanted), ASKED_MAX):
        rows = op.connection.execute(
            select(
                key_version.c.id.label("version"),
                issued_key.c.id.label("key"),
                issued_key.c.owner,
                issued_key.c.workspace,
                issued_key.c.environment,
                keyspace.c.id.label("keyspace"),
                keyspace.c.name,
                keyspace.c.environment.label("keyspace_environment"),
            )
            .join_from(key_version, issued_key, key_version.c.key == issued_key.c.id)
            .join(keyspace, keyspace.c.id == issued_key.c.keyspace)
            .where(
                key_version.c.id.in_(wanted[first : first + ASKED_MAX]),
                issued_key.c.workspace == op.workspace,
                ~keyspace.c.system,
            )
        )
        for row in rows:
            replicated = Resource(f"keyspace/{row.name}", row.keyspace_environment)
            verified = Resource(f"key/{row.name}/{row.key}", row.environment)
            if op.allows(Action.KEYSPACE_REPLICATE, replicated) or op.allows(Action.KEY_VERIFY, verified):
                found[row.version] = row
    return found


def _add(connection: Connection, items: list[UsageItem], known: dict[str, Any]) -> None:
    told = {item: (item.ip, item.user_agent, item.method, item.path, item.country) for item in items}
    where = {
        item: (known[item.version_id].keyspace, known[item.version_id].key, item.minute // 3600 * 3600, told[item])
        for item in items
    }
    decided, _ = places.decide(connection, dict.fromkeys(where.values()))
    rows: list[CountedRow] = []
    callers: dict[tuple[str, str], CallerRow] = {}
    for item in items:
        row = known[item.version_id]
        minute = item.minute // 60 * 60
        rows.append(
            (
                row.key,
                item.version_id,
                minute,
                item.outcome,
                row.workspace,
                row.keyspace,
                item.count,
                row.owner,
                *decided[where[item]],
            )
        )
        _note(callers, item, row)
    store.add_counts(connection, rows)
    ordered = [callers[name] for name in sorted(callers)]
    for first in range(0, len(ordered), ASKED_MAX):
        store.add_callers(connection, ordered[first : first + ASKED_MAX], frozenset())


def _note(callers: dict[tuple[str, str], CallerRow], item: UsageItem, row: Any) -> None:  # noqa: ANN401 -- a row
    if rules.is_shadow(item.outcome):
        return
    caller, network, agent, endpoint = rules.describe(item.ip, item.user_agent, item.method, item.path)
    noted = callers.get((item.version_id, caller))
    if noted is None:
        noted = callers[item.version_id, caller] = CallerRow(
            version=item.version_id,
            caller=caller,
            key=row.key,
            workspace=row.workspace,
            first_at=item.first_at,
            at=item.at,
            ip_network=network,
            user_agent=agent,
            endpoint=endpoint,
        )
    noted.count += item.count
    noted.first_at = min(noted.first_at, item.first_at)
    noted.at = max(noted.at, item.at)

"""What reads know from one batch to the next, and how it is kept exact.

    begin     inside the write transaction: change rows since the last batch -> drop what they concern
    use       callers, secrets with sealed versions, guards
    confirm   after the commit; a batch that was not confirmed leaves nothing behind

Nothing here is trusted for its age.  Write transactions follow one another over all nodes, and the change rows are
read inside of one: a grant whose revocation has committed is gone for every batch that begins after it, and one whose
revocation commits later is revoked after the read.  Units that ran before in the same transaction have no rows yet:
their entries are dropped for just the same.  What is loaded is forgotten unless the transaction commits.

Values are kept sealed; what opens them is not kept here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from keyturn.storage.change_log import Change, read_head
from keyturn.storage.driver import fetch_all
from keyturn.storage.transaction import ChangeKind
from keyturn.vault import store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.access.caller import Resource
    from keyturn.access.known_callers import KnownCallers
    from keyturn.storage.transaction import Transaction
    from keyturn.vault.guards import Guard
    from keyturn.vault.model import Secret, Version
    from keyturn.vault.reading_ports import GuardedPaths

SECRETS_MAX: Final = 8192
SEALED_BYTES_MAX: Final = 64 * 1024
"""A version that is larger when sealed is read from the database each time."""

HELD_BYTES_MAX: Final = 32 * 1024 * 1024
IDLE_SECONDS_MAX: Final = 3600.0
"""What was not used for so long is forgotten as a whole, well before change rows are dropped by retention."""

_KINDS: Final = ", ".join(
    f"'{kind}'"
    for kind in (
        ChangeKind.WORKSPACE,
        ChangeKind.PRINCIPAL,
        ChangeKind.ROLE,
        ChangeKind.GRANT,
        ChangeKind.KEYSPACE,
        ChangeKind.KEY,
        ChangeKind.SECRET,
        ChangeKind.GUARD,
        ChangeKind.WORKSPACE_KEY,
    )
)
# In the driver's own words: it runs once a batch, and what is built around it costs more than the query.
_NEWS: Final = f"""
SELECT h.log_id, h.seq, c.seq, c.workspace, c.kind, c.entity
FROM change_head h LEFT JOIN change c ON c.seq > {{after}} AND c.kind IN ({_KINDS})
WHERE h.id = 1 ORDER BY c.seq
"""  # noqa: S608 -- of names of our own
_NEWS_OF: Final = {"sqlite": _NEWS.format(after="?"), "postgresql": _NEWS.format(after="$1")}


Which = tuple[int | None, int | None]
"""Number and sequence as they were asked for."""


@dataclass(slots=True)
class Held:
    """A secret with those of its versions that were asked for."""

    secret: Secret
    resource: Resource
    versions: dict[Which, Version] = field(default_factory=dict)
    bytes: int = 0


class BatchState:
    """See the module; for one batch at a time."""

    def __init__(self, callers: KnownCallers, approvals: GuardedPaths) -> None:
        """Begin with nothing known."""
        self._approvals = approvals
        self.callers = callers
        self._held: dict[tuple[str, str], Held] = {}
        self._places: dict[str, tuple[str, str]] = {}
        self._guards: dict[str, tuple[Guard, ...]] = {}
        self._bytes = 0
        self._log_id = ""
        self._seq = -1
        self._at = 0.0
        self._confirmed = True

    def begin(self, transaction: Transaction) -> None:
        """Catch up with the change log; the first thing in a unit."""
        connection, now = transaction.connection, transaction.now
        if not self._confirmed or not 0.0 <= now - self._at < IDLE_SECONDS_MAX:
            self.clear()
        self._confirmed = False
        self._at = now
        self.callers.begin()
        for entry in transaction.before:
            self._drop(Change(0, entry.workspace, str(entry.kind), entry.entity))
        if self._seq < 0:
            head = read_head(connection)
            self._log_id, self._seq = head.log_id, head.seq
            return
        rows = fetch_all(connection, _NEWS_OF[connection.dialect.name], (self._seq,))
        log_id, seq, first = rows[0][:3]
        if log_id != self._log_id or seq < self._seq:
            self.clear()
        elif first is not None:
            for row in rows:
                self._drop(Change(*row[2:]))
        self._log_id, self._seq = log_id, seq

    def confirm(self) -> None:
        """Keep what the last batch has loaded: it is committed."""
        self._confirmed = True

    def clear(self) -> None:
        """Forget everything."""
        self.callers.clear()
        self._held.clear()
        self._places.clear()
        self._guards.clear()
        self._bytes = 0
        self._seq = -1

    def find(self, connection: Connection, workspace: str, path: str) -> Held | None:
        """Return the secret at a path as this transaction sees it; an absence is not remembered."""
        held = self._held.get((workspace, path))
        if held is None:
            found = store.load_secret(connection, workspace, path)
            if found is None:
                return None
            held = Held(found, found.resource)
            if len(self._held) >= SECRETS_MAX or self._bytes > HELD_BYTES_MAX:
                self._forget_secret(next(iter(self._places)))
            self._held[workspace, path] = held
            self._places[found.id] = (workspace, path)
        return held

    def version(self, connection: Connection, held: Held, which: Which) -> Version | None:
        """Return the version asked for, the current one for `(None, None)`."""
        version = held.versions.get(which)
        if version is None:
            number, sequence = which
            version = store.load_version(
                connection, held.secret, number or held.secret.current or held.secret.last_number, sequence=sequence
            )
            if version is not None and version.sealed is not None and len(version.sealed) <= SEALED_BYTES_MAX:
                held.versions[which] = version
                held.bytes += len(version.sealed)
                self._bytes += len(version.sealed)
        return version

    def guards(self, connection: Connection, workspace: str) -> tuple[Guard, ...]:
        """Return the guards of a workspace as this transaction sees them."""
        found = self._guards.get(workspace)
        if found is None:
            found = self._guards[workspace] = self._approvals.guards_of(connection, workspace)
        return found

    def _drop(self, one: Change) -> None:
        if one.kind == ChangeKind.SECRET:
            self._forget_secret(one.entity)
        elif one.kind == ChangeKind.GUARD:
            self._guards.pop(one.workspace, None)
        elif one.kind == ChangeKind.WORKSPACE_KEY:
            for secret_id in [known for known, place in self._places.items() if place[0] == one.workspace]:
                self._forget_secret(secret_id)
        else:
            self.callers.drop(one)

    def _forget_secret(self, secret_id: str) -> None:
        place = self._places.pop(secret_id, None)
        if place is not None:
            held = self._held.pop(place, None)
            if held is not None:
                self._bytes -= held.bytes

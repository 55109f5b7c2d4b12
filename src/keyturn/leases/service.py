"""Leases: create, look up, renew and revoke."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from keyturn.access.caller import Resource
from keyturn.access.paging import page
from keyturn.access.shares import Shares
from keyturn.errors import ConflictError, InputError, UnavailableError, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import is_id
from keyturn.leases import lease_store, store
from keyturn.leases.answers import lease_info
from keyturn.leases.asking import failure_of
from keyturn.leases.creation import Creation
from keyturn.leases.rules import OVER, Step, renewed
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.leases import REVOKED_AT_ONCE_MAX, LeaseInfo, LeasePage, LeasesRevoked, LeaseState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.leases.endings import Endings, Work
    from keyturn.leases.model import Lease
    from keyturn.leases.ports import Connector, Connectors
    from keyturn.storage.keyring import Keyring
    from keyturn.wire.leases import LeaseCreated

_ANY: Final = "+"
"""Stands for any segment when a right over many leases is asked for: nothing is named so, only wildcards match it."""
_ASKED: Final = "asked"
_ENDS: Final = {
    LeaseState.ACTIVE: LeaseState.REVOKING,
    LeaseState.INTENT: LeaseState.ABANDONED,
    LeaseState.IRREVOCABLE: LeaseState.REVOKING,
}


CONNECTIONS_EACH: Final = 32
"""How many connections to sources of one workspace this worker makes at once: half of what blocking drivers have."""


@dataclass(frozen=True, slots=True)
class _Renewal:
    """What it takes to prolong an account at its source."""

    lease: Lease
    connector: Connector
    expires_at: float
    config: dict[str, Any]
    connection: dict[str, Any] = field(repr=False)


class LeaseService:
    """The operations on leases; `lease` is an id or a path, `<source>/creds/<role>/<id>`."""

    def __init__(self, door: Door, keyring: Keyring, connectors: Connectors, endings: Endings) -> None:
        """Need the door, the keyring, the connectors, and who drops accounts."""
        self._door = door
        self._keyring = keyring
        self._connectors = connectors
        self._endings = endings
        self._shares = Shares(CONNECTIONS_EACH)
        self._creation = Creation(door, keyring, connectors, endings, self._shares)

    async def create(
        self, credentials: Credentials, source: str, role: str, *, ttl_seconds: int | None = None
    ) -> LeaseCreated:
        """Make an account and answer its credential, once.

        Not to be sent again under an Idempotency-Key: the credential is kept nowhere, not even sealed.  A lease whose
        answer was lost ends by itself.
        """
        return await self._creation.create(credentials, source, role, ttl_seconds)

    async def lookup(self, credentials: Credentials, lease: str) -> LeaseInfo:
        """Show a lease."""

        def work(op: Operation) -> LeaseInfo:
            return self._shown(op, authorised_lease(op, Action.LEASE_READ, lease))

        return await self._door.read(credentials, work)

    async def list(
        self,
        credentials: Credentials,
        *,
        state: LeaseState | None = None,
        prefix: str = "",
        principal: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> LeasePage:
        """List leases, oldest first; those in state `irrevocable` are what a person has to look after."""
        wanted = lease_store.narrowed(state=state, prefix=prefix.strip("/"), principal=principal)

        def work(op: Operation) -> LeasePage:
            found, following = page(
                op,
                lambda after, count: lease_store.list_leases(op.connection, op.workspace, wanted, after, count),
                lambda one: op.allows(Action.LEASE_READ, Resource(one.resource)),
                cursor,
                limit,
                reading=Action.LEASE_READ,
            )
            connectors = {one.source: self._connector_of(op, one) for one in found}
            items = tuple(lease_info(one, connectors[one.source], op.now) for one in found)
            return LeasePage(items=items, next_cursor=following)

        return await self._door.read(credentials, work)

    async def renew(self, credentials: Credentials, lease: str, increment_seconds: int | None = None) -> LeaseInfo:
        """Let a lease end so long after now, within its most.

        The account is prolonged first: killed in between, it is dropped at the end that the lease had before.
        """
        renewal = await self._door.read(credentials, lambda op: self._renewal(op, lease, increment_seconds))
        said = await self._prolonged(renewal)
        if said is not None:
            raise UnavailableError(f"the account could not be prolonged: {said}", code="provider_failed")

        def work(op: Operation) -> LeaseInfo:
            found = authorised_lease(op, Action.LEASE_RENEW, lease)
            if not lease_store.renew(op.connection, found, renewal.expires_at):
                raise ConflictError(f"the lease {found.id} has ended meanwhile", hint="create another one")
            op.record(
                Action.LEASE_RENEW,
                found.resource,
                kind=ChangeKind.LEASE,
                entity=found.id,
                detail={"expires_at": rfc3339(renewal.expires_at)},
            )
            return self._shown(op, authorised_lease(op, Action.LEASE_RENEW, lease))

        return (await self._door.write(credentials, work)).value

    async def revoke(self, credentials: Credentials, lease: str) -> LeaseInfo:
        """End a lease and drop its account; one that is over already stays as it is.

        When the account cannot be dropped now, the answer says so, and it is tried again.
        """
        return await self._end(credentials, lease, only_irrevocable=False)

    async def retry(self, credentials: Credentials, lease: str) -> LeaseInfo:
        """Try again to drop the account of an irrevocable lease."""
        return await self._end(credentials, lease, only_irrevocable=True)

    async def resolve(self, credentials: Credentials, lease: str, reason: str) -> LeaseInfo:
        """Take a person's word that the account of an irrevocable lease is gone."""

        def work(op: Operation) -> LeaseInfo:
            found = authorised_lease(op, Action.LEASE_RESOLVE, lease)
            if found.state is not LeaseState.IRREVOCABLE:
                raise ConflictError(f"the lease {found.id} is {found.state}, not irrevocable")
            step = Step(LeaseState.REVOKED, None, found.attempts, found.last_error)
            lease_store.settle(op.connection, [(found, step)], op.now)
            detail: dict[str, Any] = {"account": found.account, "reason": reason}
            op.record(Action.LEASE_RESOLVE, found.resource, kind=ChangeKind.LEASE, entity=found.id, detail=detail)
            return self._shown(op, authorised_lease(op, Action.LEASE_RESOLVE, lease))

        return (await self._door.write(credentials, work)).value

    async def revoke_prefix(self, credentials: Credentials, prefix: str) -> LeasesRevoked:
        """End every lease under `<source>`, `<source>/creds/<role>` or one lease's path.

        It takes the right over everything under the prefix.  The accounts are dropped from now on, those of all sources
        at once.
        """
        cleaned = prefix.strip("/")
        parts = cleaned.split("/")
        if not cleaned or "" in parts or len(parts) > 4 or (len(parts) > 1 and parts[1] != "creds"):
            raise InputError("expected <source>, <source>/creds/<role> or the path of a lease", field="prefix")
        named = [parts[0], *parts[2:]]
        resource = "/".join(["lease", *named, *[_ANY] * (3 - len(named))])
        wanted = lease_store.narrowed(prefix=cleaned)
        return await self._end_many(credentials, resource, wanted, {"prefix": cleaned})

    async def revoke_by_owner(
        self, credentials: Credentials, principal: str, subject: str | None = None
    ) -> LeasesRevoked:
        """End every lease of a principal, or of one subject of it; it takes the right over all leases."""
        wanted = lease_store.narrowed(principal=principal, subject=subject)
        detail = {"principal": principal} if subject is None else {"principal": principal, "subject": subject}
        return await self._end_many(credentials, f"lease/{_ANY}/{_ANY}/{_ANY}", wanted, detail)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _renewal(self, op: Operation, lease: str, increment_seconds: int | None) -> _Renewal:
        found = authorised_lease(op, Action.LEASE_RENEW, lease)
        source = store.load_source_by_id(op.connection, found.source)
        connector = None if source is None else self._connectors.get(source.kind)
        if source is None or connector is None or not connector.renewable:
            raise ConflictError(
                f"the lease {found.id} cannot be renewed", code="not_renewable", hint="create another one"
            )
        expires_at = renewed(found, increment_seconds, op.now)
        roles = store.load_roles_by_id(op.connection, [found.role])
        opened = store.open_connection(op.connection, self._keyring, source)
        return _Renewal(found, connector, expires_at, roles[found.role].config, opened)

    async def _prolonged(self, renewal: _Renewal) -> str | None:
        """Prolong an account at its source; return what went wrong."""
        return await failure_of(
            lambda session: session.extend(renewal.config, renewal.lease.account, renewal.expires_at),
            renewal.connector,
            renewal.connection,
            self._shares.place(renewal.lease.workspace),
            self._endings.timing.create,
        )

    async def _end(self, credentials: Credentials, lease: str, *, only_irrevocable: bool) -> LeaseInfo:
        def work(op: Operation) -> Work | None:
            found = authorised_lease(op, Action.LEASE_REVOKE, lease)
            if only_irrevocable and found.state is not LeaseState.IRREVOCABLE:
                raise ConflictError(f"the lease {found.id} is {found.state}, not irrevocable")
            connector = self._connector_of(op, found)
            if found.state not in OVER and connector is not None and not connector.revocable:
                raise ConflictError(
                    f"nothing takes the credential of {found.id} back; it ends at {rfc3339(found.expires_at)}",
                    code="not_revocable",
                )
            becomes = _ENDS.get(found.state)
            if becomes is None:
                op.unchanged()
            else:
                lease_store.begin_end(op.connection, [found.id], found.state, becomes, _ASKED, op.now)
                detail: dict[str, Any] = {"account": found.account, "was": found.state.value}
                op.record(Action.LEASE_REVOKE, found.resource, kind=ChangeKind.LEASE, entity=found.id, detail=detail)
            now = authorised_lease(op, Action.LEASE_REVOKE, lease)
            if now.state is not LeaseState.REVOKING:
                return None
            claimed = lease_store.claim_one(op.connection, now, op.now, self._endings.timing.claim)
            return self._endings.prepare(op.connection, [claimed])

        begun = (await self._door.write(credentials, work)).value
        if begun is not None:
            await self._endings.finish(begun)
        return await self._door.read(
            credentials, lambda op: self._shown(op, authorised_lease(op, Action.LEASE_REVOKE, lease))
        )

    async def _end_many(
        self,
        credentials: Credentials,
        resource: str,
        wanted: Sequence[ColumnElement[bool]],
        detail: dict[str, Any],
    ) -> LeasesRevoked:
        def work(op: Operation) -> LeasesRevoked:
            op.authorise(Action.LEASE_REVOKE, Resource(resource), kind="lease", name=next(iter(detail.values())))
            count, ends_itself, more = 0, 0, False
            sources = store.every_source(op.connection, op.workspace)
            fixed = [one.id for one in sources if not self._takes_back(one.kind)]
            for was in (LeaseState.ACTIVE, LeaseState.INTENT):
                ends_itself += lease_store.count_of(op.connection, op.workspace, was, wanted, fixed)
                room = REVOKED_AT_ONCE_MAX - count
                ids = lease_store.ids_to_end(op.connection, op.workspace, was, wanted, fixed, room + 1)
                more = more or len(ids) > room
                count += lease_store.begin_end(op.connection, ids[:room], was, _ENDS[was], _ASKED, op.now)
            if not count:
                op.unchanged()
            else:
                about: dict[str, Any] = {**detail, "count": count}
                op.record(
                    Action.LEASE_REVOKE, resource.replace(_ANY, "*"), kind=ChangeKind.LEASE, entity="", detail=about
                )
            return LeasesRevoked(count=count, not_revocable=ends_itself, more=more)

        return (await self._door.write(credentials, work)).value

    def _takes_back(self, kind: str) -> bool:
        connector = self._connectors.get(kind)
        return connector is None or connector.revocable

    def _connector_of(self, op: Operation, lease: Lease) -> Connector | None:
        source = store.load_source_by_id(op.connection, lease.source)
        return None if source is None else self._connectors.get(source.kind)

    def _shown(self, op: Operation, lease: Lease) -> LeaseInfo:
        return lease_info(lease, self._connector_of(op, lease), op.now)


def authorised_lease(op: Operation, action: Action, lease: str) -> Lease:
    """Load a lease for an action, by id or path; one that the caller may not know of answers as if there were none."""
    lease_id = lease.rpartition("/")[2]
    found = lease_store.load_lease(op.connection, op.workspace, lease_id) if is_id("lea", lease_id) else None
    if found is not None and "/" in lease and found.path != lease.strip("/"):
        found = None
    resource = None if found is None else Resource(found.resource)
    op.authorise(action, resource, kind="lease", name=lease)
    if found is None:
        raise not_found("lease", lease)
    return found

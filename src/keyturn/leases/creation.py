"""How a lease is made, so that no account exists that nobody knows.

    intent committed, with the account's name -> account created at the source -> lease active, with its leaf -> answer

A process that is killed anywhere leaves an intent, whose account is dropped when it is older than any creation can be,
and dropped once more when nothing that was asked of the source can arrive any more.  A creation that comes back to find
its intent given up drops what it made.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from keyturn.access.caller import Resource
from keyturn.audit.leaf import Leaf
from keyturn.errors import (
    BrokenInvariantError,
    CapError,
    ConflictError,
    KeyturnError,
    ThrottledError,
    UnavailableError,
    not_found,
)
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import new_id
from keyturn.kernel.secret import Secret, random_base62
from keyturn.leases import lease_store, store
from keyturn.leases.asking import SILENT, broken
from keyturn.leases.model import Lease, lease_path, role_resource
from keyturn.leases.ports import NewAccount, ProviderError
from keyturn.leases.rules import account_name, ends, public_error
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.wire.actions import Action
from keyturn.wire.leases import LeaseCreated, LeaseState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.access.shares import Shares
    from keyturn.audit.leaf import Actor
    from keyturn.leases.endings import Endings
    from keyturn.leases.model import Role, Source
    from keyturn.leases.ports import Connector, Connectors
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.transaction import Transaction

PASSWORD_CHARACTERS: Final = 32
CREATING_MAX: Final = 64
"""How many creations of one source are under way at once in this worker."""

_log = structlog.get_logger("keyturn")


@dataclass(frozen=True, slots=True)
class Intent:
    """A lease that is being made, and what making it takes."""

    lease: Lease
    role: Role
    connector: Connector
    connection: dict[str, Any] = field(repr=False)
    actor: Actor
    request_id: str | None
    ip: str | None


class Until:
    """When a creation is given up, by a clock that runs on while this process is stopped."""

    def __init__(self, boottime: Callable[[], float], at: float) -> None:
        """Give up at `at`."""
        self._boottime = boottime
        self._at = at

    def check(self) -> None:
        """Raise ProviderError when it is too late."""
        if self._boottime() >= self._at:
            raise ProviderError(SILENT)


class Creation:
    """Makes leases."""

    def __init__(self, door: Door, keyring: Keyring, connectors: Connectors, endings: Endings, shares: Shares) -> None:
        """Need the door, the keyring, the connectors, who ends what was begun, and the shares of connections."""
        self._door = door
        self._keyring = keyring
        self._connectors = connectors
        self._endings = endings
        self._shares = shares
        self._creating: Counter[str] = Counter()

    async def create(self, credentials: Credentials, source: str, role: str, ttl_seconds: int | None) -> LeaseCreated:
        """Make an account and answer its credential, once."""
        timing = self._endings.timing
        boottime = self._door.database.clock.boottime
        deadline = Until(boottime, boottime() + timing.create)
        intent = (await self._door.write(credentials, lambda op: self._intend(op, source, role, ttl_seconds))).value
        try:
            with self._room(intent.lease.source):
                fields = await self._make(intent, deadline)
            return await self._activate(credentials, intent, fields)
        except (ProviderError, TimeoutError) as error:
            said = public_error(str(error)) or SILENT
            await self._give_up(intent, said)
            raise UnavailableError(
                f"the account could not be created: {said}",
                code="provider_failed",
                hint="look at the source with `keyturn credential-sources check`",
            ) from None
        except KeyturnError as error:
            await self._give_up(intent, error.message)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._give_up(intent, "the request was broken off"))
            raise
        except Exception as error:  # noqa: BLE001 -- somebody else's connector may raise anything
            await self._give_up(intent, broken(error))
            raise UnavailableError("the account could not be created", code="provider_failed") from None

    def _intend(self, op: Operation, source_name: str, role_name: str, ttl_seconds: int | None) -> Intent:
        source, role = authorised_role(op, Action.LEASE_CREATE, source_name, role_name)
        connector = self._connectors.get(source.kind)
        if connector is None:
            raise ConflictError(f"no connector for {source.kind} is installed")
        expires_at, most = ends(role, ttl_seconds, connector.seconds_min, op.now)
        _require_room(op, role)
        lease_id = new_id("lea", op.now)
        made = Lease(
            id=lease_id,
            workspace=op.workspace,
            path=lease_path(source.name, role.name, lease_id),
            source=source.id,
            role=role.id,
            account=account_name(role.name, random_base62(14)),
            state=LeaseState.INTENT,
            principal=op.caller.principal,
            subject=op.caller.subject,
            login_role=op.caller.login_role,
            ttl_seconds=round(expires_at - op.now),
            created_at=op.now,
            expires_at=expires_at,
            max_expires_at=most,
            due_at=op.now + self._endings.timing.grace,
            claimed_until=0.0,
            attempts=0,
            last_error=None,
            revoke_reason=None,
            revoked_at=None,
            revision=1,
        )
        lease_store.insert_lease(op.connection, made)
        opened = store.open_connection(op.connection, self._keyring, source)
        # The leaf comes with the lease, or with its failure: an intent alone gives nobody anything.
        op.unchanged()
        return Intent(made, role, connector, opened, op.actor, op.caller.request_id, op.caller.ip)

    async def _make(self, intent: Intent, deadline: Until) -> dict[str, str]:
        lease, password = intent.lease, Secret(random_base62(PASSWORD_CHARACTERS))
        account = NewAccount(lease.account, password, lease.expires_at, lease.ttl_seconds)
        async with (
            asyncio.timeout(self._endings.timing.create),
            self._shares.place(lease.workspace),
            intent.connector.open(intent.connection) as session,
        ):
            made = await session.create(intent.role.config, account, deadline)
        return made or {"username": lease.account, "password": password.reveal()}

    async def _activate(self, credentials: Credentials, intent: Intent, fields: dict[str, str]) -> LeaseCreated:
        lease = intent.lease

        def work(op: Operation) -> LeaseCreated:
            # Asked again: the right may have gone while the account was being created.
            op.authorise(Action.LEASE_CREATE, Resource(intent.role.resource))
            if not lease_store.activate(op.connection, lease):
                raise ConflictError("the lease was ended while its account was being created", hint="create another")
            op.record(
                Action.LEASE_CREATE,
                lease.resource,
                kind=ChangeKind.LEASE,
                entity=lease.id,
                detail={"account": lease.account, "expires_at": rfc3339(lease.expires_at), **_subject(lease)},
            )
            return LeaseCreated(
                id=lease.id,
                lease_id=lease.path,
                ttl_seconds=lease.ttl_seconds,
                renewable=intent.connector.renewable,
                revocable=intent.connector.revocable,
                expires_at=rfc3339(lease.expires_at),
                max_expires_at=rfc3339(lease.max_expires_at),
                fields=fields,
            )

        return (await self._door.write(credentials, work)).value

    async def _give_up(self, intent: Intent, error: str) -> None:
        """Let the account be dropped now; if this fails too, the age of the intent does."""
        lease = intent.lease

        def work(transaction: Transaction) -> None:
            connection, now = transaction.connection, transaction.now
            ends_now = lease_store.begin_end(
                connection, [lease.id], LeaseState.INTENT, LeaseState.ABANDONED, "creation_failed", now
            ) or lease_store.begin_end(
                connection, [lease.id], LeaseState.ACTIVE, LeaseState.REVOKING, "creation_failed", now
            )
            if not ends_now:
                # Somebody gave it up before us, and may have dropped the account before it was there.
                lease_store.drop_again(connection, lease.id, now)
            lease_store.note(connection, lease.id, error)
            leaf = Leaf(
                lease.workspace,
                Action.LEASE_CREATE,
                "failed",
                intent.actor,
                lease.resource,
                now,
                {"account": lease.account, "error": error, **_subject(lease)},
                intent.request_id,
                intent.ip,
            )
            transaction.append(Entry(lease.workspace, ChangeKind.LEASE, lease.id, leaf.row()))

        try:
            await self._door.database.write(work)
        except KeyturnError as failure:
            _log.warning("a lease could not be given up at once", lease=lease.id, reason=failure.message)

    @contextmanager
    def _room(self, source: str) -> Iterator[None]:
        if self._creating[source] >= CREATING_MAX:
            raise ThrottledError(
                f"{CREATING_MAX} accounts of this source are being created already", retry_after_seconds=1.0
            )
        self._creating[source] += 1
        try:
            yield
        finally:
            self._creating[source] -= 1


def authorised_role(op: Operation, action: Action, source_name: str, role_name: str) -> tuple[Source, Role]:
    """Load a role for an action; one that the caller may not know of answers as if there were none."""
    source = store.load_source(op.connection, op.workspace, source_name)
    role = None if source is None else store.load_role(op.connection, source, role_name)
    name = f"{source_name}/{role_name}"
    absent = Resource(role_resource(source_name, role_name))
    op.authorise(
        action, None if role is None else Resource(role.resource), kind="credential role", name=name, absent=absent
    )
    if source is None or role is None:
        raise not_found("credential role", name)
    return source, role


def _require_room(op: Operation, role: Role) -> None:
    held = lease_store.count_live(op.connection, role.leases_max, role=role.id)
    if held >= role.leases_max:
        raise CapError(
            f"the role {role.source_name}/{role.name} may have {role.leases_max} leases, and has them",
            hint="revoke leases that are not needed, renew instead of creating, or have leases_max raised",
        )
    if op.caller.login_role is None:
        return
    cap = lease_store.login_role_cap(op.connection, op.caller.login_role)
    if cap is None:
        message = "a token names a login role that does not exist"
        raise BrokenInvariantError(message)
    name, most = cap
    if lease_store.count_live(op.connection, most, login_role=op.caller.login_role) >= most:
        raise CapError(
            f"logins of the role {name} may hold {most} leases, and hold them",
            hint="revoke leases that are not needed, or have the login role's leases_max raised",
        )


def _subject(lease: Lease) -> dict[str, Any]:
    return {"subject": lease.subject} if lease.subject else {}

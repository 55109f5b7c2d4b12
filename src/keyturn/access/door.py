"""The door: every management operation enters here and cannot leave without an audit leaf.

    write:  authenticate -> unit of work (authorise, load, decide, save, record) -> commit -> value
    read:   authenticate -> authorise -> load -> value

A write that records no leaf is our own bug and is rolled back.  A denial of a known principal rolls the unit back
and commits a leaf of its own.  A bad token costs no commit: it is counted by `UnauthenticatedSink` and coalesced.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from keyturn.access import rules, store
from keyturn.access.known_callers import KnownCallers
from keyturn.audit.leaf import Actor, Detail, Leaf, Outcome
from keyturn.errors import (
    BrokenInvariantError,
    ForbiddenError,
    InFlightError,
    KeyturnError,
    UnauthenticatedError,
    not_found,
)
from keyturn.storage.transaction import ChangeKind, Committed, Entry, RefusedError, Transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy import Connection

    from keyturn.access.caller import Caller, Credentials, Resource
    from keyturn.access.idempotency import Attempt
    from keyturn.access.ports import TokenAuthority
    from keyturn.storage.database import Database
    from keyturn.wire.actions import Action

T = TypeVar("T")


class UnauthenticatedSink(Protocol):
    """Counts failed authentications per network and minute; implemented by audit."""

    def count(self, ip: str | None, at: float) -> None:
        """Count one failure; must not touch the database."""
        ...


@dataclass(slots=True)
class Operation:
    """One authenticated operation in progress: a caller, a connection and the time.

    `writing` is None in a read.
    """

    connection: Connection
    now: float
    caller: Caller
    writing: Transaction | None
    recorded: bool = False

    @property
    def workspace(self) -> str:
        """The caller's workspace; every query names it."""
        return self.caller.workspace

    @property
    def transaction(self) -> Transaction:
        """The unit of work; raises BrokenInvariantError in a read."""
        if self.writing is None:
            message = "a read tried to write"
            raise BrokenInvariantError(message)
        return self.writing

    @property
    def actor(self) -> Actor:
        """The caller as an audit leaf names it."""
        return Actor(self.caller.principal, self.caller.kind, self.caller.name, self.caller.token_id)

    def authorise(
        self,
        action: Action,
        resource: Resource | None,
        *,
        kind: str = "",
        name: str = "",
        known: bool = False,
        absent: Resource | None = None,
    ) -> None:
        """Return if the caller may do this, else raise the refusal that the door will put on record.

        `resource` None means that the thing named `name` does not exist here.  The answer is the same
        NotFoundError when the caller may not know of it; it is a ForbiddenError only for a caller who may
        read it (`rules.may_know`), or for whom it is `known` under another name, but who may not do this.

        `absent` is what a thing that does not exist would be named.  Who could not know of it then leaves the same
        leaf as if it existed, so that not even the time of a commit tells the two apart.
        """
        if resource is None and kind:
            raise self._absence(action, absent, not_found(kind, name))
        if resource is not None and rules.may(self.caller, action, resource, self.now):
            return
        public: KeyturnError
        if resource is not None and (known or rules.may_know(self.caller, action, resource, self.now)):
            public = ForbiddenError(
                f"{self.caller.principal} may not {action} on {resource.name}",
                hint="ask a workspace administrator for a grant, or see `keyturn grants explain`",
            )
        elif kind:
            public = not_found(kind, name)
        else:
            public = ForbiddenError(f"{self.caller.principal} may not {action}")
        raise self.refusal(action, resource, public)

    def _absence(self, action: Action, absent: Resource | None, public: KeyturnError) -> KeyturnError:
        if absent is None or not rules.is_name(absent.name):
            return public
        may = rules.may(self.caller, action, absent, self.now)
        return (
            public
            if may or rules.may_know(self.caller, action, absent, self.now)
            else self.refusal(action, absent, public)
        )

    def refusal(self, action: Action, resource: Resource | None, public: KeyturnError) -> RefusedError:
        """Return what to raise so that the unit is undone, `public` reaches the caller and the denial is a leaf."""
        named = "" if resource is None else resource.name
        leaf = self._leaf(action, named, "denied", {})
        return RefusedError(public, Entry(self.workspace, ChangeKind.AUDIT, "", leaf.row()))

    def allows(self, action: Action, resource: Resource) -> bool:
        """Tell whether the caller may do this, without a refusal; for filtering lists."""
        return rules.may(self.caller, action, resource, self.now)

    def reach(self, action: Action, noun: str) -> tuple[str, ...] | None:
        """Return how names below `noun/` begin that `allows` can be true for; see `rules.reach`."""
        return rules.reach(self.caller, action, noun, self.now)

    def record(
        self,
        action: Action,
        resource: str,
        *,
        kind: ChangeKind,
        entity: str,
        detail: dict[str, Detail] | None = None,
        awaited: bool = False,
        workspace: str | None = None,
    ) -> None:
        """Leave an audit leaf and a change row for `entity` in this unit.

        `workspace` is the one whose log it belongs to, where that is not the caller's own.
        """
        place = workspace or self.workspace
        leaf = self._leaf(action, resource, "allowed", detail or {}, workspace=place)
        self.transaction.append(Entry(place, kind, entity, leaf.row(), awaited=awaited))
        self.recorded = True

    def announce(self, kind: ChangeKind, entity: str, *, awaited: bool = False) -> None:
        """Leave a change row without a leaf, for an entity that changed along with the recorded one."""
        self.transaction.append(Entry(self.workspace, kind, entity, awaited=awaited))

    def unchanged(self) -> None:
        """State that this unit changes nothing (a replay, or the state asked for already holds), so it owes no leaf."""
        self.recorded = True

    def _leaf(
        self,
        action: Action,
        resource: str,
        outcome: Outcome,
        detail: dict[str, Detail],
        *,
        workspace: str | None = None,
    ) -> Leaf:
        return Leaf(
            workspace=workspace or self.workspace,
            action=action,
            outcome=outcome,
            actor=self.actor,
            resource=resource,
            at=self.now,
            detail=detail,
            request_id=self.caller.request_id,
            ip=self.caller.ip,
        )


class Door:
    """Lets authenticated callers in; see the module."""

    def __init__(self, database: Database, tokens: TokenAuthority, unauthenticated: UnauthenticatedSink) -> None:
        """Need a database, a token authority and a place to count failures."""
        self.database = database
        self._tokens = tokens
        self._unauthenticated = unauthenticated
        self._in_flight: set[bytes] = set()

    async def write(
        self, credentials: Credentials, work: Callable[[Operation], T], *, attempt: Attempt | None = None
    ) -> Committed[T]:
        """Run `work` as the bearer of `credentials` and return once it is durable.

        `attempt` is the one that `work` gives to `idempotent`; raises InFlightError while the same is in progress.
        """

        def unit(transaction: Transaction) -> T:
            caller = self._known(transaction, credentials)
            operation = Operation(transaction.connection, transaction.now, caller, transaction)
            value = work(operation)
            if not operation.recorded:
                message = "an operation left no audit leaf"
                raise BrokenInvariantError(message)
            return value

        with self._once(attempt):
            return await self._counted(credentials, self.database.write(unit))

    async def read(self, credentials: Credentials, work: Callable[[Operation], T]) -> T:
        """Run `work` as the bearer of `credentials` in a read-only transaction.

        A refusal of a known principal is put on record in a transaction of its own before it is raised.
        """
        now = self.database.clock.now()

        def unit(connection: Connection) -> T:
            return work(Operation(connection, now, self.authenticate(connection, credentials, now), None))

        try:
            return await self._counted(credentials, self.database.read(unit))
        except RefusedError as refused:
            entry = refused.refusal
            await self.database.write(lambda transaction: transaction.append(entry))
            raise refused.public from None

    @contextmanager
    def _once(self, attempt: Attempt | None) -> Iterator[None]:
        if attempt is None:
            yield
            return
        if attempt.mark in self._in_flight:
            message = "a request with the same Idempotency-Key is still being worked on"
            raise InFlightError(message, hint="send it again in a moment")
        self._in_flight.add(attempt.mark)
        try:
            yield
        finally:
            self._in_flight.discard(attempt.mark)

    async def _counted(self, credentials: Credentials, running: Awaitable[T]) -> T:
        try:
            return await running
        except UnauthenticatedError:
            self.count_unauthenticated(credentials)
            raise

    def known_callers(self) -> KnownCallers:
        """Return a memory of callers for somebody who runs the operations of many in one write transaction.

        Whoever does so records each operation as a unit of `write` would, and calls `count_unauthenticated` for those
        whose tokens are not valid.
        """
        return KnownCallers(self._tokens)

    def _known(self, transaction: Transaction, credentials: Credentials) -> Caller:
        """Return the caller as this transaction sees it; its units share what they know of callers."""
        callers = transaction.shared.get(self)
        if not isinstance(callers, KnownCallers):
            callers = transaction.shared[self] = self.known_callers()
        callers.begin_unit(transaction)
        caller = callers.find(transaction.connection, credentials, transaction.now)
        if caller is None:
            raise unauthenticated()
        return caller

    def count_unauthenticated(self, credentials: Credentials) -> None:
        """Count a token that was not valid."""
        self._unauthenticated.count(credentials.ip, self.database.clock.now())

    def authenticate(self, connection: Connection, credentials: Credentials, now: float) -> Caller:
        """Return the caller as the database knows it now; raises UnauthenticatedError, which nobody has counted yet."""
        owner = self._tokens.prove(connection, credentials.token.reveal(), now)
        caller = None if owner is None else store.load_caller(connection, owner, credentials)
        if caller is None:
            raise unauthenticated()
        return caller


def unauthenticated() -> UnauthenticatedError:
    """Build the one answer for every token that is not valid now."""
    return UnauthenticatedError(
        "the bearer token is not valid", hint="use a management token; `keyturn login` stores one"
    )

"""What people do with balances: read them, top them up, credit what is stranded, set what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.owners import owner_resource
from keyturn.access.paging import decode_cursor, encode_cursor
from keyturn.errors import BrokenInvariantError, InputError, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.quotas import store
from keyturn.quotas.calendar import next_refill, refill_of, span_of
from keyturn.quotas.exchange import Desk
from keyturn.quotas.model import OPEN, account_id
from keyturn.storage.nodes import database_time
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.quotas import HolderName, QuotaBalance, QuotaBalances, QuotaLedger, QuotaLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.quotas.model import Account, Block, Line
    from keyturn.quotas.rules import Book
    from keyturn.wire.policy import QuotaRule
    from keyturn.wire.quotas import CreditStranded, SetBalance, TopUp

PAST_SECONDS: Final = 62 * 86_400.0
"""How far back balances are listed; the ledger of an older period is asked for by its name."""
PAGE_DEFAULT: Final = 50


class Blocks(Protocol):
    """What this process holds (see `keyturn.quotas.keeper`)."""

    async def recall(self, accounts: Iterable[str]) -> None:
        """Give back at once what is held of these accounts."""
        ...

    def refresh(self, accounts: Iterable[str]) -> None:
        """Ask again about these accounts at once."""
        ...

    def renew(self) -> None:
        """Ask again about everything at once."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Return what was spent of each block that this process holds, reported or not."""
        ...


@dataclass(frozen=True, slots=True)
class _Named:
    """A balance that a request names, by the action it needs."""

    action: Action
    quota: str
    key: str | None
    owner: str | None


class QuotaService:
    """The operations on balances."""

    def __init__(self, door: Door, blocks: Blocks) -> None:
        """Need the door, and what this process holds."""
        self._door = door
        self._blocks = blocks

    async def list(
        self, credentials: Credentials, *, key: str | None = None, owner: str | None = None
    ) -> QuotaBalances:
        """Return the balances of a key or an owner: those that its rules say, used or not, and those of late.

        What other nodes have spent and not yet reported counts as leased.
        """

        def work(op: Operation) -> QuotaBalances:
            holder = _holder(op, Action.QUOTA_READ, key, owner)
            at = database_time(op.connection, op.now)
            found = store.accounts_of(op.connection, op.workspace, holder.subject, since=at - PAST_SECONDS)
            known = {account.id for account in found}
            counts = self._blocks.counts()
            blocks = store.blocks_of(op.connection, [account.id for account in found])
            shown = [_balance(account, _unreported(blocks.get(account.id, ()), counts)) for account in found]
            for rule in holder.rules.values():
                span = span_of(rule.period, at)
                if account_id(op.workspace, holder.subject, rule.name, span.name) not in known:
                    shown.append(_unused(holder.subject, rule, at))
            return QuotaBalances(items=tuple(sorted(shown, key=lambda one: (one.quota, one.state == "closed"))))

        return await self._door.read(credentials, work)

    async def ledger(
        self,
        credentials: Credentials,
        quota: str,
        *,
        key: str | None = None,
        owner: str | None = None,
        period: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> QuotaLedger:
        """Return the lines of a balance, the latest first; that of the present period unless another is named."""
        before = _before(cursor)

        def work(op: Operation) -> QuotaLedger:
            holder = _holder(op, Action.QUOTA_READ, key, owner)
            account = _find(op, holder, quota, period)
            if account is None:
                rule = holder.rules.get(quota)
                if rule is None or period is not None:
                    raise not_found("quota", quota)
                return QuotaLedger(balance=_unused(holder.subject, rule, op.now), items=())
            lines = store.lines(op.connection, account.id, before, limit + 1)
            more = encode_cursor(str(lines[limit - 1].number)) if len(lines) > limit else None
            return QuotaLedger(balance=_balance(account), items=tuple(map(_line, lines[:limit])), next_cursor=more)

        return await self._door.read(credentials, work)

    async def top_up(
        self, credentials: Credentials, request: TopUp, *, idempotency: str | None = None, to_zero: bool = False
    ) -> QuotaBalance:
        """Add units, or take them; ConflictError when more are taken than are available.

        With `to_zero` what is available is taken then.
        """
        if request.units < 0 and not request.note and not to_zero:
            raise InputError("note: units are taken only with a note that says why", field="note")

        def change(op: Operation, book: Book) -> int:
            units = max(request.units, -max(0, book.account.available)) if to_zero else request.units
            book.top_up(units, op.caller.principal, request.note)
            return units

        named = _Named(Action.QUOTA_CREDIT, request.quota, request.key, request.owner)
        attempt = Attempt.of(credentials, Action.QUOTA_CREDIT, idempotency, "top_up", request)
        if request.units < 0:
            await self._recall(credentials, named)
        return await self._change(credentials, named, "top_up", change, attempt)

    async def credit(
        self, credentials: Credentials, request: CreditStranded, *, idempotency: str | None = None
    ) -> QuotaBalance:
        """Make stranded units available again; ConflictError when fewer are stranded.

        It is a decision: whoever makes it says that the node that held them had not spent them.
        """

        def change(op: Operation, book: Book) -> int:
            units = book.account.stranded if request.units is None else request.units
            desk_blocks = store.blocks_of(op.connection, [book.account.id]).get(book.account.id, [])
            book.credit(desk_blocks, units, op.caller.principal, request.note)
            store.save_blocks(op.connection, desk_blocks)
            return units

        named = _Named(Action.QUOTA_CREDIT, request.quota, request.key, request.owner)
        attempt = Attempt.of(credentials, Action.QUOTA_CREDIT, idempotency, "credit", request)
        return await self._change(credentials, named, "credit", change, attempt)

    async def set_balance(
        self, credentials: Credentials, request: SetBalance, *, idempotency: str | None = None
    ) -> QuotaBalance:
        """Set what is left; what other nodes lease at this moment cannot be taken from them, and stays."""

        def change(op: Operation, book: Book) -> int:
            before = book.account.granted
            book.set_to(request.units, op.caller.principal, request.note)
            return book.account.granted - before

        named = _Named(Action.QUOTA_CREDIT, request.quota, request.key, request.owner)
        attempt = Attempt.of(credentials, Action.QUOTA_CREDIT, idempotency, "set", request)
        await self._recall(credentials, named)
        return await self._change(credentials, named, "set", change, attempt)

    # --- shared -------------------------------------------------------------------------------------------------------

    async def _recall(self, credentials: Credentials, named: _Named) -> None:
        """Give back what this process holds of a balance, for a caller who may change it."""

        def work(op: Operation) -> str | None:
            account = _find(op, _holder(op, named.action, named.key, named.owner), named.quota, None)
            return None if account is None else account.id

        account = await self._door.read(credentials, work)
        if account is not None:
            await self._blocks.recall([account])

    async def _change(
        self,
        credentials: Credentials,
        named: _Named,
        what: str,
        change: Callable[[Operation, Book], int],
        attempt: Attempt | None,
    ) -> QuotaBalance:
        changed: list[str] = []

        def work(op: Operation) -> QuotaBalance:
            holder = _holder(op, named.action, named.key, named.owner)

            def run() -> QuotaBalance:
                desk = Desk(op.connection, op.now)
                book = _open(op, desk, holder, named.quota)
                units = change(op, book)
                desk.save()
                account = book.account
                changed.append(account.id)
                detail: dict[str, str | int] = {"quota": named.quota, "change": what, "units": units}
                op.record(
                    Action.QUOTA_CREDIT,
                    holder.resource.name,
                    kind=ChangeKind.QUOTA,
                    entity=account.id,
                    detail={**detail},
                )
                return _balance(account)

            def again(entity: str) -> QuotaBalance:
                return _balance(store.accounts(op.connection, [entity])[entity])

            replay = Replay(QuotaBalance, lambda one: _id(op, one), again)
            return idempotent(op, attempt, replay, run)

        committed = await self._door.write(credentials, work, attempt=attempt)
        self._blocks.refresh(changed)
        return committed.value


def _holder(op: Operation, action: Action, key: str | None, owner: str | None) -> store.Holder:
    """Return whose balances are asked for, once the caller may; raises InputError unless exactly one is named."""
    if (key is None) == (owner is None):
        raise InputError("name either a key or an owner", field="key")
    _check_name("owner" if key is None else "key", key or owner or "")
    if key is not None:
        found = store.find_key(op.connection, op.workspace, key)
        op.authorise(action, None if found is None else found.resource, kind="key", name=key)
    else:
        name = owner or ""
        found = store.find_owner(op.connection, op.workspace, name)
        resource = owner_resource(name)
        op.authorise(action, None if found is None else resource, kind="owner", name=name[:64], absent=resource)
    if found is None:
        message = "a holder that does not exist was authorised"
        raise BrokenInvariantError(message)
    return found


def _check_name(field: str, name: str) -> None:
    """Raise InputError for what no key or owner can be named, nor a database be asked for."""
    try:
        msgspec.convert(name, type=HolderName)
        name.encode()
    except (msgspec.ValidationError, UnicodeEncodeError):
        raise InputError(f"{field}: expected 1-256 printable characters", field=field) from None


def _find(op: Operation, holder: store.Holder, quota: str, period: str | None) -> Account | None:
    """Return the account of a period; of the present one, by the rule or else the latest that is open."""
    at = database_time(op.connection, op.now)
    rule = holder.rules.get(quota)
    if period is None and rule is not None:
        period = span_of(rule.period, at).name
    if period is not None:
        name = account_id(op.workspace, holder.subject, quota, period)
        return store.accounts(op.connection, [name]).get(name)
    found = store.accounts_of(op.connection, op.workspace, holder.subject, since=at)
    return next((one for one in found if one.name == quota and one.state == OPEN), None)


def _open(op: Operation, desk: Desk, holder: store.Holder, quota: str) -> Book:
    """Return the book of the present balance, which begins now if its rule says so; raises NotFoundError."""
    rule = holder.rules.get(quota)
    if rule is not None:
        span = span_of(rule.period, desk.at)
        name = account_id(op.workspace, holder.subject, quota, span.name)
        desk.open([name], [])
        return desk.book_for((name, op.workspace, holder.subject, quota), span, rule)
    account = _find(op, holder, quota, None)
    if account is None:
        raise not_found("quota", quota)
    desk.open([account.id], [])
    return desk.book(account.id)


def _id(op: Operation, balance: QuotaBalance) -> str:
    return account_id(op.workspace, balance.subject, balance.quota, balance.period)


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    decoded = decode_cursor(cursor)
    if not decoded.isascii() or not decoded.isdigit() or len(decoded) > 15:
        raise InputError("the cursor is not one that a list returned", field="cursor", hint="start from the first page")
    return int(decoded)


def _unreported(blocks: Iterable[Block], counts: Mapping[str, int]) -> int:
    return sum(max(0, counts.get(block.id, 0) - block.spent) for block in blocks)


def _balance(account: Account, unreported: int = 0) -> QuotaBalance:
    """Return a balance; `unreported` are units of its blocks that were spent here."""
    spent = min(unreported, account.leased)
    return QuotaBalance(
        quota=account.name,
        subject=account.subject,
        period=account.period,
        state=account.state,
        granted=account.granted,
        spent=account.spent + spent,
        leased=account.leased - spent,
        stranded=account.stranded,
        available=account.available,
        remaining=account.available + account.leased - spent,
        starts_at=None if account.ends_at is None else rfc3339(account.starts_at),
        ends_at=None if account.ends_at is None else rfc3339(account.ends_at),
        refills_at=None if account.ends_at is not None or account.due_at is None else rfc3339(account.due_at),
    )


def _unused(subject: str, rule: QuotaRule, at: float) -> QuotaBalance:
    span = span_of(rule.period, at)
    _, every, day = refill_of(rule)
    refill_at = next_refill(every, day, at)
    return QuotaBalance(
        quota=rule.name,
        subject=subject,
        period=span.name,
        state="unused",
        granted=rule.amount,
        spent=0,
        leased=0,
        stranded=0,
        available=rule.amount,
        remaining=rule.amount,
        starts_at=None if span.ends_at is None else rfc3339(span.starts_at),
        ends_at=None if span.ends_at is None else rfc3339(span.ends_at),
        refills_at=None if refill_at is None else rfc3339(refill_at),
    )


def _line(line: Line) -> QuotaLine:
    return QuotaLine(
        number=line.number,
        at=rfc3339(line.at),
        kind=line.kind,
        units=line.units,
        granted=line.granted,
        spent=line.spent,
        stranded=line.stranded,
        actor=line.actor,
        note=line.note,
        block=line.block,
    )

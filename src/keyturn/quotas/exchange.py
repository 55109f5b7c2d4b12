"""Units of work between nodes and accounts: each is one short write transaction for many accounts.

    exchange      a node reports what it has spent, extends its leases, and asks for more
    settle        what a node that has ended held is taken back, by the counters it left
    sweep         blocks that nobody reports are forfeited; refills, ends of periods, removals

Write transactions follow one another over all nodes, so what a unit has read is still so when it commits.
Every unit may be repeated: a block is named by its node, and one that was settled has no row any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from keyturn.quotas import rules, store
from keyturn.quotas.calendar import refill_of
from keyturn.quotas.model import CLOSED, LEASED, Account, Block
from keyturn.quotas.rules import Book
from keyturn.storage.change_log import read_head
from keyturn.storage.nodes import database_time
from keyturn.storage.schema import node as node_table
from keyturn.storage.transaction import ChangeKind, Entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from keyturn.quotas.calendar import Span
    from keyturn.storage.transaction import Transaction
    from keyturn.wire.policy import QuotaRule

LEASE_SECONDS: Final = 60.0
GRACE_SECONDS: Final = 10.0
LIVE_SECONDS: Final = 5.0
KEPT_SECONDS: Final = 400 * 86_400.0
"""How long a closed account and its ledger are kept after its period has ended."""
UNIT_BLOCKS: Final = 200


@dataclass(frozen=True, slots=True)
class Ask:
    """What a node says about one block, and wants for it.

    `spent` is the count so far, and the last one when it is `final`.  `needed` units must be left in the block, and
    `wished` more are welcome.  `known` says that the node has been given units of this block.  `calls` asks the nodes
    that lease the last units to give back what they do not use.
    """

    block: str
    account: str
    workspace: str
    subject: str
    rule: QuotaRule
    span: Span
    spent: int
    needed: int = 0
    wished: int = 0
    known: bool = False
    calls: bool = False
    final: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node holds now.

    `held` is False when the block is no longer its own: it stops to spend it, and reports it once more as final.
    `units` is what the block holds in all, `available` what the account has beside, `elsewhere` what others lease.
    """

    held: bool
    units: int = 0
    available: int = 0
    elsewhere: int = 0
    refill_at: float | None = None


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep has done; `more` asks for another soon."""

    forfeited: int = 0
    refilled: int = 0
    ended: int = 0
    removed: int = 0
    more: bool = False
    log_id: str = ""


def exchange(transaction: Transaction, node: str, asks: Sequence[Ask]) -> list[Answer]:
    """Take over the reports of a node and lease what it asks for; one answer for each ask, in order."""
    desk = Desk(transaction.connection, transaction.now)
    desk.open([ask.account for ask in asks], [ask.block for ask in asks])
    nodes = desk.live_nodes()
    answers = [_finish(desk, ask) if ask.final else _serve(desk, node, nodes, ask) for ask in asks]
    desk.save()
    for ask, answer in zip(asks, answers, strict=True):
        if ask.calls and answer.elsewhere and answer.units - ask.spent < ask.needed:
            transaction.append(Entry(ask.workspace, ChangeKind.QUOTA, ask.account))
    return answers


def settle(transaction: Transaction, node: str, spent: Mapping[str, int], after: str = "") -> str | None:
    """Take back up to `UNIT_BLOCKS` blocks of a node that has ended, by its counters.

    Returns the last of them, to go on after; None when there are no more.  A block without a counter was never spent
    beyond what is reported, for a node counts before it admits; unless the database is older than the counters.
    """
    desk = Desk(transaction.connection, transaction.now)
    held = store.blocks_held_by(transaction.connection, node, after, UNIT_BLOCKS)
    desk.open([block.account for block in held], [block.id for block in held])
    for block in list(desk.changes.blocks.values()):
        if block.id in spent or block.log_id == desk.log_id:
            desk.close(block, spent.get(block.id, block.spent))
        elif block.state == LEASED:
            desk.book(block.account).forfeit(block)
    desk.save()
    return held[-1].id if len(held) == UNIT_BLOCKS else None


def sweep(transaction: Transaction, swept_log: str = "") -> Swept:
    """Forfeit what nobody reports, and do what is due on accounts; at most `UNIT_BLOCKS` of each.

    Blocks of other logs are looked for unless `swept_log`, under which none was left, is still the present one.
    """
    connection = transaction.connection
    desk = Desk(connection, transaction.now)
    lost = store.overdue(connection, LEASED, desk.at - GRACE_SECONDS, UNIT_BLOCKS)
    if len(lost) < UNIT_BLOCKS and swept_log != desk.log_id:
        seen = {block.id for block in lost}
        others = store.of_other_logs(connection, LEASED, desk.log_id, UNIT_BLOCKS)
        lost += [block for block in others if block.id not in seen]
    desk.open([block.account for block in lost], [block.id for block in lost])
    for block in desk.changes.blocks.values():
        desk.book(block.account).forfeit(block)
    desk.save()
    due = store.due(connection, desk.at, UNIT_BLOCKS)
    done = _do_due(connection, transaction.now, due)
    more = len(lost) >= UNIT_BLOCKS or len(due) == UNIT_BLOCKS
    return replace(done, forfeited=len(lost), more=more, log_id=desk.log_id)


class Desk:
    """Accounts and blocks of one unit of work."""

    def __init__(self, connection: Connection, now: float) -> None:
        """Read what time it is, and under which log blocks are leased."""
        self.connection = connection
        self.at = database_time(connection, now)
        self.log_id = read_head(connection).log_id
        self.changes = store.Changes()

    def open(self, account_ids: Sequence[str], block_ids: Sequence[str]) -> None:
        """Read these accounts and blocks."""
        found = store.accounts(self.connection, set(account_ids))
        self.changes.books.update({name: Book(account, self.at) for name, account in found.items()})
        self.changes.blocks.update(store.blocks(self.connection, set(block_ids)))

    def book(self, account_id: str) -> Book:
        """Return the book of an account that was opened."""
        return self.changes.books[account_id]

    def book_for(self, identity: tuple[str, str, str, str], span: Span, rule: QuotaRule) -> Book:
        """Return the book of an account, which begins now if there is none; refilled and by its present rule."""
        book = self.changes.books.get(identity[0])
        if book is None:
            account = rules.new_account(identity, span, refill_of(rule), self.at)
            book = self.changes.books[identity[0]] = Book(account, self.at)
            self.changes.new_accounts.add(identity[0])
            book.begin(rule.amount)
        elif rules.is_open(book.account):
            self.refill(book)
            book.follow_rule(rule.amount, refill_of(rule))
        return book

    def refill(self, book: Book) -> None:
        """Refill a prepaid account when that is due."""
        account = book.account
        if account.ends_at is None and account.due_at is not None and account.due_at <= self.at:
            book.refill(self.all_blocks(account))

    def all_blocks(self, account: Account) -> list[Block]:
        """Return every block of an account, those of this unit as they are now."""
        stored = store.blocks_of(self.connection, [account.id]).get(account.id, [])
        for block in stored:
            self.changes.blocks.setdefault(block.id, block)
        return [one for one in self.changes.blocks.values() if one.account == account.id]

    def close(self, block: Block, spent: int) -> None:
        """Settle a block for good."""
        if block.id not in self.changes.closed:
            self.changes.closed.add(block.id)
            if block.account in self.changes.books:
                self.book(block.account).close(block, spent)

    def live_nodes(self) -> int:
        """Return how many nodes confirm at present, at least one."""
        found = self.connection.execute(
            select(func.count()).where(
                node_table.c.kind == "server", node_table.c.confirmed_at > self.at - LIVE_SECONDS
            )
        ).scalar_one()
        return max(1, int(found))

    def save(self) -> None:
        """Store what was done, and begin anew."""
        store.save(self.connection, self.changes)
        self.changes = store.Changes()


def _finish(desk: Desk, ask: Ask) -> Answer:
    block = desk.changes.blocks.get(ask.block)
    if block is not None:
        desk.close(block, ask.spent)
    return Answer(held=False)


def _serve(desk: Desk, node: str, nodes: int, ask: Ask) -> Answer:
    block = desk.changes.blocks.get(ask.block)
    if block is not None and block.state == LEASED and block.log_id != desk.log_id:
        # A restored or promoted database: what it says about this block may be older than the block.
        desk.book(block.account).forfeit(block)
    if (block is None and ask.known) or (block is not None and block.state != LEASED):
        return Answer(held=False)
    if block is not None:
        desk.book(block.account).report(block, ask.spent)
    book = desk.book_for((ask.account, ask.workspace, ask.subject, ask.rule.name), ask.span, ask.rule)
    account = book.account
    ended = not rules.is_open(account) or (account.ends_at is not None and account.ends_at <= desk.at)
    rest = 0 if block is None else block.outstanding
    units = 0
    if not ended and (ask.needed > rest or ask.wished):
        units = rules.block_units(account.available, nodes, ask.wished, max(0, ask.needed - rest))
    if units and block is None:
        block = Block(ask.block, account.id, node, 0, desk.log_id, 0.0, desk.at)
        desk.changes.blocks[block.id] = desk.changes.new_blocks[block.id] = block
    own = 0
    if block is not None:
        book.lease(block, units)
        block.lease_until = desk.at + LEASE_SECONDS
        own = block.outstanding
    return Answer(
        held=True,
        units=0 if block is None else block.units,
        available=0 if ended else max(0, account.available),
        elsewhere=account.leased - own,
        refill_at=account.due_at if account.ends_at is None else None,
    )


def _do_due(connection: Connection, now: float, due: Sequence[Account]) -> Swept:
    if not due:
        return Swept()
    desk = Desk(connection, now)
    desk.open([account.id for account in due], [])
    removed = [account.id for account in due if account.state == CLOSED]
    refilled = ended = 0
    for account_id, book in list(desk.changes.books.items()):
        account = book.account
        if account_id in removed:
            del desk.changes.books[account_id]
        elif account.ends_at is None:
            refilled += 1
            desk.refill(book)
        elif account.leased or desk.at < account.ends_at + GRACE_SECONDS:
            account.due_at = max(desk.at, account.ends_at) + GRACE_SECONDS
        else:
            ended += 1
            book.end(desk.all_blocks(account), account.ends_at + KEPT_SECONDS)
    desk.save()
    store.remove(connection, removed)
    return Swept(refilled=refilled, ended=ended, removed=len(removed))

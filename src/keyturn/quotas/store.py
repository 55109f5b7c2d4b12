"""SQL of accounts, blocks and lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from keyturn.access.caller import Resource
from keyturn.access.owners import owner_resource
from keyturn.quotas.model import Account, Block, Line
from keyturn.storage.schema import issued_key, key_owner, keyspace, plan, quota_account, quota_block, quota_line
from keyturn.wire.policy import QuotaRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Column, Connection, Row

    from keyturn.quotas.rules import Book

T = TypeVar("T")
ASKED_MAX: Final = 500

_ACCOUNT = tuple(quota_account.c)
_BLOCK = tuple(quota_block.c)
_LINE = tuple(quota_line.c)

_CHANGING = ("state", "granted", "spent", "leased", "stranded", "by_rule", "refill_amount", "refill_every")
_CHANGING_TOO = ("refill_day", "due_at", "lines", "spend_line", "spend_hour")
_SAVE_ACCOUNT = (
    update(quota_account)
    .where(quota_account.c.id == bindparam("of"))
    .values({name: bindparam(name) for name in (*_CHANGING, *_CHANGING_TOO)})
)
_BLOCK_CHANGING = ("state", "units", "spent", "credited", "lease_until")
_SAVE_BLOCK = (
    update(quota_block)
    .where(quota_block.c.id == bindparam("of"))
    .values({name: bindparam(name) for name in _BLOCK_CHANGING})
)
_EXTEND_LINE = (
    update(quota_line)
    .where(quota_line.c.account == bindparam("of"), quota_line.c.number == bindparam("line"))
    .values(units=quota_line.c.units + bindparam("more"), spent=quota_line.c.spent + bindparam("more"))
)


@dataclass(slots=True)
class Changes:
    """What a unit of work has done, to be stored in as few statements as there are tables."""

    new_accounts: set[str] = field(default_factory=set)
    books: dict[str, Book] = field(default_factory=dict)
    new_blocks: dict[str, Block] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)


def accounts(connection: Connection, ids: Iterable[str]) -> dict[str, Account]:
    """Return accounts by id; those that do not exist are left out."""
    found: dict[str, Account] = {}
    for some in _pages(ids):
        for row in connection.execute(select(*_ACCOUNT).where(quota_account.c.id.in_(some))):
            found[row.id] = Account(**_columns(row))
    return found


def accounts_of(connection: Connection, workspace: str, subject: str, *, since: float) -> list[Account]:
    """Return the accounts of a subject that are prepaid or end after `since`, by quota and the latest period first."""
    rows = connection.execute(
        select(*_ACCOUNT)
        .where(
            quota_account.c.workspace == workspace,
            quota_account.c.subject == subject,
            or_(quota_account.c.ends_at.is_(None), quota_account.c.ends_at > since),
        )
        .order_by(quota_account.c.name, quota_account.c.starts_at.desc())
        .limit(ASKED_MAX)
    )
    return [Account(**_columns(row)) for row in rows]


def due(connection: Connection, at: float, limit: int) -> list[Account]:
    """Return accounts whose refill, end or removal is due."""
    rows = connection.execute(
        select(*_ACCOUNT).where(quota_account.c.due_at <= at).order_by(quota_account.c.due_at).limit(limit)
    )
    return [Account(**_columns(row)) for row in rows]


def blocks(connection: Connection, ids: Iterable[str]) -> dict[str, Block]:
    """Return blocks by id; those that were settled, or never were, are left out."""
    found: dict[str, Block] = {}
    for some in _pages(ids):
        for row in connection.execute(select(*_BLOCK).where(quota_block.c.id.in_(some))):
            found[row.id] = Block(**_columns(row))
    return found


def blocks_of(connection: Connection, account_ids: Iterable[str]) -> dict[str, list[Block]]:
    """Return the blocks of accounts, by account."""
    found: dict[str, list[Block]] = {}
    for some in _pages(account_ids):
        for row in connection.execute(select(*_BLOCK).where(quota_block.c.account.in_(some))):
            found.setdefault(row.account, []).append(Block(**_columns(row)))
    return found


def blocks_held_by(connection: Connection, node: str, after: str, limit: int) -> list[Block]:
    """Return blocks of a node, by id."""
    rows = connection.execute(
        select(*_BLOCK)
        .where(quota_block.c.node == node, quota_block.c.id > after)
        .order_by(quota_block.c.id)
        .limit(limit)
    )
    return [Block(**_columns(row)) for row in rows]


def overdue(connection: Connection, state: str, before: float, limit: int) -> list[Block]:
    """Return blocks of a state whose lease ended before."""
    return _blocks_where(connection, limit, quota_block.c.state == state, quota_block.c.lease_until < before)


def of_other_logs(connection: Connection, state: str, log_id: str, limit: int) -> list[Block]:
    """Return blocks of a state that were leased under another log."""
    return _blocks_where(connection, limit, quota_block.c.state == state, quota_block.c.log_id != log_id)


def _blocks_where(connection: Connection, limit: int, *conditions: Any) -> list[Block]:  # noqa: ANN401 -- conditions
    rows = connection.execute(select(*_BLOCK).where(*conditions).limit(limit))
    return [Block(**_columns(row)) for row in rows]


def lines(connection: Connection, account: str, before: int | None, limit: int) -> list[Line]:
    """Return the lines of an account numbered below `before`, the latest first."""
    statement = select(*_LINE).where(quota_line.c.account == account)
    if before is not None:
        statement = statement.where(quota_line.c.number < before)
    rows = connection.execute(statement.order_by(quota_line.c.number.desc()).limit(limit))
    return [Line(**_columns(row)) for row in rows]


def save(connection: Connection, changes: Changes) -> None:
    """Store everything that was done."""
    books = [changes.books[name] for name in sorted(changes.books)]
    _each(
        connection,
        insert(quota_account),
        [_values(b.account, _ACCOUNT) for b in books if b.account.id in changes.new_accounts],
    )
    _each(
        connection,
        _SAVE_ACCOUNT,
        [
            {"of": b.account.id, **{name: getattr(b.account, name) for name in (*_CHANGING, *_CHANGING_TOO)}}
            for b in books
            if b.account.id not in changes.new_accounts
        ],
    )
    _each(connection, insert(quota_block), [_values(block, _BLOCK) for block in changes.new_blocks.values()])
    kept = [block for block in changes.blocks.values() if block.id not in changes.closed | set(changes.new_blocks)]
    save_blocks(connection, kept)
    for some in _pages(changes.closed):
        connection.execute(delete(quota_block).where(quota_block.c.id.in_(some)))
    _each(connection, insert(quota_line), [_values(line, _LINE) for b in books for line in b.added])
    extended = [(b.account.id, number, more) for b in books for number, more in b.extended.items() if more]
    _each(connection, _EXTEND_LINE, [{"of": of, "line": number, "more": more} for of, number, more in extended])


def save_blocks(connection: Connection, some: Iterable[Block]) -> None:
    """Store how blocks are now."""
    rows = [{"of": block.id, **{name: getattr(block, name) for name in _BLOCK_CHANGING}} for block in some]
    _each(connection, _SAVE_BLOCK, rows)


def remove(connection: Connection, account_ids: Sequence[str]) -> None:
    """Remove accounts with their blocks and lines."""
    for some in _pages(account_ids):
        connection.execute(delete(quota_line).where(quota_line.c.account.in_(some)))
        connection.execute(delete(quota_block).where(quota_block.c.account.in_(some)))
        connection.execute(delete(quota_account).where(quota_account.c.id.in_(some)))


# --- what keys and owners are granted ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose balances are asked for: how access names it, and the quotas that hold for it."""

    subject: str
    resource: Resource
    rules: dict[str, QuotaRule]


def find_key(connection: Connection, workspace: str, key_id: str) -> Holder | None:
    """Return a key of the workspace as a holder of balances; None for a management token too."""
    row = connection.execute(
        select(
            keyspace.c.name.label("keyspace_name"),
            keyspace.c.default_plan,
            keyspace.c.quotas_json.label("of_keyspace"),
            issued_key.c.environment,
            issued_key.c.owner,
            issued_key.c.plan,
            issued_key.c.quotas_json.label("of_key"),
        )
        .join_from(issued_key, keyspace, issued_key.c.keyspace == keyspace.c.id)
        .where(issued_key.c.id == key_id, issued_key.c.workspace == workspace, ~keyspace.c.system)
    ).first()
    if row is None:
        return None
    owned = _owner(connection, workspace, row.owner)
    planned = _plan(connection, workspace, row.plan or owned[0] or row.default_plan)
    merged = _merge(row.of_keyspace, planned, owned[1], row.of_key)
    rules = {name: rule for name, rule in merged.items() if rule.per != "owner"}
    return Holder(f"key/{key_id}", Resource(f"key/{row.keyspace_name}/{key_id}", row.environment), rules)


def find_owner(connection: Connection, workspace: str, owner: str) -> Holder | None:
    """Return an owner as a holder of balances; None when neither a key nor a record nor a balance has that name.

    Quotas per owner that a keyspace or a key names are not among its rules: they are known once they are used.
    """
    plan_name, quotas = _owner(connection, workspace, owner)
    known = quotas is not None or plan_name is not None
    for statement in (
        select(issued_key.c.id).where(issued_key.c.workspace == workspace, issued_key.c.owner == owner),
        select(quota_account.c.id).where(
            quota_account.c.workspace == workspace, quota_account.c.subject == f"owner/{owner}"
        ),
    ):
        known = known or connection.execute(statement.limit(1)).first() is not None
    if not known:
        return None
    merged = _merge(_plan(connection, workspace, plan_name), quotas)
    rules = {name: rule for name, rule in merged.items() if rule.per == "owner"}
    return Holder(f"owner/{owner}", owner_resource(owner), rules)


def _owner(connection: Connection, workspace: str, owner: str) -> tuple[str | None, str | None]:
    row = connection.execute(
        select(key_owner.c.plan, key_owner.c.quotas_json).where(
            key_owner.c.workspace == workspace, key_owner.c.name == owner
        )
    ).first()
    return (None, None) if row is None else (row.plan, row.quotas_json)


def _plan(connection: Connection, workspace: str, name: str | None) -> str | None:
    if name is None:
        return None
    row = connection.execute(
        select(plan.c.quotas_json).where(plan.c.workspace == workspace, or_(plan.c.id == name, plan.c.name == name))
    ).first()
    return None if row is None else row.quotas_json


def _merge(*texts: str | None) -> dict[str, QuotaRule]:
    return {rule.name: rule for text in texts if text for rule in msgspec.json.decode(text, type=tuple[QuotaRule, ...])}


# --- what is true of all of them --------------------------------------------------------------------------------------


def sums(connection: Connection) -> Iterator[tuple[Account, dict[str, int]]]:
    """Yield every account with what its lines and blocks add up to."""
    by_line = {
        row.account: row
        for row in connection.execute(
            select(
                quota_line.c.account,
                func.sum(quota_line.c.granted).label("granted"),
                func.sum(quota_line.c.spent).label("spent"),
                func.sum(quota_line.c.stranded).label("stranded"),
                func.count().label("lines"),
            ).group_by(quota_line.c.account)
        )
    }
    held: dict[tuple[str, str], int] = {}
    rest = func.sum(quota_block.c.units - quota_block.c.spent - quota_block.c.credited)
    for row in connection.execute(
        select(quota_block.c.account, quota_block.c.state, rest.label("rest")).group_by(
            quota_block.c.account, quota_block.c.state
        )
    ):
        held[row.account, row.state] = int(row.rest)
    for found in connection.execute(select(*_ACCOUNT).order_by(quota_account.c.id)):
        line = by_line.get(found.id)
        names = ("granted", "spent", "stranded", "lines")
        added = {name: 0 if line is None else int(getattr(line, name)) for name in names}
        added["leased_blocks"] = held.get((found.id, "leased"), 0)
        added["stranded_blocks"] = held.get((found.id, "stranded"), 0)
        yield Account(**_columns(found)), added


def _values(stored: object, columns: Sequence[Column[Any]]) -> dict[str, Any]:
    return {column.key: getattr(stored, column.key) for column in columns}


def _columns(row: Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)  # noqa: SLF001 -- the documented way to a row's columns by name


def _each(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:  # noqa: ANN401 -- any of two kinds
    if rows:
        connection.execute(statement, rows)


def _pages(ids: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    for first in range(0, len(ordered), ASKED_MAX):
        yield ordered[first : first + ASKED_MAX]

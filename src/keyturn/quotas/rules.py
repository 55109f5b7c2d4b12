"""What happens to an account, and the lines it leaves: pure.

    leased --report--> spent                  a node says what it has spent of its block
           --close---> spent + available      ... and gives the rest back
           --forfeit-> stranded               its lease ended, and nobody knows what it has spent
    stranded --close--> spent + available     the same node came back with its counters
             --credit-> available             a person decides
             --lapse--> gone                  the period has ended

Admissions never exceed what was granted: units are either available, or with exactly one node, or stranded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from keyturn.errors import BrokenInvariantError, ConflictError
from keyturn.quotas.calendar import Span, next_refill
from keyturn.quotas.model import CLOSED, LAPSED, LEASED, OPEN, STRANDED, SYSTEM, Account, Block, Kind, Line

HOUR_SECONDS: Final = 3600
SHARE: Final = 8
UNITS_MAX: Final = 2**53
"""Bound of every balance: beyond it a number is not exact in JSON."""


@dataclass(slots=True)
class Book:
    """An account that is open on the desk: what was done to it is not stored yet."""

    account: Account
    now: float
    added: list[Line] = field(default_factory=list)
    extended: dict[int, int] = field(default_factory=dict)
    """Spends added to lines that are stored already, by number."""

    # --- what a node does ---------------------------------------------------------------------------------------------

    def begin(self, amount: int) -> None:
        """Give a new account what its rule grants."""
        if amount > 0:
            self._grant(Kind.GRANT, amount)
        self.account.by_rule = amount

    def follow_rule(self, amount: int, refill: tuple[int | None, str | None, int | None]) -> None:
        """Take over the numbers of a rule that has changed.

        A calendar balance changes by the difference, never below what is spent, leased or stranded; the rest of a
        reduction follows as units come back.  A prepaid balance that has begun keeps its units.
        """
        account = self.account
        if account.ends_at is None:
            if refill != (account.refill_amount, account.refill_every, account.refill_day):
                account.refill_amount, account.refill_every, account.refill_day = refill
                account.due_at = next_refill(account.refill_every, account.refill_day, self.now)
            return
        change = max(amount - account.by_rule, -max(0, account.available))
        if change:
            account.by_rule += change
            self._grant(Kind.ADJUST, change, note="the rule has changed")

    def lease(self, block: Block, units: int) -> None:
        """Give units to a block; raises BrokenInvariantError when they are not available."""
        if units < 0 or units > self.account.available:
            message = "more units were leased than an account has"
            raise BrokenInvariantError(message)
        block.units += units
        self.account.leased += units

    def report(self, block: Block, spent: int) -> None:
        """Take over what a node has spent of a leased block so far."""
        spent = _within(block, spent)
        change = spent - block.spent
        block.spent = spent
        self.account.leased -= change
        self._spend(change)

    def close(self, block: Block, spent: int) -> None:
        """Take over what was spent of a block in all, and what is left of it back; the block is done with."""
        change = _within(block, spent) - block.spent
        if block.state == LEASED:
            self.account.leased -= block.outstanding
        elif block.state == LAPSED:
            # What lapsed with the period had been spent in part: that part did not lapse.
            if change:
                self._grant(Kind.LAPSE, change, note="it had been spent", block=block.id)
        elif block.outstanding:
            rest = block.outstanding
            self._line(Kind.RETURN, rest, stranded=-rest, note=f"by {block.node}", block=block.id)
        # A database that lost its last commits knows of fewer units than the node was given.
        self._spend(change + max(0, spent - block.units))
        if self.account.available < 0:
            self._grant(Kind.ADJUST, -self.account.available, note="more had been spent than was known", block=block.id)

    def forfeit(self, block: Block) -> None:
        """Strand what a block holds: its lease has ended and its node has not said what it spent."""
        rest = block.outstanding
        self.account.leased -= rest
        block.state = STRANDED
        if rest:
            self._line(Kind.FORFEIT, rest, stranded=rest, note=f"held by {block.node}", block=block.id)

    # --- what a person does -------------------------------------------------------------------------------------------

    def top_up(self, units: int, actor: str, note: str, *, kind: Kind = Kind.TOP_UP) -> None:
        """Add units, or take them; raises ConflictError when more are taken than are available, or past the bound."""
        available = self.account.available
        if available + units < 0:
            raise ConflictError(
                f"{-units} units cannot be taken: {available} are available, {self.account.leased} are leased",
                hint="wait until nodes have returned what they lease, or take less",
            )
        if self.account.granted + units > UNITS_MAX:
            raise ConflictError(f"a balance holds at most {UNITS_MAX} units")
        if units:
            self._grant(kind, units, actor=actor, note=note)

    def set_to(self, units: int, actor: str, note: str) -> None:
        """Make what is available and leased that many units; what nodes hold cannot be taken from them."""
        account = self.account
        change = max(units - account.available - account.leased, -max(0, account.available))
        self.top_up(change, actor, note, kind=Kind.SET)

    def credit(self, blocks: list[Block], units: int, actor: str, note: str) -> None:
        """Make stranded units available again, of the oldest block first; raises ConflictError for too many."""
        if units > self.account.stranded:
            raise ConflictError(f"{units} units cannot be credited: {self.account.stranded} are stranded")
        rest = units
        for block in sorted(blocks, key=lambda one: (one.leased_at, one.id)):
            part = min(rest, block.outstanding) if block.state == STRANDED else 0
            block.credited += part
            rest -= part
        if rest:
            message = "the stranded units of an account are not in its blocks"
            raise BrokenInvariantError(message)
        if units:
            self._line(Kind.CREDIT, units, stranded=-units, actor=actor, note=note)

    # --- what time does -----------------------------------------------------------------------------------------------

    def refill(self, blocks: list[Block]) -> None:
        """Raise a prepaid balance to its refill amount; what is stranded lapses with it."""
        account = self.account
        self._lapse_stranded(blocks, "refilled")
        raised = (account.refill_amount or 0) - account.available - account.leased
        if raised > 0:
            self._grant(Kind.REFILL, raised)
        account.due_at = next_refill(account.refill_every, account.refill_day, self.now)

    def end(self, blocks: list[Block], due_at: float | None) -> None:
        """Close an account whose period has ended and whose blocks are all reported or stranded."""
        self._lapse_stranded(blocks, "the period has ended")
        if self.account.available > 0:
            self._grant(Kind.LAPSE, -self.account.available, note="the period has ended")
        self.account.state = CLOSED
        self.account.due_at = due_at

    def _lapse_stranded(self, blocks: list[Block], note: str) -> None:
        stranded = self.account.stranded
        for block in blocks:
            if block.state == STRANDED:
                block.state = LAPSED
        if stranded:
            self._line(Kind.LAPSE, -stranded, granted=-stranded, stranded=-stranded, note=f"stranded; {note}")

    # --- lines --------------------------------------------------------------------------------------------------------

    def _grant(self, kind: Kind, units: int, *, actor: str = SYSTEM, note: str = "", block: str | None = None) -> None:
        self._line(kind, units, granted=units, actor=actor, note=note, block=block)

    def _spend(self, units: int) -> None:
        """Add to the last line when it is one of spends in the same hour, else begin one."""
        if not units:
            return
        account = self.account
        hour = int(self.now // HOUR_SECONDS)
        if not account.lines or account.spend_line != account.lines or account.spend_hour != hour:
            self._line(Kind.SPEND, units, spent=units)
            account.spend_line, account.spend_hour = account.lines, hour
            return
        account.spent += units
        if self.added:
            last = self.added[-1]
            last.units += units
            last.spent += units
        else:
            self.extended[account.lines] = self.extended.get(account.lines, 0) + units

    def _line(
        self,
        kind: Kind,
        units: int,
        *,
        granted: int = 0,
        spent: int = 0,
        stranded: int = 0,
        actor: str = SYSTEM,
        note: str = "",
        block: str | None = None,
    ) -> None:
        account = self.account
        account.granted += granted
        account.spent += spent
        account.stranded += stranded
        account.lines += 1
        self.added.append(
            Line(account.id, account.lines, self.now, str(kind), units, granted, spent, stranded, actor, note, block)
        )


def new_account(
    identity: tuple[str, str, str, str],
    span: Span,
    refill: tuple[int | None, str | None, int | None],
    now: float,
) -> Account:
    """Return an account that nothing was granted to yet; `identity` is its id, workspace, subject and quota."""
    amount, every, day = refill
    return Account(
        *identity,
        period=span.name,
        starts_at=span.starts_at,
        ends_at=span.ends_at,
        created_at=now,
        refill_amount=amount,
        refill_every=every,
        refill_day=day,
        due_at=next_refill(every, day, now) if span.ends_at is None else span.ends_at,
    )


def block_units(available: int, nodes: int, wished: int, needed: int) -> int:
    """Return how many units to lease: a share of what is available, smaller than wished, and just enough near zero.

    0 when what is needed is not available: a part of it would help nobody.
    """
    if needed > available:
        return 0
    return max(needed, min(wished, available // (SHARE * max(1, nodes))))


def is_open(account: Account) -> bool:
    """Tell whether units may still be leased of an account."""
    return account.state == OPEN


def _within(block: Block, spent: int) -> int:
    return max(0, min(spent, block.units))

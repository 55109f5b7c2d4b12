"""Accounts, blocks and the lines of the ledger, as they are stored.

    granted = spent + leased + stranded + available

`leased` is what nodes hold and have not reported as spent; `stranded` is what a node held when it was lost.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

OPEN: Final = "open"
CLOSED: Final = "closed"

LEASED: Final = "leased"
STRANDED: Final = "stranded"
LAPSED: Final = "lapsed"

SYSTEM: Final = "system"
"""The actor of what no person did."""


class Kind(StrEnum):
    """What a line of the ledger says."""

    GRANT = "grant"
    TOP_UP = "top_up"
    SET = "set"
    REFILL = "refill"
    ADJUST = "adjust"
    SPEND = "spend"
    FORFEIT = "forfeit"
    RETURN = "return"
    CREDIT = "credit"
    LAPSE = "lapse"


@dataclass(slots=True)
class Account:
    """A balance of one period.  `by_rule` is what of `granted` its rule gave."""

    id: str
    workspace: str
    subject: str
    name: str
    period: str
    starts_at: float
    ends_at: float | None
    created_at: float
    state: str = OPEN
    granted: int = 0
    spent: int = 0
    leased: int = 0
    stranded: int = 0
    by_rule: int = 0
    refill_amount: int | None = None
    refill_every: str | None = None
    refill_day: int | None = None
    due_at: float | None = None
    lines: int = 0
    spend_line: int = 0
    spend_hour: int = -1

    @property
    def available(self) -> int:
        """What can be leased."""
        return self.granted - self.spent - self.leased - self.stranded


@dataclass(slots=True)
class Block:
    """Units of an account that a node holds; `spent` is what it has reported, `credited` what a person gave back."""

    id: str
    account: str
    node: str
    units: int
    log_id: str
    lease_until: float
    leased_at: float
    state: str = LEASED
    spent: int = 0
    credited: int = 0

    @property
    def outstanding(self) -> int:
        """What is neither reported as spent nor given back."""
        return self.units - self.spent - self.credited


@dataclass(slots=True)
class Line:
    """One line of the ledger; `granted`, `spent` and `stranded` are what it adds to those of its account."""

    account: str
    number: int
    at: float
    kind: str
    units: int
    granted: int
    spent: int
    stranded: int
    actor: str
    note: str = ""
    block: str | None = None


def account_id(workspace: str, subject: str, name: str, period: str) -> str:
    """Return the id of an account, which follows from whose it is."""
    joined = f"{workspace}\0{subject}\0{name}\0{period}"
    return f"qac_{hashlib.sha256(joined.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"

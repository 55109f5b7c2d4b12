"""Balances of keys and owners, and the ledger: `/api/v1/quotas`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from keyturn.wire.rules import AMOUNT_MAX, RuleName

_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
_TEXT = rf"^{_PRINTABLE}*(?!\n)$"

HolderName = Annotated[str, Meta(min_length=1, max_length=256, pattern=_TEXT)]
Note = Annotated[str, Meta(max_length=256, pattern=_TEXT)]


class TopUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Units to add to a balance, or to take when negative, which needs a note.  Name a `key` (its id) or an `owner`."""

    quota: RuleName
    units: Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]
    key: HolderName | None = None
    owner: HolderName | None = None
    note: Note = ""


class CreditStranded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stranded units to make available again; all of them when `units` is left out."""

    quota: RuleName
    units: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)] | None = None
    key: HolderName | None = None
    owner: HolderName | None = None
    note: Note = ""


class SetBalance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be left of a balance from now on."""

    quota: RuleName
    units: Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
    key: HolderName | None = None
    owner: HolderName | None = None
    note: Note = ""


class QuotaBalance(msgspec.Struct, frozen=True, kw_only=True):
    """One balance of one period: granted = spent + leased + stranded + available.

    `leased` is what nodes hold and have not reported as spent; `stranded` is what a node held when it was lost.
    `remaining` is available + leased, what may still be admitted.  `state` is `unused` before the first use, and
    `closed` after the period.
    """

    quota: str
    subject: str
    period: str
    state: str
    granted: int
    spent: int
    leased: int
    stranded: int
    available: int
    remaining: int
    starts_at: str | None = None
    ends_at: str | None = None
    refills_at: str | None = None


class QuotaBalances(msgspec.Struct, frozen=True, kw_only=True):
    """The balances of a key or an owner, by quota, the latest period first."""

    items: tuple[QuotaBalance, ...]


class QuotaLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the ledger; `granted`, `spent` and `stranded` are what it adds to those of its balance.

    Spends that follow each other within an hour are one line, which grows; nothing else is ever changed.
    """

    number: int
    at: str
    kind: str
    units: int
    granted: int
    spent: int
    stranded: int
    actor: str
    note: str
    block: str | None = None


class QuotaLedger(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of a balance, the latest first."""

    balance: QuotaBalance
    items: tuple[QuotaLine, ...]
    next_cursor: str | None = None

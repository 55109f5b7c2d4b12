"""What a node holds of one account: a block, its counter, and what the account was last known to have beside."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from keyturn.kernel.clock import rfc3339
from keyturn.quotas.exchange import LEASE_SECONDS, Ask

if TYPE_CHECKING:
    from keyturn.quotas.calendar import Span
    from keyturn.quotas.exchange import Answer
    from keyturn.wire.policy import QuotaRule

MARGIN_SECONDS: Final = 2.0
"""How long before the end of a lease its block is not spent any more."""
RENEW_SECONDS: Final = 20.0
WISHED_FIRST: Final = 8
WISHED_MAX: Final = 2**20
HURRIED_SECONDS: Final = 1.0
LEISURELY_SECONDS: Final = 10.0
EXHAUSTED_SECONDS: Final = 1.0
ELSEWHERE_SECONDS: Final = 0.25
CALL_SECONDS: Final = 1.0
"""How often at most others are asked to give back what they do not use."""
NO_CELL: Final = -1

Numbers = tuple[int, str, "int | None", "str | None", "int | None"]


class Holding:
    """One block and its counts.  Times are boottime, except those of the period and the refill."""

    __slots__ = (
        "account",
        "asked",
        "available",
        "block",
        "called_at",
        "cell",
        "deadline",
        "doubtful",
        "elsewhere",
        "ends_at",
        "exhausted_until",
        "grown_at",
        "key",
        "known",
        "low",
        "needed",
        "numbers",
        "refill_at",
        "remaining",
        "renew_at",
        "reported",
        "resets_at",
        "retired",
        "rule",
        "rule_until",
        "span",
        "spent",
        "starts_at",
        "subject",
        "units",
        "used_at",
        "wished",
        "workspace",
    )

    def __init__(self, block: str, account: str, whose: tuple[str, str], rule: QuotaRule, span: Span) -> None:
        """Hold nothing yet; `whose` is the workspace and the subject."""
        self.block = block
        self.account = account
        self.workspace, self.subject = whose
        self.key = (*whose, rule.name)
        self.rule = rule
        self.numbers = numbers(rule)
        self.rule_until = 0.0
        self.span = span
        self.starts_at = span.starts_at
        self.ends_at = math.inf if span.ends_at is None else span.ends_at
        self.resets_at = None if span.ends_at is None else rfc3339(span.ends_at)
        self.refill_at: float | None = None
        self.cell = NO_CELL
        self.units = 0
        self.spent = 0
        self.remaining = 0
        self.deadline = -math.inf
        self.low = 0
        self.needed = 0
        self.wished = WISHED_FIRST
        self.grown_at = -math.inf
        self.renew_at = math.inf
        self.used_at = -math.inf
        self.exhausted_until = -math.inf
        self.called_at = -math.inf
        self.available = 0
        self.elsewhere = 0
        self.asked = False
        self.known = False
        self.doubtful = False
        self.retired = False
        self.reported = False

    def ask(self, at: float) -> Ask:
        """Say what is spent and what is wanted; for one that is retired, for the last time."""
        return Ask(
            block=self.block,
            account=self.account,
            workspace=self.workspace,
            subject=self.subject,
            rule=self.rule,
            span=self.span,
            spent=self.spent,
            needed=self.needed,
            wished=self.wished if self.needed > self.remaining or self.remaining <= self.low else 0,
            known=self.known,
            calls=at >= self.called_at + CALL_SECONDS,
            final=self.retired,
        )

    def take_over(self, ask: Ask, answer: Answer, sent: float, now: float) -> None:
        """Adopt an answer to an ask that was sent at `sent`; the lease is counted from then."""
        grown = answer.units - self.units
        self.units = answer.units
        self.remaining = self.units - self.spent
        self.known = self.known or answer.units > 0
        self.doubtful = False
        if answer.units:
            self.deadline = sent + LEASE_SECONDS - MARGIN_SECONDS
        self.renew_at = sent + RENEW_SECONDS
        self.available = answer.available
        self.elsewhere = answer.elsewhere
        if self.span.ends_at is None:
            self.refill_at = answer.refill_at
            self.resets_at = None if answer.refill_at is None else rfc3339(answer.refill_at)
        self.exhausted_until = -math.inf
        if self.remaining < ask.needed:
            self.exhausted_until = now + (ELSEWHERE_SECONDS if answer.elsewhere else EXHAUSTED_SECONDS)
        if self.remaining < ask.needed and ask.calls:
            self.called_at = now
        self.needed = 0
        if grown > 0:
            self._pace(grown, now)
        elif ask.wished:
            self.low = 0

    def retry_after(self, now: float) -> float:
        """Return in how many seconds more may be admitted; 0 when waiting does not help."""
        if self.elsewhere:
            return EXHAUSTED_SECONDS
        if self.ends_at != math.inf:
            return max(0.0, self.ends_at - now)
        return 0.0 if self.refill_at is None else max(EXHAUSTED_SECONDS, self.refill_at - now)

    def _pace(self, grown: int, now: float) -> None:
        """Wish for more while units are used up quickly, for less when they last."""
        since = now - self.grown_at
        if since < HURRIED_SECONDS:
            self.wished = min(WISHED_MAX, self.wished * 4)
        elif since > LEISURELY_SECONDS:
            self.wished = max(WISHED_FIRST, self.wished // 2)
        self.grown_at = now
        self.low = grown // 4


def numbers(rule: QuotaRule) -> Numbers:
    """Return what of a rule an account depends on."""
    return (rule.amount, rule.period, rule.refill_amount, rule.refill_every, rule.refill_day)
